-- What follows the end of a command, wherever it ends. Joined behind the effects, in front of the scripts; never called alone.

-- Effects of a call are its tail, behind its fixed columns: from place a of ARGV on [place effect nkeys nargs arg…]…, and from place k of KEYS
-- on the keys of each. Their checks are made here, where nothing has been written (P19). By place: what to write once its command has ended;
-- nil for a call without a tail, as most are. spare: an effect whose keys somebody damaged is left out, where else the call would fail.
local function checked_effects(KEYS, k, ARGV, a, spare)
  if not ARGV[a] then return nil end
  local at = {}
  while ARGV[a] do
    local place, effect = tonumber(ARGV[a]), effects[ARGV[a + 1]]
    local whole = true
    if spare then whole = pcall(effect.check, KEYS, k, ARGV, a + 4) else effect.check(KEYS, k, ARGV, a + 4) end
    if whole then
      at[place] = at[place] or {}
      table.insert(at[place], { effect.write, k, a + 4 })
    end
    k, a = k + ARGV[a + 2], a + 4 + ARGV[a + 3]
  end
  return at
end

local function write_effects(KEYS, ARGV, list, ended)
  for _, one in ipairs(list or {}) do one[1](KEYS, one[2], ARGV, one[3], ended) end
end

-- The end of one command that no commit ends (I3): its outcome is kept, written to the history, told to its client and to who repeats its
-- request, and nothing else of it is left but its place in the stream or an inbox, which is its caller's. The caller has checked the keys.
-- k: accepted outcomes history timers timers_data steps; entry: what the history says of it; act: writes its effects.
local function end_command(k, now, wall, id, json, reply, history_cap, entry, act)
  redis.call('HDEL', k.accepted, id)
  redis.call('ZREM', k.timers, id)
  redis.call('HDEL', k.timers_data, id)
  if k.steps then redis.call('UNLINK', k.steps) end
  local outcome = stamp(json, wall)
  keep_outcomes(k.outcomes, now, { id, outcome })
  redis.call('XADD', k.history, 'MAXLEN', '~', history_cap, '*', 'id', id, unpack(entry))
  act({ outcome = outcome })
  if reply and reply ~= '' then redis.call('PUBLISH', reply, '[' .. outcome .. ']') end
end

-- The effects of an end that is known here only: its idempotency record, if there is one. A damaged one is left as it is.
local function settle_once(once)
  local whole = once ~= '' and pcall(effects.once.check, { once }, 1)
  return function(ended)
    if whole then effects.once.write({ once }, 1, {}, 1, ended) end
  end
end
