-- Begin a new epoch behind everything that was ever given an offset here, or join the one that was begun since.
--
-- An epoch's name begins with its number: a publisher that finds a newer epoch than its own joins it, because another
-- publisher of the stream saw before it that something was lost. Otherwise two would begin epochs by turns for ever. An
-- older one (the server came back from a backup) was used up to offsets that nobody here knows any more.
--
-- KEYS  1 meta   2 stream   3 fence
-- ARGV  1 what the new epoch's name ends with   2 last offset the publisher knows to have been given
--       3 share ("" = no fence)   4 fencing token   5 the publisher's epoch, "" = none yet, "*" = join no other
-- Returns {epoch, base}: its first alert had or gets base + 1. Refuses with FENCED and then changes nothing.

if ARGV[3] ~= '' then
  local holder = redis.call('HGET', KEYS[3], ARGV[3])
  if holder and tonumber(holder) > tonumber(ARGV[4]) then
    return redis.error_reply('FENCED token ' .. ARGV[4] .. ', the share is held with token ' .. holder)
  end
end

local function number(epoch)
  if epoch == '' then return 0 end
  return tonumber(string.match(epoch, '^(%d+)%-') or '1')
end

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'base')
local epoch, top = meta[1] or '', tonumber(meta[2] or '0')
if ARGV[5] ~= '*' and number(epoch) > number(ARGV[5]) then
  return {epoch, tonumber(meta[3] or '0')}
end

local base = math.max(top, tonumber(ARGV[2]))
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if last then
  base = math.max(base, tonumber(string.match(last[1], '^%d+')))
end
local ours = ARGV[5] == '*' and '' or ARGV[5]
local begun = string.format('%.0f', math.max(number(epoch), number(ours)) + 1) .. '-' .. ARGV[1]
local text = string.format('%.0f', base)
redis.call('HSET', KEYS[1], 'epoch', begun, 'top', text, 'base', text)
return {begun, base}
