-- After it each command answered 'applied' has ended: state, index, outcome, history, journal, timer, queue entry changed together (I3).
-- Checks come first and read only (P19); each command gets its own answer. 'gone': it had ended or was removed; 'conflict': what
-- it was run on is not what is stored; neither changes anything.
--
-- KEYS lease commands accepted outcomes(stem) history ready timers timers:data, the in:<state> keys,
--      then for each command: instance, and as its flags say inbox(i) steps(j) once(o)
-- ARGV token number worker history_cap once_ttl_ms states [state …] n, then n times:
--      entry flags id key transition version from to data entered outcome_json outcome reply
--      flags: w writes the instance, i lies in the inbox, p may be pending in the group, j has a journal, t has a timer, o has an idempotency key,
--      a<n> took n attempts; from, to: positions in the list of states, 0 for none; data: the instance's, or the reason of one that does
--      not write; entered: the version at which the state was entered, '' if it stays
-- RETURNS done [applied|gone|conflict …] (the words only if one is not applied) | fenced | rewound
local lease, commands, accepted, outcomes, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ready, timers, timers_data = KEYS[6], KEYS[7], KEYS[8]
local token, number, worker, history_cap, once_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fault = fence(lease, token, number)
if fault == 'fenced' or fault == 'rewound' then return { fault } end

local states = tonumber(ARGV[6])
local n = tonumber(ARGV[7 + states])
local base, width = 7 + states, 13
local now = clock()

local ids = {}
for c = 1, n do ids[c] = ARGV[base + (c - 1) * width + 3] end
local where = redis.call('HMGET', accepted, unpack(ids))

