-- The queue: what producers insert, the lanes workers lease, the history of attempts.
-- Producers insert into send_jobs alone; the triggers below only append, so an INSERT
-- never waits and locks nothing that another producer or a worker holds.
-- Names that are looked up by the thousand are compared byte by byte (collate "C"), not by the
-- rules of a language.

-- What a row must be, in one function: Postgres parses each CHECK of a table anew for every statement that writes it. It
-- says which rule is broken as a CHECK of that name would. What an INSERT has passed cannot change later: once
-- attempts have begun, the expensive rules are skipped.
create function send_jobs_check(
    page_id text, recipient json, message json, tag text, delay integer, send_at timestamptz, expires_at timestamptz,
    ordering_key text, idempotency_key text, on_ambiguous text, metadata text, state text, attempts integer, failures integer,
    due_at timestamptz, created_at timestamptz, finished_at timestamptz
) returns boolean language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    broken text := case
        when attempts > 0 then null
        when page_id !~ '^[1-9][0-9]*$' or length(page_id) > 40 then 'page_id_is_a_positive_number'
        when json_typeof(recipient) <> 'object' then 'recipient_is_an_object'
        when (recipient -> 'id' is not null)::int + (recipient -> 'phone' is not null)::int
            + (recipient -> 'email' is not null)::int + (recipient -> 'uuid' is not null)::int <> 1
            then 'recipient_has_exactly_one_of_id_phone_email_uuid'
        when json_typeof(coalesce(recipient -> 'id', recipient -> 'phone', recipient -> 'email', recipient -> 'uuid')) <> 'string'
            or (coalesce(recipient ->> 'id', recipient ->> 'phone', recipient ->> 'email', recipient ->> 'uuid') ~ '[^[:space:]]') is not true
            then 'recipient_value_is_a_non_blank_string'
        when octet_length(recipient::text) > 1024 then 'recipient_is_at_most_1024_bytes'
        when json_typeof(message) <> 'object' then 'message_is_an_object'
        when octet_length(message::text) > 65536 then 'message_is_at_most_64_kib'
        when octet_length(metadata) > 65536 then 'metadata_is_at_most_64_kib'
    end;
begin
    broken := coalesce(broken, case
        when octet_length(tag) > 100 then 'tag_is_at_most_100_bytes'
        when delay not between 0 and 10 then 'delay_is_between_0_and_10'
        when send_at not between '1970-01-01 00:00:00+00' and '9999-12-30 00:00:00+00' then 'send_at_is_a_finite_time'
        when expires_at not between '1970-01-01 00:00:00+00' and '9999-12-30 00:00:00+00' then 'expires_at_is_a_finite_time'
        when created_at not between '1970-01-01 00:00:00+00' and '9999-12-31 00:00:00+00'
            or due_at not between '1970-01-01 00:00:00+00' and '9999-12-31 00:00:00+00' then 'workers_times_are_finite'
        when octet_length(ordering_key) not between 1 and 1024 then 'ordering_key_is_1_to_1024_bytes'
        when octet_length(idempotency_key) not between 1 and 1024 then 'idempotency_key_is_1_to_1024_bytes'
        when on_ambiguous not in ('retry', 'hold') then 'on_ambiguous_is_retry_or_hold'
        when state not in ('queued', 'delivered', 'dead', 'unknown', 'held', 'cancelled') then 'state_is_known'
        when attempts not between 0 and 2000000000 or failures not between 0 and 2000000000 then 'attempts_and_failures_are_counts'
        when (finished_at is not null) <> (state in ('delivered', 'dead', 'cancelled')) then 'finished_at_is_set_when_final'
    end);
    if broken is not null then
        raise exception 'new row for relation "send_jobs" violates check constraint "%"', broken
            using errcode = 'check_violation', table = 'send_jobs', constraint = broken;
    end if;
    return true;
end
$$;
-- Also where functions are not granted to public by default.
grant execute on function send_jobs_check to public;

