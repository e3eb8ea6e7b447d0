-- One batch. KEYS: counters, leases of the fences, records to write, records to read, then (if there are timers)
-- due times and timers, then (if there are queues) the register of queues, and list and items of each queue.
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
local fences, writes, reads, timers = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local queues, enqueues, acks = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local channel = ARGV[8]

for n = 1, fences do
  if not holds(key(), arg()) then
    return { 'fence', n - 1 }
  end
end

local plan = {}
for n = 1, writes do
  local write = { key = key(), condition = arg(), change = arg(), life = arg() }
  if write.change == 'p' then
    write.body = arg()
  end
  local value = redis.call('GET', write.key)
  if value then
    if #value < 14 or string.byte(value) ~= 1 then
      return { 'corrupt', n - 1 }
    end
    write.version = struct.unpack('>I7', string.sub(value, 2, 8))
  end
  local condition = write.condition
  if (condition == '-' and value)
    or (condition ~= '-' and condition ~= '*' and not (value and text(write.version) == condition)) then
    return { 'conflict', n - 1, value }
  end
  plan[n] = write
end
local wanted = {}
for n = 1, reads do
  wanted[n] = key()
end

local due_times, timer_data, registry
if timers > 0 then
  due_times, timer_data = key(), key()
end
local lines = {}
if queues > 0 then
  registry = key()
  for n = 1, queues do
    local line = { list = key(), items = key(), name = arg() }
    local new, limit = tonumber(arg()), tonumber(arg())
    if new > 0 and redis.call('LLEN', line.list) + new > limit then
      purge(meta, registry, line.name, line.list, line.items)
      if redis.call('LLEN', line.list) + new > limit then
        return { 'full', n - 1 }
      end
    end
    lines[n] = line
  end
end

-- From here on nothing fails.
local versions = {}
for n = 1, writes do
  local write = plan[n]
  local change, version = write.change, write.version or 0
  local expires = 0
  if write.life ~= '' then
    expires = now + tonumber(write.life)
  end
  if change == 'p' then
    version = following(meta)
    local value = struct.pack('>BI7I6', 1, version, expires) .. write.body
    if write.life == '' then
      redis.call('SET', write.key, value)
    else
      store(write.key, value, expires)
    end
  elseif change == 'd' then
    redis.call('DEL', write.key)
    version = 0
  elseif change == 't' and write.version then
    redis.call('SETRANGE', write.key, 8, struct.pack('>I6', expires))
    if write.life == '' then
      redis.call('PERSIST', write.key)
    else
      redis.call('PEXPIREAT', write.key, text(expires - 1))
    end
  end
  versions[n] = version
end

local earlier = false
for _ = 1, timers do
  local what, name, value = arg(), arg(), arg()
  if what == 's' then
    local first = redis.call('ZRANGE', due_times, 0, 0, 'WITHSCORES')
    earlier = earlier or not first[2] or tonumber(value) < tonumber(first[2])
    redis.call('HSET', timer_data, name, arg())
    redis.call('ZADD', due_times, value, name)
  else
    local data = what == 'x' and redis.call('HGET', timer_data, name)
    local claimed = data and #data > 8 and text(struct.unpack('>I7', string.sub(data, 16, 22)))
    if what == 'c' or claimed == value then
      redis.call('ZREM', due_times, name)
      redis.call('HDEL', timer_data, name)
    end
  end
end

for _ = 1, acks do
  local line, id = lines[tonumber(arg())], arg()
  drop(registry, line.name, line.list, line.items, id)
end

local ids = {}
for n = 1, enqueues do
  local line, life, body = lines[tonumber(arg())], tonumber(arg()), arg()
  local id = following(meta)
  add(registry, line.name, line.list, line.items, text(id), body, now + life)
  line.new = true
  ids[n] = id
end

local found = {}
for n = 1, reads do
  found[n] = redis.call('GET', wanted[n])
end
remember()
if earlier then
  redis.pcall('PUBLISH', channel, 't')
end
for _, line in ipairs(lines) do
  if line.new then
    redis.pcall('PUBLISH', channel, 'q' .. line.name)
  end
end
return { 'ok', versions, found, ids }
