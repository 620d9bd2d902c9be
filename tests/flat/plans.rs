//! How an engine would run what was seen.

use std::collections::{BTreeSet, HashMap};

use postlane::store::Pool;
use regex::{Captures, Regex};
use serde_json::Value;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::seen::{Seen, heading};

/// Tables that grow with what is blocked, finished or queued.
const TABLES: [&str; 4] = ["send_jobs", "send_lanes", "send_attempts", "send_inbox"];

/// How rows may be found: (table, its key or one of its indexes, the column that must be given).
/// Of jobs only what is open is in these indexes.
const WAYS: [(&str, &str, &str); 9] = [
    ("send_jobs", "send_jobs_pkey", "id"),
    ("send_jobs", "send_jobs_line", "lane"),
    ("send_jobs", "send_jobs_one_sending", "lane"),
    ("send_jobs", "send_jobs_unknown", "lane"),
    ("send_lanes", "send_lanes_pkey", "lane"),
    ("send_lanes", "send_lanes_due", "page_id"),
    ("send_attempts", "send_attempts_pkey", "job_id"),
    ("send_inbox", "send_inbox_pkey", "page_id"),
    ("send_inbox", "send_inbox_page", "page_id"),
];

/// What may be found otherwise: (statement, table, what the plan says, why).
const UNBLOCK: &str = "unblock: lanes that waited for a mark look again";
const EXCEPTIONS: [(&str, &str, &str, &str); 1] = [
    (UNBLOCK, "send_lanes", "none", "once after the start, where a policy has changed"),
];

/// One access to a table, as a plan shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Access {
    table: String,
    /// The index or `none`.
    index: String,
    /// What is given of it.
    given: String,
}

impl Access {
    /// One of [`WAYS`], with its key given.
    fn is_look_up(&self) -> bool {
        let way = |(table, index, key): &(&str, &str, &str)| {
            let given = Regex::new(&format!(r"\b{key} ?= ?")).expect("an expression");
            *table == self.table && *index == self.index && given.is_match(&self.given)
        };
        WAYS.iter().any(way)
    }

    fn is_excused(&self, statement: &str) -> bool {
        let fits = |(of, table, given, _): &(&str, &str, &str, &str)| {
            *of == statement && *table == self.table && *given == self.given
        };
        EXCEPTIONS.iter().any(fits)
    }
}

/// Checks the plan of each statement that was seen.
pub async fn check(pool: &Pool, seen: &Seen, when: &str) {
    let ours = seen.0.iter().filter(|text| text.starts_with("--"));
    let texts: BTreeSet<&str> = ours.map(String::as_str).collect();
    let mut wrong = Vec::new();
    let mut looked_up = BTreeSet::new();
    for (text, accesses) in plans(pool, &texts).await {
        let statement = heading(text);
        for access in accesses {
            eprintln!("{when} | {statement} | {access:?}");
            if access.is_look_up() {
                looked_up.insert(access.index);
            } else if !access.is_excused(statement) {
                wrong.push(format!("{statement}: {access:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{when}: {wrong:#?}");
    // Each open job's index was met, so plans were really read.
    for index in ["send_jobs_pkey", "send_jobs_line", "send_jobs_one_sending", "send_jobs_unknown"] {
        assert!(looked_up.contains(index), "{when}: no plan uses {index}: {looked_up:?}");
    }
}

/// How each text finds rows of the four tables.
async fn plans<'t>(pool: &Pool, texts: &BTreeSet<&'t str>) -> Vec<(&'t str, Vec<Access>)> {
    let mut plans = Vec::new();
    match pool {
        Pool::Postgres(pg) => {
            let prepared = prepared(pg).await;
            for text in texts {
                let execute = prepared.get(*text).expect("prepared by the ledger");
                let explain = format!("explain (format json) {execute}");
                let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(pg).await.expect(text);
                let plan: String = row.try_get_unchecked(0).expect("a plan");
                let plan: Value = serde_json::from_str(&plan).expect("JSON");
                let mut accesses = Vec::new();
                postgres(&plan[0]["Plan"], &mut accesses);
                plans.push((*text, accesses));
            }
        }
        Pool::Sqlite(lite, _) => {
            for text in texts {
                let explain = AssertSqlSafe(format!("explain query plan {text}"));
                let rows = sqlx::raw_sql(explain).fetch_all(lite).await.expect(text);
                let detail = |row: &SqliteRow| row.try_get::<String, _>("detail").expect("detail");
                plans.push((*text, sqlite(text, rows.iter().map(detail))));
            }
        }
    }
    plans
}

/// The statements that the ledger's own connection has prepared, with the types that it gave, as an
/// EXECUTE with nulls: a generic plan does not look at values.
async fn prepared(pg: &PgPool) -> HashMap<String, String> {
    // Plans that were made when the tables were small are thrown away.
    sqlx::raw_sql("discard plans").execute(pg).await.expect("discards");
    let list = "select name, statement, cardinality(parameter_types)::text from pg_prepared_statements";
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
fn postgres(node: &Value, out: &mut Vec<Access>) {
    let text = |key: &str| node[key].as_str().unwrap_or("none").to_owned();
    let (kind, mut table, index) = (text("Node Type"), text("Relation Name"), text("Index Name"));
    let given = match kind.as_str() {
        // By physical place; and what only passes on what a node below it finds.
        "Tid Scan" | "ModifyTable" | "LockRows" | "Bitmap Heap Scan" => None,
        "Bitmap Index Scan" => {
            table = TABLES.iter().find(|t| index.starts_with(*t)).unwrap_or(&"none").to_string();
            Some(text("Index Cond"))
        }
        _ => Some(text("Index Cond")),
    };
    if let Some(given) = given.filter(|_| TABLES.contains(&&*table)) {
        out.push(Access { table, index, given });
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        postgres(below, out);
    }
}

/// The accesses in the lines of a plan, which call tables by their aliases.
fn sqlite(text: &str, lines: impl Iterator<Item = String>) -> Vec<Access> {
    let alias = Regex::new(r"\b(send_[a-z]+)(?: ([a-z]))?\b").expect("an expression");
    let named = |found: Captures<'_>| {
        let table = found[1].to_owned();
        let name = found.get(2).map_or(table.clone(), |name| name.as_str().to_owned());
        (name, table)
    };
    let tables: HashMap<String, String> = alias.captures_iter(text).map(named).collect();
    let line = Regex::new(
        r"^(?:SCAN|SEARCH) (\S+)(?: USING (?:COVERING )?(?:INDEX (\S+)|(?:INTEGER )?PRIMARY KEY))?(?: \((.*)\))?",
    )
    .expect("an expression");
    let mut accesses = Vec::new();
    for plan in lines {
        eprintln!("    {plan}");
        let Some(found) = line.captures(&plan) else { continue };
        let Some(table) = tables.get(&found[1]).filter(|t| TABLES.contains(&t.as_str())) else { continue };
        let part = |at: usize| found.get(at).map(|part| part.as_str());
        let index = match part(2) {
            Some(index) => index.to_owned(),
            None if plan.contains("PRIMARY KEY") => format!("{table}_pkey"),
            None => "none".to_owned(),
        };
        let given = part(3).unwrap_or("none").replace("rowid", "id");
        accesses.push(Access { table: table.clone(), index, given });
    }
    accesses
}
