-- The start of every script. Numbers that are given out (versions, tokens, ids) count microseconds since
-- 1970 and always grow, so that none is used twice even when the counters were lost with the data.
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local last = {}

local function text(number)
  return string.format('%.0f', number)
end

local function following(meta)
  local before = last[meta] or tonumber(redis.call('HGET', meta, 'v') or '0')
  last[meta] = math.max(before + 1, micros)
  return last[meta]
end

local function remember()
  for meta, number in pairs(last) do
    redis.call('HSET', meta, 'v', text(number))
  end
end

-- A key of Redis is alive at its expiry and dead after it; ours are dead at it.
local function store(key, value, expires)
  if expires <= now then
    redis.call('DEL', key)
  else
    redis.call('SET', key, value, 'PXAT', text(expires - 1))
  end
end

local function holds(lease, token)
  local value = redis.call('GET', lease)
  return value and string.sub(value, 1, #token + 1) == token .. ':'
end

-- What ended in a queue goes, and is counted. Fields of the hash: `<id>` content, `<id>m` what is known
-- about it, `c` who takes, `e` when the next ends at the earliest, `x` when the last ends.
local function purge(meta, registry, name, list, items)
  local first = redis.call('HGET', items, 'e')
  if not first or tonumber(first) > now then
    return
  end
  local earliest, gone
  for _, id in ipairs(redis.call('LRANGE', list, 0, -1)) do
    local known = redis.call('HGET', items, id .. 'm')
    local _, ends = struct.unpack('>I6I6', known)
    if ends <= now then
      redis.call('LREM', list, 1, id)
      redis.call('HDEL', items, id, id .. 'm')
      gone = (gone or 0) + 1
    elseif not earliest or ends < earliest then
      earliest = ends
    end
  end
  if gone then
    redis.call('HINCRBY', meta, 'x', gone)
  end
  if earliest then
    redis.call('HSET', items, 'e', text(earliest))
    redis.call('ZADD', registry, text(earliest), name)
  else
    redis.call('DEL', list, items)
    redis.call('ZREM', registry, name)
  end
end
