-- A budget's total, and how it is paced, with an entry for the audit.
-- KEYS: 1 budget, 2 stream, 3 names of budgets. ARGV: 1 name, 2 total (cents), 3 rate (cents of cost a decision; 0: not paced), 4 step,
--       5 lambda to start with, 6 who, 7 why, 8 "1": only if there is none yet.
-- Returns {"set"} | {"kept"} | {"under", cents bound}: a total below what is spent or reserved is refused.
local row = redis.call('HMGET', KEYS[1], 'total', 'committed', 'reserved', 'lambda')
if row[1] and ARGV[8] == '1' then return {'kept'} end
local bound = tonumber(row[2] or 0) + tonumber(row[3] or 0)
if tonumber(ARGV[2]) < bound then return {'under', bound} end
redis.call('HSET', KEYS[1], 'total', ARGV[2], 'rate', ARGV[3], 'step', ARGV[4])
if not row[4] then redis.call('HSET', KEYS[1], 'lambda', ARGV[5]) end
redis.call('SADD', KEYS[3], ARGV[1])
log(KEYS[2], {event = 'budget', reservation_id = '', budget = ARGV[1], cents = tonumber(ARGV[2]), at_ms = now_ms(), actor = ARGV[6],
  reason = ARGV[7], rate = tonumber(ARGV[3]), step = tonumber(ARGV[4])})
return {'set'}
