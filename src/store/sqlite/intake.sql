-- intake: what the marks of pages say, and the heads of their new lanes
-- $1 worker, $2 token, $3 now, $4 end of the lease, $5 1 if an unknown job blocks its lane,
-- $6 1 if a delay goes out on the wire, $7 the longest wait that a rule gives. Times are unix ms.
-- $8 how many marks of a page, since a limit cannot be a column.
-- Differs from Postgres in that it reads, and `intake_write.sql` writes: SQLite cannot write in a `with`.
-- There is no concurrent writer.
select m.lane, m.page_id, m.look, m.marks, m.last, m.is_there, m.may,
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
    select lane, page_id, look, marks, last, is_there,
        not is_there and row_number() over (partition by page_id, is_there order by lane) <= slots as may
    from (
        select i.lane, r.page as page_id, max(i.look) as look, count(*) as marks, r.last, r.slots,
            (select 1 from send_lanes l where l.lane = i.lane) is not null as is_there
        from (
            select page, slots, after, (
                select max(id) from (select id from send_inbox where page_id = r.page and id > r.after order by id limit 0 + $8)
            ) as last
            from {rows: page text, slots bigint, after bigint}
        ) as r cross join send_inbox as i indexed by send_inbox_page on i.page_id = r.page and i.id > r.after and i.id <= r.last
        group by i.lane
    )
) as m
left join send_jobs h on h.id = case when m.may then coalesce(
    (select u.id from send_jobs u where $5 = 1 and u.lane = m.lane and u.state = 'unknown'
        order by u.lane, u.id limit 1),
    (select q.id from send_jobs q where q.lane = m.lane and q.state = 'queued'
        and (q.send_at is null or q.joined_at is not null) order by q.lane, q.id limit 1)) end
