-- take: lanes are in hand, wait, or end
-- $1 worker, $2 token, $3 now.
-- Differs from Postgres in that `take.sql` has said what to write.
{batch: lane text, is_over bool, is_lost bool, due bigint, claims bool, job bigint, number bigint}update send_lanes set token = $2, due_at = r.due,
    worker = case when r.is_lost then worker when r.claims then $1 end,
    job = case when r.is_lost then send_lanes.job else r.job end,
    number = case when r.is_lost then send_lanes.number else r.number end,
    started_at = case when r.is_lost then started_at when r.claims then $3 end
from {rows: lane text, is_over bool, is_lost bool, due bigint, claims bool, job bigint, number bigint}
where send_lanes.lane = r.lane and not r.is_over;
delete from send_lanes where lane in (select r.lane from {rows: lane text, is_over bool} where r.is_over)
