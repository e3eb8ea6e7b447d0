-- Names timers of a shard. KEYS: timers. ARGV: server and cursor of the page before (empty and 0 at first), how many.
-- A cursor means something only to the server that gave it; at another one the walk begins anew.
local about = redis.pcall('INFO', 'server')
local server = type(about) == 'string' and string.match(about, 'run_id:(%x+)') or '-'
local cursor = ARGV[2]
if ARGV[1] ~= server then
  cursor = '0'
end
local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', ARGV[3])
local names = {}
for i = 1, #page[2], 2 do
  names[#names + 1] = page[2][i]
end
return { server, page[1], names }
