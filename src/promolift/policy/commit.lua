-- A redemption: what was reserved becomes what was spent; the rest returns to the budget.
-- KEYS: 1 budget, 2 reservations, 3 reservation. ARGV: 1 reservation id, 2 cents spent, 3 keep (s).
-- Returns {"committed", cents} | {"unknown"} | {"expired"} | {"over", reserved cents} | {"conflict", cents committed before}.
local row = redis.call('HMGET', KEYS[3], 'state', 'cents', 'spent')
if not row[1] then return {'unknown'} end
if row[1] == 'expired' then return {'expired'} end
if row[1] == 'committed' then
  if row[3] == ARGV[2] then return {'committed', row[3]} end
  return {'conflict', row[3]}
end
if tonumber(ARGV[2]) > tonumber(row[2]) then return {'over', row[2]} end
redis.call('HINCRBY', KEYS[1], 'reserved', 0 - tonumber(row[2])) -- unary minus would give "-0", which is no integer to Redis
redis.call('HINCRBY', KEYS[1], 'committed', ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], 'state', 'committed', 'spent', ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[3])
return {'committed', ARGV[2]}
