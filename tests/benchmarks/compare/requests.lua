-- wrk -s requests.lua URL -- FILE TAG RANGE
--
-- Sends the prepared requests of FILE in turns. Each is some pieces, byte 31 after each, and byte 30
-- at its end; an id of 12 characters goes between them: TAG (4 characters) and 8 digits. They count
-- up from 1, or, if RANGE is not 0, are drawn from 0 to RANGE - 1. Prints a line of JSON at the end.

local requests = {}
local sent, range, tag = 0, 0, ""

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  for text in file:read("*a"):gmatch("([^\30]*)\30") do
    local pieces = {}
    for piece in text:gmatch("([^\31]*)\31") do
      pieces[#pieces + 1] = piece
    end
    requests[#requests + 1] = pieces
  end
  file:close()
  tag, range = arguments[2], tonumber(arguments[3])
end

function request()
  sent = sent + 1
  local number = sent
  if range > 0 then
    number = math.random(0, range - 1)
  end
  return table.concat(requests[sent % #requests + 1], string.format("%s%08d", tag, number))
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,'
      .. '"errors":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}}',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
