//! Migrations, and whether this binary may work on what it finds.
//!
//! Migrations only expand: a binary works on every schema that is at least as new as itself and
//! that still lists it as compatible. Only `postlane migrate` changes a schema.

use super::target::OF_A_ROLE;
use super::{Error, Pool, Result, Use};

/// The schema this binary was written for.
pub const VERSION: i64 = 1;

/// Brings the database to [`VERSION`]; creates the SQLite file if needed. Returns how many
/// migrations were applied. Safe to run twice at once and to repeat after a crash.
pub async fn migrate(url: &str) -> Result<usize> {
    let pool = Pool::open(url, Use::Write, true).await?;
    check_encoding(&pool).await?;
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
    if let Err(Error::Migrate(sqlx::migrate::MigrateError::VersionMismatch(_))) = outcome {
        return Err(schema_error(&pool, UNRELEASED));
    }
    outcome?;
    let after = version(&pool).await?;
    pool.close().await;
    Ok(usize::try_from(after - before).unwrap_or_default())
}

const ENCODING: &str = "-- schema: encoding
select current_setting('server_encoding') as encoding";

/// Refuses a database that cannot hold every text, or holds bytes that are none.
async fn check_encoding(pool: &Pool) -> Result<()> {
    if let Pool::Sqlite(..) = pool {
        return Ok(());
    }
    let encoding = super::one(pool.rows(ENCODING, &[]).await?)?.text("encoding")?;
    match &*encoding {
        "UTF8" => Ok(()),
        other => Err(schema_error(
            pool,
            &format!(
                "its encoding is {other}, and messages need UTF8: create a database with encoding 'UTF8'"
            ),
        )),
    }
}

async fn apply(pool: &Pool) -> Result<()> {
    match pool {
        Pool::Postgres(backends) => {
            let mut backend = backends.lend().await?;
            let migrator = sqlx::migrate!("migrations/postgres");
            backend.migrate(&migrator).await?;
            backend.simple(PIN).await?;
            backend.give_back();
        }
        Pool::Sqlite(pool, _) => sqlx::migrate!("migrations/sqlite").run(pool).await?,
    }
    Ok(())
}

/// The function that runs with its owner's rights finds its tables where they are, also after the schema was renamed.
const PIN: &str = "do $$ declare place text := (
    select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass('send_jobs'));
begin
    execute format('alter function %I.send_jobs_mark() set search_path = %I, pg_temp', place, place);
end $$";

// SQLite begins to write in a file that it may only read, and says so with the first change.
const WRITES: &str = "-- schema: may this process write
update send_schema set version = version";

// Asked on Postgres alone: SQLite knows no roles.
const FIT: &str = "-- schema: what this role may see and do
select (select string_agg(t, ', ') from unnest(array['send_jobs', 'send_attempts', 'send_lanes', 'send_inbox',
        'send_timers', 'send_pauses', 'send_rates', 'send_sleepers', 'send_schema']) as t
        where row_security_active(t)) as hidden,
    (select string_agg(p || ' on ' || t, ', ') from (values
        ('send_jobs', 'select,update,delete'), ('send_attempts', 'select,insert,update,delete'),
        ('send_lanes', 'select,insert,update,delete'), ('send_inbox', 'select,insert,update,delete'),
        ('send_timers', 'select,insert,update,delete'), ('send_pauses', 'select,insert,update,delete'),
        ('send_rates', 'select,insert,update,delete'), ('send_sleepers', 'select,insert,update,delete'),
        ('send_schema', 'select')) as r (t, ps), unnest(string_to_array(ps, ',')) as p
        where not has_table_privilege(t, p)) as refused,
    has_sequence_privilege('send_tokens', 'usage') as may_draw,
    current_user::text as role,
    (select replace(array_to_string(p.proconfig, ' '), '\"', '') = 'search_path=' || replace(n.nspname, '\"', '') || ', pg_temp'
        from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_proc p on p.pronamespace = n.oid
        where c.oid = to_regclass('send_jobs') and p.proname = 'send_jobs_mark') as is_pinned";

