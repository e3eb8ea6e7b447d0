-- Takes items. KEYS: counters, register of queues, list, items, lease (or the counters again). ARGV: name, token,
-- lease, consumer, most, hold.
local meta, registry, list, items = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name, token, most, hold = ARGV[1], ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6])
if token ~= '' and not holds(KEYS[5], token) then
  return { 'fence', 0 }
end
purge(meta, registry, name, list, items)
local ids = redis.call('LRANGE', list, 0, -1)
if #ids == 0 then
  return { 'ok', {} }
end
local function known(id)
  return struct.unpack('>I6I6I6I4', redis.call('HGET', items, id .. 'm'))
end
local function note(id, put, ends, held, attempt)
  redis.call('HSET', items, id .. 'm', struct.pack('>I6I6I6I4', put, ends, held, attempt))
end
local me = token .. ':' .. ARGV[3] .. '\0' .. ARGV[4]
local _, _, held = known(ids[1])
local current = redis.call('HGET', items, 'c')
if held ~= 0 and current then
  local their_token, their_lease = string.match(current, '^(%d*):(%Z*)')
  local newer = token ~= '' and their_token ~= '' and their_lease == ARGV[3] and tonumber(token) > tonumber(their_token)
  if held <= now or newer then
    for _, id in ipairs(ids) do
      local put, ends, until_then, attempt = known(id)
      if until_then ~= 0 then
        note(id, put, ends, 0, attempt)
      end
    end
  elseif current ~= me then
    return { 'ok', {} }
  end
end
local taken = {}
for _, id in ipairs(ids) do
  if #taken >= most then
    break
  end
  local put, ends, until_then, attempt = known(id)
  if until_then == 0 then
    note(id, put, ends, now + hold, attempt + 1)
    taken[#taken + 1] = { tonumber(id), redis.call('HGET', items, id), attempt + 1, put }
  end
end
if #taken > 0 then
  redis.call('HSET', items, 'c', me)
end
return { 'ok', taken }
