-- What every script of the ledger begins with: `ledger.py` puts it before them.
local function now_ms()
  local clock = redis.call('TIME')
  return tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end

local function log(stream, entry)
  redis.call('XADD', stream, '*', 'kind', 'event', 'record', cjson.encode(entry))
end

local function give_back(budget_key, cents)
  redis.call('HINCRBY', budget_key, 'reserved', 0 - tonumber(cents)) -- unary minus would give "-0", which is no integer to Redis
end

-- Reservations whose time is over return to their budgets, each exactly once: being taken off the set and paid back is one step.
local function expire_due(reservations, stream, prefix, keep_s, now, most)
  local due, sum = redis.call('ZRANGEBYSCORE', reservations, '-inf', now, 'LIMIT', 0, most), 0
  for _, id in ipairs(due) do
    local row = redis.call('HMGET', prefix .. id, 'cents', 'budget', 'budget_key')
    redis.call('ZREM', reservations, id)
    redis.call('HSET', prefix .. id, 'state', 'expired')
    redis.call('EXPIRE', prefix .. id, keep_s)
    give_back(row[3], row[1])
    sum = sum + tonumber(row[1])
    log(stream, {event = 'expired', reservation_id = id, budget = row[2], cents = tonumber(row[1]), at_ms = now, actor = 'ledger', reason = ''})
  end
  return #due, sum
end

