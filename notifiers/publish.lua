-- Publish one alert: at most once per epoch, in the order of the calls, with contiguous offsets.
--
-- KEYS  1 meta (hash: epoch, top, base)   2 stream   3 fence (hash: share -> token)   4 dedup key of the alert id
-- ARGV  1 epoch   2 last offset the publisher knows to be here   3 share ("" = no fence)   4 fencing token
--       5 alert JSON   6 stream length to keep   7 seconds the dedup key lives   8... channels
-- Returns {offset, 1 if it had been published before, else 0}; refuses with FENCED or BEHIND and then changes nothing.

if ARGV[3] ~= '' then
  local holder = redis.call('HGET', KEYS[3], ARGV[3])
  if holder and tonumber(holder) > tonumber(ARGV[4]) then
    return redis.error_reply('FENCED token ' .. ARGV[4] .. ', the share is held with token ' .. holder)
  end
end

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'base')
local epoch, top, base = meta[1] or '', tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
if epoch == '' or epoch ~= ARGV[1] or top < tonumber(ARGV[2]) then
  return redis.error_reply('BEHIND epoch ' .. epoch .. ' top ' .. string.format('%.0f', top))
end

-- Offsets go on growing over epochs, so an offset up to the epoch's base was given in an older one.
local known = redis.call('GET', KEYS[4])
if known and tonumber(known) > base then
  return {tonumber(known), 1}
end

local off = redis.call('HINCRBY', KEYS[1], 'top', 1)
local text = string.format('%.0f', off)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], text .. '-0', 'alert', ARGV[5], 'epoch', epoch)
redis.call('SET', KEYS[4], text, 'EX', ARGV[7])
local envelope = '{"off":' .. text .. ',"epoch":"' .. epoch .. '","alert":' .. ARGV[5] .. '}'
for place = 8, #ARGV do
  redis.call('PUBLISH', ARGV[place], envelope)
end
return {off, 0}
