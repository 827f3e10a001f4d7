-- One decision, all or nothing: idempotency, budgets, caps, reservation, lambda and the log entry.
-- KEYS: 1 request, 2 reservations, 3 reservation, 4 stream, 5 what the shopper was given, then the budgets that the arms draw on.
-- ARGV: 1 fingerprint, 2 moment (s), 3 expires at (ms), 4 keep (s), 5 chosen arm ("": none), 6 reservation id, 7 decision, 8 record,
--       9 expected cost of the chosen arm (cents), 10 cap per day and 11 per week over all promos (-1: none),
--       12 arms as JSON: [[promo id, cents, budget's place, cap per day, cap per week, cool-down (s), exclusion (s), [excluded ...]] ...],
--       13 the refusal assumed for each arm, a letter each, 14 prefix of a reservation's key, 15 cents of the chosen arm, 16 its budget's
--       place (0: none), then the most cents that any arm of each budget reserves (more than any budget has: look at every arm).
-- Returns {"stored", decision} | {"conflict"} | {"no_budget", place} | {"changed", letters, lambda ...} | {"done", letters, lambda ...}.
-- Letters: - none, b budget, d and w the promo's cap per day and week, D and W the shopper's, c cool-down, x excluded.
local DAY, WEEK, FORGET, BUDGETS = 86400, 604800, 15 * 86400, 5
local seen = redis.call('GET', KEYS[1]) -- fingerprint, a space, the decision
if seen then
  local cut = string.find(seen, ' ', 1, true)
  if string.sub(seen, 1, cut - 1) ~= ARGV[1] then return {'conflict'} end
  return {'stored', string.sub(seen, cut + 1)}
end

local MOST = 16
local left, prices, state = {}, {}, {}
local function look() -- at every budget; the place of one that was never set
  for i = 1, #KEYS - BUDGETS do
    local row = redis.call('HMGET', KEYS[BUDGETS + i], 'total', 'committed', 'reserved', 'lambda', 'rate', 'step')
    if not row[1] then return i end
    left[i] = tonumber(row[1]) - tonumber(row[2] or 0) - tonumber(row[3] or 0)
    prices[i] = row[4] or ''
    state[i] = row
  end
end
local missing = look()
if missing then return {'no_budget', missing} end

local function short()
  for i = 1, #left do
    if tonumber(ARGV[MOST + i]) > left[i] then return true end
  end
  return false
end
if short() then
  -- What is due returns to its budget before anybody is refused for want of it; a few at a time bound the script's length.
  expire_due(KEYS[2], KEYS[4], ARGV[14], ARGV[4], now_ms(), 8)
  look()
end

-- Moments may arrive out of order, so a cap looks a window back and a window ahead: no window then holds more than the cap.
local moment, given = tonumber(ARGV[2]), {}
for i, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], moment - FORGET, moment + FORGET, 'WITHSCORES')) do
  if i % 2 == 1 then given[#given + 1] = {promo = string.sub(member, string.find(member, ' ', 1, true) + 1)}
  else given[#given].gap = math.abs(tonumber(member) - moment) end
end
local function count(promo, window)
  local found = 0
  for _, one in ipairs(given) do
    if one.gap < window and (promo == nil or one.promo == promo) then found = found + 1 end
  end
  return found
end
local function over(cap, promo, window) return cap >= 0 and count(promo, window) >= cap end

-- Most shoppers were given nothing and most budgets can pay any arm: then no arm is refused, whatever its caps say.
local letters = ARGV[13]
if #given > 0 or short() or string.find(letters, '[^-]') then
  local found, day_over, week_over = {}, over(tonumber(ARGV[10]), nil, DAY), over(tonumber(ARGV[11]), nil, WEEK)
  for i, arm in ipairs(cjson.decode(ARGV[12])) do
    local letter = '-'
    if arm[2] > left[arm[3]] then letter = 'b'
    elseif day_over then letter = 'D'
    elseif week_over then letter = 'W'
    elseif over(arm[4], arm[1], DAY) then letter = 'd'
    elseif over(arm[5], arm[1], WEEK) then letter = 'w'
    elseif arm[6] > 0 and count(arm[1], arm[6]) > 0 then letter = 'c'
    else
      for _, other in ipairs(arm[8]) do
        if count(other, arm[7]) > 0 then letter = 'x' end
      end
    end
    found[i] = letter
  end
  letters = table.concat(found)
end
if letters ~= ARGV[13] then return {'changed', letters, unpack(prices)} end

local chosen = tonumber(ARGV[16]) -- its budget's place
if chosen > 0 then
  local key = KEYS[BUDGETS + chosen]
  redis.call('HINCRBY', key, 'reserved', ARGV[15])
  redis.call('HSET', KEYS[3], 'state', 'reserved', 'cents', ARGV[15], 'promo', ARGV[5], 'budget', string.match(key, '[^:]*$'),
    'budget_key', key, 'given', KEYS[5])
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[6])
  redis.call('ZADD', KEYS[5], moment, ARGV[6] .. ' ' .. ARGV[5])
  if #given > 60 then redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', moment - FORGET) end
  redis.call('EXPIRE', KEYS[5], FORGET)
end
-- Dual mirror descent on the price of a cent: up when a decision costs more than the rate, down when it costs less.
for i, row in ipairs(state) do
  local rate = tonumber(row[5] or 0)
  if rate > 0 then
    local cost = chosen == i and tonumber(ARGV[9]) or 0
    local price = math.min(100, math.max(0, tonumber(row[4] or 0) + tonumber(row[6]) * (cost / rate - 1)))
    prices[i] = string.format('%.17g', price)
    redis.call('HSET', KEYS[BUDGETS + i], 'lambda', prices[i])
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[7], 'EX', ARGV[4])
local budgets = {}
for i, row in ipairs(state) do
  budgets[i] = string.format('%s %s %s %s', string.match(KEYS[BUDGETS + i], '[^:]*$'), row[1], row[2] or 0, row[3] or 0)
end
redis.call('XADD', KEYS[4], '*', 'kind', 'decision', 'record', ARGV[8], 'budgets', table.concat(budgets, '\n'))
return {'done', letters, unpack(prices)}
