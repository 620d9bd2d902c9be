-- complete: attempts end, and their lanes go on
-- $1 worker, $2 token, $3 now, $4 end of the lease, $5 1 if an unknown job blocks its lane,
-- $6 1 if a delay goes out on the wire, $7 the longest wait that a rule gives. Times are unix ms.
-- Without an outcome there was no attempt; without a state the job stays as it is and its lane is given back.
with m as materialized (
    select r.*, l.touched, j.state as was, j.cancel_requested, j.expires,
        case when j.state <> 'queued' then j.state
            when j.cancel_requested and coalesce(r.state, 'queued') in ('queued', 'unknown') then 'cancelled'
            when j.id is null and r.state is not null then 'gone'
            else r.state end as becomes
    from {rows: lane text, token bigint, worker text, job bigint, number bigint, started bigint, finished bigint, outcome text, status bigint, error text, response text, rule text, state text, failed bigint, due bigint, reason text, ambiguous bool, singled_out bigint, rest bigint, go bool}
    cross join lateral (
        select touched from send_lanes where lane = r.lane and token = r.token and worker = coalesce(r.worker, $1)
        for update skip locked
    ) as l
    left join lateral (
        select id, state, cancel_requested, ceil(extract(epoch from expires_at) * 1000::numeric)::bigint as expires
        from send_jobs where id = any (array[r.job]) and lane = r.lane for no key update skip locked
    ) as j on true
    -- Rows locked by another transaction are written later.
    where j.id is not null or (select true from send_jobs g where g.id = any (array[r.job]) and g.lane = r.lane) is null
), attempted as (
    insert into send_attempts (job_id, number, started_at, finished_at, outcome, http_status, error, response, rule, worker)
    select job, number, to_timestamp(started::double precision / 1000::double precision),
        to_timestamp(finished::double precision / 1000::double precision), outcome, status, error, response, rule,
        coalesce(worker, $1)
    from m where outcome is not null and (becomes <> 'gone') is not false order by job
    on conflict (job_id, number) do nothing
), moved as (
    update send_jobs set
        state = m.becomes,
        attempts = case when m.outcome is null then attempts else m.number end,
        finished_at = case when m.becomes in ('delivered', 'dead', 'cancelled')
            then greatest(created_at, to_timestamp(m.finished::double precision / 1000::double precision)) end,
        failures = failures + m.failed,
        due_at = coalesce(to_timestamp(m.due::double precision / 1000::double precision), due_at),
        reason = case when m.becomes <> 'cancelled' then m.reason when m.outcome is null then 'cancelled by an operator'
            else 'cancelled by an operator while it was being sent' end,
        last_status = coalesce(m.status, last_status),
        last_rule = coalesce(m.rule, last_rule),
        possible_duplicate = possible_duplicate or send_jobs.ambiguous and coalesce(m.outcome <> 'not_sent', false),
        ambiguous = send_jobs.ambiguous or m.ambiguous,
        ambiguous_attempts = ambiguous_attempts + m.singled_out,
        cancel_requested = false
    from m where send_jobs.id = any (array[m.job]) and m.was = 'queued' and m.becomes is not null
    returning send_jobs.id
), kept as (
    -- A trigger of the user's that returns null: an error, or the job would be sent for ever.
    select ('an UPDATE of send_jobs changed nothing, is there a trigger that returns null? Not changed: '::text || n::text)::bigint as n
    from (select (select count(*) from m where was = 'queued' and becomes is not null) - (select count(*) from moved) as n) as missing
    where n <> 0::bigint
), planned as materialized (
    -- A lane ends with its last job, unless a new mark touched it after this statement began.
    select m.*, c.head, h.*, coalesce(m.goes_on, false) as is_over,
        coalesce(m.goes_on, false) and c.head is null and m.rest <= $3
            and m.touched = (select s.touched from send_lanes s where s.lane = m.lane) as ends
    from (
        select lane, touched, job as of_job, number, becomes, due, expires as expires_then, rest, go,
            becomes <> 'queued' and (becomes <> 'unknown' or $5 = 0) as goes_on
        from m
    ) as m
    left join lateral (
        select coalesce(
            (select u.id from send_jobs u where $5 = 1 and u.lane = any (array[m.lane]) and u.state = 'unknown'
                order by u.lane, u.id limit 1),
            (select q.id from send_jobs q where q.lane = m.lane and q.state = 'queued' and q.id <> m.of_job
                and (q.send_at is null or q.joined_at is not null) order by q.lane, q.id limit 1)) as head
    ) as c on m.goes_on
    left join lateral (
        select j.id, j.attempts, j.failures, j.ambiguous_attempts,
            ceil(extract(epoch from j.expires_at) * 1000::numeric)::bigint as expires, j.on_ambiguous,
            j.recipient::text as recipient, j.message::text as message, j.tag, j.delay,
            case when j.attempts > 0 then (
                select ceil(extract(epoch from a.finished_at) * 1000::numeric)::bigint
                from send_attempts a where a.job_id = j.id and a.number = j.attempts) end as since,
            case when j.state = 'unknown' then null
                when j.expires_at <= to_timestamp($3::double precision / 1000::double precision) then $3
                when (select true from send_pauses p where p.scope = 'lane:' || m.lane) then null
                when j.attempts = 0 and ($6 = 1 or j.delay = 0) then $3
                when j.due_at > to_timestamp(($3 + 60000::bigint + case when j.attempts = 0 then j.delay * 1000::bigint else $7 end)::double precision / 1000::double precision) then $3
                else ceil(extract(epoch from least(j.due_at, j.expires_at)) * 1000::numeric)::bigint end as ready
        from send_jobs j
        where m.go and m.rest <= $3 and j.id = any (array[c.head])
            and (j.state = 'queued' or j.state = 'unknown')
        for no key update of j skip locked
    ) as h on true
), gone_on as (
    update send_lanes l set
        token = $2, stuck = null, rest_until = p.rest,
        due_at = case
            when becomes is null then due
            when becomes = 'queued' then greatest(least(due, p.expires_then), p.rest)
            when not is_over then null
            when p.head is null or not go or p.rest > $3 then greatest(p.rest, $3)
            when p.id is null then $3 + 100::bigint
            when ready <= $3 then $4
            else ready end,
        worker = case when ready <= $3 then $1 end,
        job = case
            when becomes = 'queued' or becomes is null and p.number > 1 then of_job
            when ready <= $3 or attempts > 0 then p.id end,
        number = case when ready <= $3 then attempts::bigint + 1 end,
        started_at = case when ready <= $3 then $3 end
    from planned p where l.lane = any (array[p.lane]) and not ends
), over as (
    delete from send_lanes l using planned p where l.lane = any (array[p.lane]) and ends
)
select lane, coalesce(ready <= $3, false) as in_hand, not ends and (ready <= $3) is not true as waits,
    id, attempts, failures, ambiguous_attempts, expires, on_ambiguous, recipient, message, tag, delay, since
from planned
where (select n from kept) is null
