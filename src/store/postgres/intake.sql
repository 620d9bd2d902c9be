-- intake: marks become lanes, with their heads in hand
-- $1 worker, $2 token, $3 now, $4 end of the lease, $5 1 if an unknown job blocks its lane,
-- $6 1 if a delay goes out on the wire, $7 the longest wait that a rule gives. Times are unix ms.
-- The marks of a page up to `after` were taken before.
{batch: page text, most bigint, slots bigint, after bigint}with gone as (
    delete from send_inbox where ctid = any (array(
        select i.at from {rows: page text, most bigint, after bigint} cross join lateral (
            select ctid as at from send_inbox where page_id = r.page and id > r.after order by id limit r.most
            for update skip locked
        ) as i
    ))
    returning page_id, id, lane, look
), marked as materialized (
    select m.*, row_number() over (partition by page_id, is_there order by lane)
            <= (select r.slots from {rows: page text, slots bigint} where r.page = m.page_id) as may
    from (
        select g.lane, min(g.page_id) as page_id, bool_or(g.look) as look, count(*) as marks, max(g.id) as last,
            (select true from send_lanes l where l.lane = g.lane) is not null as is_there
        from gone g group by g.lane
    ) as m
), planned as materialized (
    -- A locked head is retried soon; no other job may overtake it.
    select m.lane, m.page_id, m.look, m.may, c.head, h.*
    from marked m
    left join lateral (
        select coalesce(
            (select u.id from send_jobs u where $5 = 1 and u.lane = any (array[m.lane]) and u.state = 'unknown'
                order by u.lane, u.id limit 1),
            (select q.id from send_jobs q where q.lane = m.lane and q.state = 'queued'
                and (q.send_at is null or q.joined_at is not null) order by q.lane, q.id limit 1)) as head
    ) as c on m.may
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
        where j.id = any (array[c.head]) and (j.state = 'queued' or j.state = 'unknown')
        for no key update of j skip locked
    ) as h on true
    where not m.is_there
), born as (
    -- Blocks only on transactions that insert or delete the same lane, in lane order.
    insert into send_lanes (lane, page_id, due_at, worker, token, job, number, started_at)
    select lane, page_id,
        case when not may then $3 when id is null then $3 + 100::bigint when ready <= $3 then $4 else ready end,
        case when ready <= $3 then $1 end, $2,
        case when ready <= $3 or attempts > 0 then id end,
        case when ready <= $3 then attempts::bigint + 1 end,
        case when ready <= $3 then $3 end
    from planned where not may or head is not null order by lane collate "C"
    on conflict (lane) do nothing
    returning lane, worker is not null as in_hand
), free as materialized (
    select l.lane, m.look from marked m join send_lanes l on l.lane = any (array[m.lane])
    where m.is_there for update of l skip locked
), touched as (
    -- A new job behind a waiting head must not wake it; a mark of an operator or a timer must.
    update send_lanes l set touched = touched + 1,
        due_at = case when f.look and worker is null then greatest(rest_until, $3) else due_at end
    from free f where l.lane = any (array[f.lane])
    returning l.lane
), kept as (
    -- Lanes locked by another transaction keep their marks.
    insert into send_inbox (page_id, lane, look)
    select min(page_id), lane, bool_or(look) from (
        select lane, page_id, look, 1 as missing from marked where is_there
        union all select lane, page_id, look, 1 from planned where not may or head is not null
        union all select lane, null, null, -1 from born
        union all select lane, null, null, -1 from touched
    ) as m group by lane having sum(missing) > 0::bigint
)
select lane, page_id, false as in_hand, id, attempts, failures, ambiguous_attempts, expires, on_ambiguous, recipient, message, tag, delay, since from planned where ready <= $3
union all select lane, null, true, null, null, null, null, null, null, null, null, null, null, null from born where in_hand
union all select null, page_id, false, sum(marks)::bigint, max(last), null, null, null, null, null, null, null, null, null from marked group by page_id
union all select null, null, false, null, (select count(*) from born), (select count(*) from free where look), null, null, null, null, null, null, null, null
