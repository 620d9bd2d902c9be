-- intake: marks are taken
-- $1 the page, $2 the last of them.
delete from send_inbox where page_id = $1 and id <= $2
