-- A reservation that nobody will redeem returns to its budget, and the shopper counts as not having been given the promo.
-- KEYS: 1 reservations, 2 reservation, 3 stream. ARGV: 1 reservation id, 2 keep (s), 3 who releases, 4 why.
-- Returns {"released", cents} | {"unknown"} | {"expired"} | {"committed", cents}. A repeat changes nothing.
local row = redis.call('HMGET', KEYS[2], 'state', 'cents', 'spent', 'budget_key', 'budget', 'given', 'promo')
if not row[1] then return {'unknown'} end
if row[1] == 'committed' then return {'committed', row[3]} end
if row[1] == 'expired' then return {'expired'} end
if row[1] == 'released' then return {'released', row[2]} end
give_back(row[4], row[2])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', row[6], ARGV[1] .. ' ' .. row[7])
redis.call('HSET', KEYS[2], 'state', 'released')
redis.call('EXPIRE', KEYS[2], ARGV[2])
log(KEYS[3], {event = 'released', reservation_id = ARGV[1], budget = row[5], cents = tonumber(row[2]), at_ms = now_ms(), actor = ARGV[3],
  reason = ARGV[4]})
return {'released', row[2]}
