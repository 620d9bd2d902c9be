-- survey: the clock, pauses, and pages with work
-- $1 the page behind which the walk goes on, $2 how many pages it walks over, $3 a job behind whom jobs are new.
-- Then pages that are asked for; the marks up to `mark` of each, and the lanes due before `due`, were looked at before.
-- Two skip scans: a probe for each page, however many lanes or marks it has. No min(): planned while a table is
-- empty, Postgres would read all of it for that.
with recursive l (page_id, n) as (
    select (select page_id from send_lanes where page_id > $1 and due_at is not null order by page_id limit 1), 1::bigint
    union all
    select (select s.page_id from send_lanes s where s.page_id > l.page_id and s.due_at is not null
        order by s.page_id limit 1), n + 1
    from l where l.page_id is not null and n < $2
), m (page_id, n) as (
    select (select page_id from send_inbox where page_id > $1 order by page_id limit 1), 1::bigint
    union all
    select (select s.page_id from send_inbox s where s.page_id > m.page_id order by s.page_id limit 1), n + 1
    from m where m.page_id is not null and n < $2
), p (page_id, is_new, mark, due) as (
    select page_id, bool_or(is_new), min(mark), min(due) from (
        select page_id, false as is_new, 0::bigint as mark, 0::bigint as due from l union all select page_id, false, 0::bigint, 0::bigint from m
        union all select page_id collate "C", true, 0::bigint, 0::bigint from (select page_id from send_jobs where id > $3 order by id limit 500) as first_of_new
        union all select page_id collate "C", true, 0::bigint, 0::bigint from (select page_id from send_jobs where id > $3 order by id desc limit 500) as last_of_new
        union all select r.page collate "C", false, r.mark, r.due from {rows: page text, mark bigint, due bigint}
    ) as found group by page_id
)
select 'now' as kind, '' as name, floor(extract(epoch from clock_timestamp()) * 1000::numeric)::bigint as at,
    null::bigint as marks, null::bigint as probe_at, false as is_new
union all select 'pause', scope, null, null, coalesce(probe_at, -1::bigint), false from send_pauses
    where scope = 'all' or scope = 'endpoint'
union all select 'timer', '', (select at from send_timers order by at limit 1), null, null, false
union all select 'newest', '', (select id from send_jobs order by id desc limit 1), null, null, false
union all select 'more', '', (select id from send_jobs where id > $3 order by id limit 1 offset 499), null, null, false
union all select 'lanes', coalesce((select page_id from l where n = $2), ''), null, null, null, false
union all select 'marks', coalesce((select page_id from m where n = $2), ''), null, null, null, false
union all select 'page', page_id,
    (select due_at from send_lanes s where s.page_id = p.page_id and s.due_at >= p.due
        order by s.due_at limit 1),
    (select 1::bigint from send_inbox s where s.page_id = p.page_id and s.id > p.mark limit 1),
    (select coalesce(probe_at, -1::bigint) from send_pauses where scope = any (array['page:' || p.page_id])),
    is_new
from p where page_id is not null
