-- stuck: the outcome of a lane's job cannot be recorded
-- $1 worker, $2 when it is tried again.
update send_lanes set due_at = $2, stuck = r.why
from {rows: lane text, token bigint, why text} where send_lanes.lane = r.lane and send_lanes.token = r.token and worker = $1
