-- After it a drained command stream whose entry ids were used up by hand takes entries again, and its partition has no owner: who read the
-- old ids holds a position that no new entry would pass (P3), so it is acquired anew and read from the beginning. The stream goes: XSETID
-- does not go back behind a deleted entry, and of a drained stream nothing but its group is left, which acquire makes.
--
-- KEYS commands lease
-- ARGV news_channel partition
-- RETURNS mended | sound | full (entries are left)
local commands, lease = KEYS[1], KEYS[2]
local news, partition = ARGV[1], ARGV[2]
if redis.call('EXISTS', commands) == 0 then return 'sound' end
local info, last = redis.call('XINFO', 'STREAM', commands), ''
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
-- the last ms there is, and so far in it that no count of entries led there
if not string.match(last, '^18446744073709551615%-' .. string.rep('%d', 19)) then return 'sound' end
if redis.call('XLEN', commands) > 0 then return 'full' end
redis.call('HLEN', lease)
redis.call('UNLINK', commands)
redis.call('HSET', lease, 'token', '', 'owner', '', 'deadline', '0')
redis.call('PUBLISH', news, 'released ' .. partition)
return 'mended'
