-- Batches of one write each that have nothing to do with one another, in order; before them, reads. KEYS: counters, the record
-- of each batch, then records to read. ARGV, for each batch: condition; what happens, `d` for a deletion or else how long the
-- record lives, empty for ever; its body. Returns for each batch the version, or what stood in its way: a list with the
-- record if there is one, or a word. Then come the records.
--
-- Every message runs this twice, so it goes without `common.lua` and with few calls: one reads all, and a write is one more.
local call = redis.call
local time = call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local batches = #ARGV / 3
local results, values = {}, {}
-- What is no string is read as nothing.
local read = call('MGET', unpack(KEYS, 2))
for n = batches + 1, #read do
  results[n] = read[n]
end
for n = 1, batches do
  values[KEYS[n + 1]] = read[n]
end
-- As `following` in `common.lua`.
local before = tonumber(call('HGET', KEYS[1], 'v') or '0')
local last = before
for n = 1, batches do
  local key = KEYS[n + 1]
  local condition, life, body = ARGV[3 * n - 2], ARGV[3 * n - 1], ARGV[3 * n]
  local value = values[key]
  if value and (#value < 14 or string.byte(value) ~= 1) then
    results[n] = 'corrupt'
  elseif (condition == '-' and value)
    or (condition ~= '-' and condition ~= '*'
      and not (value and struct.unpack('>I7', string.sub(value, 2, 8)) == tonumber(condition))) then
    results[n] = { value }
  elseif life == 'd' then
    if value then
      call('DEL', key)
      values[key] = false
    end
    results[n] = 0
  else
    local version = math.max(last + 1, micros)
    local expires = life ~= '' and now + life or 0
    local record = struct.pack('>BI7I6', 1, version, expires) .. body
    local stored
    if life == '' then
      stored = call('SET', key, record, value and 'XX' or 'NX')
    elseif expires > now then
      stored = call('SET', key, record, value and 'XX' or 'NX', 'PXAT', string.format('%d', expires - 1))
    else
      -- A key of Redis is alive at its expiry and dead after it; ours are dead at it.
      stored = not value or call('DEL', key)
      record = false
    end
    if stored then
      last, values[key], results[n] = version, record, version
    else
      -- There is something that was read as nothing.
      results[n] = 'corrupt'
    end
  end
end
if last > before then
  call('HSET', KEYS[1], 'v', string.format('%d', last))
end
return results
