-- What wrk sends in perf/edge: updates of a fixed set of rows, about 150 bytes each, the same as those of edge_go/traffic.go.
-- They are made before the run, so that wrk takes as little CPU from the server as it can.
local APPS, ROWS = 16, 10000

local function id()
   local parts = {}
   for i = 1, 16 do
      local byte = math.random(0, 255)
      if i == 7 then byte = 0x40 + byte % 16 end
      if i == 9 then byte = 0x80 + byte % 64 end
      parts[i] = string.format(i % 2 == 0 and i >= 4 and i <= 10 and "%02x-" or "%02x", byte)
   end
   return table.concat(parts)
end

local threads = 0
function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

local requests = {}
function init()
   math.randomseed(1)
   local apps = {}
   for i = 1, APPS do apps[i] = id() end
   local headers = { ["Content-Type"] = "application/json" }
   for i = 1, ROWS do
      local body = string.format(
         '{"app_id":"%s","tags":{"first_name":"Jon","plan":"team","level":%d,"last_page":"/checkout"},"counts":{"sessions":1}}',
         apps[i % APPS + 1], i % 100)
      requests[i] = wrk.format("PUT", "/api/v1/players/" .. id(), headers, body)
   end
   math.randomseed(number)
end

function request()
   return requests[math.random(ROWS)]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %f, "refused": %d, "errors": %d, "p50_ms": %f, "p99_ms": %f}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
