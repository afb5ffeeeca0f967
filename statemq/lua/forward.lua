-- After it an entry that was added by hand to another partition is queued here, once (T:received keeps the last one of each source).
--
-- KEYS commands accepted received
-- ARGV source entry id fields [field value …]
-- RETURNS queued | seen
local commands, accepted, received = KEYS[1], KEYS[2], KEYS[3]
local source, entry, id, fields = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local last = redis.call('HGET', received, source)
if last then
  local last_ms, last_n = string.match(last, '^(%d+)-(%d+)$')
  local ms, n = string.match(entry, '^(%d+)-(%d+)$')
  last_ms, last_n, ms, n = tonumber(last_ms), tonumber(last_n), tonumber(ms), tonumber(n)
  if ms < last_ms or (ms == last_ms and n <= last_n) then return 'seen' end
end
local queued = redis.call('XADD', commands, '*', unpack(ARGV, 5, 4 + 2 * fields))
redis.call('HSET', accepted, id, queued)
redis.call('HSET', received, source, entry)
return 'queued'
