-- take: due lanes of pages, with their heads in hand
-- $1 worker, $2 token, $3 now, $4 end of the lease, $5 1 if an unknown job blocks its lane,
-- $6 1 if a delay goes out on the wire, $7 the longest wait that a rule gives. Times are unix ms.
-- No lane of a page was due before `since` when that was looked at last.
with m as materialized (
    select l.* from {rows: page text, most bigint, since bigint} cross join lateral (
        select lane, page_id, worker, job, number, started_at, touched from send_lanes
        where page_id = r.page and due_at <= $3 and due_at >= r.since order by due_at limit r.most
        for update skip locked
    ) as l
), planned as materialized (
    select m.lane, m.page_id, m.worker, m.number, m.started_at, m.touched, c.head,
        m.worker is not null and c.head = m.job as is_lost, h.*
    from m
    cross join lateral (
        select coalesce(
            (select b.id from send_jobs b where b.id = any (array[m.job]) and b.lane = m.lane
                and (m.worker is not null or (b.state = 'queued') is not false)),
            (select u.id from send_jobs u where $5 = 1 and u.lane = any (array[m.lane]) and u.state = 'unknown'
                order by u.lane, u.id limit 1),
            (select q.id from send_jobs q where q.lane = m.lane and q.state = 'queued'
                and (q.send_at is null or q.joined_at is not null) order by q.lane, q.id limit 1)) as head
    ) as c
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
        where j.id = any (array[c.head])
            and (m.worker is not null and j.id = m.job or j.state = 'queued' or j.state = 'unknown')
        for no key update of j skip locked
    ) as h on true
), taken as (
    update send_lanes l set
        token = $2,
        due_at = case when p.id is null then $3 + 100::bigint when is_lost or ready <= $3 then $4 else ready end,
        worker = case when p.id is null or is_lost then l.worker when ready <= $3 then $1 end,
        job = case when p.id is null or is_lost then l.job when ready <= $3 or attempts > 0 then p.id end,
        number = case when p.id is null or is_lost then l.number when ready <= $3 then attempts::bigint + 1 end,
        started_at = case when p.id is null or is_lost then l.started_at when ready <= $3 then $3 end
    from planned p where l.lane = any (array[p.lane]) and p.head is not null
), over as (
    -- A new mark has touched it after this statement began: then it is kept.
    delete from send_lanes l using planned p
    where l.lane = any (array[p.lane]) and p.head is null
        and p.touched = (select s.touched from send_lanes s where s.lane = p.lane)
)
select lane, page_id, id, attempts, failures, ambiguous_attempts, expires, on_ambiguous, recipient, message, tag, delay, since,
    case when is_lost then number end as lost_number, case when is_lost then started_at end as lost_started,
    case when is_lost then worker end as lost_worker
from planned where is_lost or ready <= $3
