-- After it whoever repeats the request of a command that has ended hears how it ended, for a day (P29).
--
-- KEYS once
-- ARGV (none)
return {
  check = function(KEYS, k) redis.call('HLEN', KEYS[k]) end,
  write = function(KEYS, k, ARGV, a, ended)
    redis.call('HSET', KEYS[k], 'outcome', ended.outcome)
    redis.call('PEXPIRE', KEYS[k], ONCE_TTL_MS)
  end,
}
