//! `migrate`: makes the tables, or brings them up to this binary.

use clap::Args;

use super::{Failure, Globals, Out};
use crate::store::{Error, Pool, Use, schema};

/// Create the tables, or bring them up to date
///
/// Safe to repeat, and safe to run twice at once. Migrations only add: an older worker goes on
/// working while the new one is rolled out. The SQLite file is created if needed.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane migrate\n  \
    postlane migrate --dry-run\n  \
    postlane migrate --role worker\n  \
    postlane --database-url sqlite://postlane.db migrate")]
pub struct Migrate {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Also set for good, for this role of the database's server, what a worker needs of its sessions
    ///
    /// For workers behind a pooler that keeps no settings: Postgres then gives them to each session of the role
    /// in this database (ALTER ROLE … IN DATABASE … SET synchronous_commit = on, and two others).
    #[arg(long, value_name = "NAME", conflicts_with = "dry_run")]
    role: Option<String>,
}

impl Migrate {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let config = globals.load()?;
        let url = config.database_url.expose();
        if self.dry_run {
            return self.look(url, out).await;
        }
        let applied = schema::migrate(url).await?;
        let pool = Pool::open(url, Use::Read, false).await?;
        schema::check(&pool).await?;
        let version = schema::found(&pool).await?.unwrap_or_default();
        let at = format!("the schema is at version {version}");
        if let Some(role) = &self.role {
            schema::set_role(&pool, role).await?;
            out.line(format_args!(
                "role {role} has the settings of a worker in this database"
            ))?;
        }
        Ok(out.line(match applied {
            0 => format!("nothing to do: {at}"),
            1 => format!("applied 1 migration: {at}"),
            n => format!("applied {n} migrations: {at}"),
        })?)
    }

    async fn look(&self, url: &str, out: &mut Out) -> Result<(), Failure> {
        let to = schema::VERSION;
        let found = match Pool::open(url, Use::Read, false).await {
            Ok(pool) => schema::found(&pool).await?,
            Err(Error::Missing(path)) => {
                let path = path.display();
                return Ok(out.line(format_args!("would create {path} with schema version {to}"))?);
            }
            Err(error) => return Err(error.into()),
        };
        Ok(out.line(match found {
            None => format!("would create the tables, schema version {to}"),
            Some(at) if at < to => format!("would go from schema version {at} to {to}"),
            Some(at) => format!("nothing to do: the schema is at version {at}"),
        })?)
    }
}
