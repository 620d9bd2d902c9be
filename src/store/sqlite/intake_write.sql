-- intake: lanes are created, or touched
-- $1 worker, $2 token, $3 now.
-- Differs from Postgres in that `intake.sql` has said what to write.
{batch: lane text, page text, is_there bool, look bool, due bigint, claims bool, job bigint, number bigint}insert into send_lanes (lane, page_id, due_at, worker, token, job, number, started_at)
select r.lane, r.page, r.due, case when r.claims then $1 end, $2, r.job, r.number, case when r.claims then $3 end
from {rows: lane text, page text, is_there bool, due bigint, claims bool, job bigint, number bigint} where not r.is_there;
update send_lanes set touched = touched + 1,
    due_at = case when r.look and worker is null then max(rest_until, $3) else due_at end
from {rows: lane text, is_there bool, look bool} where send_lanes.lane = r.lane and r.is_there
