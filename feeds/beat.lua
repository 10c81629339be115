-- Tell that a bridge is alive, unless another one lives under its name.
--
-- KEYS  1 heartbeat of the bridge (hash)
-- ARGV  1 its spool   2 seconds until it counts as dead, 0 = it stops now   3... field, value
-- Returns {1, the server's Unix time in seconds, microseconds} or {0, spool of the other one}.

local other = redis.call('HGET', KEYS[1], 'spool')
if other and other ~= ARGV[1] then return {0, other} end
redis.call('HSET', KEYS[1], 'spool', ARGV[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
local now = redis.call('TIME')
return {1, now[1], now[2]}
