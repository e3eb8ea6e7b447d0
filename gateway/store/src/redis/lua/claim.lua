-- Claims what is due. KEYS: for each shard its counters, due times, timers and the lease (or the counters again).
-- ARGV: most, hold, then the token of each shard, empty for none.
local most, hold = tonumber(ARGV[1]), tonumber(ARGV[2])
local shards = #KEYS / 4
for n = 1, shards do
  local token = ARGV[2 + n]
  if token ~= '' and not holds(KEYS[4 * n], token) then
    return { 'fence', n - 1 }
  end
end
local ends = now + hold
local claimed = {}
for n = 1, shards do
  if #claimed >= most then
    break
  end
  local meta, due_times, timers = KEYS[4 * n - 3], KEYS[4 * n - 2], KEYS[4 * n - 1]
  local due = redis.call('ZRANGEBYSCORE', due_times, '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, most - #claimed)
  for i = 1, #due, 2 do
    local name, score = due[i], tonumber(due[i + 1])
    local data = redis.call('HGET', timers, name)
    if data then
      local first, attempt = score, 0
      if #data > 8 then
        local _
        first, _, attempt = struct.unpack('>I7I7I4', string.sub(data, 9))
      end
      local generation, claim = string.sub(data, 1, 8), following(meta)
      attempt = attempt + 1
      redis.call('HSET', timers, name, generation .. struct.pack('>I7I7I4', first, claim, attempt))
      redis.call('ZADD', due_times, text(ends), name)
      claimed[#claimed + 1] = { name, first, generation, claim, attempt, ends }
    else
      redis.call('ZREM', due_times, name)
    end
  end
end
remember()
return { 'ok', claimed }
