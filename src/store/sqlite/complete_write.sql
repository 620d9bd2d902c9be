-- complete: attempts end, and their lanes go on
-- $1 worker, $2 token, $3 now.
-- Differs from Postgres in that `complete.sql` has said what becomes of the jobs and lanes.
{batch: lane text, worker text, job bigint, number bigint, started bigint, finished bigint, outcome text, status bigint, error text, response text, rule text, becomes text, failed bigint, due bigint, reason text, ambiguous bool, singled_out bigint, rest bigint, is_over bool, lane_due bigint, claims bool, next bigint, next_number bigint}insert into send_attempts (job_id, number, started_at, finished_at, outcome, http_status, error, response, rule, worker)
select r.job, r.number, r.started, r.finished, r.outcome, r.status, r.error, r.response, r.rule, coalesce(r.worker, $1)
from {rows: lane text, worker text, job bigint, number bigint, started bigint, finished bigint, outcome text, status bigint, error text, response text, rule text}
where r.outcome is not null and (select 1 from send_jobs j where j.id = r.job and j.lane = r.lane)
on conflict (job_id, number) do nothing;
update send_jobs set
    state = r.becomes,
    attempts = case when r.outcome is null then attempts else r.number end,
    finished_at = case when r.becomes in ('delivered', 'dead', 'cancelled') then max(created_at, r.finished) end,
    failures = failures + r.failed,
    due_at = coalesce(r.due, due_at),
    reason = case when r.becomes <> 'cancelled' then r.reason when r.outcome is null then 'cancelled by an operator'
        else 'cancelled by an operator while it was being sent' end,
    last_status = coalesce(r.status, last_status),
    last_rule = coalesce(r.rule, last_rule),
    possible_duplicate = possible_duplicate or send_jobs.ambiguous and coalesce(r.outcome <> 'not_sent', 0),
    ambiguous = send_jobs.ambiguous or r.ambiguous,
    ambiguous_attempts = ambiguous_attempts + r.singled_out,
    cancel_requested = 0
from {rows: lane text, job bigint, number bigint, finished bigint, outcome text, status bigint, rule text, becomes text, failed bigint, due bigint, reason text, ambiguous bool, singled_out bigint}
where send_jobs.id = r.job and send_jobs.lane = r.lane and send_jobs.state = 'queued' and r.becomes is not null;
update send_lanes set token = $2, stuck = null, rest_until = r.rest, due_at = r.lane_due,
    worker = case when r.claims then $1 end, job = r.next, number = r.next_number,
    started_at = case when r.claims then $3 end
from {rows: lane text, rest bigint, is_over bool, lane_due bigint, claims bool, next bigint, next_number bigint}
where send_lanes.lane = r.lane and not r.is_over;
delete from send_lanes where lane in (select r.lane from {rows: lane text, is_over bool} where r.is_over)
