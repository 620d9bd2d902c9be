//! A row of either engine, read by column name.
//!
//! Text is read as bytes where SQLite may hold some that is no UTF-8: a producer's garbled row
//! must end that one job, not the ledger's cycle.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};

/// One row of a result.
#[derive(Debug)]
pub enum Row {
    /// From PostgreSQL.
    Postgres(PgRow),
    /// From SQLite.
    Sqlite(SqliteRow),
}

impl Row {
    /// True if the column is null.
    pub fn is_null(&self, column: &str) -> sqlx::Result<bool> {
        match self {
            Self::Postgres(row) => Ok(row.try_get_raw(column)?.is_null()),
            Self::Sqlite(row) => Ok(row.try_get_raw(column)?.is_null()),
        }
    }

    /// An integer of any width.
    pub fn int(&self, column: &str) -> sqlx::Result<i64> {
        match self {
            Self::Postgres(row) => row.try_get_unchecked(column),
            Self::Sqlite(row) => row.try_get_unchecked(column),
        }
    }

    /// An integer or null.
    pub fn int_opt(&self, column: &str) -> sqlx::Result<Option<i64>> {
        match self {
            Self::Postgres(row) => row.try_get_unchecked(column),
            Self::Sqlite(row) => row.try_get_unchecked(column),
        }
    }

    /// A boolean; in SQLite 0 or 1.
    pub fn flag(&self, column: &str) -> sqlx::Result<bool> {
        match self {
            Self::Postgres(row) => row.try_get(column),
            Self::Sqlite(row) => Ok(row.try_get_unchecked::<i64, _>(column)? != 0),
        }
    }

    /// The bytes of a text column as stored.
    pub fn bytes(&self, column: &str) -> sqlx::Result<Vec<u8>> {
        match self {
            Self::Postgres(row) => Ok(row.try_get_unchecked::<String, _>(column)?.into_bytes()),
            Self::Sqlite(row) => row.try_get_unchecked(column),
        }
    }

    /// Text; what is no UTF-8 becomes U+FFFD.
    pub fn text(&self, column: &str) -> sqlx::Result<String> {
        match self {
            Self::Postgres(row) => row.try_get_unchecked(column),
            Self::Sqlite(row) => Ok(String::from_utf8_lossy(
                row.try_get_unchecked::<&[u8], _>(column)?,
            )
            .into_owned()),
        }
    }

    /// Text or null.
    pub fn text_opt(&self, column: &str) -> sqlx::Result<Option<String>> {
        if self.is_null(column)? {
            Ok(None)
        } else {
            self.text(column).map(Some)
        }
    }
}
