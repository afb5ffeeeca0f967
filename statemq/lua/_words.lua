-- Shared by the scripts below: one clock, the fence, outcomes, inboxes. Joined in front of them, never called alone.

-- Redis time in ms. Called once a script, so that all it writes carries one time.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The partition's own time in ms, which never goes back, and Redis time. A server's clock may be set back (by hand, or a failover to a host
-- that is behind): from then on the partition's time goes on from where it was, so that outcomes are found where they were put and what
-- waits waits no longer. mark: the lease's field 'clock', '<highest time> <how far it is ahead of Redis>'; the third answer is its next value.
local function own_time(mark, wall)
  wall = wall or clock()
  local last, ahead = string.match(mark or '', '^(%d+) (%d+)$')
  last, ahead = tonumber(last or 0), tonumber(ahead or 0)
  if ahead <= 5000 and wall >= last then ahead = 0 end -- small corrections must not add up
  local now = wall + ahead
  if now < last then now, ahead = last, last - wall end
  return now, wall, string.format('%.0f %.0f', now, ahead)
end

-- P1, P2: nil when the call may be applied; else 'fenced' (another token), 'seen' (a resend) or 'rewound' (a call before it is missing).
-- And the lease's mark of the partition's time.
local function fence(lease, token, number)
  local held = redis.call('HMGET', lease, 'token', 'call', 'clock')
  if held[1] ~= token then return 'fenced' end
  local last, mine = tonumber(held[2]), tonumber(number)
  if mine <= last then return 'seen', held[3] end
  if mine > last + 1 then return 'rewound' end
  return nil, held[3]
end

local PERIOD_MS = 60000
local ONCE_TTL_MS = 86400000

-- Lua 5.1 writes whole numbers below 1e14 exactly; ms and versions stay below.
local function text(number)
  return number .. ''
end

-- The outcomes of this moment. Only the stem is a declared key: the period comes from Redis time (P31), the slot from the tag.
local function period_key(stem, now)
  return stem .. math.floor(now / PERIOD_MS)
end

-- Where an id's outcome is, if it is still kept: JSON or nil.
local function outcome_of(stem, now, id)
  return redis.call('HGET', period_key(stem, now), id) or redis.call('HGET', period_key(stem, now - PERIOD_MS), id) or nil
end

-- pairs: id, JSON, id, JSON … The hash's TTL is set when it is begun.
local function keep_outcomes(stem, now, pairs)
  local key = period_key(stem, now)
  local begun = redis.call('HLEN', key) > 0
  redis.call('HSET', key, unpack(pairs))
  if not begun then redis.call('PEXPIRE', key, 3 * PERIOD_MS) end
end

-- An outcome's JSON with the time it was written.
local function stamp(json, now)
  return string.sub(json, 1, -2) .. ',"at":' .. now .. '}'
end

-- An inbox element is '<entry id> <command id> <json>'; so its first two words need no JSON decoder.
local function element(text)
  local entry, id = string.match(text, '^(%S+) (%S+) ')
  return entry, id
end