create table send_jobs (
    id bigint generated always as identity primary key,
    -- what producers write
    page_id text not null,
    recipient json not null,
    message json not null,
    tag text,
    delay integer not null default 0,
    send_at timestamptz,
    expires_at timestamptz,
    ordering_key text,
    idempotency_key text,
    on_ambiguous text,
    metadata json,
    -- what workers write
    lane text collate "C" generated always as (
        page_id || '/' || case
            when ordering_key is not null then 'key:' || ordering_key
            when recipient -> 'id' is not null then 'id:' || (recipient ->> 'id')
            when recipient -> 'phone' is not null then 'phone:' || (recipient ->> 'phone')
            when recipient -> 'email' is not null then 'email:' || (recipient ->> 'email')
            when recipient -> 'uuid' is not null then 'uuid:' || (recipient ->> 'uuid')
        end
    ) stored,
    state text not null default 'queued',
    attempts integer not null default 0,
    failures integer not null default 0,
    possible_duplicate boolean not null default false,
    requeued_from bigint,
    due_at timestamptz not null default clock_timestamp(),
    reason text,
    last_status integer,
    -- the rule that judged the last attempt
    last_rule text,
    created_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    -- when a job with send_at joined its lane
    joined_at timestamptz,
    -- when an operator held it; null while it is not held
    held_at timestamptz,
    -- some attempt ended ambiguous: sending it again may repeat it
    ambiguous boolean not null default false,
    -- those of them that ended so while other lanes were delivered
    ambiguous_attempts bigint not null default 0,
    -- an operator cancelled it while it was being sent
    cancel_requested boolean not null default false,

    -- As text: a user may make jsonb of it.
    constraint send_jobs_checked check (send_jobs_check(
        page_id, recipient, message, tag, delay, send_at, expires_at, ordering_key, idempotency_key, on_ambiguous,
        metadata::text, state, attempts, failures, due_at, created_at, finished_at
    ))
);

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
    job_id bigint not null,
    number integer not null,
    started_at timestamptz not null,
    finished_at timestamptz not null,
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
    ),
    constraint times_are_finite check (
        started_at between '1970-01-01 00:00:00+00' and '9999-12-31 00:00:00+00'
        and finished_at between '1970-01-01 00:00:00+00' and '9999-12-31 00:00:00+00'
    )
);

-- One row for each lane with undelivered work. While worker is set, job is in hand: attempt number of it may be on
-- the wire. This row is the record of that attempt, committed before its first byte. due_at says when the
-- lane may next be touched (unix ms): when its head is due, when the worker's lease ends, or null while it is
-- blocked.
create table send_lanes (
    lane text collate "C" primary key,
    page_id text collate "C" not null,
    due_at bigint,
    worker text,
    -- of the last statement that took or left the lane; never the same twice
    token bigint not null default 0,
    -- in hand, or, without a worker, begun and waiting for its next attempt
    job bigint,
    number bigint,
    started_at bigint,
    -- how many times a mark has come for it
    touched bigint not null default 0,
    -- not before this, whatever is marked: the lane rests after its last request
    rest_until bigint not null default 0,
    -- why the outcome of its job could not be recorded
    stuck text,
    constraint worker_has_a_job check (worker is null or (job is not null and number is not null and started_at is not null))
) with (fillfactor = 70);
create index send_lanes_due on send_lanes (page_id, due_at) where due_at is not null;
create index send_lanes_blocked on send_lanes (page_id, lane) where due_at is null;

-- Where each job is; `sending` while its lane has it in hand.
create view send_status as
select j.id, j.page_id, j.lane, case when l.worker is not null and j.state = 'queued' then 'sending' else j.state end as state,
    l.number, to_timestamp(l.started_at::double precision / 1000::double precision) as started_at, l.worker, j.due_at, j.reason, j.last_rule
from send_jobs j left join send_lanes l on l.lane = j.lane and l.job = j.id and l.worker is not null;

