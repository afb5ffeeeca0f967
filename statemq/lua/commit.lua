-- After it each command answered 'applied' has ended: state, index, outcome, history, journal, timer, queue entry changed together (I3).
-- Checks come first and read only (P19); each command gets its own answer. 'gone': it had ended or was removed; 'conflict': what
-- it was run on is not what is stored; neither changes anything.
--
-- KEYS lease commands accepted outcomes(stem) history ready timers timers:data, the in:<state> keys,
--      then for each command: instance, and as its flags say inbox(i) steps(j); then those of the effects
-- ARGV token number worker history_cap('' not to trim now) states [state …] n, n ids, then n times:
--      entry flags key transition version next from to data json outcome reply
--      and behind them all the effects' tail
--      flags: i lies in the inbox, p may be pending in the group, j has a journal, t has a timer, e begins a visit of its state,
--      a<n> took n attempts; next: the version it makes, '' if it writes no instance; from, to: states, from '' for
--      none; data: the instance's, or the reason of one that does not write; json: the outcome without its closing brace
-- RETURNS done [applied|gone|conflict …] (the words only if one is not applied) | fenced | rewound
local lease, commands, accepted, outcomes, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ready, timers, timers_data = KEYS[6], KEYS[7], KEYS[8]
local token, number, worker, history_cap = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local fault, mark = fence(lease, token, number)
if fault == 'fenced' or fault == 'rewound' then return { fault } end

local states = tonumber(ARGV[5])
local n = tonumber(ARGV[6 + states])
local ids, width = 6 + states, 12
local base = ids + n
local now, wall, marked = own_time(mark)
local at = text(wall)
local where = redis.call('HMGET', accepted, unpack(ARGV, ids + 1, ids + n))

