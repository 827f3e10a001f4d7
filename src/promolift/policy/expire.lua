-- Reservations whose time is over return to their budgets, each exactly once: being taken off the set and paid back is one step.
-- KEYS: 1 reservations, 2 stream. ARGV: 1 now (ms; 0: this server's clock), 2 at most, 3 prefix of a reservation's key, 4 keep (s).
-- Returns {reservations expired, cents returned}.
local now = tonumber(ARGV[1])
if now == 0 then
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
local cents = 0
for _, id in ipairs(due) do
  local key = ARGV[3] .. id
  local row = redis.call('HMGET', key, 'cents', 'budget', 'budget_key')
  cents = cents + tonumber(row[1])
  redis.call('ZREM', KEYS[1], id)
  redis.call('HSET', key, 'state', 'expired')
  redis.call('EXPIRE', key, ARGV[4])
  redis.call('HINCRBY', row[3], 'reserved', 0 - tonumber(row[1])) -- unary minus would give "-0", which is no integer to Redis
  redis.call('XADD', KEYS[2], '*', 'kind', 'event', 'record', cjson.encode({event = 'expired', reservation_id = id, budget = row[2],
    cents = tonumber(row[1]), at_ms = now, actor = 'ledger', reason = ''}))
end
return {#due, cents}
