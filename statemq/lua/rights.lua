-- After it nothing has changed: it says which of these commands this user may not call here. Redis refuses a command within a script only
-- when it comes to it, and what was written before stays; so who is about to write asks for all of them first.
--
-- KEYS key
-- ARGV channel, commands (a subcommand as 'XINFO|STREAM')
-- RETURNS those that are not allowed
local key = KEYS[1]
local channel = ARGV[1]
local refused = {}
for i = 2, #ARGV do
  local name, sub = string.match(ARGV[i], '^([^|]+)|?(.*)$')
  local allowed
  if name == 'PUBLISH' then
    allowed = redis.acl_check_cmd(name, channel, '')
  elseif sub ~= '' then
    allowed = redis.acl_check_cmd(name, sub, key, key)
  else
    allowed = redis.acl_check_cmd(name, key, key, key)
  end
  if not allowed then refused[#refused + 1] = ARGV[i] end
end
return refused
