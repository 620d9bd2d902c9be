//! One SQL text for two engines.
//!
//! For the statements that are not twin files. What Postgres and SQLite spell differently stands in braces
//! and is expanded here. A text written for one engine only says "Differs from Postgres in that …".
//!
//! | written | Postgres | SQLite |
//! |---|---|---|
//! | `{rows: lane text, job bigint}` a batch, as `r` | `unnest($2::text[], $3::bigint[])` | `values ($2, $3), …` |
//! | `{now}` the clock, unix ms | `clock_timestamp()` | `julianday('now')` |
//! | `{at: X}` unix ms to a stored time | `to_timestamp(X / 1000)` | `X` |
//! | `{ms: X}` a stored time to unix ms, rounded up | `extract(epoch from X)` | `X` |
//! | `{json: X}` text to a JSON column | `X::json` | `X` |
//! | `{bytes: X}` text ordered byte by byte | `X collate "C"` | `X` |
//! | `{key: l.lane = r.lane}` a join by key | `l.lane = any (array[r.lane])` | as it is |
//! | `l.id {is (}…{is )}` the same, with tokens inside | `= any (array[…])` | `= (…)` |
//! | `{in (}…{in )}` keys that a query names | `= any (array(…))` | `in (…)` |
//! | `{lock l}` | `for update of l` | nothing: there is one writer |
//! | `{skip locked}`, `{skip locked l}` | `for update of l skip locked` | nothing |
//!
//! The parameters of a batch come behind those that are numbered in the text. The first column of
//! a batch is its key and never null: SQLite's batches are filled up with null rows to a power of
//! two, so that few statements are prepared.
//!
//! A table is joined to a batch by `{key: …}`, never by `=`. Postgres plans once, when its statistics
//! may say that the table is empty, and then likes to walk through the whole index of the key and to
//! look into the batch for each entry. It thinks of that walk for its order alone, which is of use to
//! a merge or to an `order by` (so order by the batch's column, not by the table's); `= any` cannot be
//! merged, so the only plan is to look up each row of the batch. `tests/flat` reads the plans.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Which engine a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    /// The engine's name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// A statement's text for one engine.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// What is sent to the engine.
    pub sql: &'static str,
    /// The types of the batch's columns; empty if there is no batch.
    pub columns: &'static [Column],
    /// SQLite: which value each `?` takes, counted from 0: first the numbered ones, then the
    /// batch's, row by row. (It finds `$n` by name, which takes time for each of thousands.)
    pub order: &'static [usize],
    /// True if the batch has a list of its own: then its values may be taken in any order, and again.
    pub is_listed: bool,
}

/// The type of a batch's column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// `text`
    Text,
    /// `bigint`
    Bigint,
    /// `bool`; 0 and 1 in SQLite.
    Bool,
}

type Key = (usize, usize, Dialect, usize);
static EXPANDED: LazyLock<Mutex<HashMap<Key, Text>>> = LazyLock::new(Mutex::default);

/// The text of `template` for one engine and a batch of `rows` rows. Each is expanded once and
/// kept: templates are literals and batches have few sizes, so what is kept is bounded.
pub fn expand(template: &'static str, dialect: Dialect, rows: usize) -> Text {
    let key = (template.as_ptr() as usize, template.len(), dialect, rows);
    let mut expanded = EXPANDED.lock().unwrap_or_else(PoisonError::into_inner);
    *expanded.entry(key).or_insert_with(|| {
        let (sql, order) = render(template, dialect, rows);
        let columns: Vec<Column> = columns(template)
            .iter()
            .map(|(_, column)| *column)
            .collect();
        Text {
            sql: sql.leak(),
            columns: columns.leak(),
            order: order.leak(),
            is_listed: template.contains(LIST),
        }
    })
}

/// The text of a template that was put together at run time from literals and `$n` alone, and
/// the order of its values ([`Text::order`]).
pub fn render(template: &str, dialect: Dialect, rows: usize) -> (String, Vec<usize>) {
    let text = spell(template, dialect, rows);
    match dialect {
        Dialect::Postgres => (text, Vec::new()),
        Dialect::Sqlite => positional(&text),
    }
}

/// Every `$n` becomes `?`; the numbers, from 0, in their order.
fn positional(text: &str) -> (String, Vec<usize>) {
    let mut parts = text.split('$');
    let mut sql = parts.next().unwrap_or_default().to_owned();
    let mut order = Vec::new();
    for part in parts {
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        match part[..digits].parse::<usize>() {
            Ok(number) => {
                order.push(number.saturating_sub(1));
                sql.push('?');
            }
            // Not a parameter: a path such as '$.id'.
            Err(_) => sql.push('$'),
        }
        sql.push_str(&part[digits..]);
    }
    (sql, order)
}

