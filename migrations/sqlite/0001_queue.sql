-- The queue: what producers insert, the lanes workers lease, the history of attempts.
-- Differs from Postgres in that times are unix milliseconds, JSON is text, flags are 0 and 1,
-- and the database wakes no worker. Triggers, checks and defaults run inside the
-- producer's library: they use nothing that SQLite 3.40 lacks. No check or predicate says `in` to
-- more than two words: SQLite would build a table of them for each row that is written.

create table send_jobs (
    id integer primary key autoincrement,
    -- what producers write
    page_id text not null,
    recipient text not null,
    message text not null,
    tag text,
    delay integer not null default 0,
    send_at integer,
    expires_at integer,
    ordering_key text,
    idempotency_key text,
    on_ambiguous text,
    metadata text,
    -- what workers write
    lane text generated always as (
        page_id || '/' || case
            when ordering_key is not null then 'key:' || ordering_key
            when not json_valid(recipient) then null
            when json_type(recipient, '$.id') is not null then 'id:' || json_extract(recipient, '$.id')
            when json_type(recipient, '$.phone') is not null then 'phone:' || json_extract(recipient, '$.phone')
            when json_type(recipient, '$.email') is not null then 'email:' || json_extract(recipient, '$.email')
            when json_type(recipient, '$.uuid') is not null then 'uuid:' || json_extract(recipient, '$.uuid')
        end
    ) stored,
    state text not null default 'queued',
    attempts integer not null default 0,
    failures integer not null default 0,
    possible_duplicate integer not null default 0,
    requeued_from integer,
    due_at integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer)),
    reason text,
    last_status integer,
    -- the rule that judged the last attempt
    last_rule text,
    created_at integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer)),
    finished_at integer,
    -- when a job with send_at joined its lane
    joined_at integer,
    -- when an operator held it; null while it is not held
    held_at integer,
    -- some attempt ended ambiguous: sending it again may repeat it
    ambiguous integer not null default 0,
    -- those of them that ended so while other lanes were delivered
    ambiguous_attempts integer not null default 0,
    -- an operator cancelled it while it was being sent
    cancel_requested integer not null default 0,

    -- after the highest id there is, no INSERT works any more
    constraint id_is_below_2_to_the_62 check (id < 4611686018427387904),
    constraint page_id_is_a_positive_number check (
        page_id glob '[1-9]*' and not page_id glob '*[^0-9]*' and length(page_id) <= 40
    ),
    constraint recipient_is_json check (json_valid(recipient)),
    constraint recipient_is_an_object check (
        case when json_valid(recipient) then json_type(recipient) = 'object' else 1 end
    ),
    constraint recipient_has_exactly_one_of_id_phone_email_uuid check (
        case when json_valid(recipient) then
            (json_type(recipient, '$.id') is not null) + (json_type(recipient, '$.phone') is not null)
            + (json_type(recipient, '$.email') is not null) + (json_type(recipient, '$.uuid') is not null) = 1
        else 1 end
    ),
    constraint recipient_value_is_a_non_blank_string check (
        case when json_valid(recipient) then
            coalesce(json_type(recipient, '$.id'), json_type(recipient, '$.phone'),
                     json_type(recipient, '$.email'), json_type(recipient, '$.uuid'), 'text') = 'text'
            and trim(coalesce(json_extract(recipient, '$.id'), json_extract(recipient, '$.phone'),
                              json_extract(recipient, '$.email'), json_extract(recipient, '$.uuid'), 'none'),
                     char(9, 10, 11, 12, 13, 32)) <> ''
            and instr(recipient, '\u0000') = 0
        else 1 end
    ),
    constraint recipient_is_at_most_1024_bytes check (length(cast(recipient as blob)) <= 1024),
    constraint message_is_json check (json_valid(message)),
    constraint message_is_an_object check (
        case when json_valid(message) then json_type(message) = 'object' else 1 end
    ),
    constraint message_is_at_most_64_kib check (length(cast(message as blob)) <= 65536),
    constraint tag_is_at_most_100_bytes check (length(cast(tag as blob)) <= 100),
    constraint delay_is_between_0_and_10 check (delay between 0 and 10),
    -- from 1973 on: what is less was meant as seconds
    constraint send_at_is_unix_milliseconds check (send_at between 100000000000 and 253402128000000),
    constraint expires_at_is_unix_milliseconds check (expires_at between 100000000000 and 253402128000000),
    constraint workers_times_are_unix_milliseconds check (
        created_at between 0 and 253402214400000 and due_at between 0 and 253402214400000
    ),
    constraint attempts_and_failures_are_counts check (
        attempts between 0 and 2000000000 and failures between 0 and 2000000000
    ),
    constraint ordering_key_is_1_to_1024_bytes check (
        length(cast(ordering_key as blob)) between 1 and 1024 and instr(ordering_key, char(0)) = 0
    ),
    constraint idempotency_key_is_1_to_1024_bytes check (
        length(cast(idempotency_key as blob)) between 1 and 1024
    ),
    constraint on_ambiguous_is_retry_or_hold check (on_ambiguous in ('retry', 'hold')),
    constraint metadata_is_json check (metadata is null or json_valid(metadata)),
    constraint metadata_is_at_most_64_kib check (length(cast(metadata as blob)) <= 65536),
    constraint state_is_known check (
        state = 'queued' or state = 'delivered' or state = 'dead' or state = 'unknown'
        or state = 'held' or state = 'cancelled'
    ),
    constraint finished_at_is_set_when_final check (
        (finished_at is not null) = (state = 'delivered' or state = 'dead' or state = 'cancelled')
    )
) strict;

