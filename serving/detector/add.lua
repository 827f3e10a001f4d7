-- One row of a day, once. KEYS: 1 the event's mark, 2 rows, 3 count, 4 days, 5 questions that wait, 6 the question's row.
-- ARGV: 1 row, 2 most rows, 3 draw in [0, 1), 4 day, 5 keep (s), 6 id, 7 keep a mark (s). Returns 1 for a new event, 0 for a duplicate.
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[7]) then return 0 end
redis.call('ZREM', KEYS[5], ARGV[6])
redis.call('DEL', KEYS[6])
local count, most = redis.call('INCR', KEYS[3]), tonumber(ARGV[2])
if count <= most then
  redis.call('RPUSH', KEYS[2], ARGV[1])
else -- Vitter's algorithm R: every row of the day is in the sample with the same probability
  local place = math.floor(tonumber(ARGV[3]) * count)
  if place < most then redis.call('LSET', KEYS[2], place, ARGV[1]) end
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('EXPIRE', KEYS[3], ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[4])
return 1
