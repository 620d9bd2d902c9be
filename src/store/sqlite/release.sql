-- release: claims whose commit was not confirmed were not sent
-- $1 worker, $2 token of the claims, $3 when they were made, $4 end of their lease, $5 now.
-- A lane with a lost attempt, which is of another worker or of another time, keeps it, and is due again.
update send_lanes set due_at = $5,
    worker = case when worker <> $1 or started_at <> $3 then worker end,
    job = case when worker <> $1 or started_at <> $3 or number > 1 then job end,
    number = case when worker <> $1 or started_at <> $3 then number end,
    started_at = case when worker <> $1 or started_at <> $3 then started_at end
from {rows: page text} where page_id = r.page and due_at = $4 and token = $2 and worker is not null
