-- Changes nothing. Gives instances as last committed, each with its inbox's head and whether that may run (P8).
--
-- KEYS ready, then instance inbox for each key
-- ARGV the keys
-- RETURNS for each key: state version data entered paused head ready
local ready = KEYS[1]
local answer = {}
for i, key in ipairs(ARGV) do
  local instance, inbox = KEYS[2 * i], KEYS[2 * i + 1]
  local row = redis.call('HMGET', instance, 'state', 'version', 'data', 'entered', 'paused')
  row[6] = redis.call('LINDEX', inbox, 0)
  row[7] = row[6] and redis.call('ZSCORE', ready, key) or false
  answer[i] = row
end
return answer
