//! What a role or a database may have set for its sessions, and what a DBA may do to the tables meanwhile.
//!
//! With the real binary on Postgres: nothing of it may change what is stored, sent or read.

mod rig;
mod support;

use std::time::Duration;

use rig::{Setup, Sql, sandbox, until};
use support::{Db, Engine};

const SOON: Duration = Duration::from_secs(20);

/// Sets that a strange administration has left on a role, each legal.
const ODD: &[(&str, &str)] = &[
    ("timezone", "Asia/Shanghai"),
    ("datestyle", "SQL, DMY"),
    ("intervalstyle", "sql_standard"),
    ("standard_conforming_strings", "off"),
    ("escape_string_warning", "off"),
    ("backslash_quote", "off"),
    ("extra_float_digits", "-3"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "500ms"),
    ("lock_timeout", "1ms"),
    ("work_mem", "64kB"),
    ("enable_indexscan", "off"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("quote_all_identifiers", "on"),
    ("client_min_messages", "debug1"),
    ("xmlbinary", "hex"),
];

/// A database that belongs to a role of its own; its URL.
async fn of_a_role(db: &Db, role: &str, settings: &[(&str, &str)]) -> String {
    let name = db.url.rsplit('/').next().expect("a database").to_owned();
    let admin = Sql::open(&db.url);
    let mut texts = vec![
        format!("create role {role} login"),
        format!("alter database {name} owner to {role}"),
    ];
    for (key, value) in settings {
        let value = match value.split_once(", ") {
            Some((a, b)) => format!("'{a}', '{b}'"),
            None => format!("'{value}'"),
        };
        texts.push(format!("alter role {role} set {key} = {value}"));
    }
    for text in texts {
        admin.rows(&text).await;
    }
    let (before, host) = db.url.split_once('@').expect("a user");
    let (scheme, _) = before.split_once("://").expect("a scheme");
    format!("{scheme}://{role}@{host}")
}

async fn forget(db: &Db, role: &str) {
    let admin = Sql::open(&db.url);
    admin
        .rows(&format!("reassign owned by {role} to current_user"))
        .await;
    admin.rows(&format!("drop owned by {role}")).await;
    admin.rows(&format!("drop role {role}")).await;
}

#[tokio::test]
async fn settings_of_a_role_change_nothing() {
    let Some(db) = Db::empty(Engine::Postgres).await else {
        return;
    };
    let role = format!("odd_{}", std::process::id());
    let url = of_a_role(&db, &role, ODD).await;
    let mock = sandbox();
    let setup = Setup {
        lease: "30s",
        ..Setup::new(&url, &mock.url())
    };
    let (code, _, error) = setup.verb(&["migrate"]);
    assert_eq!(code, 0, "{error}");
    let sql = Sql::open(&url);
    let insert = "insert into send_jobs (page_id, recipient, message, delay, send_at) select '1', \
         json_build_object('id', E'\\\\ \"%' || g % 20), json_build_object('template_type', 'text', 'text', 'm' || g), \
         g % 13 / 12, case when g % 7 = 0 then now() + interval '1 second' end from generate_series(1, 300) g";
    sql.rows(insert).await;
    let blank = sql
        .try_rows(
            "insert into send_jobs (page_id, recipient, message) \
             values ('1', '{\"id\":\" \"}', '{\"template_type\":\"text\",\"text\":\"x\"}')",
        )
        .await;
    assert!(blank.is_err(), "a blank recipient is taken");
    let mut worker = setup.start();
    sql.finished(SOON).await;
    assert_eq!(sql.count("send_jobs where state = 'delivered'").await, 300);
    assert_eq!(sql.count("send_attempts").await, 300);
    for verb in [
        &["list", "--reason", "50%_\\"][..],
        &["show", "1"],
        &["stats"],
    ] {
        let (code, _, error) = setup.verb(verb);
        assert!(code == 0 || code == 3, "{verb:?}: {error}");
    }
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    sql.close().await;
    forget(&db, &role).await;
}

#[tokio::test]
async fn tables_that_are_changed_or_rewritten_under_load_cost_time_only() {
    let Some(db) = Db::fresh(Engine::Postgres).await else {
        return;
    };
    let mock = sandbox();
    let setup = Setup::new(&db.url, &mock.url());
    let mut worker = setup.start();
    let sql = Sql::open(&db.url);
    let mut jobs = 0;
    for change in [
        "alter table send_jobs add column shop text",
        "alter table send_attempts add column shop text default 'x'",
        "alter table send_jobs alter column metadata type jsonb",
        "alter table send_jobs alter column tag type varchar(100)",
        "vacuum full send_jobs",
        "cluster send_attempts using send_attempts_pkey",
        "reindex table send_jobs",
        "analyze",
    ] {
        for _ in 0..4 {
            sql.rows(
                "insert into send_jobs (page_id, recipient, message) select '1', \
                 json_build_object('id', 'r' || g), '{\"template_type\":\"text\",\"text\":\"x\"}' \
                 from generate_series(1, 25) g",
            )
            .await;
            jobs += 25;
        }
        sql.rows(change).await;
        until(change, SOON, async || mock.count() >= jobs).await;
    }
    sql.finished(SOON).await;
    assert_eq!(sql.count("send_jobs where state = 'delivered'").await, jobs);
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}
