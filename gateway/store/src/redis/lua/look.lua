-- Looks at shards before a claim. KEYS and tokens as for the claim; returns how many are due in each.
local shards = #KEYS / 4
local counts = {}
for n = 1, shards do
  local token = ARGV[n]
  if token ~= '' and not holds(KEYS[4 * n], token) then
    return { 'fence', n - 1 }
  end
  counts[n] = redis.call('ZCOUNT', KEYS[4 * n - 2], '-inf', text(now))
end
return { 'ok', counts }
