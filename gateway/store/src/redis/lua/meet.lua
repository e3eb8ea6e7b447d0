-- Tells how far a server knows what was written before it took over, or before it was started again. KEYS: what is known about
-- the server, counters. Returns its name, the time from which on it gives numbers out, how many microseconds ago that was, and the
-- last number that it had by then. Whoever comes first writes that down, so that all who come later are told the same.
local about = redis.pcall('INFO', 'server')
local server = type(about) == 'string' and string.match(about, 'run_id:(%x+)')
if not server then
  return false
end
local noted = redis.call('HMGET', KEYS[1], 'r', 't', 'v')
if noted[1] ~= server then
  noted = { server, text(micros), redis.call('HGET', KEYS[2], 'v') or '0' }
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'r', noted[1], 't', noted[2], 'v', noted[3])
end
local since = tonumber(noted[2])
return { server, since, micros - since, tonumber(noted[3] or '0') }
