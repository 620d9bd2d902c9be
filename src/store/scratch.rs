//! A queue of its own beside the configured one, for the time of a measurement: on SQLite a file in the
//! same folder, on Postgres a schema in the same database.

use std::io::ErrorKind;

use percent_encoding::percent_decode_str;

use super::target::with_schema;
use super::{Error, Pool, Result, Row, Use, schema};
use crate::clock::BootInstant;

const SCHEMA: &str = "-- scratch: where tables are made
select current_schema()::text as schema";

/// Tables of this process alone; gone with [`Scratch::remove`].
pub struct Scratch {
    url: String,
    place: Place,
}

enum Place {
    File(String),
    Schema { name: String, of: String },
}

impl Scratch {
    /// Makes one beside the database of this URL.
    ///
    /// # Errors
    /// The database is away, or its role may not create schemas; the folder cannot be written.
    pub async fn create(of: &str) -> Result<Self> {
        // A process id alone: two containers may have the same.
        let id = format!("{}_{}", std::process::id(), BootInstant::now().nanos());
        let scratch = match of.strip_prefix("sqlite://") {
            Some(file) => {
                let file = file.split('?').next().unwrap_or_default();
                let url = format!("sqlite://{file}.bench-{id}");
                let file = percent_decode_str(file).decode_utf8_lossy();
                let place = Place::File(format!("{file}.bench-{id}"));
                Self { url, place }
            }
            None => {
                let name = format!("postlane_bench_{id}");
                on(of, format!("create schema {name}")).await?;
                Self {
                    url: with_schema(of, &name),
                    place: Place::Schema {
                        name,
                        of: of.to_owned(),
                    },
                }
            }
        };
        match scratch.fill().await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                // The first error says more.
                let _ = scratch.remove().await;
                Err(error)
            }
        }
    }

    /// Creates its tables; refuses if they would land in another schema.
    async fn fill(&self) -> Result<()> {
        if let Place::Schema { name, .. } = &self.place {
            let found = super::one(on(&self.url, SCHEMA.to_owned()).await?)?.text_opt("schema")?;
            if found.as_ref() != Some(name) {
                return Err(Error::Url(
                    "its options set another search_path than the one asked for: leave it out to measure".to_owned(),
                ));
            }
        }
        schema::migrate(&self.url).await.map(drop)
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Drops it. Its connections are closed.
    ///
    /// # Errors
    /// It is still there; says its name.
    pub async fn remove(self) -> Result<()> {
        match self.place {
            Place::File(file) => {
                for end in ["", "-wal", "-shm"] {
                    match std::fs::remove_file(format!("{file}{end}")) {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(Error::Open(format!(
                                "{file}{end} is left behind: {error}"
                            )));
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Place::Schema { name, of } => {
                let drop_it = format!("drop schema {name} cascade");
                on(&of, drop_it).await.map(drop)
            }
        }
    }
}

/// Runs a statement on a connection of its own.
async fn on(url: &str, text: String) -> Result<Vec<Row>> {
    let pool = Pool::open(url, Use::Read, false).await?;
    let rows = pool.rows_of(text, &[]).await;
    pool.close().await;
    rows
}