-- A producer's second INSERT with the same key fails.
create unique index send_jobs_idempotency_key on send_jobs (page_id, idempotency_key)
    where idempotency_key is not null;
-- The next job of a lane is its lowest entry here; so is the one that it has in hand.
create index send_jobs_lane on send_jobs (lane, id)
    where state = 'queued' and (send_at is null or joined_at is not null);
-- Jobs that have not joined their lanes yet: each has a row in send_timers.
create index send_jobs_scheduled on send_jobs (send_at, id)
    where state = 'queued' and send_at is not null and joined_at is null;
create index send_jobs_unknown on send_jobs (lane, id) where state = 'unknown';
-- What ended badly, for producers.
create index send_jobs_ended_badly on send_jobs (id) where state in ('dead', 'unknown');
-- What retention may take.
create index send_jobs_delivered on send_jobs (finished_at, id) where state = 'delivered';
create index send_jobs_ended on send_jobs (finished_at, id) where state in ('dead', 'cancelled');
-- What operators hold, by when.
create index send_jobs_held on send_jobs (held_at, id) where state = 'held';
create index send_jobs_requeued_from on send_jobs (requeued_from) where requeued_from is not null;

-- One row for each attempt that has ended; never changed, but for a late answer that replaces a guess.
create table send_attempts (
    job_id integer not null,
    number integer not null,
    started_at integer not null,
    finished_at integer not null,
    outcome text not null,
    http_status integer,
    error text,
    response text,
    rule text,
    worker text not null,
    primary key (job_id, number),
    constraint outcome_is_known check (
        outcome = 'delivered' or outcome = 'refused' or outcome = 'retryable' or outcome = 'throttled'
        or outcome = 'not_sent' or outcome = 'ambiguous'
    )
) strict, without rowid;

