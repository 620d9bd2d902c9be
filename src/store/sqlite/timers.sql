-- timers: jobs whose send_at has come
-- $1 now, unix ms, $2 how many.
-- Differs from Postgres in that there is no concurrent writer, and `timers_write.sql` lets them join.
delete from send_timers where (at, job_id) in (
    select at, job_id from send_timers where at <= $1 order by at limit 0 + $2
)
returning job_id as job
