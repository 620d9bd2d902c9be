-- late: what ended after its lane had been taken over
-- $1 worker. A definite answer replaces the guess of the worker that took over; a success closes its job.
with m as materialized (
    select r.*, j.id as open_job
    from {rows: lane text, token bigint, worker text, job bigint, number bigint, started bigint, finished bigint, outcome text, status bigint, error text, response text, rule text}
    left join lateral (
        select id from send_jobs where id = any (array[r.job]) and lane = r.lane and attempts <= r.number
            and (state = 'queued' or state = 'unknown' or state = 'held')
            -- Not one that is being sent again.
            and (select true from send_lanes b where b.lane = send_jobs.lane and b.worker is not null
                and b.job = send_jobs.id and b.number > r.number) is null
        for no key update skip locked
    ) as j on r.outcome = 'delivered'
    where (select true from send_lanes l where l.lane = r.lane and l.token = r.token and l.worker = coalesce(r.worker, $1)) is null
        -- Rows locked by another transaction are written later.
        and (j.id is not null or (r.outcome = 'delivered') is not true or (
            select true from send_jobs g where g.id = any (array[r.job]) and g.lane = r.lane and g.attempts <= r.number
                and (g.state = 'queued' or g.state = 'unknown' or g.state = 'held')
                and (select true from send_lanes b where b.lane = g.lane and b.worker is not null
                    and b.job = g.id and b.number > r.number) is null) is null)
), attempted as (
    insert into send_attempts as a (job_id, number, started_at, finished_at, outcome, http_status, error, response, rule, worker)
    select job, number, to_timestamp(started::double precision / 1000::double precision),
        to_timestamp(finished::double precision / 1000::double precision), outcome, status, error, response, rule,
        coalesce(worker, $1)
    from m where outcome is not null and (select true from send_jobs j where j.id = any (array[m.job]) and j.lane = m.lane) order by job
    on conflict (job_id, number) do update set finished_at = excluded.finished_at, outcome = excluded.outcome,
        http_status = excluded.http_status, error = excluded.error, response = excluded.response, rule = excluded.rule
    where a.worker = excluded.worker and a.outcome = 'ambiguous' and excluded.outcome <> 'ambiguous'
), closed as (
    update send_jobs set state = 'delivered', reason = null, attempts = greatest(attempts, m.number),
        finished_at = to_timestamp(m.finished::double precision / 1000::double precision),
        last_status = coalesce(m.status, last_status), last_rule = coalesce(m.rule, last_rule), cancel_requested = false
    from m where send_jobs.id = any (array[m.open_job])
    returning page_id, send_jobs.lane
), marked as (
    insert into send_inbox (page_id, lane, look) select page_id, lane, true from closed
)
select lane, open_job is not null as is_closed from m
