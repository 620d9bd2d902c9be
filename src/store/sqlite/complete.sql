-- complete: which attempts still own their lanes, and the next head there
-- $1 worker, $2 token, $3 now, $4 end of the lease, $5 1 if an unknown job blocks its lane,
-- $6 1 if a delay goes out on the wire, $7 the longest wait that a rule gives. Times are unix ms.
-- Differs from Postgres in that it reads, and `complete_write.sql` writes.
select m.at, m.becomes, m.moves, m.is_over, m.head, m.expires,
    h.id, h.attempts, h.failures, h.ambiguous_attempts, h.expires_at as expires, h.on_ambiguous,
    cast(h.recipient as text) as recipient, cast(h.message as text) as message, h.tag, h.delay,
    case when h.attempts > 0 then (
        select a.finished_at from send_attempts a where a.job_id = h.id and a.number = h.attempts) end as since,
    case when h.state = 'unknown' then null
        when h.expires_at <= $3 then $3
        when (select 1 from send_pauses p where p.scope = 'lane:' || m.lane) then null
        when h.attempts = 0 and ($6 = 1 or h.delay = 0) then $3
        when h.due_at > $3 + 60000 + case when h.attempts = 0 then h.delay * 1000 else $7 end then $3
        else min(h.due_at, coalesce(h.expires_at, h.due_at)) end as ready
from (
    select m.*, case when m.is_over then coalesce(
        (select u.id from send_jobs u where $5 = 1 and u.lane = m.lane and u.state = 'unknown'
        order by u.lane, u.id limit 1),
    (select q.id from send_jobs q where q.lane = m.lane and q.state = 'queued' and q.id <> m.job
        and (q.send_at is null or q.joined_at is not null) order by q.lane, q.id limit 1)) end as head
    from (
        select m.*, m.becomes is not null and m.becomes <> 'queued' and (m.becomes <> 'unknown' or $5 = 0) as is_over
        from (
            select r.at, r.lane, r.job, r.go, j.state = 'queued' as moves, j.expires_at as expires,
                case when j.state <> 'queued' then j.state
                    when j.cancel_requested and coalesce(r.state, 'queued') in ('queued', 'unknown') then 'cancelled'
                    when j.id is null and r.state is not null then 'gone'
                    else r.state end as becomes
            from {rows: lane text, at bigint, token bigint, worker text, job bigint, state text, go bool}
            join send_lanes l on l.lane = r.lane and l.token = r.token and l.worker = coalesce(r.worker, $1)
            left join send_jobs j on j.id = r.job and j.lane = r.lane
        ) as m
    ) as m
) as m
left join send_jobs h on h.id = case when m.go then m.head end