/// Begins the list of a batch's columns, of which each `{rows: …}` of its text then names some.
const LIST: &str = "{batch: ";

/// Without its comments but the first line, which is its name: they may speak of parameters.
fn without_comments(template: &str) -> String {
    let mut lines = template.lines();
    let name = lines.next().unwrap_or_default().to_owned();
    lines
        .filter(|line| !line.trim_start().starts_with("--"))
        .fold(name, |text, line| text + "\n" + line)
}

fn spell(template: &str, dialect: Dialect, rows: usize) -> String {
    let template = without_comments(template);
    let template = template.as_str();
    let first = parameters(template) + 1;
    let mut out = String::with_capacity(template.len() + 128);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}').map(|at| open + at) else {
            break;
        };
        out.push_str(&rest[..open]);
        let inner = &rest[open + 1..close];
        match inner.split_once(": ") {
            Some(("rows", some)) => {
                let of = Batch {
                    all: &columns(template),
                    first,
                    rows,
                };
                of.spell(&listed(some), dialect, &mut out);
            }
            Some(("batch", _)) => {}
            _ => token(inner, dialect, &mut out),
        }
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    out
}

/// The highest `$n` of a text.
fn parameters(template: &str) -> usize {
    let number = |part: &str| {
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..digits].parse().unwrap_or(0)
    };
    template.split('$').skip(1).map(number).max().unwrap_or(0)
}

/// Names and types of the batch's columns.
fn columns(template: &str) -> Vec<(&str, Column)> {
    let list = template.split_once(LIST);
    let Some((_, rest)) = list.or_else(|| template.split_once("{rows: ")) else {
        return Vec::new();
    };
    listed(rest.split('}').next().unwrap_or_default())
}

/// Names and types of a list.
fn listed(list: &str) -> Vec<(&str, Column)> {
    let column = |(name, kind)| match kind {
        "bigint" => (name, Column::Bigint),
        "bool" => (name, Column::Bool),
        _ => (name, Column::Text),
    };
    list.split(", ")
        .filter_map(|part| part.split_once(' '))
        .map(column)
        .collect()
}

/// A batch's parameters.
struct Batch<'t> {
    /// Its columns.
    all: &'t [(&'t str, Column)],
    /// The number of the first.
    first: usize,
    /// How many rows it has, on SQLite.
    rows: usize,
}

impl Batch<'_> {
    /// The rows as a table of some of the columns.
    fn spell(&self, some: &[(&str, Column)], dialect: Dialect, out: &mut String) {
        let place = |name: &str| self.all.iter().position(|(column, _)| *column == name);
        let numbered = |from: usize, cast: &dyn Fn(Column) -> &'static str| {
            let parameter = |(name, column): &(&str, Column)| {
                format!(
                    "${}{}",
                    from + place(name).unwrap_or_default(),
                    cast(*column)
                )
            };
            some.iter().map(parameter).collect::<Vec<_>>().join(", ")
        };
        // Writing into a String cannot fail.
        let _ = match dialect {
            Dialect::Postgres => {
                let cast = |column| match column {
                    Column::Text => "::text[]",
                    Column::Bigint => "::bigint[]",
                    Column::Bool => "::bool[]",
                };
                let names: Vec<&str> = some.iter().map(|(name, _)| *name).collect();
                write!(
                    out,
                    "unnest({}) as r({})",
                    numbered(self.first, &cast),
                    names.join(", ")
                )
            }
            Dialect::Sqlite => {
                let name = |(at, (name, _)): (usize, &(&str, Column))| {
                    format!("column{} as {name}", at + 1)
                };
                let names: Vec<String> = some.iter().enumerate().map(name).collect();
                let row = |row| numbered(self.first + row * self.all.len(), &|_| "");
                let values = (0..self.rows).map(|at| format!("({})", row(at)));
                let values = values.collect::<Vec<_>>().join(", ");
                write!(
                    out,
                    "(select {} from (values {values}) where column1 is not null) as r",
                    names.join(", ")
                )
            }
        };
    }
}

