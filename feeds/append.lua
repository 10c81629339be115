-- Append inputs of one bridge to a tick stream: each once, in order, and only while no other bridge holds the stream.
--
-- The stream's newest entry says who holds it and how far that one has come, so nothing else has to be kept in step with
-- it. A bridge tells which entry it believes to be the newest; if that is not so (its last call was carried out although
-- the answer never came, the server lost its tail, another bridge took over) nothing is changed, and it learns what is.
--
-- Entry ids are microseconds of the Unix epoch, strictly growing by two or more: `stamp` is when the bridge took the
-- input in. What is sent again after the server lost it gets the ids it had, and a reader can put a mark of its own
-- before any entry. Field p is the id of the entry before, so a reader sees where something is missing.
--
-- The heartbeat of the bridge that holds the stream is not among KEYS: for the ACL an EVAL writes all of them, and a
-- bridge may read another's heartbeat only. Redis Cluster would not take that, and its slots part the two anyway.
--
-- KEYS  1 stream
-- ARGV  1 bridge   2 its spool   3 id of the newest entry, as the caller believes, 0 = none   4 microseconds to keep
--       5 stamp of a take-over   6 number of the input before the first one that follows a take-over   7 its mark
--       8 heartbeat (hash) of the bridge that holds the stream, as the caller believes
--       9 entries to keep where the clock stands still or was set back: by time nothing would be trimmed then
--       10... of each input: its number in the spool, stamp, ts, kind, value
-- Returns {outcome, then of the newest entry: id, bridge, spool, number, ts}. Outcomes:
--   OK      everything given is in the stream; where another bridge held it before, its mark stands before
--   MOVED   the newest entry is another one
--   HELD    another bridge holds the stream and its heart beats

local function newest()
  local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  if not entry then return {'0', '', '', '0', '0'} end
  local field = {}
  for at = 1, #entry[2], 2 do field[entry[2][at]] = entry[2][at + 1] end
  return {string.match(entry[1], '^%d+'), field.b or '', field.s or '', field.n or '0', field.ts or '0'}
end

-- The greatest id there ever was: entries deleted by hand leave theirs behind.
local function greatest_ever()
  local told = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #told, 2 do
    if told[at] == 'last-generated-id' then return tonumber(string.match(told[at + 1], '^%d+')) end
  end
end

local last = newest()
local function answer(outcome) return {outcome, last[1], last[2], last[3], last[4], last[5]} end

local function append(number, stamp, ts, kind, value)
  local function add(call, at)
    local id = string.format('%.0f', at)
    local by, bound = 'MINID', string.format('%.0f', math.max(at - tonumber(ARGV[4]), 0))
    if at <= tonumber(last[1]) + 2 then by, bound = 'MAXLEN', ARGV[9] end
    local added = call('XADD', KEYS[1], by, '~', bound, id .. '-0',
      'p', last[1], 'b', ARGV[1], 's', ARGV[2], 'n', number, 'ts', ts, 'k', kind, 'v', value)
    if type(added) == 'string' then last = {id, ARGV[1], ARGV[2], number, ts} end
    return added
  end
  local added = add(redis.pcall, math.max(tonumber(last[1]) + 2, tonumber(stamp)))
  if type(added) == 'table' then
    if not string.find(added.err, 'equal or smaller') then error(added.err) end
    add(redis.call, greatest_ever() + 2)
  end
end

if last[1] ~= ARGV[3] then return answer('MOVED') end

if last[1] ~= '0' and not (last[2] == ARGV[1] and last[3] == ARGV[2]) then
  local beat = redis.call('HMGET', ARGV[8], 'spool', 'feed')
  if beat[1] == last[3] and beat[2] ~= 'silent' then return answer('HELD') end
  append(ARGV[6], ARGV[5], last[5], 'mark', ARGV[7])
end

for at = 10, #ARGV, 5 do
  append(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
end
return answer('OK')
