-- After it a dead letter's command is queued again, under a new id, as the work of the command that failed first (origin) and
-- with all that the letter keeps of it, and the letter is gone; or neither is so. An idempotency record that still is this command's goes on with the new one: who repeats the request hears how that ends.
--
-- KEYS lease commands accepted failed outcomes(stem) once
-- ARGV incarnation backlog letter id reply has_once(1|0)
-- RETURNS queued | gone (there is no such letter) | taken <id> (another command has its idempotency key) | lost | full | exhausted
local lease, commands, accepted, failed, outcomes, once = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local incarnation, backlog, entry, id, reply, has_once = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]

if redis.call('HGET', lease, 'incarnation') ~= incarnation then return 'lost' end
local now = own_time(redis.call('HGET', lease, 'clock'))
local found = redis.call('XRANGE', failed, entry, entry)[1]
if not found then
  -- a resend finds what its first try did
  local known = redis.call('HEXISTS', accepted, id) == 1 or outcome_of(outcomes, now, id)
  return known and 'queued' or 'gone'
end
if redis.call('HLEN', accepted) >= backlog then return 'full' end
local letter = {}
for i = 1, #found[2], 2 do letter[found[2][i]] = found[2][i + 1] end
local record = has_once == '1' and redis.call('HGET', once, 'id') or nil
if record and record ~= letter.id then return 'taken ' .. record end

local fields = { 'id', id, 'key', letter.key, 'transition', letter.transition, 'args', letter.args }
if reply ~= '' then
  fields[9], fields[10] = 'reply', reply
end
for _, name in ipairs({ 'if_state', 'if_version', 'trace' }) do
  if letter[name] then
    fields[#fields + 1] = name
    fields[#fields + 1] = letter[name]
  end
end
-- fields that were not known to who wrote the letter: a newer version's sender had added them
local ok, more = pcall(cjson.decode, letter.more or '{}')
for name, value in pairs(ok and type(more) == 'table' and more or {}) do
  if type(name) == 'string' and type(value) == 'string' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end
-- step keys are made of it: a payment that was made before the command failed is recognised (also by the retry of a retry)
fields[#fields + 1] = 'origin'
fields[#fields + 1] = letter.origin or letter.id
if record then
  fields[#fields + 1] = 'once'
  fields[#fields + 1] = once
end
local queued = redis.pcall('XADD', commands, '*', unpack(fields))
if type(queued) == 'table' then return string.find(queued.err, 'exhausted') and 'exhausted' or queued end
redis.call('HSET', accepted, id, queued)
redis.call('XDEL', failed, entry)
if record then
  redis.call('HSET', once, 'id', id)
  redis.call('HDEL', once, 'outcome')
  redis.call('PERSIST', once)
end
return 'queued'
