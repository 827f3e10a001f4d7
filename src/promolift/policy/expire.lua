-- KEYS: 1 reservations, 2 stream. ARGV: 1 now (ms; 0: this server's clock), 2 at most, 3 prefix of a reservation's key, 4 keep (s).
-- Returns {reservations expired, cents returned}.
local now = tonumber(ARGV[1])
if now == 0 then now = now_ms() end
return {expire_due(KEYS[1], KEYS[2], ARGV[3], ARGV[4], now, ARGV[2])}
