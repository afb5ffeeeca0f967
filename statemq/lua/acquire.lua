-- After it the caller owns the partition under a new token, if it named the token it believes dead (P4) and that one is:
-- released, past its deadline, or seen to be dead or silent, and its channel without a subscriber now (P5). A repeat by the holder answers the same.
--
-- KEYS lease commands timers
-- ARGV worker n believed_token lease_ms incarnation alive_channel reinit news_channel partition seen(ended|silent|lives|) process
--      passed(a deadline that has passed by the caller's clock, wherever Redis' stands now)
-- RETURNS done token last_entry dead next_due paused [entry crashes …] own(the partition's time) now(Redis') | taken token owner | alive | wiped | foreign
local lease, commands, timers = KEYS[1], KEYS[2], KEYS[3]
local worker, n, believed, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local incarnation, alive_channel, reinit, news, partition, seen = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local process = ARGV[11] -- kept here, since a worker that is killed while it leaves is not in the registry any more
local passed = ARGV[12]

local held = redis.call('HMGET', lease, 'token', 'owner', 'deadline', 'epoch', 'incarnation', 'paused', 'dead', 'clock')
local own, now, marked = own_time(held[8])
local token, owner, deadline = held[1] or '', held[2] or '', tonumber(held[3] or '0')
if held[3] and held[3] == passed then deadline = 0 end
local tail = '.' .. worker .. '.' .. n
local repeated = token ~= '' and string.sub(token, -#tail) == tail

if not held[5] and reinit ~= '1' then return { 'wiped' } end
if held[5] and held[5] ~= incarnation and reinit ~= '1' then return { 'foreign' } end
-- P14: whose death gave the partition to its owner; kept, so that a repeat, and a new beginning of the same owner, say the same
local dead = held[7] or ''
if not repeated then
  if owner ~= worker then dead = '' end
  if token ~= believed then return { 'taken', token, owner } end
  if token ~= '' and owner ~= worker then
    local silent = alive_channel ~= '' and redis.call('PUBSUB', 'SHARDNUMSUB', alive_channel)[2] == 0
    if not (silent and (seen == 'silent' or seen == 'ended')) and deadline > now then return { 'alive' } end
    -- P14: an owner that still is subscribed lives (stopped, its loop stuck), and so does one whose process was seen: that is no crash.
    -- A child of one that has ended may have its connections.
    if seen == 'ended' or (silent and seen ~= 'lives') then dead = owner end
  end
end
local kind = redis.call('TYPE', commands).ok
if kind ~= 'none' and kind ~= 'stream' then return redis.error_reply('WRONGTYPE ' .. commands .. ' is no stream') end

if not repeated then
  -- P1: a rewound store can count an epoch twice; the worker's random id and its own count keep the tokens apart
  local epoch = math.max(tonumber(held[4] or '0') + 1, now)
  token = text(epoch) .. tail
  redis.call('HSET', lease, 'token', token, 'owner', worker, 'epoch', text(epoch), 'call', '0',
    'incarnation', incarnation, 'dead', dead, 'process', worker .. ' ' .. process)
  redis.call('PUBLISH', news, 'acquired ' .. partition .. ' ' .. token .. ' ' .. worker)
end
redis.call('HSET', lease, 'deadline', text(now + lease_ms), 'clock', marked)
redis.pcall('XGROUP', 'CREATE', commands, 'workers', '0', 'MKSTREAM') -- BUSYGROUP: it is there

local answer = { 'done', token, '', dead, '', held[6] or '' }
local info = redis.call('XINFO', 'STREAM', commands)
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then answer[3] = info[i + 1] end
end
local due = redis.call('ZRANGE', timers, 0, 0, 'WITHSCORES')
if due[2] then answer[5] = due[2] end
for _, pending in ipairs(redis.call('XPENDING', commands, 'workers', '-', '+', '2000')) do
  answer[#answer + 1] = pending[1]
  -- counted for what the dead one had in its hands, not for what another owner left before it
  answer[#answer + 1] = text(pending[4] + (dead ~= '' and pending[2] == dead and 1 or 0))
end
answer[#answer + 1] = text(own)
answer[#answer + 1] = text(now)
return answer
