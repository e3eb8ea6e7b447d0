-- Tells how far a server knows what was written before it took over, or before it was started again. KEYS: what is known about
-- the server, then the counters of all shards. Returns its name, the time from which on it gives numbers out, how many microseconds ago that was, and of
-- each shard the last number that it had by then. Whoever comes first writes that down, so that all who come later are told the same.
local about = redis.pcall('INFO', 'server')
local server = type(about) == 'string' and string.match(about, 'run_id:(%x+)')
if not server then
  return false
end
local since
if redis.call('HGET', KEYS[1], 'r') == server then
  since = redis.call('HGET', KEYS[1], 't')
else
  since = text(micros)
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'r', server, 't', since)
  for n = 2, #KEYS do
    local last = redis.call('HGET', KEYS[n], 'v')
    if last then
      redis.call('HSET', KEYS[1], n - 2, last)
    end
  end
end
local known = {}
for n = 2, #KEYS do
  known[n - 1] = tonumber(redis.call('HGET', KEYS[1], n - 2) or '0')
end
return { server, tonumber(since), micros - tonumber(since), known }
