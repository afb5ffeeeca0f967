-- After it the machine has a config: created now, or the one it had. With update, the declared graph is the caller's.
--
-- KEYS config
-- ARGV schema incarnation partitions graph update
-- RETURNS schema incarnation partitions complete graph
local config = KEYS[1]
local schema, incarnation, partitions, graph, update = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if redis.call('HSETNX', config, 'incarnation', incarnation) == 1 then
  redis.call('HSET', config, 'schema', schema, 'partitions', partitions, 'graph', graph)
elseif update == '1' and tonumber(redis.call('HGET', config, 'schema')) <= tonumber(schema)
  and redis.call('HGET', config, 'partitions') == partitions then
  redis.call('HSET', config, 'graph', graph)
end
return redis.call('HMGET', config, 'schema', 'incarnation', 'partitions', 'complete', 'graph')
