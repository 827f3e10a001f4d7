-- One decision, all or nothing: idempotency, budget, caps, reservation and the log entry.
-- KEYS: 1 budget, 2 request, 3 reservations, 4 reservation, 5 stream, then one list of moments given per arm.
-- ARGV: 1 fingerprint, 2 moment (s), 3 expires at (ms), 4 keep (s), 5 chosen arm, 6 reservation id, 7 decision, 8 record,
--       then per arm: promo id, cents to reserve, cap per day, cap per week (-1: none), refusal that the caller assumed ("": none).
-- Returns {"stored", decision} | {"conflict"} | {"changed", refusal of each arm ...} | {"done"} | {"no_budget"}.
local DAY, ARM_KEYS, ARM_ARGS = 86400, 5, 8
local seen = redis.call('HMGET', KEYS[2], 'fingerprint', 'decision')
if seen[1] then
  if seen[1] ~= ARGV[1] then return {'conflict'} end
  return {'stored', seen[2]}
end
local budget = redis.call('HMGET', KEYS[1], 'total', 'committed', 'reserved')
if not budget[1] then return {'no_budget'} end
local left = tonumber(budget[1]) - tonumber(budget[2] or 0) - tonumber(budget[3] or 0)
local moment = tonumber(ARGV[2])

-- Moments may arrive out of order, so a cap looks a window back and a window ahead: no window then holds more than the cap.
local function over(key, cap, window)
  return cap >= 0 and redis.call('ZCOUNT', key, '(' .. (moment - window), '(' .. (moment + window)) >= cap
end

local refusals, changed, chosen = {'changed'}, false, nil
for i = 1, #KEYS - ARM_KEYS do
  local base, key = ARM_ARGS + (i - 1) * 5, KEYS[ARM_KEYS + i]
  local refusal = ''
  if tonumber(ARGV[base + 2]) > left then
    refusal = 'budget'
  elseif over(key, tonumber(ARGV[base + 3]), DAY) or over(key, tonumber(ARGV[base + 4]), 7 * DAY) then
    refusal = 'cap'
  end
  refusals[i + 1] = refusal
  changed = changed or refusal ~= ARGV[base + 5]
  if ARGV[base + 1] == ARGV[5] then chosen = {cents = tonumber(ARGV[base + 2]), key = key} end
end
if changed then return refusals end

if chosen then
  redis.call('HINCRBY', KEYS[1], 'reserved', chosen.cents)
  redis.call('HSET', KEYS[4], 'state', 'reserved', 'cents', chosen.cents, 'promo', ARGV[5])
  redis.call('ZADD', KEYS[3], ARGV[3], ARGV[6])
  redis.call('ZADD', chosen.key, moment, ARGV[6])
  redis.call('ZREMRANGEBYSCORE', chosen.key, '-inf', moment - 15 * DAY)
  redis.call('EXPIRE', chosen.key, 15 * DAY)
end
redis.call('HSET', KEYS[2], 'fingerprint', ARGV[1], 'decision', ARGV[7])
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('XADD', KEYS[5], '*', 'record', ARGV[8])
return {'done'}
