-- Takes up to ARGV[3] members of the due index that are due at ARGV[1], by moving them ARGV[2] later: for that long nobody else is handed them.
-- KEYS[1] the due index: member = lease id, score = Unix milliseconds
-- ARGV[1] now, ARGV[2] visibility in ms, ARGV[3] how many (at most 100: 0.8 ms of Redis; 1,000 took 9)
-- Returns the members, soonest first.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, tonumber(ARGV[3]))
if #due > 0 then
  local later = string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[2]))
  local moved = {}
  for _, member in ipairs(due) do
    moved[#moved + 1] = later
    moved[#moved + 1] = member
  end
  redis.call('ZADD', KEYS[1], unpack(moved))
end
return due
