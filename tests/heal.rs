//! What the sweeper puts right, and what must not keep it from that.

mod support;

use std::sync::Arc;
use std::time::Duration;

use postlane::events::Events;
use postlane::judge::Answer;
use postlane::store::Pool;
use postlane::store::heal::Healer;
use postlane::store::operate::{self, Operator};
use postlane::store::prune::{self, Kind, Place};
use postlane::store::rates;
use postlane::sweep::{Retention, sweep};
use support::{Db, Engine, Steps};
use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3600);

/// Heals until the end of everything; how many were mended.
async fn heals(db: &Db, now: i64) -> usize {
    let (mut healer, mut mended) = (Healer::default(), 0);
    loop {
        mended += healer.heal(&db.pool, now, HOUR, 7).await.expect("heals");
        if healer.is_at_start() {
            return mended;
        }
    }
}

/// One request of a page that may send ten a second.
async fn draw(db: &Db, page: &str) -> rates::Drawn {
    let pages = [(page.into(), (10.0, 1))].into();
    let drawn = rates::draw(&db.pool, &pages).await.expect("draws");
    drawn[0].1
}

both! {
    a_job_with_send_at_whose_timer_was_never_written_is_sent_at_its_time, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let at = worker.now + 5_000;
        for n in 0..20 {
            db.insert_with(&format!("r{n}"), "x", &[("send_at", &db.time(at)), ("delay", "2")]).await;
        }
        // As after replication: the triggers did not fire.
        db.sql("delete from send_timers where job_id > 5").await.expect("deletes");
        db.sql("update send_jobs set due_at = created_at where id > 5").await.expect("updates");
        assert_eq!(heals(&db, worker.now).await, 15);
        assert_eq!(heals(&db, worker.now).await, 0, "once");
        worker.now = at - 1;
        assert!(worker.claims().await.is_empty(), "before its time");
        worker.now = at + 1_999;
        assert!(worker.claims().await.is_empty(), "before its delay");
        worker.now = at + 2_000;
        assert_eq!(worker.deliver_all().await.len(), 20);
    }

    a_lane_that_nothing_blocks_any_more_goes_on, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let first = db.insert_with("a", "1", &[("on_ambiguous", "'hold'")]).await;
        let second = db.insert("a", "2").await;
        let claim = worker.claims().await.remove(0);
        worker.answer_with(claim, &Answer::lost("gone"));
        worker.claims().await;
        assert_eq!(db.state(first).await, "unknown");
        assert_eq!(heals(&db, worker.now).await, 0, "it is blocked for a reason");
        db.sql(&format!("delete from send_jobs where id = {first}")).await.expect("deletes");
        assert!(worker.claims().await.is_empty());
        assert_eq!(heals(&db, worker.now).await, 1);
        assert_eq!(heals(&db, worker.now).await, 0, "its mark lies there already");
        assert_eq!(worker.deliver_all().await, [second]);
    }

    many_marks_of_one_page_keep_no_lane_of_another_from_being_healed, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        for n in 0..150 {
            db.insert_on("2", &format!("r{n}"), "x", &[]).await;
        }
        let lost = db.insert("a", "x").await;
        db.sql("delete from send_inbox where page_id = '1'").await.expect("deletes");
        let later = db.pool.now().await.expect("now") + 61_000;
        assert_eq!(heals(&db, later).await, 1);
        worker.now = later;
        assert!(worker.deliver_all().await.contains(&lost));
    }

    what_waits_for_a_clock_that_was_set_back_is_due, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let (hour, now) = (3_600_000, worker.now);
        // A producer whose clock was an hour ahead, and a job behind it.
        let at = db.time(now + 2 * hour);
        let first = db.insert_with("a", "1", &[("created_at", &at), ("due_at", &at)]).await;
        let second = db.insert("a", "2").await;
        assert_eq!(worker.deliver_all().await, [first, second]);

        // A lane in its backoff when the database's clock was set back.
        worker.now = now + 2 * hour;
        let third = db.insert("b", "3").await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 503);
        worker.claims().await;
        worker.now = now;
        assert!(worker.claims().await.is_empty());
        assert!(heals(&db, now).await > 0);
        assert_eq!(worker.deliver_all().await, [third]);
        assert_eq!(heals(&db, now).await, 0);
    }

    a_rate_that_is_ahead_of_a_clock_that_was_set_back_waits_for_one_request, |db| {
        let drawn = draw(&db, "1").await;
        assert_eq!(drawn.granted, 1);
        db.sql("update send_rates set next_at = next_at + 3600000000").await.expect("updates");
        let drawn = draw(&db, "1").await;
        assert!(drawn.granted == 0 && drawn.wait <= 100, "{drawn:?}");
        tokio::time::sleep(Duration::from_millis(150)).await;
        let drawn = draw(&db, "1").await;
        assert_eq!(drawn.granted, 1);
    }

    a_lane_whose_pause_was_deleted_by_hand_goes_on, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let by = Operator { who: "me".to_owned(), why: None };
        let job = db.insert("a", "1").await;
        assert!(operate::pause(&db.pool, &support::scope("lane:1/id:a"), &by).await.expect("pauses"));
        assert!(worker.claims().await.is_empty());
        assert_eq!(heals(&db, worker.now).await, 0, "it is blocked for a reason");
        db.sql("delete from send_pauses").await.expect("deletes");
        assert_eq!(heals(&db, worker.now).await, 1);
        assert_eq!(worker.deliver_all().await, [job]);
    }

    what_refers_to_a_job_keeps_it_and_no_other, |db| {
        let worker = thirty_delivered(&db).await;
        db.sql("create table ours (job bigint references send_jobs (id))").await.expect("creates");
        db.sql("insert into ours select id from send_jobs where id % 10 = 3").await.expect("inserts");
        let bite = prune::prune(&db.pool, Kind::Delivered, Duration::ZERO, worker.now + 60_000, Place::default(), 100);
        let bite = bite.await.expect("prunes");
        assert_eq!(bite.pruned, 27);
        assert_eq!(bite.refused.map(|(jobs, _)| jobs), Some(3));
        assert_eq!(db.int("select count(*) from send_attempts").await, 3);
    }

    every_column_of_ours_is_known_as_ours, |db| {
        let names = match db.engine {
            Engine::Postgres => "select string_agg(attname, ' ' order by attname) from pg_attribute
                where attrelid = 'send_jobs'::regclass and attnum > 0",
            Engine::Sqlite => "select group_concat(name, ' ') from (select name from pragma_table_xinfo('send_jobs') order by name)",
        };
        let mut ours = operate::COLUMNS;
        ours.sort_unstable();
        assert_eq!(db.text(names).await, ours.join(" "), "else a requeue would copy it");
    }

    what_the_user_added_to_the_table_is_requeued_along, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        db.sql("alter table send_jobs add column \"their \"\"order\"\"\" text").await.expect("alters");
        if db.engine == Engine::Postgres {
            db.sql("alter table send_jobs add column tenant integer not null").await.expect("alters");
        } else {
            db.sql("alter table send_jobs add column tenant integer not null default 0").await.expect("alters");
        }
        let job = db.insert_with("a", "1", &[("tenant", "7"), ("\"their \"\"order\"\"\"", "'x'")]).await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 400);
        worker.claims().await;
        let by = Operator { who: "me".to_owned(), why: None };
        let done = operate::requeue(&db.pool, &[job], false, &by).await.expect("requeues");
        let new = done[0].id;
        let copied = format!("select tenant || \"their \"\"order\"\"\" from send_jobs where id = {new}");
        assert_eq!(db.text(&copied).await, "7x");
        assert_eq!(worker.deliver_all().await, [new]);
    }

    rows_that_the_database_refuses_to_give_up_keep_no_others, |db| {
        thirty_delivered(&db).await;
        refuse(&db, "old.id % 10 = 3").await;
        let events = Arc::new(Events::new());
        let (stop, stopping) = watch::channel(false);
        let retention = Retention { delivered: Duration::ZERO, dead: HOUR };
        // What was delivered by hand's clock is old by the database's.
        db.sql(&format!("update send_jobs set finished_at = {}", db.time(1_000_000_000_000))).await.expect("ages");
        // A lane that is missing is healed although retention is refused.
        let forgotten = db.insert_with("z", "x", &[("created_at", &db.time(1_000_000_000_000)), ("due_at", &db.time(1_000_000_000_000))]).await;
        db.sql("delete from send_inbox").await.expect("deletes");
        let sweeper = tokio::spawn(sweep(db.connect().await, retention, HOUR, Arc::clone(&events), stopping));
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while db.int("select count(*) from send_jobs").await > 4 || db.int("select count(*) from send_inbox").await == 0 {
            assert!(tokio::time::Instant::now() < end, "27 are given up, 3 are not, and one is queued");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.send_replace(true);
        sweeper.await.expect("ends");
        assert_eq!(db.int("select count(*) from send_attempts").await, 3);
        assert_eq!(db.int(&format!("select count(*) from send_inbox where lane = (select lane from send_jobs where id = {forgotten})")).await, 1);
        let metrics = events.metrics();
        assert!(metrics.contains("postlane_prune_refused_jobs_total 3\n"), "{metrics}");
        assert!(metrics.contains("postlane_pruned_jobs_total 27\n"), "{metrics}");
        // The rest is asked of by hand, and the reason told.
        let now = db.pool.now().await.expect("now");
        let bite = prune::prune(&db.pool, Kind::Delivered, Duration::ZERO, now, Place::default(), 100).await.expect("prunes");
        let (refused, error) = bite.refused.expect("refused");
        assert_eq!((bite.pruned, refused), (0, 3));
        assert!(error.to_string().contains("ours"), "{error}");
    }
}

