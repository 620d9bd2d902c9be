-- survey: the clock, pauses, and pages with work
-- Differs from Postgres in the clock's spelling.
with recursive l (page_id, n) as (
    select (select page_id from send_lanes where page_id > $1 and due_at is not null order by page_id limit 1), 1
    union all
    select (select s.page_id from send_lanes s where s.page_id > l.page_id and s.due_at is not null
        order by s.page_id limit 1), n + 1
    from l where l.page_id is not null and n < $2
), m (page_id, n) as (
    select (select page_id from send_inbox where page_id > $1 order by page_id limit 1), 1
    union all
    select (select s.page_id from send_inbox s where s.page_id > m.page_id order by s.page_id limit 1), n + 1
    from m where m.page_id is not null and n < $2
), p (page_id, is_new, mark, due) as (
    select page_id, max(is_new), min(mark), min(due) from (
        select page_id, 0 as is_new, 0 as mark, 0 as due from l union all select page_id, 0, 0, 0 from m
        union all select page_id, 1, 0, 0 from (select page_id from send_jobs where id > $3 order by id limit 500) as first_of_new
        union all select page_id, 1, 0, 0 from (select page_id from send_jobs where id > $3 order by id desc limit 500) as last_of_new
        union all select r.page, 0, r.mark, r.due from {rows: page text, mark bigint, due bigint}
    ) as found group by page_id
)
select 'now' as kind, '' as name, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) as at,
    null as marks, null as probe_at, 0 as is_new
union all select 'pause', scope, null, null, coalesce(probe_at, -1), 0 from send_pauses
    where scope = 'all' or scope = 'endpoint'
union all select 'timer', '', (select at from send_timers order by at limit 1), null, null, 0
union all select 'newest', '', (select id from send_jobs order by id desc limit 1), null, null, 0
union all select 'more', '', (select id from send_jobs where id > $3 order by id limit 1 offset 499), null, null, 0
union all select 'lanes', coalesce((select page_id from l where n = $2), ''), null, null, null, 0
union all select 'marks', coalesce((select page_id from m where n = $2), ''), null, null, null, 0
union all select 'page', page_id,
    (select due_at from send_lanes s where s.page_id = p.page_id and s.due_at >= p.due
        order by s.due_at limit 1),
    (select 1 from send_inbox s where s.page_id = p.page_id and s.id > p.mark limit 1),
    (select coalesce(probe_at, -1) from send_pauses where scope = 'page:' || p.page_id),
    is_new
from p where page_id is not null