-- One row for each lane with undelivered work. While worker is set, job is in hand: attempt number of it may be on
-- the wire. This row is the record of that attempt, committed before its first byte. due_at says when the
-- lane may next be touched: when its head is due, when the worker's lease ends, or null while it is blocked.
create table send_lanes (
    lane text not null primary key,
    page_id text not null,
    due_at integer,
    worker text,
    -- of the last statement that took or left the lane; never the same twice
    token integer not null default 0,
    -- in hand, or, without a worker, begun and waiting for its next attempt
    job integer,
    number integer,
    started_at integer,
    -- how many times a mark has come for it
    touched integer not null default 0,
    -- not before this, whatever is marked: the lane rests after its last request
    rest_until integer not null default 0,
    -- why the outcome of its job could not be recorded
    stuck text,
    constraint worker_has_a_job check (worker is null or (job is not null and number is not null and started_at is not null))
) strict, without rowid;
create index send_lanes_due on send_lanes (page_id, due_at) where due_at is not null;
create index send_lanes_blocked on send_lanes (page_id, lane) where due_at is null;

-- Where each job is; `sending` while its lane has it in hand.
create view send_status as
select j.id, j.page_id, j.lane, case when l.worker is not null and j.state = 'queued' then 'sending' else j.state end as state,
    l.number, l.started_at as started_at, l.worker, j.due_at, j.reason, j.last_rule
from send_jobs j left join send_lanes l on l.lane = j.lane and l.job = j.id and l.worker is not null;

-- Marks: "look at this lane". Appended by the trigger and by operators' verbs, taken by ledgers.
create table send_inbox (
    id integer primary key autoincrement,
    page_id text not null,
    lane text not null,
    -- wake the lane even while it waits: the lane changed other than by a new job
    look integer not null default 0
) strict;
create index send_inbox_page on send_inbox (page_id, id);

-- Jobs with send_at, until they join their lanes.
create table send_timers (
    at integer not null,
    job_id integer not null,
    primary key (at, job_id)
) strict, without rowid;

-- What must not be sent now: 'all', 'endpoint', 'page:ID' or 'lane:LANE'. With probe_at a worker paused
-- it: then a job is sent to see whether it is well, and next after wait_ms more. rule judged the last
-- answer; pages are the first that failed, if it is the endpoint; suspect: what may be to blame.
create table send_pauses (
    scope text not null primary key,
    since integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer)),
    who text not null,
    why text,
    rule text,
    pages text,
    suspect text,
    probe_at integer,
    wait_ms integer not null default 0,
    constraint scope_is_known check (scope = 'all' or scope = 'endpoint' or scope like 'page:%' or scope like 'lane:%'),
    constraint suspect_is_known check (suspect in ('page', 'people', 'endpoint'))
) strict;

-- When the rate of a page allows its next request (unix microseconds), for all workers.
create table send_rates (
    page_id text not null primary key,
    next_at integer not null
) strict;

-- Who changed what, and why.
create table send_audit (
    id integer primary key autoincrement,
    at integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer)),
    who text not null,
    verb text not null,
    what text not null,
    changed integer not null,
    why text
) strict;

-- Lease tokens, drawn a thousand at a time: never repeat, whatever happens to a lane's row.
create table send_tokens (value integer not null) strict;
insert into send_tokens (value) values (0);

-- A binary works on a schema if it is not older than compatible_from.
create table send_schema (
    version integer primary key,
    compatible_from integer not null
) strict;
insert into send_schema (version, compatible_from) values (1, 1);

create trigger send_jobs_due after insert on send_jobs
    when new.delay <> 0 or new.send_at is not null
begin
    update send_jobs set due_at = coalesce(new.send_at, new.created_at) + new.delay * 1000 where id = new.id;
end;
create trigger send_jobs_fresh before insert on send_jobs when new.attempts <> 0 or new.failures <> 0
begin
    select raise(abort, 'attempts and failures are written by workers: leave them out of the INSERT');
end;

create trigger send_jobs_mark after insert on send_jobs when new.send_at is null
begin
    insert into send_inbox (page_id, lane) values (new.page_id, new.lane);
end;
create trigger send_jobs_timer after insert on send_jobs when new.send_at is not null
begin
    insert into send_timers (at, job_id) values (new.send_at, new.id);
end;
