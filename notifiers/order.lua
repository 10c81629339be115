-- Appends one order intent, once: KEYS stream, dedup key of the intent, counter of the day;
-- ARGV the intent (JSON), most orders of a day, seconds the keys live. Returns {"appended"|"known"|"limit", orders of the day}.
local known = redis.call('GET', KEYS[2])
local count = tonumber(redis.call('GET', KEYS[3]) or '0')
if known then return {'known', count} end
if count >= tonumber(ARGV[2]) then return {'limit', count} end
count = redis.call('INCR', KEYS[3])
redis.call('EXPIRE', KEYS[3], ARGV[3])
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 10000, '*', 'intent', ARGV[1])
redis.call('SET', KEYS[2], id, 'EX', ARGV[3])
return {'appended', count}