/// A worker that has delivered thirty jobs, one each.
async fn thirty_delivered(db: &Db) -> Steps {
    let mut worker = Steps::new(db, "w1").await;
    for n in 0..30 {
        db.insert(&format!("r{n}"), "x").await;
    }
    assert_eq!(worker.deliver_all().await.len(), 30);
    worker
}

/// A trigger of the user's own.
async fn refuse(db: &Db, when: &str) {
    let texts = match db.engine {
        Engine::Sqlite => vec![format!(
            "create trigger ours before delete on send_jobs when {when} begin select raise(abort, 'ours'); end"
        )],
        Engine::Postgres => vec![
            "create function ours() returns trigger language plpgsql as $$ begin raise exception 'ours'; end $$"
                .to_owned(),
            format!("create trigger ours before delete on send_jobs for each row when ({when}) execute function ours()"),
        ],
    };
    for text in texts {
        let text = sqlx::AssertSqlSafe(text);
        let done = match &db.pool {
            Pool::Sqlite(pool, _) => sqlx::raw_sql(text).execute(pool).await.map(drop),
            Pool::Postgres(backends) => {
                let mut backend = backends.lend().await.expect("connects");
                let connection = backend.connection().expect("connected");
                sqlx::raw_sql(text).execute(connection).await.map(drop)
            }
        };
        done.expect("creates");
    }
}
