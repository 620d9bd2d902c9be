-- timers: jobs join their lanes
-- $1 now, unix ms.
update send_jobs set joined_at = $1 from {rows: job bigint}
where send_jobs.id = r.job and joined_at is null
returning id as job, page_id
