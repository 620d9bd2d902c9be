//! Values for a statement's parameters, and how each engine takes them.
//!
//! Postgres takes a batch as one array a column, SQLite row by row. Texts are shared with the caller: a batch
//! has thousands, and copying them was most of what the ledger did.

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgBindIterExt as _};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, Postgres, Sqlite};

use super::Result;
use super::sql::{Column, Dialect, expand};
use crate::job::{AttemptNo, JobId, Lane, PageId, Token};
use crate::scope::Scope;

/// A value for a `$n` of a statement.
#[derive(Debug, Clone)]
pub enum Bind {
    /// An integer or null.
    Int(Option<i64>),
    /// Text or null.
    Text(Option<Arc<str>>),
    /// Bytes, for text that may be no UTF-8 (SQLite only).
    Bytes(Vec<u8>),
}

impl From<i64> for Bind {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<Option<i64>> for Bind {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<usize> for Bind {
    fn from(value: usize) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}
impl From<bool> for Bind {
    fn from(value: bool) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}
impl From<&str> for Bind {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.into()))
    }
}
impl From<String> for Bind {
    fn from(value: String) -> Self {
        Self::Text(Some(value.into()))
    }
}
impl From<&Arc<str>> for Bind {
    fn from(value: &Arc<str>) -> Self {
        Self::Text(Some(Arc::clone(value)))
    }
}
impl From<Option<&str>> for Bind {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(Arc::from))
    }
}
impl From<Option<String>> for Bind {
    fn from(value: Option<String>) -> Self {
        Self::Text(value.map(Arc::from))
    }
}
impl From<Option<&Arc<str>>> for Bind {
    fn from(value: Option<&Arc<str>>) -> Self {
        Self::Text(value.cloned())
    }
}

macro_rules! numbers {
    ($($name:ident),+) => {$(
        impl From<$name> for Bind {
            fn from(value: $name) -> Self {
                Self::Int(Some(value.0))
            }
        }
        impl From<Option<$name>> for Bind {
            fn from(value: Option<$name>) -> Self {
                Self::Int(value.map(|value| value.0))
            }
        }
    )+};
}
numbers!(JobId, Token, AttemptNo);

macro_rules! texts {
    ($($name:ident),+) => {$(
        impl From<&$name> for Bind {
            fn from(value: &$name) -> Self {
                value.text().into()
            }
        }
    )+};
}
texts!(Lane, PageId);

impl From<&Scope> for Bind {
    fn from(value: &Scope) -> Self {
        value.to_string().into()
    }
}

impl Bind {
    fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => *value,
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => value.as_deref(),
            _ => None,
        }
    }
}

/// The rows of a batch, as many as they say.
pub trait Batch<const N: usize>: ExactSizeIterator<Item = [Bind; N]> {}
impl<const N: usize, I: ExactSizeIterator<Item = [Bind; N]>> Batch<N> for I {}

pub(super) type PgQuery = sqlx::query::Query<'static, Postgres, PgArguments>;
pub(super) type LiteQuery = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// Rows of one statement: SQLite takes 32,766 parameters a statement; the widest statement reads 13 columns a row.
pub const SQLITE_BATCH: usize = 512;

/// A statement on Postgres.
pub(super) fn postgres(template: &'static str, binds: &[Bind]) -> Result<PgQuery> {
    let text = expand(template, Dialect::Postgres, 0);
    Ok(sqlx::query_with(text.sql, to_postgres(binds)?))
}

/// A statement over a batch on Postgres.
pub(super) fn postgres_batch<const N: usize>(
    template: &'static str,
    binds: &[Bind],
    rows: impl Batch<N>,
) -> Result<PgQuery> {
    let text = expand(template, Dialect::Postgres, 0);
    assert_eq!(text.columns.len(), N, "{template}");
    let rows: Vec<_> = rows.collect();
    let mut arguments = to_postgres(binds)?;
    for (at, column) in text.columns.iter().enumerate().take(N) {
        let values = rows.iter().map(|row| &row[at]);
        match column {
            Column::Bigint => arguments.add(values.map(Bind::int).bind_iter()),
            Column::Bool => {
                let flag = |value: &Bind| value.int().map(|value| value != 0);
                arguments.add(values.map(flag).bind_iter())
            }
            Column::Text => arguments.add(values.map(Bind::text).bind_iter()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(sqlx::query_with(text.sql, arguments))
}

/// The numbered values of a statement on Postgres.
pub(super) fn to_postgres(binds: &[Bind]) -> Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for bind in binds {
        match bind {
            Bind::Int(value) => arguments.add(*value),
            Bind::Text(value) => arguments.add(value.as_deref()),
            Bind::Bytes(value) => arguments.add(String::from_utf8_lossy(value)),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// A statement on SQLite.
pub(super) fn sqlite(template: &'static str, binds: &[Bind]) -> Result<LiteQuery> {
    let text = expand(template, Dialect::Sqlite, 0);
    let arguments = to_sqlite(text.order, binds, |_| None)?;
    Ok(sqlx::query_with(text.sql, arguments))
}

/// A statement over a batch on SQLite, as often as it takes.
pub(super) fn sqlite_batches<const N: usize>(
    template: &'static str,
    binds: &[Bind],
    mut rows: impl Batch<N>,
) -> Result<Vec<LiteQuery>> {
    let mut queries = Vec::with_capacity(1);
    while rows.len() > 0 {
        let size = rows.len().min(SQLITE_BATCH);
        let text = expand(template, Dialect::Sqlite, size.next_power_of_two());
        // A value that is missing would be a null without a word.
        assert_eq!(text.columns.len(), N, "{template}");
        let mut values = rows.by_ref().take(size).flatten();
        let arguments = if text.is_listed {
            let values: Vec<Bind> = values.collect();
            to_sqlite(text.order, binds, |at| values.get(at).cloned())?
        } else {
            to_sqlite(text.order, binds, |_| values.next())?
        };
        queries.push(sqlx::query_with(text.sql, arguments));
    }
    Ok(queries)
}

/// The values of a statement on SQLite in the order of its `?`: the numbered ones are cloned, a batch's are
/// fetched by index, and where the batch ends there are nulls.
pub(super) fn to_sqlite(
    order: &[usize],
    binds: &[Bind],
    mut of_batch: impl FnMut(usize) -> Option<Bind>,
) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(order.len(), 0);
    for at in order {
        let value = match binds.get(*at) {
            Some(value) => Some(value.clone()),
            None => of_batch(*at - binds.len()),
        };
        match value {
            Some(Bind::Int(value)) => arguments.add(value),
            Some(Bind::Text(value)) => arguments.add(value),
            Some(Bind::Bytes(value)) => arguments.add(value),
            None => arguments.add(None::<i64>),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