fn token(token: &str, dialect: Dialect, out: &mut String) {
    let postgres = dialect == Dialect::Postgres;
    let (name, argument) = token.split_once(": ").unwrap_or((token, ""));
    let _ = match name {
        "at" if postgres => write!(
            out,
            "to_timestamp(({argument})::double precision / 1000::double precision)"
        ),
        "ms" if postgres => write!(
            out,
            "ceil(extract(epoch from {argument}) * 1000::numeric)::bigint"
        ),
        "bytes" if postgres => write!(out, "{argument} collate \"C\""),
        "json" if postgres => write!(out, "({argument})::json"),
        "at" | "ms" | "json" | "bytes" => write!(out, "{argument}"),
        "now" if postgres => write!(
            out,
            "floor(extract(epoch from clock_timestamp()) * 1000::numeric)::bigint"
        ),
        "now" => write!(
            out,
            "cast(round((julianday('now') - 2440587.5) * 86400000) as integer)"
        ),
        "key" if postgres => match argument.split_once(" = ") {
            Some((column, value)) => write!(out, "{column} = any (array[{value}])"),
            None => write!(out, "{{{token}}}"),
        },
        "key" => write!(out, "{argument}"),
        "is (" if postgres => write!(out, "= any (array["),
        "is (" => write!(out, "= ("),
        "is )" if postgres => write!(out, "])"),
        "is )" => write!(out, ")"),
        "in (" if postgres => write!(out, "= any (array("),
        "in (" => write!(out, "in ("),
        "in )" if postgres => write!(out, "))"),
        "in )" => write!(out, ")"),
        "skip locked" if postgres => write!(out, "for update skip locked"),
        "skip locked l" if postgres => write!(out, "for update of l skip locked"),
        "skip locked" | "skip locked l" => Ok(()),
        _ if name.starts_with("lock ") && postgres => write!(out, "for update of {}", &name[5..]),
        _ if name.starts_with("lock ") => Ok(()),
        _ => write!(out, "{{{token}}}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_spelled_for_each_engine() {
        let text = "select {ms: a.due_at}, {at: $2} from {rows: lane text, job bigint} order by {bytes: r.lane} {lock l}";
        assert_eq!(
            render(text, Dialect::Sqlite, 2),
            (
                "select a.due_at, ? from (select column1 as lane, column2 as job from \
                 (values (?, ?), (?, ?)) where column1 is not null) as r order by r.lane "
                    .to_owned(),
                vec![1, 2, 3, 4, 5]
            )
        );
        assert_eq!(
            render(text, Dialect::Postgres, 2).0,
            "select ceil(extract(epoch from a.due_at) * 1000::numeric)::bigint, to_timestamp(($2)::double precision / 1000::double precision) \
             from unnest($3::text[], $4::bigint[]) as r(lane, job) \
             order by r.lane collate \"C\" for update of l"
        );
    }

    #[test]
    fn keys_are_looked_up_and_never_merged() {
        let text = "from {rows: job bigint} join j on {key: j.id = r.job} where id {in (}select 1{in )} and id {is (}1{is )}";
        assert_eq!(
            render(text, Dialect::Postgres, 1).0,
            "from unnest($1::bigint[]) as r(job) join j on j.id = any (array[r.job]) \
             where id = any (array(select 1)) and id = any (array[1])"
        );
        assert!(
            render(text, Dialect::Sqlite, 1)
                .0
                .ends_with("join j on j.id = r.job where id in (select 1) and id = (1)")
        );
    }

    #[test]
    fn statements_of_one_batch_name_some_of_its_columns() {
        let text = "{batch: lane text, job bigint, is_first bool}begin; select 1 from {rows: job bigint}; \
                    select $1 from {rows: lane text, job bigint}";
        let (sql, order) = render(text, Dialect::Sqlite, 2);
        assert_eq!(
            sql,
            "begin; select 1 from (select column1 as job from (values (?), (?)) where column1 is not null) as r; \
             select ? from (select column1 as lane, column2 as job from \
             (values (?, ?), (?, ?)) where column1 is not null) as r"
        );
        assert_eq!(order, [2, 5, 0, 1, 2, 4, 5]);
        assert!(expand(text, Dialect::Sqlite, 2).is_listed);
        assert_eq!(columns(text).len(), 3);
        assert!(
            render(text, Dialect::Postgres, 0)
                .0
                .ends_with("select $1 from unnest($2::text[], $3::bigint[]) as r(lane, job)")
        );
    }

    #[test]
    fn a_template_is_expanded_once() {
        let first = expand("select {ms: x}", Dialect::Postgres, 0).sql;
        let second = expand("select {ms: x}", Dialect::Postgres, 0).sql;
        assert!(std::ptr::eq(first, second));
    }
}
