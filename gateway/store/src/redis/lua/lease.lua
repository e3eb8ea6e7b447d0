-- What concerns one lease. KEYS: counters, lease, register of leases. ARGV: what to do, channel, name, holder, life,
-- token. A lease is `token:end:holder`.
local meta, lease, registry = KEYS[1], KEYS[2], KEYS[3]
local what, channel, name, holder, life, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local current = redis.call('GET', lease)
if what == 'look' then
  return { 'held', current }
end
if what == 'acquire' then
  if current and string.match(current, '^%d+:%d+:(.*)$') ~= holder then
    return { 'held', current }
  end
  token = text(following(meta))
  remember()
elseif not (current and string.sub(current, 1, #token + 1) == token .. ':') then
  return { 'lost' }
end
if what == 'release' then
  redis.call('DEL', lease)
  redis.call('ZREM', registry, name)
  redis.pcall('PUBLISH', channel, 'l' .. name)
  return { 'ok', tonumber(token), now }
end
local ends = now + life
store(lease, token .. ':' .. text(ends) .. ':' .. holder, ends)
redis.call('ZADD', registry, text(ends), name)
return { 'ok', tonumber(token), ends }
