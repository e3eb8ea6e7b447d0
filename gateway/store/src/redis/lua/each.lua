-- Batches of one write each that have nothing to do with one another, in order; before them, reads. KEYS: counters and record of
-- each batch, then records to read. ARGV, for each batch: condition; what happens, `d` for a deletion or else how long the
-- record lives, empty for ever; its body. Returns for each batch the version, or what stood in its way: a list with the
-- record if there is one, or a word. Then come the records.
local batches = #ARGV / 3
local results, values, versions = {}, {}, {}
-- All that is read comes first, since it fails for a key that is none of ours, and nothing shall have changed then.
for n = 2 * batches + 1, #KEYS do
  results[n - batches] = redis.call('GET', KEYS[n])
end
for n = 1, batches do
  values[KEYS[2 * n]] = redis.call('GET', KEYS[2 * n])
  versions[n] = ARGV[3 * n - 1] ~= 'd' and following(KEYS[2 * n - 1])
end
for n = 1, batches do
  local key = KEYS[2 * n]
  local condition, life, body = ARGV[3 * n - 2], ARGV[3 * n - 1], ARGV[3 * n]
  local value = values[key]
  if value and (#value < 14 or string.byte(value) ~= 1) then
    results[n] = 'corrupt'
  elseif (condition == '-' and value)
    or (condition ~= '-' and condition ~= '*'
      and not (value and text(struct.unpack('>I7', string.sub(value, 2, 8))) == condition)) then
    results[n] = { value }
  elseif life == 'd' then
    redis.call('DEL', key)
    values[key] = false
    results[n] = 0
  else
    local version = versions[n]
    local expires = life ~= '' and now + tonumber(life) or 0
    local record = struct.pack('>BI7I6', 1, version, expires) .. body
    if life == '' then
      redis.call('SET', key, record)
    else
      store(key, record, expires)
    end
    values[key] = (life == '' or expires > now) and record
    results[n] = version
  end
end
remember()
return results
