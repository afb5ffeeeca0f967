-- After it each command is in the partition's stream (or waits for its time), exactly once however often it is sent.
-- A resent id is recognised by T:accepted or the outcomes (P26); an id older than the retention and not known is refused.
--
-- KEYS commands accepted lease outcomes(stem) timers timers:data [once …] (one for each command with an idempotency key, in order)
-- ARGV incarnation backlog resend_within_ms max_key max_arguments reply n, n ids, n times: key transition args,
--      then for each command that is not plain: its place in the list, [delay_ms][ caller commands bytes] digest[ meaning[ conditions]] extras [field value …]
--      (caller: who may hold no more than so many commands and bytes of this partition; it is counted while they are delayed, or many wait)
-- RETURNS 'lost', 'accepted' if all are, or a list of one text a command:
--      accepted | delayed <due ms> | known | ended <outcome> | late (or with the partition's time, if that is not Redis time) | full | exhausted | large <what> <size>
--      | attached <id> | conflict <id> | unfit <what> | share
local commands, accepted, lease, outcomes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local timers, timers_data = KEYS[5], KEYS[6]
local incarnation, backlog, resend_within = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local reply, n = ARGV[6], tonumber(ARGV[7])
-- The library refuses all these itself; this is for who skips it. The numbers are those of config.py (a house test compares them).
local MAX_KEY, MAX_NAME, MAX_ID, MAX_ARGUMENTS = 512, 64, 256, 131072
local AHEAD_MS = 10000 -- an id made so much later than now cannot be dated: what it allows for would be forgotten before it is late
local MAX_FIELD, MAX_DELAY_MS, MAX_BATCH = 2048, 315360000000, 128
local max_key, max_arguments = math.min(tonumber(ARGV[4]), MAX_KEY), math.min(tonumber(ARGV[5]), MAX_ARGUMENTS)
if n > MAX_BATCH or #reply > MAX_FIELD then return redis.error_reply('ERR a batch has at most ' .. MAX_BATCH .. ' commands and a short reply') end

local now, wall

local CROWDED = 1000 -- from so many waiting commands on, those that are not delayed are counted for their callers, too
local HELD_TTL_MS = 86400000
local LOOKED_AT, LOOKED_AT_WHEN_FULL, LOOKS_WHEN_FULL = 8, 256, 64

-- A delay; and a caller with the commands and bytes that it may hold, if one is named. A name that is longer is none.
local function parted(when)
  local delay, caller, most, most_bytes = string.match(when, '^(%S*) (%S+) (%d+) (%d+)$')
  if not delay then return when end
  return delay, #caller <= MAX_NAME and caller or nil, tonumber(most), tonumber(most_bytes)
end

-- T:held:<caller>: '<bytes> <id>' by the time it was accepted, and '@bytes', whose score is minus the sum. Only the stem is a declared key.
local function held_key(timers, caller)
  return string.sub(timers, 1, -7) .. 'held:' .. caller
end

-- What is wrong with a command's delay, digest or further fields; nil if nothing is.
local function misfit(when, digest, from, to)
  local delay = parted(when)
  local ms = tonumber(delay ~= '' and delay or 0)
  if not (ms and ms >= 0) then return 'unfit delay' end -- no number, or nan
  if ms > MAX_DELAY_MS then return 'large delay ' .. string.format('%.0f', ms) end
  if ms % 1 ~= 0 then return 'unfit delay' end -- past the first write a fraction would raise
  if #digest > MAX_NAME then return 'large digest ' .. #digest end
  for e = from, to, 2 do
    local name, size = ARGV[e], #ARGV[e + 1]
    if name ~= 'if_state' and name ~= 'if_version' and name ~= 'trace' and name ~= 'chain' then return 'unfit field' end
    if size > MAX_FIELD then return 'large ' .. name .. ' ' .. size end
  end
end

-- The digest of a request as it was sent, that of what it means, and that of when it may run (nil: a former version's client does not say).
local function marks(digest)
  local sent, meaning, conditions = string.match(digest, '^(%S+) (%S+) ?(%S*)$')
  return sent or digest, meaning or digest, conditions ~= '' and conditions or nil
end

-- Whether the idempotency key begins with '@': by such keys statemq remembers what it does itself, so no caller may be there before it.
local function reserved(once, key)
  local _, stem = string.find(once, ':once:%d+:')
  return stem and string.sub(once, stem + 1, stem + 2 + #key) == key .. ':@'
end

-- The outcome for a repeated request whose command has gone without ending its record: its entry was removed by hand, with what named the record.
local function gone(once, id, key, transition)
  local outcome = outcome_of(outcomes, now, id) or cjson.encode({ id = id, outcome = 'failed', key = key, transition = transition,
    reason = 'the command of this idempotency key was removed by hand, or ended by a former version', code = 'removed', attempts = 0, at = wall })
  redis.call('HSET', once, 'outcome', outcome)
  return outcome
end

local held = redis.call('HMGET', lease, 'incarnation', 'clock')
if held[1] ~= incarnation then return 'lost' end

now, wall = own_time(held[2])
local waiting = redis.call('HLEN', accepted)
local specials, refused = {}, {} -- by place: where the rest of a command that is not plain begins, and what is wrong with it
local i = 8 + 4 * n
while ARGV[i] do
  local place, further = tonumber(ARGV[i]), tonumber(ARGV[i + 3])
  if further < 0 then break end
  specials[place] = i
  refused[place] = misfit(ARGV[i + 1], ARGV[i + 2], i + 4, i + 3 + 2 * further)
  local _, caller = parted(ARGV[i + 1])
  if caller then redis.call('ZCARD', held_key(timers, caller)) end
  if ARGV[i + 1] ~= '' then -- damaged timers raise here, where nothing has been written
    redis.call('ZCARD', timers)
    redis.call('HLEN', timers_data)
  end
  i = i + 4 + 2 * further
end
-- a miscounted batch too: past the first write it would be torn
if i ~= #ARGV + 1 then return redis.error_reply('ERR the arguments are not those of ' .. n .. ' commands') end
for k = 7, #KEYS do -- and damaged idempotency records
  if #KEYS[k] > MAX_FIELD then return redis.error_reply('ERR an idempotency key is too long') end
  redis.call('HLEN', KEYS[k])
end
local known = redis.call('HMGET', accepted, unpack(ARGV, 8, 7 + n))
local ended = redis.call('HMGET', period_key(outcomes, now), unpack(ARGV, 8, 7 + n))
local ended_before = redis.call('HMGET', period_key(outcomes, now - PERIOD_MS), unpack(ARGV, 8, 7 + n))
if now ~= wall then -- a former version's worker puts outcomes where Redis time says
  for back = 0, PERIOD_MS, PERIOD_MS do
    for c, outcome in ipairs(redis.call('HMGET', period_key(outcomes, wall - back), unpack(ARGV, 8, 7 + n))) do
      ended[c] = ended[c] or outcome
    end
  end
end

-- Whether one more of a caller's commands is more than its share. What has ended is noticed by looking at some of what it holds, at more
-- when it seems to hold too much, and again as long as that frees some; so an end costs nothing.
local fruitless = {} -- callers of whose commands many were looked at, and none had ended
local function over_share(held, here, size, most, most_bytes)
  local function freed(looked_at)
    local names, ids, gone, bytes = {}, {}, {}, 0
    for _, name in ipairs(redis.call('ZRANDMEMBER', held, looked_at)) do
      if name ~= '@bytes' then names[#names + 1], ids[#ids + 1] = name, string.match(name, ' (.*)$') or name end
    end
    if #ids == 0 then return false end
    for k, there in ipairs(redis.call('HMGET', accepted, unpack(ids))) do
      if not there and not here[ids[k]] then
        gone[#gone + 1] = names[k]
        bytes = bytes + (tonumber(string.match(names[k], '^%d+')) or 0)
      end
    end
    if #gone == 0 then return false end
    redis.call('ZREM', held, unpack(gone))
    redis.call('ZINCRBY', held, bytes, '@bytes')
    return true
  end
  local function over()
    local bytes = tonumber(redis.call('ZSCORE', held, '@bytes') or 0)
    return math.max(0, redis.call('ZCARD', held) - 1) >= most or size - bytes > most_bytes
  end
  freed(LOOKED_AT)
  for _ = 1, LOOKS_WHEN_FULL do
    if not over() then return false end
    if fruitless[held] or not freed(LOOKED_AT_WHEN_FULL) then
      fruitless[held] = true
      return true
    end
  end
  return over()
end

-- What a caller holds is forgotten when it has asked for nothing more for so long, and its longest delay is over.
local function keep(held, delay)
  redis.call('PEXPIRE', held, math.max(redis.call('PTTL', held), HELD_TTL_MS + tonumber(delay ~= '' and delay or 0)))
end

local here = {} -- ids of this very call, so that a batch which names one twice queues it once
local answers, plain, next_once = {}, 0, 7
local fresh, f = {}, 0 -- accepted fields of this call: id, entry, id, entry …

for c = 1, n do
  local id, at = ARGV[7 + c], 5 + n + 3 * c
  local key, transition, args = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local special = specials[c]
  local delay, once = '', nil
  local caller, most, most_bytes, size
  if special then
    delay, caller, most, most_bytes = parted(ARGV[special + 1])
    if ARGV[special + 2] ~= '' then
      once = KEYS[next_once]
      next_once = next_once + 1
    end
  end
  local answer
  local outcome = ended[c] or ended_before[c]
  if outcome then
    answer = 'ended ' .. outcome
  elseif known[c] or here[id] then
    answer = 'known'
  elseif #key > max_key then
    answer = 'large key ' .. #key
  elseif #args > max_arguments then
    answer = 'large arguments ' .. #args
  elseif #id > MAX_ID then
    answer = 'large id ' .. #id
  elseif #transition > MAX_NAME then
    answer = 'large transition ' .. #transition
  elseif id == '' or key == '' or transition == '' or transition == '@look' or string.byte(id) == 64 then
    answer = 'unfit command'
  elseif once and reserved(once, key) then
    answer = 'unfit idempotency key'
  elseif special then
    answer = refused[c]
  end
  if not answer then
    -- P26: 'machine.partition.<uuid7>', whose first 12 hex digits are ms
    local made = string.byte(id, -33) == 46 and string.byte(id, -20) == 55 and tonumber(string.sub(id, -32, -21), 16)
    if made and (now - made > resend_within or made - now > AHEAD_MS) then
      answer = now - wall < PERIOD_MS and 'late' or 'late ' .. text(now)
    end
  end
  if not answer and once then
    -- the same request has the same bytes or the same meaning; a former version's client sent and kept the bytes' digest only
    local before = redis.call('HMGET', once, 'digest', 'id', 'outcome', 'meaning', 'conditions')
    local digest, meaning, conditions = marks(ARGV[special + 2])
    local same = before[1] == digest or (before[4] or before[1]) == meaning
    if before[1] and not (same and (not conditions or not before[5] or before[5] == conditions)) then
      answer = 'conflict ' .. before[2]
    elseif before[3] then
      answer = 'ended ' .. before[3]
    elseif before[1] then
      local lives = here[before[2]] or redis.call('HEXISTS', accepted, before[2]) == 1
      answer = lives and 'attached ' .. before[2] or 'ended ' .. gone(once, before[2], key, transition)
    end
  end
  if not answer and waiting >= backlog then answer = 'full' end
  if caller and (answer or (delay == '' and waiting < CROWDED)) then caller = nil end
  if caller then
    size = #key + #args + 200
    local held = held_key(timers, caller)
    if over_share(held, here, size, most, most_bytes) then
      answer = 'share'
      keep(held, '') -- who asks again and again is not forgotten for it
    end
  end
  if not answer and not special and reply ~= '' then
    -- the plain command, which most are
    local entry = redis.pcall('XADD', commands, '*', 'id', id, 'key', key, 'transition', transition, 'args', args, 'reply', reply)
    if type(entry) == 'string' then
      fresh[f + 1], fresh[f + 2] = id, entry
      f = f + 2
      here[id] = true
      waiting = waiting + 1
      answer = 'accepted'
      plain = plain + 1
    elseif string.find(entry.err, 'exhausted') then
      answer = 'exhausted'
    else
      return entry
    end
  end
  if not answer then
    local fields = { 'id', id, 'key', key, 'transition', transition, 'args', args }
    if reply ~= '' then
      fields[9], fields[10] = 'reply', reply
    end
    if special then
      for e = special + 4, special + 3 + 2 * tonumber(ARGV[special + 3]) do fields[#fields + 1] = ARGV[e] end
    end
    if once then
      fields[#fields + 1] = 'once'
      fields[#fields + 1] = once
    end
    if delay ~= '' then
      local due = now + tonumber(delay)
      redis.call('HSET', timers_data, id, cjson.encode(fields))
      redis.call('ZADD', timers, due, id)
      fresh[f + 1], fresh[f + 2] = id, 'timer'
      f = f + 2
      answer = 'delayed ' .. text(due)
      look(commands, accepted, '')
    else
      local entry = redis.pcall('XADD', commands, '*', unpack(fields))
      if type(entry) == 'table' and entry.err then
        if not string.find(entry.err, 'exhausted') then return entry end
        answer = 'exhausted'
      else
        fresh[f + 1], fresh[f + 2] = id, entry
        f = f + 2
        answer = 'accepted'
      end
    end
    if string.sub(answer, 1, 9) ~= 'exhausted' then
      here[id] = true
      waiting = waiting + 1
      if caller then
        local held = held_key(timers, caller)
        redis.call('ZADD', held, now, size .. ' ' .. id)
        redis.call('ZINCRBY', held, -size, '@bytes')
        keep(held, delay)
      end
      if once then
        local digest, meaning, conditions = marks(ARGV[special + 2])
        redis.call('HSET', once, 'id', id, 'digest', digest, 'meaning', meaning)
        if conditions then redis.call('HSET', once, 'conditions', conditions) end
      end
    end
  end
  answers[c] = answer
end
if f > 0 then redis.call('HSET', accepted, unpack(fresh)) end
return plain == n and 'accepted' or answers
