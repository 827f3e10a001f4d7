-- A redemption: what was reserved becomes what was spent; the rest returns to the budget.
-- KEYS: 1 reservations, 2 reservation, 3 stream. ARGV: 1 reservation id, 2 cents spent, 3 keep (s), 4 who redeems.
-- Returns {"committed", cents} | {"unknown"} | {"expired"} | {"released"} | {"over", reserved cents} | {"conflict", cents committed before}.
local row = redis.call('HMGET', KEYS[2], 'state', 'cents', 'spent', 'budget_key', 'budget')
if not row[1] then return {'unknown'} end
if row[1] == 'committed' then
  if row[3] == ARGV[2] then return {'committed', row[3]} end
  return {'conflict', row[3]}
end
if row[1] ~= 'reserved' then return {row[1]} end
local now = now_ms()
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) <= now then return {'expired'} end
if tonumber(ARGV[2]) > tonumber(row[2]) then return {'over', row[2]} end
give_back(row[4], row[2])
redis.call('HINCRBY', row[4], 'committed', ARGV[2])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], 'state', 'committed', 'spent', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
log(KEYS[3], {event = 'committed', reservation_id = ARGV[1], budget = row[5], cents = tonumber(ARGV[2]), at_ms = now, actor = ARGV[4], reason = ''})
return {'committed', ARGV[2]}
