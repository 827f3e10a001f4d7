-- Reservations whose time is over return to the budget, each exactly once: being taken off the set and paid back is one step.
-- KEYS: 1 budget, 2 reservations. ARGV: 1 now (ms; 0: this server's clock), 2 at most, 3 prefix of a reservation's key, 4 keep (s).
-- Returns {reservations expired, cents returned}.
local now = tonumber(ARGV[1])
if now == 0 then
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[2])
local cents = 0
for _, id in ipairs(due) do
  local key = ARGV[3] .. id
  cents = cents + tonumber(redis.call('HGET', key, 'cents'))
  redis.call('ZREM', KEYS[2], id)
  redis.call('HSET', key, 'state', 'expired')
  redis.call('EXPIRE', key, ARGV[4])
end
redis.call('HINCRBY', KEYS[1], 'reserved', 0 - cents) -- unary minus would give "-0", which is no integer to Redis
return {#due, cents}
