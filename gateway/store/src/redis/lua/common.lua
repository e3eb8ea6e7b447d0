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

-- Puts an item into a queue, behind what is there.
local function add(registry, name, list, items, id, body, ends)
  redis.call('RPUSH', list, id)
  redis.call('HSET', items, id, body, id .. 'm', struct.pack('>I6I6I6I4', now, ends, 0, 0))
  local limits = redis.call('HMGET', items, 'e', 'x')
  local first, final = tonumber(limits[1] or ends), tonumber(limits[2] or '0')
  if ends <= first then
    redis.call('HSET', items, 'e', text(ends))
    redis.call('ZADD', registry, text(ends), name)
  end
  if ends > final then
    redis.call('HSET', items, 'x', text(ends))
    -- Ten minutes more, so that somebody is there to count what ended.
    redis.call('PEXPIREAT', items, text(ends + 600000))
    redis.call('PEXPIREAT', list, text(ends + 600000))
  end
end

-- Takes an item out of a queue; tells whether it was there.
local function drop(registry, name, list, items, id)
  if redis.call('HDEL', items, id, id .. 'm') == 0 then
    return false
  end
  redis.call('LREM', list, 1, id)
  if redis.call('EXISTS', list) == 0 then
    redis.call('DEL', items)
    redis.call('ZREM', registry, name)
  end
  return true
end
