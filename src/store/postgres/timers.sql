-- timers: jobs whose send_at has come
-- $1 now, unix ms, $2 how many. Locked jobs are looked at again in a moment; a timer without a job goes.
with due as materialized (
    select t.place, t.job_id, j.id as job, (select true from send_jobs g where g.id = any (array[t.job_id])) as is_there
    from (
        select ctid as place, job_id from send_timers where at <= $1 order by at limit $2 for update skip locked
    ) as t
    left join lateral (
        select id from send_jobs where id = any (array[t.job_id]) for no key update skip locked
    ) as j on true
), put_off as (
    update send_timers set at = $1 + 100::bigint
    where ctid = any (array(select place from due where job is null and is_there))
), gone as (
    delete from send_timers where ctid = any (array(select place from due where job is not null or is_there is null))
), joined as (
    update send_jobs set joined_at = to_timestamp($1::double precision / 1000::double precision)
    from due where send_jobs.id = any (array[due.job]) and joined_at is null
    returning page_id, lane
), marked as (
    insert into send_inbox (page_id, lane, look) select page_id, lane, true from joined
)
select page_id from joined
union all select null from due
