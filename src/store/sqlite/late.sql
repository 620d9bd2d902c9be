-- late: what ended after its lane had been taken over
-- $1 worker. A definite answer replaces the guess of the worker that took over; a success closes its job.
-- Differs from Postgres in that it is several statements, and nothing is locked by others.
{batch: lane text, token bigint, worker text, job bigint, number bigint, started bigint, finished bigint, outcome text, status bigint, error text, response text, rule text}insert into send_attempts (job_id, number, started_at, finished_at, outcome, http_status, error, response, rule, worker)
select r.job, r.number, r.started, r.finished, r.outcome, r.status, r.error, r.response, r.rule, coalesce(r.worker, $1)
from {rows: lane text, worker text, job bigint, number bigint, started bigint, finished bigint, outcome text, status bigint, error text, response text, rule text}
where r.outcome is not null and (select 1 from send_jobs j where j.id = r.job and j.lane = r.lane)
on conflict (job_id, number) do update set finished_at = excluded.finished_at, outcome = excluded.outcome,
    http_status = excluded.http_status, error = excluded.error, response = excluded.response, rule = excluded.rule
where send_attempts.worker = excluded.worker and send_attempts.outcome = 'ambiguous' and excluded.outcome <> 'ambiguous';
insert into send_inbox (page_id, lane, look)
select j.page_id, j.lane, 1 from {rows: lane text, job bigint, number bigint, outcome text} join send_jobs j on j.id = r.job and j.lane = r.lane
where r.outcome = 'delivered' and j.attempts <= r.number and (j.state = 'queued' or j.state = 'unknown' or j.state = 'held')
    and (select 1 from send_lanes b where b.lane = j.lane and b.worker is not null and b.job = j.id and b.number > r.number) is null;
update send_jobs set state = 'delivered', reason = null, attempts = max(attempts, r.number), finished_at = r.finished,
    last_status = coalesce(r.status, last_status), last_rule = coalesce(r.rule, last_rule), cancel_requested = 0
from {rows: lane text, job bigint, number bigint, finished bigint, outcome text, status bigint, rule text}
where send_jobs.id = r.job and send_jobs.lane = r.lane and r.outcome = 'delivered' and send_jobs.attempts <= r.number
    and (send_jobs.state = 'queued' or send_jobs.state = 'unknown' or send_jobs.state = 'held')
    and (select 1 from send_lanes b where b.lane = send_jobs.lane and b.worker is not null
        and b.job = send_jobs.id and b.number > r.number) is null
returning id
