-- intake: marks are taken
-- Of each page from `after` up to the last of them.
delete from send_inbox where id in (
    select i.id from {rows: page text, after bigint, last bigint} cross join send_inbox as i indexed by send_inbox_page on i.page_id = r.page and i.id > r.after and i.id <= r.last
)
