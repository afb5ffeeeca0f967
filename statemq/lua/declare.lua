-- After it the machine has a config: created now, or the one it had. With update, the declared graph is the caller's, and the states that
-- a former one declared and this one does not are former ones, of which the latest are kept: instances may still be in them. Its schema is
-- the caller's if that is higher: from then on a process that does not know it refuses the machine.
--
-- KEYS config
-- ARGV schema(of the machine) incarnation partitions graph update former_cap highest(schema that the caller knows)
-- RETURNS schema incarnation partitions complete graph former raised_from ('' if the schema is what it was)
local config = KEYS[1]
local schema, incarnation, partitions, graph, update = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local former_cap, highest = tonumber(ARGV[6]), ARGV[7]

-- The states that a graph declares; none of one that was damaged by hand.
local function declared(json)
  local ok, decoded = pcall(cjson.decode, json or '')
  local states = ok and type(decoded) == 'table' and decoded.states
  return type(states) == 'table' and states or {}
end

local function former()
  local before = redis.call('HMGET', config, 'graph', 'former')
  if before[1] == graph then return before[2] or '' end
  local known, kept = {}, {}
  for _, state in ipairs(declared(graph)) do known[state] = true end
  local function keep(state)
    if type(state) == 'string' and not known[state] and not string.find(state, '%s') then
      known[state] = true
      kept[#kept + 1] = state
    end
  end
  for state in string.gmatch(before[2] or '', '%S+') do keep(state) end
  for _, state in ipairs(declared(before[1])) do keep(state) end
  return table.concat(kept, ' ', math.max(1, #kept - former_cap + 1))
end

local stands = redis.call('HGET', config, 'schema')
local raised_from = ''
if redis.call('HSETNX', config, 'incarnation', incarnation) == 1 then
  redis.call('HSET', config, 'schema', schema, 'partitions', partitions, 'graph', graph)
elseif update == '1' and tonumber(stands) <= tonumber(highest) and redis.call('HGET', config, 'partitions') == partitions then
  redis.call('HSET', config, 'former', former(), 'graph', graph)
  if tonumber(stands) < tonumber(schema) then
    redis.call('HSET', config, 'schema', schema)
    raised_from = stands
  end
end
local row = redis.call('HMGET', config, 'schema', 'incarnation', 'partitions', 'complete', 'graph', 'former')
row[7] = raised_from
return row
