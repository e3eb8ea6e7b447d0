-- Brings copies of a lease up to date. KEYS: the copies. ARGV: token, end, holder; end 0 takes the copies away.
local token, ends = tonumber(ARGV[1]), tonumber(ARGV[2])
for _, key in ipairs(KEYS) do
  local current = redis.call('GET', key)
  local theirs = current and tonumber(string.match(current, '^(%d+):')) or 0
  if ends == 0 then
    if theirs == token then
      redis.call('DEL', key)
    end
  elseif theirs <= token then
    store(key, ARGV[1] .. ':' .. ARGV[2] .. ':' .. ARGV[3], ends)
  end
end
return 1
