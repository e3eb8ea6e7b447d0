-- Returns when the next timer of the shards can be claimed. KEYS: their due times.
local earliest
for _, key in ipairs(KEYS) do
  local first = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  if first and (not earliest or first < earliest) then
    earliest = first
  end
end
return earliest
