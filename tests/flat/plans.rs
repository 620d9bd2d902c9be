//! How an engine would run what was seen.

use std::collections::{BTreeSet, HashMap};

use postlane::store::Pool;
use regex::Regex;
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::seen::{Seen, heading};
use crate::support::Db;

/// Tables that grow with what is blocked, finished or queued.
pub const TABLES: [&str; 5] = [
    "send_jobs",
    "send_lanes",
    "send_attempts",
    "send_inbox",
    "send_timers",
];

/// How rows are looked up: (a key or an index, the column that is given). Of jobs only what is open is in
/// these indexes.
const LOOK_UPS: [(&str, &str); 11] = [
    ("send_jobs_pkey", "id"),
    ("send_jobs_lane", "lane"),
    ("send_jobs_unknown", "lane"),
    ("send_jobs_requeued_from", "requeued_from"),
    ("send_lanes_pkey", "lane"),
    ("send_lanes_due", "page_id"),
    ("send_attempts_pkey", "job_id"),
    ("send_inbox_pkey", "page_id"),
    ("send_inbox_pkey", "id"),
    ("send_inbox_page", "page_id"),
    ("send_timers_pkey", "at"),
];

/// What is read otherwise: (statement, table or index as its name begins, what is given, why).
const EXCEPTIONS: [(&str, &str, &str, &str); 21] = [
    (SURVEY, "send_lanes_due", WALK, ONE),
    (SURVEY, "send_lanes_due", "page_id>", ONE),
    (SURVEY, "send_inbox_", WALK, ONE),
    (SURVEY, "send_inbox_", "page_id>", ONE),
    (SURVEY, "send_timers", WALK, ONE),
    (SURVEY, "send_jobs", WALK, "the newest"),
    (SURVEY, "send_jobs_pkey", "id>", BITE),
    (TIMERS, "send_timers", "at<", BITE),
    (PRUNE, "send_jobs_delivered", "finished_at<", BITE),
    (PRUNE, "send_jobs_ended", "finished_at<", BITE),
    (PRUNE, "send_jobs_delivered", "finished_at>", BITE),
    (PRUNE, "send_jobs_ended", "finished_at>", BITE),
    (UNTIMED, "send_jobs_scheduled", "send_at", BITE),
    (UNTIMED, "send_jobs_scheduled", "ROWsend_at", BITE),
    (BLOCKED, "send_lanes_blocked", "page_id", BITE),
    (BLOCKED, "send_lanes_blocked", "ROWpage_id", BITE),
    (BLOCKED, "send_inbox", WALK, "whether there are 100"),
    (ORPHANS, "send_jobs_lane", "lane>", BITE),
    (ORPHANS, "send_inbox", WALK, "whether there are 100"),
    (UNBLOCK, "send_lanes", WALK, "once after the start"),
    (UNBLOCK, "send_lanes", NOTHING, "once after the start"),
];
const ONE: &str = "the first entry, in order";
const BITE: &str = "in order, up to a limit";
/// Postgres's scan of a table, or of an index as a whole.
const NOTHING: &str = "nothing";
/// SQLite's: it does not show that it ends at a limit.
const WALK: &str = "walk";
/// Postgres's of an index, down to a limit.
const LIMITED: &str = "limited";
const SURVEY: &str = "survey: the clock, pauses, and pages with work";
const UNBLOCK: &str = "unblock: lanes that waited for a mark look again";
const TIMERS: &str = "timers: jobs whose send_at has come";
const PRUNE: &str = "prune: finished jobs past their retention";
const ORPHANS: &str = "heal: jobs whose lanes are missing";
const UNTIMED: &str = "heal: jobs whose timers are missing";
const BLOCKED: &str = "heal: blocked lanes that nothing blocks";

/// One access to a table, as a plan shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Access {
    table: String,
    /// Its key, an index, or `none`.
    index: String,
    /// What is given of it, without blanks and brackets: `page_id=…`.
    given: String,
}

