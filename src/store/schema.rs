//! Migrations, and whether this binary may work on what it finds.
//!
//! Migrations only expand: a binary works on every schema that is at least as new as itself and
//! that still lists it as compatible. Only `postlane migrate` changes a schema.

use super::{Error, Pool, Result, Use};

/// The schema this binary was written for.
pub const VERSION: i64 = 1;

/// Brings the database to [`VERSION`]; creates the SQLite file if need be. Returns how many
/// migrations were applied. Safe to run twice at once and to repeat after a crash.
pub async fn migrate(url: &str) -> Result<usize> {
    let pool = Pool::open(url, Use::Write, true).await?;
    let before = version(&pool).await.unwrap_or(0);
    let mut outcome = apply(&pool).await;
    for _ in 0..10 {
        // Two at once: the loser finds the winner's tables half-made, and nothing left to do after.
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        outcome = apply(&pool).await;
    }
    outcome?;
    let after = version(&pool).await?;
    pool.close().await;
    Ok(usize::try_from(after - before).unwrap_or_default())
}

async fn apply(pool: &Pool) -> Result<()> {
    match pool {
        Pool::Postgres(backends) => {
            let mut backend = backends.lend().await?;
            let migrator = sqlx::migrate!("migrations/postgres");
            backend.migrate(&migrator).await?;
            backend.give_back();
        }
        Pool::Sqlite(pool, _) => sqlx::migrate!("migrations/sqlite").run(pool).await?,
    }
    Ok(())
}

const SCHEMA: &str = "-- schema: version
select max(version) as version, max(compatible_from) as compatible_from from send_schema";

async fn version(pool: &Pool) -> Result<i64> {
    Ok(super::one(pool.rows(SCHEMA, &[]).await?)?.int("version")?)
}

/// Refuses a schema that this binary cannot work on, naming what to do.
pub async fn check(pool: &Pool) -> Result<()> {
    let rows = pool.rows(SCHEMA, &[]).await.map_err(|error| match error {
        Error::Database(sqlx::Error::Database(cause)) if is_missing(cause.as_ref()) => {
            Error::Schema("there are no tables yet; run `postlane migrate`".to_owned())
        }
        other => other,
    })?;
    let row = super::one(rows)?;
    let (version, compatible_from) = (row.int("version")?, row.int("compatible_from")?);
    if version < VERSION {
        return Err(Error::Schema(format!(
            "version {version} is older than this binary's {VERSION}; run `postlane migrate`"
        )));
    }
    if compatible_from > VERSION {
        return Err(Error::Schema(format!(
            "version {version} needs a binary for schema {compatible_from} or newer, this one is for {VERSION}; \
             install a newer postlane"
        )));
    }
    Ok(())
}

/// The version of the schema that is there; none if there are no tables.
pub async fn found(pool: &Pool) -> Result<Option<i64>> {
    match version(pool).await {
        Ok(version) => Ok(Some(version)),
        Err(Error::Database(sqlx::Error::Database(cause))) if is_missing(cause.as_ref()) => {
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

fn is_missing(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("42P01") || error.message().contains("no such table")
}
