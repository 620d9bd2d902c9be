//! A row of either engine, read by column name, or by place where a look-up for each value of each
//! row would cost too much.
//!
//! Text is read as bytes where SQLite may hold some that is not UTF-8: a producer's malformed row
//! must end that one job, not the ledger's cycle.

use std::borrow::Cow;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Row as _, ValueRef as _};

use crate::job::{AttemptNo, JobId, Lane, PageId, UnknownWord};
use crate::scope::Scope;

/// Which column of a row: its name, or its place in the select list, from 0.
pub trait Place: ColumnIndex<PgRow> + ColumnIndex<SqliteRow> + Copy {}
impl<P: ColumnIndex<PgRow> + ColumnIndex<SqliteRow> + Copy> Place for P {}

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
    pub fn is_null(&self, column: impl Place) -> sqlx::Result<bool> {
        match self {
            Self::Postgres(row) => Ok(row.try_get_raw(column)?.is_null()),
            Self::Sqlite(row) => Ok(row.try_get_raw(column)?.is_null()),
        }
    }

    /// An integer of any width.
    pub fn int(&self, column: impl Place) -> sqlx::Result<i64> {
        match self {
            Self::Postgres(row) => row.try_get_unchecked(column),
            Self::Sqlite(row) => row.try_get_unchecked(column),
        }
    }

    /// An integer or null.
    pub fn int_opt(&self, column: impl Place) -> sqlx::Result<Option<i64>> {
        match self {
            Self::Postgres(row) => row.try_get_unchecked(column),
            Self::Sqlite(row) => row.try_get_unchecked(column),
        }
    }

    /// A boolean; in SQLite 0 or 1.
    pub fn flag(&self, column: impl Place) -> sqlx::Result<bool> {
        match self {
            Self::Postgres(row) => row.try_get(column),
            Self::Sqlite(row) => Ok(row.try_get_unchecked::<i64, _>(column)? != 0),
        }
    }

    /// Text, or its bytes if they are not UTF-8.
    pub fn utf8(&self, column: impl Place) -> sqlx::Result<Result<&str, &[u8]>> {
        match self {
            Self::Postgres(row) => row.try_get_unchecked(column).map(Ok),
            Self::Sqlite(row) => {
                let bytes: &[u8] = row.try_get_unchecked(column)?;
                Ok(std::str::from_utf8(bytes).map_err(|_| bytes))
            }
        }
    }

    /// The bytes of a text column as stored.
    pub fn bytes(&self, column: impl Place) -> sqlx::Result<Vec<u8>> {
        match self {
            Self::Postgres(row) => Ok(row.try_get_unchecked::<String, _>(column)?.into_bytes()),
            Self::Sqlite(row) => row.try_get_unchecked(column),
        }
    }

    /// Text; what is not UTF-8 becomes U+FFFD.
    pub fn text(&self, column: impl Place) -> sqlx::Result<String> {
        self.str(column).map(Cow::into_owned)
    }

    /// Text or null.
    pub fn text_opt(&self, column: impl Place) -> sqlx::Result<Option<String>> {
        Ok(self.str_opt(column)?.map(Cow::into_owned))
    }

    /// [`Self::text`], as it stands in the row.
    pub fn str(&self, column: impl Place) -> sqlx::Result<Cow<'_, str>> {
        Ok(match self {
            Self::Postgres(row) => Cow::Borrowed(row.try_get_unchecked(column)?),
            Self::Sqlite(row) => String::from_utf8_lossy(row.try_get_unchecked(column)?),
        })
    }

    /// [`Self::text_opt`], as it stands in the row.
    pub fn str_opt(&self, column: impl Place) -> sqlx::Result<Option<Cow<'_, str>>> {
        match self.is_null(column)? {
            true => Ok(None),
            false => self.str(column).map(Some),
        }
    }

    /// A job.
    pub fn job(&self, column: impl Place) -> sqlx::Result<JobId> {
        self.int(column).map(JobId)
    }

    /// A job or null.
    pub fn job_opt(&self, column: impl Place) -> sqlx::Result<Option<JobId>> {
        Ok(self.int_opt(column)?.map(JobId))
    }

    /// The number of an attempt.
    pub fn number(&self, column: impl Place) -> sqlx::Result<AttemptNo> {
        self.int(column).map(AttemptNo)
    }

    /// A lane.
    pub fn lane(&self, column: impl Place) -> sqlx::Result<Lane> {
        self.str(column).map(Lane::from)
    }

    /// A page.
    pub fn page(&self, column: impl Place) -> sqlx::Result<PageId> {
        self.str(column).map(PageId::from)
    }

    /// What is paused.
    pub fn scope(&self, column: impl Place) -> sqlx::Result<Scope> {
        let scope = self.str(column)?.parse();
        scope.map_err(|error: UnknownWord| sqlx::Error::Decode(error.into()))
    }
}
