-- release: claims whose commit was not confirmed were not sent
-- $1 worker, $2 token of the claims, $3 when they were made, $4 end of their lease, $5 now.
update send_lanes set worker = null, due_at = $5, job = case when number > 1 then job end,
    number = null, started_at = null
from {rows: page text} where page_id = any (array[r.page]) and due_at = $4 and worker = $1 and token = $2 and started_at = $3