if fault == 'seen' then
  local words = { 'done' }
  for c = 1, n do
    -- applied only if the outcome that is kept is the one we brought: it may have been cancelled before
    local kept, json = outcome_of(outcomes, now, ARGV[ids + c]), ARGV[base + (c - 1) * width + 10]
    local ours = kept and string.sub(kept, 1, #json) == json
    words[c + 1] = where[c] and 'conflict' or (ours and 'applied' or 'gone')
  end
  return words
end

-- the checks -------------------------------------------------------------------------------------
-- keys that all commands share: a damaged one raises here, where nothing has been written; the history does when it is written, as the first
redis.call('XLEN', commands)
local index_of = {} -- state: its key
for s = 1, states do
  local key = KEYS[8 + s]
  redis.call('ZCARD', key)
  index_of[ARGV[5 + s]] = key
end
local outcomes_key = period_key(outcomes, now)
local begun = redis.call('HLEN', outcomes_key) > 0
local next_key = 9 + states
local instance, special = {}, {} -- by command: the instance's key; what its flags say, of those that are not plain
local version_of, inbox_of, dead, words, all = {}, {}, {}, nil, true
local taken = {} -- ids: one that is in the batch twice ends once (I3)
-- by instance: the state it was in, its last command here, whether it left that state, the version at which its present visit began
local first_from, last, left, entered = {}, {}, {}, {}
local o = base
for c = 1, n do
  local id, entry, flags, key, version, next_version = ARGV[ids + c], ARGV[o + 1], ARGV[o + 2], ARGV[o + 3], ARGV[o + 5], ARGV[o + 6]
  local name = KEYS[next_key]
  instance[c] = name
  next_key = next_key + 1
  local mine
  if flags ~= '' and flags ~= 'e' then -- most are plain
    mine = { pending = string.find(flags, 'p', 1, true), attempts = string.match(flags, 'a(%d+)') }
    special[c] = mine
    if string.find(flags, 'i', 1, true) then
      mine.inbox = KEYS[next_key]
      next_key = next_key + 1
      redis.call('ZCARD', ready)
    end
    if string.find(flags, 'j', 1, true) then
      mine.steps = KEYS[next_key]
      next_key = next_key + 1
    end
    if string.find(flags, 't', 1, true) then
      mine.timer = true
      redis.call('ZCARD', timers)
      redis.call('HLEN', timers_data)
    end
  end
  local from_inbox = mine and mine.inbox
  local word
  if not where[c] or taken[id] or where[c] ~= (from_inbox and '@' .. entry .. ' ' .. key or entry) then
    word = 'gone'
    if next_version ~= '' then version_of[name] = '' end
  else
    local stored = version_of[name]
    if not stored then stored = redis.call('HGET', name, 'version') or '0' end
    if stored ~= version then
      word = 'conflict'
    elseif from_inbox then
      -- the head, after those that have ended (P28)
      local queue = inbox_of[key]
      if not queue then
        queue = { at = 0, inbox = mine.inbox }
        inbox_of[key] = queue
      end
      while true do
        local head = redis.call('LINDEX', mine.inbox, queue.at)
        if not head then
          word = 'conflict'
          break
        end
        local head_entry, head_id = element(head)
        if head_id == id and head_entry == entry then
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
    end
    if word then
      -- what ran after it stood on it: that is not applied either, whatever version somebody may have written by hand
      version_of[name] = ''
    else
      taken[id] = true
      if next_version == '' then
        version_of[name] = version
      else
        version_of[name] = next_version
        last[name] = c
        if not first_from[name] then first_from[name] = ARGV[o + 7] end
        if ARGV[o + 7] ~= ARGV[o + 8] then left[name] = true end
        if flags ~= '' and string.find(flags, 'e', 1, true) then entered[name] = next_version end
      end
    end
  end
  if word then
    if all then
      all, words = false, { 'done' }
      for before = 1, c - 1 do words[before + 1] = 'applied' end
    end
    words[c + 1] = word
  elseif not all then
    words[c + 1] = 'applied'
  end
  o = o + width
end

local effects_at = checked_effects(KEYS, next_key, ARGV, o + 1)

-- the writes -------------------------------------------------------------------------------------
-- the history comes first: when its ids were used up by hand, it raises before anything was written
local kept, entries, pending, dead_timers, journals = {}, {}, {}, {}, {}
local k, e = 0, 0
local leaves, enters = {}, {}
local replies = {}
local tail = ',"at":' .. at .. '}'
o = base
for c = 1, n do
  if all or words[c + 1] == 'applied' then
    local id, key, name, mine, next_version = ARGV[ids + c], ARGV[o + 3], instance[c], special[c], ARGV[o + 6]
    local from, to = ARGV[o + 7], ARGV[o + 8]
    local outcome = ARGV[o + 10] .. tail
    kept[k + 1], kept[k + 2] = id, outcome
    k = k + 2
    if not (mine and mine.inbox) then
      e = e + 1
      entries[e] = ARGV[o + 1]
    end
    if mine then
      if mine.pending and not mine.inbox then pending[#pending + 1] = ARGV[o + 1] end
      if mine.steps then journals[#journals + 1] = mine.steps end
      if mine.timer then dead_timers[#dead_timers + 1] = id end
    end
    if next_version == '' then
      redis.call('XADD', history, '*', 'id', id, 'key', key, 'transition', ARGV[o + 4], 'from', from, 'to', to, 'version', ARGV[o + 5],
        'outcome', ARGV[o + 11], 'worker', worker, 'attempts', mine and mine.attempts or '1', 'reason', ARGV[o + 9])
    elseif mine and mine.attempts then
      redis.call('XADD', history, '*', 'id', id, 'key', key, 'transition', ARGV[o + 4], 'from', from, 'to', to, 'version', next_version,
        'outcome', ARGV[o + 11], 'worker', worker, 'attempts', mine.attempts)
    else
      redis.call('XADD', history, '*', 'id', id, 'key', key, 'transition', ARGV[o + 4], 'from', from, 'to', to, 'version', next_version,
        'outcome', ARGV[o + 11], 'worker', worker)
    end
  end
  o = o + width
end
o = base
for c = 1, n do
  if all or words[c + 1] == 'applied' then
    local key, name, mine, next_version = ARGV[o + 3], instance[c], special[c], ARGV[o + 6]
    local to, reply, outcome = ARGV[o + 8], ARGV[o + 12], ARGV[o + 10] .. tail
    if effects_at and effects_at[c] then write_effects(KEYS, ARGV, effects_at[c], { outcome = outcome }) end
    if last[name] == c then -- of several commands of one instance the last one's state is written
      local visit, was = entered[name], first_from[name]
      if visit then
        redis.call('HSET', name, 'state', to, 'version', next_version, 'data', ARGV[o + 9], 'updated', at, 'entered', visit)
      else
        redis.call('HSET', name, 'state', to, 'version', next_version, 'data', ARGV[o + 9], 'updated', at)
      end
      if was ~= to and was ~= '' then
        local list = leaves[was]
        if list then
          list[#list + 1] = key
        else
          leaves[was] = { key }
        end
      end
      if left[name] then -- who enters the state it is in has a new visit, but is in that state as long as before
        local list = enters[to]
        if list then
          list[#list + 1] = at
          list[#list + 1] = key
        else
          enters[to] = { at, key }
        end
      end
    end
    if reply ~= '' then
      local list = replies[reply]
      if list then
        list[#list + 1] = outcome
      else
        replies[reply] = { outcome }
      end
    end
  end
  o = o + width
end
redis.call('HSET', lease, 'call', number, 'clock', marked)
for state, list in pairs(leaves) do redis.call('ZREM', index_of[state], unpack(list)) end
for state, list in pairs(enters) do redis.call('ZADD', index_of[state], unpack(list)) end
for key, queue in pairs(inbox_of) do
  if queue.at > 0 then
    redis.call('LTRIM', queue.inbox, queue.at, -1)
    live_head(queue.inbox, accepted)
    settle_ready(ready, queue.inbox, key, wall)
  end
end
for _, head in ipairs(dead) do forget_once(head, accepted) end
if #pending > 0 then redis.pcall('XACK', commands, 'workers', unpack(pending)) end
if e > 0 then redis.call('XDEL', commands, unpack(entries)) end
if k > 0 then
  if all then
    redis.call('HDEL', accepted, unpack(ARGV, ids + 1, ids + n))
  else
    local ended = {}
    for i = 1, k, 2 do ended[#ended + 1] = kept[i] end
    redis.call('HDEL', accepted, unpack(ended))
  end
  redis.call('HSET', outcomes_key, unpack(kept))
  if not begun then redis.call('PEXPIRE', outcomes_key, 3 * PERIOD_MS) end
end
if #journals > 0 then redis.call('UNLINK', unpack(journals)) end
if #dead_timers > 0 then
  redis.call('ZREM', timers, unpack(dead_timers))
  redis.call('HDEL', timers_data, unpack(dead_timers))
end
if history_cap ~= '' then redis.call('XTRIM', history, 'MAXLEN', '~', history_cap) end
for channel, list in pairs(replies) do redis.call('PUBLISH', channel, '[' .. table.concat(list, ',') .. ']') end
return words or { 'done' }
