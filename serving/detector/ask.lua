-- A question waits for its answer. KEYS: 1 the question's mark, 2 the answer's mark, 3 questions that wait, 4 the question's row.
-- ARGV: 1 id, 2 now (s), 3 row, 4 keep (s), 5 keep a mark (s), 6 most that wait. Returns 1: waits, 0: duplicate or answered, -1: too many wait.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then return -1 end
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[5]) then return 0 end
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('SET', KEYS[4], ARGV[3], 'EX', ARGV[4])
return 1
