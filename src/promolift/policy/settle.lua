-- The answer that a shopper was given without the ledger takes the place of what the ledger may have stored for the request.
-- KEYS: 1 request, 2 stream. ARGV: 1 fingerprint, 2 decision, 3 record, 4 keep (s).
-- Returns the decision that stood there before, or "". Whoever calls releases its reservation; a repeat changes nothing.
local before = redis.call('HMGET', KEYS[1], 'fingerprint', 'decision')
if before[2] == ARGV[2] then return '' end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'decision', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('XADD', KEYS[2], '*', 'kind', 'decision', 'record', ARGV[3], 'budgets', '')
return before[2] or ''
