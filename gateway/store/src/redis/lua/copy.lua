-- Brings a copy of a lease up to date. KEYS: the copy. ARGV: token, end, holder; end 0 takes the copy away.
local token, ends, key = tonumber(ARGV[1]), tonumber(ARGV[2]), KEYS[1]
local current = redis.call('GET', key)
local theirs = current and tonumber(string.match(current, '^(%d+):')) or 0
if ends == 0 then
  if theirs == token then
    redis.call('DEL', key)
  end
elseif theirs <= token then
  store(key, ARGV[1] .. ':' .. ARGV[2] .. ':' .. ARGV[3], ends)
end
return 1
