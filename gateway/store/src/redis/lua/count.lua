-- Counts what is in one shard, and clears away what ended in its queues. KEYS: counters, due times, register of
-- queues, register of leases. ARGV: how keys of lists and of items begin.
local meta, registry, leases = KEYS[1], KEYS[3], KEYS[4]
for _, name in ipairs(redis.call('ZRANGEBYSCORE', registry, '-inf', text(now), 'LIMIT', 0, 100)) do
  if redis.call('EXISTS', ARGV[2] .. name) == 0 then
    redis.call('ZREM', registry, name)
  else
    purge(meta, registry, name, ARGV[1] .. name, ARGV[2] .. name)
  end
end
redis.call('ZREMRANGEBYSCORE', leases, '-inf', text(now))
local queued = 0
for _, name in ipairs(redis.call('ZRANGE', registry, 0, 999)) do
  queued = queued + redis.call('LLEN', ARGV[1] .. name)
end
return { redis.call('ZCARD', KEYS[2]), queued, redis.call('ZCARD', leases), tonumber(redis.call('HGET', meta, 'x') or '0') }
