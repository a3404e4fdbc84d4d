"""What the Redis source asks of Redis in one step, as Lua.

Order is the reason for scripts: two consumers of a group that read in turn would publish a symbol's ticks side by side.
So **a consumer takes new entries only while no other has any under way**, and looking and taking must be one step.
What a consumer left behind is taken over from the oldest on, once it was silent for long enough.
"""

TAKE = """
local key, group, me = KEYS[1], ARGV[1], ARGV[2]
local count, idle_ms, after = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
if after ~= '' then
  local own = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', key, after)
  return {'own', own[1][2]}
end
local others = 0
for _, of in ipairs(redis.call('XPENDING', key, group)[4] or {}) do
  if of[1] ~= me then others = others + tonumber(of[2]) end
end
if others == 0 then
  local got = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', key, '>')
  if got then return {'new', got[1][2]} end
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  return {'none', last[1] and last[1][1] or '0-0'}
end
local ids, owners, from, stop = {}, {}, '-', false
repeat
  local page = redis.call('XPENDING', key, group, from, '+', 100)
  stop = #page < 100
  for _, entry in ipairs(page) do
    from = '(' .. entry[1]
    if entry[2] ~= me then
      if entry[3] < idle_ms or #ids == count then stop = true break end
      ids[#ids + 1] = entry[1]
      owners[entry[2]] = true
    end
  end
until stop
if #ids == 0 then return {'wait', others} end
local got = redis.call('XCLAIM', key, group, me, 0, unpack(ids))
for owner, _ in pairs(owners) do
  if #redis.call('XPENDING', key, group, '-', '+', 1, owner) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', key, group, owner)
  end
end
return {'claimed', got, #ids - #got}
"""
"""KEYS: the stream. ARGV: group, consumer, entries at most, milliseconds of silence after which another's are taken
over, and the id after which to read its own that an earlier life left ('': none are left).

Gives `own`, `new` or `claimed` with entries (claimed: and how many were trimmed away meanwhile), `wait` with the number
of entries that others have under way, or `none` with the stream's last id.
"""

SET_IDLE = """
local key, group, me, idle_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local from, held = '-', 0
repeat
  local page = redis.call('XPENDING', key, group, from, '+', 1000, me)
  local command = {'XCLAIM', key, group, me, 0}
  for _, entry in ipairs(page) do
    from = '(' .. entry[1]
    command[#command + 1] = entry[1]
  end
  for _, word in ipairs({'IDLE', idle_ms, 'JUSTID'}) do command[#command + 1] = word end
  if #page > 0 then redis.call(unpack(command)) end
  held = held + #page
until #page < 1000
return held
"""
"""KEYS: the stream. ARGV: group, consumer, and for how many milliseconds its entries count as silent from now on.

0 says that the consumer lives; more lets others have them at once. Gives how many it has.
"""

LEAVE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return -1
"""
"""KEYS: the stream. ARGV: group, consumer. Forgets a consumer that has nothing under way."""