impl Access {
    fn new(table: &str, index: &str, given: Option<&str>) -> Self {
        let given = given.map(|given| given.replace([' ', '('], ""));
        Self {
            table: table.to_owned(),
            index: index.to_owned(),
            given: given.unwrap_or_else(|| NOTHING.to_owned()),
        }
    }

    fn is_look_up(&self) -> bool {
        let way = |(index, key): &(&str, &str)| {
            let rest = self.given.strip_prefix(key);
            *index == self.index && rest.is_some_and(|rest| rest.starts_with('='))
        };
        self.given == LIMITED || LOOK_UPS.iter().any(way)
    }

    fn is_excused(&self, statement: &str) -> bool {
        let name = match self.index.as_str() {
            "none" => &self.table,
            _ => &self.index,
        };
        EXCEPTIONS.iter().any(|(of, what, given, _)| {
            *of == statement && name.starts_with(what) && self.given.starts_with(given)
        })
    }
}

/// What matters of a plan.
#[derive(Debug, Default)]
struct Plan {
    accesses: Vec<Access>,
    /// It sorts: then no limit ends what it reads.
    sorts: bool,
}

/// Checks the plan of each statement that was seen.
pub async fn check(db: &Db, pool: &Pool, seen: &Seen, when: &str) {
    let pool = match pool {
        Pool::Postgres(_) => pool.clone(),
        // Its statistics are read when a connection is opened.
        Pool::Sqlite(..) => db.connect().await,
    };
    let ours = seen.0.iter().filter(|text| text.starts_with("--"));
    let texts: BTreeSet<&str> = ours.map(String::as_str).collect();
    let mut wrong = Vec::new();
    let mut looked_up = BTreeSet::new();
    for (text, plan) in plans(&pool, &texts).await {
        let statement = heading(text);
        for access in plan.accesses {
            if access.is_look_up() {
                looked_up.insert(access.index);
            } else if plan.sorts || !access.is_excused(statement) {
                wrong.push(format!(
                    "{statement}: {access:?}{}",
                    if plan.sorts { ", sorts" } else { "" }
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{when}: {wrong:#?}");
    // Each open job's index was met, so plans were really read.
    for index in ["send_jobs_pkey", "send_jobs_lane", "send_jobs_unknown"] {
        assert!(
            looked_up.contains(index),
            "{when}: no plan uses {index}: {looked_up:?}"
        );
    }
}

/// How each text finds rows of the tables.
async fn plans<'t>(pool: &Pool, texts: &BTreeSet<&'t str>) -> Vec<(&'t str, Plan)> {
    let mut plans = Vec::new();
    match pool {
        Pool::Postgres(backends) => {
            let mut backend = backends.lend().await.expect("lends");
            let pg = backend.connection().expect("connected");
            let prepared = prepared(pg).await;
            for text in texts {
                let execute = prepared.get(*text);
                let execute = execute.unwrap_or_else(|| panic!("not prepared: {text}"));
                let explain = format!("explain (format json) {execute}");
                let row = sqlx::raw_sql(AssertSqlSafe(explain))
                    .fetch_one(&mut *pg)
                    .await
                    .expect(text);
                let tree: String = row.try_get_unchecked(0).expect("a plan");
                let tree: Value = serde_json::from_str(&tree).expect("JSON");
                let mut plan = Plan::default();
                postgres(&tree[0]["Plan"], false, &mut plan);
                plans.push((*text, plan));
            }
            backend.give_back();
        }
        Pool::Sqlite(lite, _) => {
            for text in texts {
                // Some are whole transactions.
                let ends = |part: &&str| part.ends_with("begin immediate") || *part == "commit";
                for part in text.split(";\n").filter(|part| !ends(part)) {
                    let explain = AssertSqlSafe(format!("explain query plan {part}"));
                    let rows = sqlx::raw_sql(explain).fetch_all(lite).await.expect(text);
                    let detail =
                        |row: &SqliteRow| row.try_get::<String, _>("detail").expect("detail");
                    plans.push((*text, sqlite(part, rows.iter().map(detail))));
                }
            }
        }
    }
    plans
}

/// The statements that the ledger's own connection has prepared, with the types that it gave, as an
/// EXECUTE with nulls: a generic plan does not look at values.
async fn prepared(pg: &mut PgConnection) -> HashMap<String, String> {
    // Plans that were made when the tables were small are thrown away.
    sqlx::raw_sql("discard plans")
        .execute(&mut *pg)
        .await
        .expect("discards");
    let list =
        "select name, statement, cardinality(parameter_types)::text from pg_prepared_statements";
    let rows = sqlx::raw_sql(list).fetch_all(pg).await.expect("statements");
    let execute = |row: &PgRow| {
        let column = |at: usize| row.try_get_unchecked::<String, _>(at).expect("text");
        let count: usize = column(2).parse().expect("a number");
        let nulls = match count {
            0 => String::new(),
            count => format!("({})", vec!["null"; count].join(", ")),
        };
        (column(1), format!("execute {}{nulls}", column(0)))
    };
    rows.iter().map(execute).collect()
}

/// Collects the accesses below a node of a plan.
fn postgres(node: &Value, limited: bool, out: &mut Plan) {
    let text = |key: &str| node[key].as_str();
    let (kind, table) = (text("Node Type"), text("Relation Name"));
    out.sorts |= kind.is_some_and(|kind| kind.ends_with("Sort"));
    let (index, given) = (text("Index Name").unwrap_or("none"), text("Index Cond"));
    let (table, given) = match kind {
        // By physical place; and what only passes on what a node below it finds.
        Some("Tid Scan" | "ModifyTable" | "LockRows" | "Bitmap Heap Scan") => (None, None),
        Some("Bitmap Index Scan") => (of(index), given),
        _ if limited && node["Filter"].is_null() && given.is_none() => (table, Some(LIMITED)),
        _ => (table, given),
    };
    if let Some(table) = table.filter(|table| TABLES.contains(table)) {
        out.accesses.push(Access::new(table, index, given));
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        postgres(below, kind == Some("Limit"), out);
    }
}

/// The table of an index.
fn of(index: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|table| index.starts_with(table))
}

/// The accesses in the lines of a plan, which call tables by their aliases.
fn sqlite(text: &str, lines: impl Iterator<Item = String>) -> Plan {
    let named = Regex::new(r"\b(send_[a-z]+)(?: ([a-z]))?\b").expect("an expression");
    let line = Regex::new(
        r"^(?:SCAN|SEARCH) (\S+)(?: USING (?:COVERING )?(?:INDEX (\S+)|(?:INTEGER )?(PRIMARY KEY)))?(?: \((.*)\))?",
    )
    .expect("an expression");
    let mut out = Plan::default();
    for plan in lines {
        out.sorts |= plan.starts_with("USE TEMP B-TREE FOR ORDER BY");
        let Some(found) = line.captures(&plan) else {
            continue;
        };
        let part = |at: usize| found.get(at).map(|part| part.as_str());
        let given = part(4).map_or_else(|| WALK.to_owned(), |given| given.replace("rowid", "id"));
        // One alias may stand for several tables; an index is of one.
        let names = named.captures_iter(text).filter_map(|name| {
            let alias = name.get(2).or(name.get(1))?.as_str();
            (Some(alias) == part(1)).then(|| name.get(1).map(|table| table.as_str()))?
        });
        let tables = BTreeSet::from_iter(
            part(2).map_or_else(|| names.collect(), |index| Vec::from_iter(of(index))),
        );
        for table in tables.into_iter().filter(|table| TABLES.contains(table)) {
            let key = part(3).map(|_| format!("{table}_pkey"));
            let index = key.as_deref().or(part(2)).unwrap_or("none");
            out.accesses.push(Access::new(table, index, Some(&given)));
        }
    }
    out
}
