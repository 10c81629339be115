-- Begin a new epoch behind everything that was ever given an offset here.
--
-- KEYS  1 meta   2 stream   3 fence
-- ARGV  1 new epoch   2 last offset the publisher knows to have been given   3 share ("" = no fence)   4 fencing token
-- Returns the new epoch's base: its first alert gets base + 1. Refuses with FENCED and then changes nothing.

if ARGV[3] ~= '' then
  local holder = redis.call('HGET', KEYS[3], ARGV[3])
  if holder and tonumber(holder) > tonumber(ARGV[4]) then
    return redis.error_reply('FENCED token ' .. ARGV[4] .. ', the share is held with token ' .. holder)
  end
end

local base = math.max(tonumber(redis.call('HGET', KEYS[1], 'top') or '0'), tonumber(ARGV[2]))
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if last then
  base = math.max(base, tonumber(string.match(last[1], '^%d+')))
end
local text = string.format('%.0f', base)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'top', text, 'base', text)
return base
