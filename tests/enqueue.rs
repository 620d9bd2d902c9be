//! The INSERT: what producers may write, what is refused and by which name, and who may do it.
#![expect(
    clippy::print_stderr,
    reason = "says how long a bulk insert took and what was skipped"
)]

mod support;

use std::time::Duration;

use postlane::clock::BootInstant;
use postlane::job::JobId;
use postlane::store::Pool;
use postlane::store::prune::{self, Kind, Place};
use sqlx::AssertSqlSafe;
use support::{Db, Engine, Steps};

const TEXT: &str = r#"{"template_type":"text","text":"hi"}"#;

/// Runs SQL as it is; the error's own words.
async fn raw(pool: &Pool, sql: &str) -> Result<u64, String> {
    let sql = AssertSqlSafe(sql.to_owned());
    match pool {
        Pool::Postgres(backends) => {
            let mut backend = backends.lend().await.expect("lends");
            let done = sqlx::raw_sql(sql)
                .execute(backend.connection().expect("connected"))
                .await
                .map(|d| d.rows_affected());
            backend.give_back();
            done
        }
        Pool::Sqlite(pool, _) => sqlx::raw_sql(sql)
            .execute(pool)
            .await
            .map(|d| d.rows_affected()),
    }
    .map_err(|error| error.to_string())
}

