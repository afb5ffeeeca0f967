-- After it entries that need nothing more (looks, forwarded ones) are out of the stream, with the accepted fields that name them.
--
-- KEYS lease commands accepted
-- ARGV token number n, then n times: entry field('' for none)
-- RETURNS done | fenced | rewound | seen
local lease, commands, accepted = KEYS[1], KEYS[2], KEYS[3]
local token, number, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fault = fence(lease, token, number)
if fault then return fault end

local entries, fields = {}, {}
for c = 1, n do
  local entry, field = ARGV[2 * c + 2], ARGV[2 * c + 3]
  entries[c] = entry
  if field ~= '' and redis.call('HGET', accepted, field) == entry then fields[#fields + 1] = field end
end
redis.call('HSET', lease, 'call', number)
redis.call('XDEL', commands, unpack(entries))
if #fields > 0 then redis.call('HDEL', accepted, unpack(fields)) end
return 'done'
