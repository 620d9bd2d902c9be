-- take: due lanes of pages, and their heads
-- $1 worker, $2 token, $3 now, $4 end of the lease, $5 1 if an unknown job blocks its lane,
-- $6 1 if a delay goes out on the wire, $7 the longest wait that a rule gives. Times are unix ms.
-- $8 how many lanes of a page at most, since a limit cannot be a column.
-- Differs from Postgres in that it reads, and `take_write.sql` writes.
select m.lane, m.page_id, m.worker, m.number, m.started_at, m.is_lost,
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
    select l.*, l.worker is not null and l.head = l.job as is_lost from (
        select lane, page_id, worker, job, number, started_at, coalesce(
            (select b.id from send_jobs b where b.id = m.job and b.lane = m.lane and (m.worker is not null or b.state = 'queued')),
            (select u.id from send_jobs u where $5 = 1 and u.lane = m.lane and u.state = 'unknown'
        order by u.lane, u.id limit 1),
    (select q.id from send_jobs q where q.lane = m.lane and q.state = 'queued'
        and (q.send_at is null or q.joined_at is not null) order by q.lane, q.id limit 1)) as head
        from (
            select d.lane, d.page_id, d.worker, d.job, d.number, d.started_at,
                row_number() over (partition by d.page_id order by d.due_at) <= r.most as may
            from {rows: page text, most bigint, since bigint} cross join send_lanes d on d.lane in (
                select lane from send_lanes where page_id = r.page and due_at <= $3 and due_at >= r.since order by due_at limit 0 + $8)
        ) as m
        where may
    ) as l
) as m
left join send_jobs h on h.id = m.head