-- P29: an element that was left when its command ended (a former version's cancel) may have an idempotency record without an end.
local function forget_once(text, accepted)
  local json = string.find(text, '"once":"', 1, true) and string.match(text, '^%S+ %S+ (.*)$')
  local ok, fields = pcall(cjson.decode, json or '{}')
  local once, stem = ok and fields.once, string.sub(accepted, 1, -9) .. 'once:' -- P33: an element by hand may name anything
  if type(once) == 'string' and string.sub(once, 1, #stem) == stem then redis.call('PEXPIRE', once, ONCE_TTL_MS) end
end

-- Whether entry id a is older than b.
local function older(a, b)
  local a_ms, a_n = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_n = string.match(b or '', '^(%d+)-(%d+)$')
  if not b_ms then return false end -- somebody pushed it by hand
  a_ms, a_n, b_ms, b_n = tonumber(a_ms), tonumber(a_n), tonumber(b_ms), tonumber(b_n)
  return a_ms < b_ms or (a_ms == b_ms and a_n < b_n)
end

-- Takes ended commands off an inbox's head (P28: cancel leaves the place of one that lies deep), so many at most that nobody waits for it; the owner
-- comes again for the rest. Returns the live head's entry and id, or nil.
local function live_head(inbox, accepted)
  for _ = 1, 500 do
    local head = redis.call('LINDEX', inbox, 0)
    if not head then return nil end
    local entry, id = element(head)
    if id then
      local where = redis.call('HGET', accepted, id)
      if where and string.sub(where, 1, #entry + 2) == '@' .. entry .. ' ' then return entry, id end
    end
    redis.call('LTRIM', inbox, 1, -1)
    forget_once(head, accepted)
  end
end

-- P9: a key is in T:ready while its inbox has a head that may run.
local function settle_ready(ready, inbox, key, now)
  if redis.call('EXISTS', inbox) == 0 then
    redis.call('ZREM', ready, key)
  else
    redis.call('ZADD', ready, 'NX', now, key)
  end
end

-- What an instance's pause says when it ends by itself: its owner's code could not read it, another version's can. Its key stays in
-- T:ready, so that who owns the partition next tries.
local function for_other_version(paused)
  return type(paused) == 'string' and string.sub(paused, 1, 9) == '@version '
end

-- P11: tells the owner, by the one stream it reads, that a key needs a look. One waiting look a key is enough. It comes last in a script:
-- a stream that takes no entry (used up, damaged) must not tear what was written before; its owner does not hear of it then.
local function look(commands, accepted, key)
  local name = '@look:' .. key
  if redis.call('HEXISTS', accepted, name) == 0 then
    local entry = redis.pcall('XADD', commands, '*', 'transition', '@look', 'key', key)
    if type(entry) == 'string' then redis.call('HSET', accepted, name, entry) end
  end
end

-- Unpack in slices: Lua's stack ends before 8,000 values.
local function each_slice(list, size, act)
  for from = 1, #list, size do act(unpack(list, from, math.min(#list, from + size - 1))) end
end

-- A log that can take no entry raises here, where nothing has been written: it is no stream, or its entry ids were used up by hand.
local function check_log(log)
  if redis.call('XLEN', log) == 0 and redis.call('EXISTS', log) == 0 then return end
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and info[i + 1] == '18446744073709551615-18446744073709551615' then
      error(log .. ' has used up its entry ids')
    end
  end
end

-- A dead letter more; returns how many older ones had to go. Letters keep whole arguments, so they are bounded in bytes as well as in number:
-- before one that is larger than its share of the bytes the oldest go until it fits. Where the server does not count them, all are taken to
-- be of this size.
local function keep_letter(failed, cap, bytes, ...)
  local before, size, step = redis.call('XLEN', failed), 0, 1
  for _, part in ipairs({ ... }) do size = size + #part end
  while size > bytes / cap and redis.call('XLEN', failed) > 0 do
    local used = redis.pcall('MEMORY', 'USAGE', failed, 'SAMPLES', 0)
    if type(used) ~= 'number' then cap = math.floor(bytes / size) end
    if type(used) ~= 'number' or used + size <= bytes then break end
    for _, old in ipairs(redis.call('XRANGE', failed, '-', '+', 'COUNT', step)) do redis.call('XDEL', failed, old[1]) end
    step = math.min(64, step * 2)
  end
  redis.call('XADD', failed, 'MAXLEN', '~', cap, '*', ...)
  return before + 1 - redis.call('XLEN', failed)
end

-- What an entry's fields, in a list, say that its end needs; '' where they say nothing. P33: an entry by hand may name anything, so channel and
-- record count only under their prefixes.
local function said_of(list, reply_prefix, once_prefix)
  local of = { key = '', transition = '', reply = '', once = '' }
  for i = 1, #list, 2 do
    if of[list[i]] and type(list[i + 1]) == 'string' then of[list[i]] = list[i + 1] end
  end
  if string.sub(of.reply, 1, #reply_prefix) ~= reply_prefix then of.reply = '' end
  if string.sub(of.once, 1, #once_prefix) ~= once_prefix then of.once = '' end
  return of
end

-- The same of a delayed command, whose entry waits in T:timers:data; it may have been removed or damaged by hand.
local function delayed(timers_data, id, reply_prefix, once_prefix)
  local ok, list = pcall(cjson.decode, redis.call('HGET', timers_data, id) or '[]')
  return said_of(ok and type(list) == 'table' and list or {}, reply_prefix, once_prefix)
end
