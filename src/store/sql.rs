//! One SQL text for two engines.
//!
//! A statement is written once. What Postgres and SQLite spell differently stands in braces and
//! is expanded here; there is no other difference between the engines in this folder, except in
//! statements whose comment begins "Differs from Postgres in that".
//!
//! | written | Postgres | SQLite |
//! |---|---|---|
//! | `{rows $1: lane text, job bigint}` | `json_to_recordset($1::json) as r(…)` | `json_each($1)`, as `r` |
//! | `{at: X}` unix ms to a stored time | `to_timestamp(X / 1000)` | `X` |
//! | `{ms: X}` a stored time to unix ms, rounded up | `extract(epoch from X)` | `X` |
//! | `{json: X}` text to a JSON column | `X::json` | `X` |
//! | `{lock l}` | `for update of l` | nothing: there is one writer |
//! | `{skip locked}` | `for update skip locked` | nothing |

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

type Expanded = Mutex<HashMap<(usize, usize, Dialect), &'static str>>;
static EXPANDED: LazyLock<Expanded> = LazyLock::new(Mutex::default);

/// The text of `template` for one engine. Each template is expanded once and kept: templates are
/// literals, so what is kept is bounded by the program's text.
pub fn expand(template: &'static str, dialect: Dialect) -> &'static str {
    let key = (template.as_ptr() as usize, template.len(), dialect);
    let mut expanded = EXPANDED.lock().unwrap_or_else(PoisonError::into_inner);
    expanded
        .entry(key)
        .or_insert_with(|| render(template, dialect).leak())
}

/// The text of a template that was put together at run time from literals and `$n` alone.
pub fn render(template: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(template.len() + 128);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}').map(|at| open + at) else {
            break;
        };
        out.push_str(&rest[..open]);
        token(&rest[open + 1..close], dialect, &mut out);
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    out
}

fn token(token: &str, dialect: Dialect, out: &mut String) {
    let postgres = dialect == Dialect::Postgres;
    let (name, argument) = token.split_once(": ").unwrap_or((token, ""));
    // Writing into a String cannot fail.
    let _ = match name {
        "at" if postgres => write!(out, "to_timestamp(({argument})::double precision / 1000)"),
        "ms" if postgres => write!(out, "ceil(extract(epoch from {argument}) * 1000)::bigint"),
        "json" if postgres => write!(out, "({argument})::json"),
        "at" | "ms" | "json" => write!(out, "{argument}"),
        "skip locked" => write!(
            out,
            "{}",
            if postgres {
                "for update skip locked"
            } else {
                ""
            }
        ),
        _ if name.starts_with("lock ") => {
            if postgres {
                write!(out, "for update of {}", &name[5..])
            } else {
                Ok(())
            }
        }
        _ if name.starts_with("rows ") && postgres => {
            write!(
                out,
                "json_to_recordset({}::json) as r({argument})",
                &name[5..]
            )
        }
        _ if name.starts_with("rows ") => {
            let columns: Vec<String> = argument
                .split(", ")
                .filter_map(|column| column.split_once(' '))
                .map(|(column, _)| format!("value ->> '{column}' as {column}"))
                .collect();
            write!(
                out,
                "(select {} from json_each({})) as r",
                columns.join(", "),
                &name[5..]
            )
        }
        _ => write!(out, "{{{token}}}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_spelled_for_each_engine() {
        let text = "select {ms: a.due_at}, {at: $2} from {rows $1: lane text, job bigint} {lock l}";
        assert_eq!(
            render(text, Dialect::Sqlite),
            "select a.due_at, $2 from (select value ->> 'lane' as lane, value ->> 'job' as job from json_each($1)) as r "
        );
        assert_eq!(
            render(text, Dialect::Postgres),
            "select ceil(extract(epoch from a.due_at) * 1000)::bigint, to_timestamp(($2)::double precision / 1000) \
             from json_to_recordset($1::json) as r(lane text, job bigint) for update of l"
        );
    }

    #[test]
    fn a_template_is_expanded_once() {
        let first = expand("select {ms: x}", Dialect::Postgres);
        assert!(std::ptr::eq(
            first,
            expand("select {ms: x}", Dialect::Postgres)
        ));
    }
}
