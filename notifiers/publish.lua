-- Publish some alerts: each at most once per epoch, in the order given, with contiguous offsets.
--
-- One call takes all that a drain of the outbox found: the checks are made once, nobody's command comes between two of
-- its alerts, and a subscriber finds them side by side in its socket.
--
-- Several publishers share a stream where each publishes a share of its own. What one of them knows to be here says
-- nothing of the others' alerts, and theirs may hide that its own were lost: so each has its own top in meta.
--
-- KEYS  1 meta (hash: epoch, top, base, top:<share>)   2 stream   3 fence (hash: share -> token)
--       4... dedup key of each alert's id
-- ARGV  1 epoch   2 last offset the publisher knows to be here   3 share ("" = no fence)   4 fencing token
--       5 stream length to keep   6 seconds a dedup key lives   7... of each alert: JSON, number of channels, channels
-- Returns {offset, 1 if it had been published before, else 0} of each; refuses with FENCED or BEHIND and then changes
-- no alert. Where a command fails in the middle, what came before it stays published.
--
-- A call from Lua costs more than most of these commands do, so what can be asked or set for all alerts at once is.

if ARGV[3] ~= '' then
  local holder = redis.call('HGET', KEYS[3], ARGV[3])
  if holder and tonumber(holder) > tonumber(ARGV[4]) then
    return redis.error_reply('FENCED token ' .. ARGV[4] .. ', the share is held with token ' .. holder)
  end
  if not holder or tonumber(holder) < tonumber(ARGV[4]) then
    redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])  -- the server lost it
  end
end

local own_top = 'top:' .. ARGV[3]
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'top', 'base', own_top)
local epoch, top, base = meta[1] or '', tonumber(meta[2] or '0'), tonumber(meta[3] or '0')
local own = top
if ARGV[3] ~= '' then own = math.max(base, tonumber(meta[4] or '0')) end
if epoch == '' or epoch ~= ARGV[1] or own < tonumber(ARGV[2]) then
  return redis.error_reply('BEHIND epoch ' .. epoch .. ' top ' .. string.format('%.0f', own))
end

-- The stream alone says which offsets are taken: `top` is set behind it even when a command fails.
local function finish(failure)
  redis.call('HSET', KEYS[1], 'top', string.format('%.0f', top))
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], own_top, string.format('%.0f', own))
  end
  redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[5])
  return failure
end

local receipts, place, given = {}, 7, {}
local knowns = redis.call('MGET', unpack(KEYS, 4))
for number = 4, #KEYS do
  local alert, last = ARGV[place], place + 1 + tonumber(ARGV[place + 1])
  -- Offsets go on growing over epochs, so an offset up to the epoch's base was given in an older one.
  local known = given[KEYS[number]] or knowns[number - 3]
  if known and tonumber(known) > base then
    receipts[number - 3] = {tonumber(known), 1}
  else
    local off = top + 1
    local text = string.format('%.0f', off)
    local added = redis.pcall('XADD', KEYS[2], text .. '-0', 'alert', alert, 'epoch', epoch)
    if added.err then
      return finish(added)
    end
    top, own = off, off
    local kept = redis.pcall('SET', KEYS[number], text, 'EX', ARGV[6])
    if kept.err then
      return finish(kept)
    end
    given[KEYS[number]] = text
    local envelope = '{"off":' .. text .. ',"epoch":"' .. epoch .. '","alert":' .. alert .. '}'
    for channel = place + 2, last do
      redis.call('PUBLISH', ARGV[channel], envelope)
    end
    receipts[number - 3] = {off, 0}
  end
  place = last + 1
end
return finish(receipts)
