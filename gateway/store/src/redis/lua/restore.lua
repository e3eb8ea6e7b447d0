-- Writes again what a former server had confirmed and this one does not have. KEYS: counters, records, then (if there are timers)
-- due times and timers, then (if there are queues) the register of queues, and list and items of each queue. What this server was
-- given since it took over stays as it is. Returns how much was missing.
local meta = KEYS[1]
local at_key, at_arg = 1, 8
local function key()
  at_key = at_key + 1
  return KEYS[at_key]
end
local function arg()
  at_arg = at_arg + 1
  return ARGV[at_arg]
end
local writes, timers, queues = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local enqueues, acks = tonumber(ARGV[4]), tonumber(ARGV[5])
local channel, known, since = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local highest, count = 0, 0

for _ = 1, writes do
  local name, condition, version, life, body = key(), arg(), tonumber(arg()), arg(), arg()
  local value = redis.call('GET', name)
  local ours = not value or (#value >= 14 and string.byte(value) == 1)
  local stored = value and ours and struct.unpack('>I7', string.sub(value, 2, 8)) or 0
  local replaced = condition == text(stored)
  if not ours then
    -- Nobody but its owner knows what it is.
  elseif life == 'd' then
    -- A record that was made again after it had been deleted is another one.
    if value and replaced then
      redis.call('DEL', name)
      count = count + 1
    end
  elseif version > known and stored < version and (replaced or stored <= known or stored < since) then
    local expires = life ~= '' and now + tonumber(life) or 0
    local record = struct.pack('>BI7I6', 1, version, expires) .. body
    if life == '' then
      redis.call('SET', name, record)
    else
      store(name, record, expires)
    end
    highest = math.max(highest, version)
    count = count + 1
  end
end

local due_times, timer_data
if timers > 0 then
  due_times, timer_data = key(), key()
end
local earlier = false
for _ = 1, timers do
  local what, name, value, generation = arg(), arg(), arg(), arg()
  -- The record that they belong to is newer here.
  if count > 0 then
    if what == 's' then
      local first = redis.call('ZRANGE', due_times, 0, 0, 'WITHSCORES')
      earlier = earlier or not first[2] or tonumber(value) < tonumber(first[2])
      redis.call('HSET', timer_data, name, generation)
      redis.call('ZADD', due_times, value, name)
    else
      local data = redis.call('HGET', timer_data, name)
      if what == 'c' or (data and string.sub(data, 1, 8) == generation) then
        redis.call('ZREM', due_times, name)
        redis.call('HDEL', timer_data, name)
      end
    end
  end
end

local registry
local lines = {}
if queues > 0 then
  registry = key()
  for n = 1, queues do
    lines[n] = { list = key(), items = key(), name = arg() }
  end
end
for _ = 1, acks do
  local line, id = lines[tonumber(arg())], arg()
  if drop(registry, line.name, line.list, line.items, id) then
    count = count + 1
  end
end
for _ = 1, enqueues do
  local line, id, life, body = lines[tonumber(arg())], arg(), tonumber(arg()), arg()
  if tonumber(id) > known and redis.call('HEXISTS', line.items, id) == 0 then
    add(registry, line.name, line.list, line.items, id, body, now + life)
    line.new = true
    highest = math.max(highest, tonumber(id))
    count = count + 1
  end
end

if highest > tonumber(redis.call('HGET', meta, 'v') or '0') then
  redis.call('HSET', meta, 'v', text(highest))
end
if earlier then
  redis.pcall('PUBLISH', channel, 't')
end
for _, line in ipairs(lines) do
  if line.new then
    redis.pcall('PUBLISH', channel, 'q' .. line.name)
  end
end
return count
