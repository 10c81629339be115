-- Reports once what came of an intent, or a fill: KEYS stream of intents, key that remembers it, stream of reports;
-- ARGV group, entry of the stream that is done with ('' = none), the report (JSON), seconds the key lives. Returns 1, 0 if it was told before.
local first = redis.call('GET', KEYS[2]) ~= 'done'
if first then
  redis.call('SET', KEYS[2], 'done', 'EX', ARGV[4])
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 10000, '*', 'report', ARGV[3])
end
if ARGV[2] ~= '' then redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) end
return first and 1 or 0
