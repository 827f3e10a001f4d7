-- The answer that a shopper was given without the ledger takes the place of what the ledger may have stored for the request.
-- KEYS: 1 request, 2 stream. ARGV: 1 fingerprint, 2 decision, 3 record, 4 keep (s).
-- Returns the decision that stood there before, or "". Whoever calls releases its reservation; a repeat changes nothing.
local before = redis.call('GET', KEYS[1]) or ' '
before = string.sub(before, string.find(before, ' ', 1, true) + 1)
if before == ARGV[2] then return '' end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'EX', ARGV[4])
redis.call('XADD', KEYS[2], '*', 'kind', 'decision', 'record', ARGV[3], 'budgets', '')
return before
