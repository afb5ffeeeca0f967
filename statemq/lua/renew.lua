-- After it each owner's deadline is lease_ms away. Not numbered: it goes over a connection of its own and changes nothing else. But it
-- finds out that the store was set back (P2): an idle owner would send nothing that does.
--
-- KEYS [lease …] (one for each tenure)
-- ARGV lease_ms, then for each: token, number of the last call known to be answered
-- RETURNS for each: held | paused | fenced | rewound | what is wrong with the key
local now = clock()
local deadline = text(now + tonumber(ARGV[1]))
local answers = {}
for i = 1, #KEYS do
  local held = redis.pcall('HMGET', KEYS[i], 'token', 'paused', 'call', 'clock') -- a damaged lease must not cost its neighbours theirs
  if held.err then
    answers[i] = held.err
  elseif held[1] ~= ARGV[2 * i] then
    answers[i] = 'fenced'
  elseif (tonumber(held[3]) or 0) < tonumber(ARGV[2 * i + 1]) then
    answers[i] = 'rewound'
  else
    local _, _, marked = own_time(held[4], now)
    redis.call('HSET', KEYS[i], 'deadline', deadline, 'clock', marked)
    answers[i] = held[2] == '1' and 'paused' or 'held'
  end
end
return answers