/// An INSERT of a good job with some columns replaced by SQL.
fn insert(columns: &[(&str, &str)]) -> String {
    let text = format!("'{TEXT}'");
    let mut all = vec![
        ("page_id", "'1'"),
        ("recipient", r#"'{"id":"a"}'"#),
        ("message", text.as_str()),
    ];
    for (column, value) in columns {
        match all.iter_mut().find(|(name, _)| name == column) {
            Some(known) => known.1 = value,
            None => all.push((column, value)),
        }
    }
    all.retain(|(_, value)| *value != "absent");
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = all.iter().map(|(_, value)| *value).collect();
    format!(
        "insert into send_jobs ({}) values ({})",
        names.join(", "),
        values.join(", ")
    )
}

fn quoted(text: &str) -> String {
    format!("'{text}'")
}

/// A JSON object of exactly so many bytes.
fn object(bytes: usize) -> String {
    format!(r#"'{{"x":"{}"}}'"#, "y".repeat(bytes - 8))
}

both! {
    every_producer_column_is_taken_and_its_bytes_survive, |db| {
        let recipient = r#"{ "zip" : 75.00, "id":"a",  "b":1e3 }"#;
        let metadata = r#"{"z":75.00,   "a":[1, 2],"z2":"é"}"#;
        let now = db.pool.now().await.expect("now");
        let columns = [
            ("recipient", quoted(recipient)), ("metadata", quoted(metadata)), ("tag", quoted("ISSUE_RESOLUTION")),
            ("delay", "10".to_owned()), ("send_at", db.time(now + 5000)), ("expires_at", db.time(now + 50_000)),
            ("ordering_key", quoted("k")), ("idempotency_key", quoted("once")), ("on_ambiguous", quoted("hold")),
        ];
        let columns: Vec<(&str, &str)> = columns.iter().map(|(c, v)| (*c, v.as_str())).collect();
        assert_eq!(raw(&db.pool, &insert(&columns)).await, Ok(1));
        assert_eq!(db.text("select recipient from send_jobs").await, recipient);
        assert_eq!(db.text("select metadata from send_jobs").await, metadata);
        assert_eq!(db.text("select lane || state || attempts || failures || on_ambiguous from send_jobs").await, "1/key:kqueued00hold");
        let due = if db.engine == Engine::Sqlite { "due_at - send_at" } else { "extract(epoch from due_at - send_at) * 1000" };
        assert_eq!(db.int(&format!("select {due} from send_jobs")).await, 10_000);
        assert_eq!(db.int("select count(*) from send_timers").await, 1);
        assert_eq!(db.int("select count(*) from send_inbox").await, 0);
    }

    every_breach_is_refused_and_the_message_names_the_column, |db| {
        let (big, huge, long) = (object(65537), object(1025), quoted(&"k".repeat(1025)));
        let page = quoted(&"1".repeat(41));
        let tag = quoted(&"t".repeat(101));
        let cases: Vec<(&str, &str)> = vec![
            ("page_id", "absent"), ("page_id", "null"), ("page_id", "'0'"), ("page_id", "'01'"), ("page_id", "''"), ("page_id", "'1a'"),
            ("page_id", "' 1'"), ("page_id", "'-1'"), ("page_id", &page), ("page_id", "'1\n'"),
            ("recipient", "absent"), ("recipient", "null"), ("recipient", "'[]'"), ("recipient", "'\"a\"'"), ("recipient", "'{}'"),
            ("recipient", r#"'{"name":"a"}'"#), ("recipient", r#"'{"id":"a","phone":"b"}'"#), ("recipient", r#"'{"id":"a","uuid":"a"}'"#),
            ("recipient", r#"'{"id":""}'"#), ("recipient", r#"'{"id":" \t\n"}'"#), ("recipient", r#"'{"id":5}'"#), ("recipient", r#"'{"id":null}'"#),
            ("recipient", r#"'{"id":["a"]}'"#), ("recipient", r#"'{"id":{"a":1}}'"#), ("recipient", r#"'{"id":true}'"#), ("recipient", &huge),
            ("message", "absent"), ("message", "null"), ("message", "'[]'"), ("message", "'5'"), ("message", "'null'"), ("message", &big),
            ("tag", &tag), ("delay", "-1"), ("delay", "11"), ("delay", "null"),
            ("ordering_key", "''"), ("ordering_key", &long), ("idempotency_key", "''"), ("idempotency_key", &long),
            ("on_ambiguous", "'maybe'"), ("on_ambiguous", "''"), ("state", "'sent'"), ("state", "'delivered'"), ("metadata", &big),
        ];
        for (column, value) in cases {
            let refused = raw(&db.pool, &insert(&[(column, value)])).await.expect_err(&format!("{column} {value:.50}"));
            let named = refused.contains(column) || (column == "state" && refused.contains("finished_at_is_set_when_final"));
            assert!(named, "{column} {value:.50}: {refused}");
        }
        for (column, value) in [("recipient", "'nope'"), ("message", "'{'"), ("metadata", "'{a:1}'"), ("metadata", "''"), ("recipient", r#"'{"id":"a\u0000b"}'"#)] {
            let refused = raw(&db.pool, &insert(&[(column, value)])).await.expect_err(&format!("{column} {value}"));
            let own = db.engine == Engine::Postgres && (refused.contains("json") || refused.contains("Unicode"));
            assert!(own || refused.contains(column), "{column} {value}: {refused}");
        }
        for table in ["send_jobs", "send_inbox", "send_timers"] {
            assert_eq!(db.int(&format!("select count(*) from {table}")).await, 0, "{table}");
        }
    }

    what_is_just_within_a_bound_is_taken, |db| {
        let (most, recipient) = (object(65536), format!(r#"'{{"id":"{}"}}'"#, "y".repeat(1024 - 9)));
        let (key, tag, page) = (quoted(&"k".repeat(1024)), quoted(&"t".repeat(100)), quoted(&"1".repeat(40)));
        let cases: Vec<(&str, &str)> = vec![
            ("message", &most), ("metadata", &most), ("recipient", &recipient), ("ordering_key", &key), ("idempotency_key", &key),
            ("tag", &tag), ("page_id", &page), ("delay", "0"), ("delay", "10"), ("metadata", "'5'"), ("metadata", "'null'"), ("metadata", "null"),
            ("recipient", r#"'{"phone":"+1"}'"#), ("recipient", r#"'{"email":"a@b"}'"#), ("recipient", r#"'{"uuid":"u"}'"#),
        ];
        for (column, value) in &cases {
            let taken = raw(&db.pool, &insert(&[(column, value)])).await;
            assert_eq!(taken, Ok(1), "{column} {value:.50}");
        }
        // Sizes count bytes, not letters.
        let wide = format!(r#"'{{"x":"{}"}}'"#, "é".repeat(32_765));
        assert!(raw(&db.pool, &insert(&[("message", &wide)])).await.is_err());
    }

    times_that_are_none_are_refused, |db| {
        let bad: &[&str] = match db.engine {
            Engine::Postgres => &["'infinity'", "'-infinity'", "'9999-12-31'", "'1969-12-31'", "'soon'"],
            Engine::Sqlite => &["-1", "253402128000001", "'soon'", "1.5", "'2026-01-01'", "x'00'", "9223372036854775807"],
        };
        for column in ["send_at", "expires_at"] {
            for value in bad {
                let refused = raw(&db.pool, &insert(&[(column, value)])).await.expect_err(value);
                assert!(refused.contains(column) || refused.contains("timestamp"), "{column} {value}: {refused}");
            }
        }
        assert_eq!(db.int("select count(*) from send_timers").await, 0);
    }

    an_idempotency_key_is_unique_for_its_page_until_it_is_pruned, |db| {
        let keyed = insert(&[("idempotency_key", "'k'")]);
        assert_eq!(raw(&db.pool, &keyed).await, Ok(1));
        let refused = raw(&db.pool, &keyed).await.expect_err("a unique violation");
        assert!(refused.contains("idempotency_key") , "{refused}");
        assert_eq!(raw(&db.pool, &format!("{keyed} on conflict do nothing")).await, Ok(0));
        assert_eq!(raw(&db.pool, &insert(&[("idempotency_key", "'k'"), ("page_id", "'2'")])).await, Ok(1));
        assert_eq!(db.int("select count(*) from send_inbox").await, 2, "what was refused leaves no mark");
        let mut worker = Steps::new(&db, "w1").await;
        assert_eq!(worker.deliver_all().await.len(), 2);
        assert!(raw(&db.pool, &keyed).await.is_err(), "a delivered job keeps its key");
        let now = db.pool.now().await.expect("now") + 100_000;
        let bite = prune::prune(&db.pool, Kind::Delivered, Duration::from_secs(1), now, Place::default(), 10).await;
        assert_eq!(bite.expect("prunes").pruned, 2);
        assert_eq!(raw(&db.pool, &keyed).await, Ok(1));
    }

    what_is_rolled_back_leaves_nothing, |db| {
        let text = format!("begin; {}; {}; rollback", insert(&[]), insert(&[("send_at", &db.time(4_000_000_000_000))]));
        raw(&db.pool, &text).await.expect("runs");
        for table in ["send_jobs", "send_inbox", "send_timers"] {
            assert_eq!(db.int(&format!("select count(*) from {table}")).await, 0, "{table}");
        }
    }

    one_insert_of_a_million_jobs_is_quick, |db| {
        bulk(&db, 1_000_000).await;
    }
}

async fn bulk(db: &Db, rows: u64) {
    let recipient = r#"'{"id":"r' || (n % 1000) || '"}'"#;
    let text = match db.engine {
        Engine::Sqlite => format!(
            "insert into send_jobs (page_id, recipient, message) with recursive s(n) as (select 1 union all select n + 1 from s where n < {rows})
             select '1', {recipient}, '{TEXT}' from s"
        ),
        Engine::Postgres => format!(
            "insert into send_jobs (page_id, recipient, message) select '1', ({recipient})::json, '{TEXT}' from generate_series(1, {rows}) s(n)"
        ),
    };
    let mut worker = Steps::new(db, "w1").await;
    // As a producer's own connection: a ledger's statements must end within a minute.
    if db.engine == Engine::Postgres {
        let unbounded = raw(&db.pool, "set statement_timeout = 0").await;
        unbounded.expect("sets");
    }
    let took = BootInstant::now();
    assert_eq!(raw(&db.pool, &text).await, Ok(rows));
    eprintln!("{:?}: {rows} rows in {:.1?}", db.engine, took.elapsed());
    // About half a minute on two idle cores; more beside other work.
    assert!(took.elapsed() < Duration::from_secs(120));
    worker.now = db.pool.now().await.expect("now") + 10;
    let began = BootInstant::now();
    assert!(!worker.cycle().await.claims.is_empty());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "the first claim takes {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn copy_takes_what_insert_takes_and_refuses_what_it_refuses() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let Pool::Postgres(backends) = &db.pool else {
        return;
    };
    let mut backend = backends.lend().await.expect("lends");
    let connection = backend.connection().expect("connected");
    let columns = "copy send_jobs (page_id, recipient, message) from stdin";
    for (options, good, bad) in [
        ("", "1\t{\"id\":\"a\"}\t{\"template_type\":\"text\",\"text\":\"x\"}\n".to_owned(), "1\t{}\t{}\n"),
        (" with (format csv)", "1,\"{\"\"id\"\":\"\"b\"\"}\",\"{\"\"template_type\"\":\"\"text\"\",\"\"text\"\":\"\"x\"\"}\"\n".to_owned(), "1,{},{}\n"),
    ] {
        let mut copy = connection.copy_in_raw(&format!("{columns}{options}")).await.expect("copies");
        copy.send(good.repeat(1000).as_bytes()).await.expect("sends");
        assert_eq!(copy.finish().await.expect("ends"), 1000);
        let mut copy = connection.copy_in_raw(&format!("{columns}{options}")).await.expect("copies");
        copy.send(format!("{good}{bad}").as_bytes()).await.expect("sends");
        let refused = copy.finish().await.expect_err("refuses").to_string();
        assert!(refused.contains("recipient_has_exactly_one_of"), "{refused}");
    }
    backend.give_back();
    assert_eq!(db.int("select count(*) from send_inbox").await, 2000);
    let mut worker = Steps::new(&db, "w1").await;
    worker.now += 1000;
    assert_eq!(worker.claims().await.len(), 2);
}

#[tokio::test]
async fn a_role_with_nothing_but_insert_can_enqueue() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let role = format!("producer_{}", std::process::id());
    raw(
        &db.pool,
        &format!("create role {role}; grant insert on send_jobs to {role}"),
    )
    .await
    .expect("creates");
    let enqueue = format!(
        "set role {role}; {}; {}",
        insert(&[]),
        insert(&[("send_at", "now() + interval '1 hour'"), ("delay", "3")])
    );
    let done = raw(&db.pool, &enqueue).await;
    let refused = raw(&db.pool, "select count(*) from send_inbox").await;
    raw(
        &db.pool,
        &format!("reset role; drop owned by {role}; drop role {role}"),
    )
    .await
    .expect("drops");
    done.expect("enqueues");
    assert!(
        refused
            .expect_err("nothing else")
            .contains("permission denied")
    );
    assert_eq!(db.int("select count(*) from send_inbox").await, 1);
    assert_eq!(db.int("select count(*) from send_timers").await, 1);
}

#[tokio::test]
async fn sqlite_takes_no_other_types() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    for (column, value) in [
        ("recipient", "cast('{\"id\":\"a\"}' as blob)"),
        ("message", "x'7b7d'"),
        ("delay", "'5x'"),
        ("delay", "1.5"),
        ("delay", "x'05'"),
        ("page_id", "x'31'"),
        ("tag", "x'31'"),
        ("ordering_key", "x'31'"),
        ("idempotency_key", "x'31'"),
        ("metadata", "x'7b7d'"),
        ("attempts", "'many'"),
        ("id", "'one'"),
    ] {
        let refused = raw(&db.pool, &insert(&[(column, value)]))
            .await
            .expect_err(column);
        assert!(
            refused.contains(column) || refused.contains("datatype mismatch"),
            "{column} {value}: {refused}"
        );
    }
}

#[tokio::test]
async fn what_is_no_utf8_ends_dead_and_stops_nothing() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    let garbled = r#"cast(x'7b226964223a22ff22' || '}' as text)"#;
    let now = db.pool.now().await.expect("now");
    raw(&db.pool, &insert(&[("recipient", garbled)]))
        .await
        .expect("inserts");
    raw(
        &db.pool,
        &insert(&[
            ("recipient", garbled),
            ("send_at", &(now + 1000).to_string()),
        ]),
    )
    .await
    .expect("inserts");
    raw(&db.pool, &insert(&[("recipient", garbled)]))
        .await
        .expect("inserts");
    raw(
        &db.pool,
        &insert(&[("ordering_key", "cast(x'ff' as text)")]),
    )
    .await
    .expect("inserts");
    raw(
        &db.pool,
        &insert(&[("message", "cast(x'7b2274223a22ff22' || '}' as text)")]),
    )
    .await
    .expect("inserts");
    raw(
        &db.pool,
        &insert(&[
            ("tag", "cast(x'ff' as text)"),
            ("recipient", r#"'{"id":"t"}'"#),
        ]),
    )
    .await
    .expect("inserts");
    let good = db.insert("b", "x").await;
    let operator = postlane::store::operate::Operator {
        who: "test".to_owned(),
        why: None,
    };
    use postlane::store::operate::{Verb, apply};
    assert_eq!(
        apply(&db.pool, Verb::Hold, &[JobId(3)], &operator)
            .await
            .expect("holds"),
        [JobId(3)]
    );
    let mut worker = Steps::new(&db, "w1").await;
    assert_eq!(worker.deliver_all().await, [good]);
    assert_eq!(
        apply(&db.pool, Verb::Release, &[JobId(3)], &operator)
            .await
            .expect("releases"),
        [JobId(3)]
    );
    worker.pass(Duration::from_secs(2));
    assert!(worker.deliver_all().await.is_empty());
    assert_eq!(
        db.int("select count(*) from send_jobs where state = 'dead' and reason like 'invalid: %'")
            .await,
        6
    );
    assert_eq!(db.int("select count(*) from send_lanes").await, 0);
}

/// Debian's own python3: SQLite 3.40.1, another process, and no checkpoints of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_sqlite_enqueues_beside_a_running_worker() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    let file = db.pool.file().expect("a file").path().to_owned();
    let script = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
db.execute("pragma wal_autocheckpoint=0")
for n in range(300):
    db.execute("begin immediate")
    db.execute("insert into send_jobs (page_id, recipient, message, delay, ordering_key) values ('1', ?, ?, ?, ?)",
        ('{"id":"r%d"}' % (n % 10), '{"template_type":"text","text":"%d"}' % n, 1 if n % 50 == 0 else 0, 'k' if n % 7 == 0 else None))
    if n % 30 == 0:
        db.execute("insert into send_jobs (page_id, recipient, message, send_at) select page_id, recipient, message, created_at + 50 from send_jobs order by id desc limit 1")
    db.execute("rollback" if n % 11 == 0 else "commit")
try:
    db.execute("insert into send_jobs (page_id, recipient, message) values ('1', '{}', '{}')")
    sys.exit("an empty recipient was taken")
except sqlite3.IntegrityError as error:
    assert "recipient_has_exactly_one" in str(error), error
print(sqlite3.sqlite_version, db.execute("select count(*) from send_jobs").fetchone()[0])
"#;
    let python = std::process::Command::new("/usr/bin/python3")
        .args(["-c", script, &file.display().to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        eprintln!("skipped: there is no /usr/bin/python3");
        return;
    };
    let mut worker = Steps::new(&db, "w1").await;
    let mut running = true;
    let deadline = BootInstant::now();
    loop {
        assert!(deadline.elapsed() < Duration::from_secs(60), "stuck");
        // The last look at the producer comes before the last look at its jobs.
        running = running && python.try_wait().expect("asks").is_none();
        worker.now = db.pool.now().await.expect("now") + 10;
        let sent = worker.deliver_all().await;
        let left = db
            .int("select count(*) from send_jobs where state <> 'delivered'")
            .await;
        if !running && sent.is_empty() && left == 0 {
            break;
        }
    }
    let said = python.wait_with_output().expect("ends");
    assert!(said.status.success());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let all = db.int("select count(*) from send_jobs").await;
    assert!(
        said.trim().ends_with(&format!(" {all}")) && all > 270,
        "{said} {all}"
    );
    assert_eq!(
        db.text("select integrity_check from pragma_integrity_check")
            .await,
        "ok"
    );
}