/// Refuses a database in which a worker of this user or role would see or change less than there is.
///
/// # Errors
/// A SQLite file that cannot be written, row level security that hides rows, a right that is missing, or a
/// schema that was renamed; it says what to do.
pub async fn check_fit(pool: &Pool) -> Result<()> {
    if let Pool::Sqlite(..) = pool {
        let mut tx = pool.begin().await?;
        tx.run(WRITES, &[]).await?;
        return tx.rollback().await;
    }
    let row = super::one(pool.rows(FIT, &[]).await?)?;
    let role = row.text("role")?;
    let refuse = |why: String| Err(schema_error(pool, &why));
    if let Some(tables) = row.text_opt("hidden")? {
        return refuse(format!(
            "row level security hides rows of {tables} from role {role}: \
             ALTER ROLE {role} BYPASSRLS, or disable it on these tables"
        ));
    }
    if let Some(rights) = row.text_opt("refused")? {
        return refuse(format!(
            "role {role} lacks {rights}: grant it, or run as the role that ran `postlane migrate`"
        ));
    }
    if !row.flag("may_draw")? {
        return refuse(format!(
            "role {role} lacks usage on sequence send_tokens: grant it"
        ));
    }
    if !row.flag("is_pinned")? {
        return refuse(
            "the trigger of send_jobs looks for its tables in another schema (was it renamed?); \
             run `postlane migrate`"
                .to_owned(),
        );
    }
    Ok(())
}

const OF_ROLE: &str = "-- schema: settings of a role, as text
select format('alter role %I in database %I set %s = %L', $1::text, current_database(), $2::text, $3::text) as text";

/// Gives each session of a role in this database the settings that the promises need.
///
/// # Errors
/// SQLite, which has no roles; a role that is not there, or is not this one's to change.
pub async fn set_role(pool: &Pool, role: &str) -> Result<()> {
    if let Pool::Sqlite(..) = pool {
        return Err(Error::Schema(
            "SQLite has no roles: leave --role out".to_owned(),
        ));
    }
    for (key, value) in OF_A_ROLE {
        let rows = pool
            .rows(OF_ROLE, &[role.into(), key.into(), value.into()])
            .await?;
        let text = super::one(rows)?.text("text")?;
        pool.rows_of(text, &[]).await?;
    }
    Ok(())
}

const SCHEMA: &str = "-- schema: version
select max(version) as version, max(compatible_from) as compatible_from from send_schema";

async fn version(pool: &Pool) -> Result<i64> {
    Ok(super::one(pool.rows(SCHEMA, &[]).await?)?.int("version")?)
}

fn schema_error(pool: &Pool, why: &str) -> Error {
    Error::Schema(format!("{}: {why}", pool.place()))
}

/// Said of the tables of a version that was never released.
const UNRELEASED: &str = "its tables are those of a version before 0.1.0 that was never released, and are not \
    brought over: drop them (send_*, _sqlx_migrations) or use another database, then run `postlane migrate`";

// No earlier version had these columns.
const SHAPE: &str = "-- schema: its shape\nselect started_at, stuck from send_lanes limit 0";

/// Refuses a schema that this binary cannot work on, naming what to do.
pub async fn check(pool: &Pool) -> Result<()> {
    let rows = pool.rows(SCHEMA, &[]).await.map_err(|error| match error {
        error if is_missing(&error) => {
            schema_error(pool, "there are no tables yet; run `postlane migrate`")
        }
        error => error,
    })?;
    let row = super::one(rows)?;
    let (version, compatible_from) = (row.int("version")?, row.int("compatible_from")?);
    if version < VERSION {
        let why = format!(
            "version {version} is older than this binary's {VERSION}; run `postlane migrate`"
        );
        return Err(schema_error(pool, &why));
    }
    if compatible_from > VERSION {
        let why = format!(
            "version {version} needs a binary for schema {compatible_from} or newer, this one is for {VERSION}; \
             install a newer postlane"
        );
        return Err(schema_error(pool, &why));
    }
    match pool.rows(SHAPE, &[]).await {
        Err(error) if is_unknown_column(&error) => Err(schema_error(pool, UNRELEASED)),
        done => done.map(drop),
    }
}

fn is_unknown_column(error: &Error) -> bool {
    error.said().is_some_and(|said| {
        said.code().as_deref() == Some("42703") || said.message().contains("no such column")
    })
}

/// The version of the schema that is there; none if there are no tables.
pub async fn found(pool: &Pool) -> Result<Option<i64>> {
    match version(pool).await {
        Ok(version) => Ok(Some(version)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &Error) -> bool {
    error.said().is_some_and(|said| {
        said.code().as_deref() == Some("42P01") || said.message().contains("no such table")
    })
}