-- Marks: "look at this lane". Appended by the trigger and by operators' verbs, taken by ledgers.
create table send_inbox (
    page_id text collate "C" not null,
    id bigint generated always as identity,
    lane text collate "C" not null,
    -- wake the lane even while it waits: the lane changed other than by a new job
    look boolean not null default false,
    primary key (page_id, id)
);

-- Jobs with send_at, until they join their lanes (unix ms).
create table send_timers (
    at bigint not null,
    job_id bigint not null,
    primary key (at, job_id)
);

-- What must not be sent now: 'all', 'endpoint', 'page:ID' or 'lane:LANE'. With probe_at (unix ms) a
-- worker paused it: then a job is sent to see whether it is well, and next after wait_ms more. rule judged
-- the last answer; pages are the first that failed, if it is the endpoint; suspect: what may be to blame.
create table send_pauses (
    scope text collate "C" primary key,
    since timestamptz not null default clock_timestamp(),
    who text not null,
    why text,
    rule text,
    pages text,
    suspect text,
    probe_at bigint,
    wait_ms bigint not null default 0,
    constraint scope_is_known check (scope = 'all' or scope = 'endpoint' or scope like 'page:%' or scope like 'lane:%'),
    constraint suspect_is_known check (suspect in ('page', 'people', 'endpoint'))
);

-- When the rate of a page allows its next request (unix microseconds), for all workers.
create table send_rates (
    page_id text collate "C" primary key,
    next_at bigint not null
);

-- Who changed what, and why.
create table send_audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    who text not null,
    verb text not null,
    what text not null,
    changed bigint not null,
    why text
);

-- Workers that sleep and want to be woken; an expired row wakes no worker.
create table send_sleepers (
    worker text primary key,
    until timestamptz not null
);

-- Lease tokens, drawn a thousand at a time: never repeat, whatever happens to a lane's row.
create sequence send_tokens increment by 1000;

-- A binary works on a schema if it is not older than compatible_from.
create table send_schema (
    version integer primary key,
    compatible_from integer not null
);
insert into send_schema (version, compatible_from) values (1, 1);

-- The functions run in producers' sessions, where a name may mean whatever a producer has made: a table
-- in pg_temp, an operator that fits better. So each has a search_path of its own, with pg_temp last.
create function send_jobs_due() returns trigger language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    if new.attempts <> 0 or new.failures <> 0 then
        raise exception 'attempts and failures are written by workers: leave them out of the INSERT'
            using errcode = 'check_violation', constraint = 'attempts_begin_at_0';
    end if;
    new.due_at := coalesce(new.send_at, new.created_at) + new.delay * interval '1 second';
    return new;
end
$$;
create trigger send_jobs_due before insert on send_jobs for each row
    when (new.delay <> 0 or new.send_at is not null or new.attempts <> 0 or new.failures <> 0)
    execute function send_jobs_due();

-- Runs with its owner's rights: a producer needs INSERT on send_jobs and nothing else. Its search_path is the
-- schema of its tables, pinned below. Its operators take exactly the types that they are given: no operator
-- created in that schema can match better.
create function send_jobs_mark() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    insert into send_inbox (page_id, lane) select page_id, lane from inserted where send_at is null;
    if exists (select from inserted where send_at is not null) then
        insert into send_timers (at, job_id)
            select ceil(extract(epoch from send_at) * 1000::numeric)::bigint, id from inserted where send_at is not null;
    end if;
    if exists (select from send_sleepers where until > clock_timestamp()) then
        perform pg_notify('postlane', '');
    end if;
    return null;
end
$$;
create trigger send_jobs_mark after insert on send_jobs
    referencing new table as inserted for each statement execute function send_jobs_mark();

-- Names the schema itself, not "$user": a restore may have another owner. `postlane migrate` does it again, for a
-- schema that was renamed.
do $$ begin
    execute format('alter function %I.send_jobs_mark() set search_path = %I, pg_temp', current_schema(), current_schema());
end $$;