if fault == 'seen' then
  local words = { 'done' }
  for c = 1, n do
    -- applied only if the outcome that is kept is the one we brought: it may have been cancelled before
    local kept, json = outcome_of(outcomes, now, ids[c]), ARGV[base + (c - 1) * width + 11]
    local ours = kept and string.sub(kept, 1, #json - 1) == string.sub(json, 1, -2)
    words[c + 1] = where[c] and 'conflict' or (ours and 'applied' or 'gone')
  end
  return words
end

-- the checks -------------------------------------------------------------------------------------
local next_key = 8 + states
-- keys that all commands share: a damaged one raises here, where nothing has been written
redis.call('XLEN', commands)
redis.call('XLEN', history)
for s = 1, states do redis.call('ZCARD', KEYS[8 + s]) end
local outcomes_key = period_key(outcomes, now)
local begun = redis.call('HLEN', outcomes_key) > 0
local version_of, inbox_of, dead, words, all = {}, {}, {}, {}, true
local taken = {} -- ids: one that is in the batch twice ends once (I3)
local keys_of = {}
for c = 1, n do
  local o = base + (c - 1) * width
  local entry, flags, key, version = ARGV[o + 1], ARGV[o + 2], ARGV[o + 4], ARGV[o + 6]
  local mine, from_inbox = { KEYS[next_key + 1] }, false
  next_key = next_key + 1
  if flags ~= 'w' then -- most are plain
    if string.find(flags, 'i', 1, true) then
      from_inbox = true
      mine.inbox = KEYS[next_key + 1]
      next_key = next_key + 1
      redis.call('ZCARD', ready)
    end
    if string.find(flags, 'j', 1, true) then
      mine.steps = KEYS[next_key + 1]
      next_key = next_key + 1
    end
    if string.find(flags, 'o', 1, true) then
      mine.once = KEYS[next_key + 1]
      next_key = next_key + 1
      redis.call('HLEN', mine.once)
    end
    if string.find(flags, 't', 1, true) then
      mine.timer = true
      redis.call('ZCARD', timers)
      redis.call('HLEN', timers_data)
    end
    mine.pending = string.find(flags, 'p', 1, true)
    mine.attempts = string.match(flags, 'a(%d+)')
  end
  mine.writes = string.byte(flags) == 119 -- 'w' comes first
  keys_of[c] = mine
  local word = 'applied'
  if taken[ids[c]] or not where[c] or where[c] ~= (from_inbox and '@' .. entry .. ' ' .. key or entry) then
    word = 'gone'
    if mine.writes then version_of[key] = '' end
  else
    local stored = version_of[key]
    if not stored then
      stored = redis.call('HGET', mine[1], 'version') or '0'
      version_of[key] = stored
    end
    if stored ~= version then
      word = 'conflict'
    elseif from_inbox then
      -- the head, after those that have ended (P28)
      local queue = inbox_of[key]
      if not queue then
        queue = { at = 0 }
        inbox_of[key] = queue
      end
      while true do
        local head = redis.call('LINDEX', mine.inbox, queue.at)
        if not head then
          word = 'conflict'
          break
        end
        local head_entry, head_id = element(head)
        if head_id == ids[c] and head_entry == entry then
          queue.at = queue.at + 1
          break
        end
        if head_id and redis.call('HEXISTS', accepted, head_id) == 1 then
          word = 'conflict'
          break
        end
        queue.at = queue.at + 1
        dead[#dead + 1] = head
      end
      queue.inbox = mine.inbox
    end
    if word == 'applied' and mine.writes then version_of[key] = text(version + 1) end
  end
  -- what ran after it stood on it: that is not applied either, whatever version somebody may have written by hand
  if word == 'conflict' then version_of[key] = '' end
  if word == 'applied' then taken[ids[c]] = true else all = false end
  words[c] = word
end

-- the writes -------------------------------------------------------------------------------------
redis.call('HSET', lease, 'call', number)
local entries, pending, ended, kept, dead_timers, journals = {}, {}, {}, {}, {}, {}
local last, order, leaves, enters = {}, {}, {}, {}
local first_from, last_to, entered_of = {}, {}, {}
local replies, channels = {}, {}
local tail = ',"at":' .. now .. '}'
for c = 1, n do
  if words[c] == 'applied' then
    local mine = keys_of[c]
    local o = base + (c - 1) * width
    local entry, id, key, version = ARGV[o + 1], ARGV[o + 3], ARGV[o + 4], ARGV[o + 6]
    local from, to, reply = tonumber(ARGV[o + 7]), tonumber(ARGV[o + 8]), ARGV[o + 13]
    local outcome = string.sub(ARGV[o + 11], 1, -2) .. tail
    ended[#ended + 1] = id
    kept[#kept + 1] = id
    kept[#kept + 1] = outcome
    if not mine.inbox then
      entries[#entries + 1] = entry
      if mine.pending then pending[#pending + 1] = entry end
    end
    if mine.steps then journals[#journals + 1] = mine.steps end
    if mine.timer then dead_timers[#dead_timers + 1] = id end
    if mine.once then
      redis.call('HSET', mine.once, 'outcome', outcome)
      redis.call('PEXPIRE', mine.once, once_ttl)
    end
    local from_state, to_state = from > 0 and ARGV[6 + from] or '', to > 0 and ARGV[6 + to] or ''
    if mine.writes then
      version = text(version + 1)
      local row = last[key]
      if not row then
        row = { mine[1] }
        last[key] = row
        order[#order + 1] = key
        first_from[key] = from
      end
      row[2], row[3], row[4] = to_state, version, ARGV[o + 9]
      last_to[key] = to
      if ARGV[o + 10] ~= '' then row[5], entered_of[key] = ARGV[o + 10], true end
      if not mine.attempts then
        redis.call('XADD', history, '*', 'id', id, 'key', key, 'transition', ARGV[o + 5],
          'from', from_state, 'to', to_state, 'version', version, 'outcome', ARGV[o + 12], 'worker', worker)
      else
        redis.call('XADD', history, '*', 'id', id, 'key', key, 'transition', ARGV[o + 5],
          'from', from_state, 'to', to_state, 'version', version, 'outcome', ARGV[o + 12], 'worker', worker, 'attempts', mine.attempts)
      end
    else
      redis.call('XADD', history, '*', 'id', id, 'key', key, 'transition', ARGV[o + 5],
        'from', from_state, 'to', to_state, 'version', version, 'outcome', ARGV[o + 12], 'worker', worker,
        'attempts', mine.attempts or '1', 'reason', ARGV[o + 9])
    end
    if reply ~= '' then
      local list = replies[reply]
      if not list then
        list = {}
        replies[reply] = list
        channels[#channels + 1] = reply
      end
      list[#list + 1] = outcome
    end
  end
end
for _, key in ipairs(order) do
  local row = last[key]
  if row[5] then
    redis.call('HSET', row[1], 'state', row[2], 'version', row[3], 'data', row[4], 'updated', text(now), 'entered', row[5])
  else
    redis.call('HSET', row[1], 'state', row[2], 'version', row[3], 'data', row[4], 'updated', text(now))
  end
  local from, to = first_from[key], last_to[key]
  if from ~= to and from > 0 then
    leaves[from] = leaves[from] or {}
    table.insert(leaves[from], key)
  end
  if from ~= to or entered_of[key] then
    enters[to] = enters[to] or {}
    table.insert(enters[to], now)
    table.insert(enters[to], key)
  end
end
for state, list in pairs(leaves) do redis.call('ZREM', KEYS[8 + state], unpack(list)) end
for state, list in pairs(enters) do redis.call('ZADD', KEYS[8 + state], unpack(list)) end
for key, queue in pairs(inbox_of) do
  if queue.at > 0 then
    redis.call('LTRIM', queue.inbox, queue.at, -1)
    live_head(queue.inbox, accepted)
    settle_ready(ready, queue.inbox, key, now)
  end
end
for _, head in ipairs(dead) do forget_once(head) end
if #pending > 0 then redis.pcall('XACK', commands, 'workers', unpack(pending)) end
if #entries > 0 then
  redis.call('XDEL', commands, unpack(entries))
end
if #ended > 0 then
  redis.call('HDEL', accepted, unpack(ended))
  redis.call('HSET', outcomes_key, unpack(kept))
  if not begun then redis.call('PEXPIRE', outcomes_key, 3 * PERIOD_MS) end
end
if #journals > 0 then redis.call('UNLINK', unpack(journals)) end
if #dead_timers > 0 then
  redis.call('ZREM', timers, unpack(dead_timers))
  redis.call('HDEL', timers_data, unpack(dead_timers))
end
-- I8: not at each commit, but so often that no more than a few batches stand above the cap
if tonumber(number) % 16 == 1 then redis.call('XTRIM', history, 'MAXLEN', '~', history_cap) end
for _, channel in ipairs(channels) do
  redis.call('PUBLISH', channel, '[' .. table.concat(replies[channel], ',') .. ']')
end
if all then return { 'done' } end
local answer = { 'done' }
for c = 1, n do answer[c + 1] = words[c] end
return answer
