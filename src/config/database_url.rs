//! Where the jobs are, and how to name that place without its password.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

use crate::store::target::Target;

/// The database engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `sqlite://`
    Sqlite,
    /// `postgres://` or `postgresql://`
    Postgres,
}

/// The URL of a database. `Debug` and `Display` hide its password and unfamiliar parameters.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: SecretString,
    engine: Engine,
}

/// A URL of no database that is supported: what to write, without any of its values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownDatabase(String);

impl UnknownDatabase {
    fn of(text: &str) -> Self {
        let usage = "use sqlite://FILE or postgres://USER@HOST/DATABASE";
        let file = text.strip_prefix("sqlite:").unwrap_or(text);
        let is_list = ["host=", "hostaddr=", "dbname=", "service=", "user="]
            .iter()
            .any(|word| text.starts_with(word) || text.contains(&format!(" {word}")));
        Self(match is_file(text) && !file.is_empty() {
            true => format!("{usage}; did you mean sqlite://{file}?"),
            // libpq's other spelling.
            false if is_list && !text.contains("://") => format!(
                "{usage}; a list of NAME=VALUE is not read, but postgres:///?NAME=VALUE&NAME=VALUE is"
            ),
            false => usage.to_owned(),
        })
    }
}

/// Refuses the parameters of a SQLite URL that would be dropped or break what is promised.
fn file_parameters(file: &str) -> Result<(), String> {
    let (_, parameters) = file.split_once('?').unwrap_or((file, ""));
    for parameter in parameters.split('&').filter(|p| !p.is_empty()) {
        match parameter.split_once('=').unwrap_or((parameter, "")) {
            // Which it is depends on the verb: `migrate` creates the file.
            ("mode", "rw" | "rwc") => {}
            ("mode", _) => return Err("mode is rw or rwc: the queue is written to".to_owned()),
            (name @ ("cache" | "immutable" | "vfs"), _) => {
                return Err(format!(
                    "the parameter {name} is not supported: leave it out"
                ));
            }
            _ => {
                let why = "it has a parameter that is none (in a file's name, write ? as %3F)";
                return Err(why.to_owned());
            }
        }
    }
    Ok(())
}

/// True for what people write who mean a SQLite file: there is nothing secret in that.
fn is_file(text: &str) -> bool {
    let named = [".db", ".sqlite", ".sqlite3"]
        .iter()
        .any(|end| text.ends_with(end));
    (named || text.starts_with("sqlite:")) && !text.contains("://") && !text.contains('@')
}

impl DatabaseUrl {
    /// What kind of database it is.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The whole URL with its password, for the driver alone.
    pub fn expose(&self) -> &str {
        self.url.expose_secret()
    }
}

impl FromStr for DatabaseUrl {
    type Err = UnknownDatabase;

    fn from_str(url: &str) -> Result<Self, UnknownDatabase> {
        // What came out of a file ends with a line.
        let url = url.trim();
        let engine = match url.split_once("://") {
            Some(("sqlite", file)) if file.contains(":memory:") || file.contains("mode=memory") => {
                let why =
                    "a database in memory ends with the process that made it: use sqlite://FILE";
                return Err(UnknownDatabase(why.to_owned()));
            }
            Some(("sqlite", file)) if !file.is_empty() => {
                file_parameters(file).map_err(UnknownDatabase)?;
                Engine::Sqlite
            }
            Some(("postgres" | "postgresql", _)) => {
                Target::parse(url).map_err(UnknownDatabase)?;
                Engine::Postgres
            }
            _ => return Err(UnknownDatabase::of(url)),
        };
        Ok(Self {
            url: SecretString::from(url),
            engine,
        })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(self.expose(), true))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The parameters of a URL that hold no secret.
const PLAIN: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "host",
    "port",
    "dbname",
    "user",
    "application_name",
    "mode",
    "cache",
    "immutable",
    "vfs",
    "hostaddr",
    "connect_timeout",
    "target_session_attrs",
    "passfile",
    "options",
];

/// True if a password, or what looks like one, stands in the URL.
pub(super) fn holds_password(url: &str) -> bool {
    redacted(url, true).contains("***")
}

/// The URL with `***` for a password and for parameters that are not known to be harmless; the
/// user name too, unless `user` says to keep it.
///
/// It rather hides too much: up to the *last* `@`, since people forget to escape passwords, and everything where a
/// `?` stands before that.
pub(super) fn redacted(url: &str, user: bool) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return match url.is_empty() || is_file(url) {
            true => url.to_owned(),
            false => "***".to_owned(),
        };
    };
    if rest
        .rsplit_once('@')
        .is_some_and(|(before, _)| before.contains('?'))
    {
        return format!("{scheme}://***");
    }
    let (login, place) = rest
        .rsplit_once('@')
        .map_or((None, rest), |(login, place)| (Some(login), place));
    let login = login.map_or_else(String::new, |login| match login.split_once(':') {
        Some((name, _)) if user => format!("{name}:***@"),
        None if user => format!("{login}@"),
        _ => "***@".to_owned(),
    });
    let (place, query) = place
        .split_once('?')
        .map_or((place, None), |(place, query)| (place, Some(query)));
    let query = query.map_or_else(String::new, |query| {
        let parameters = query
            .split('&')
            .map(|parameter| match parameter.split_once('=') {
                Some((name, _)) if user && PLAIN.contains(&name) => parameter.to_owned(),
                Some((name, _)) => format!("{name}=***"),
                None => "***".to_owned(),
            });
        format!("?{}", parameters.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{login}{place}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_shows_all_but_its_password() {
        for (url, shown) in [
            (
                "sqlite://postlane.db?mode=rwc",
                "sqlite://postlane.db?mode=rwc",
            ),
            (
                "postgres://me@db:5432/postlane",
                "postgres://me@db:5432/postlane",
            ),
            (
                "postgres://me:canary@db/postlane?sslmode=require",
                "postgres://me:***@db/postlane?sslmode=require",
            ),
            (
                "postgres://me:can%2Fary%3Fc@nary%23x@db/p",
                "postgres://me:***@db/p",
            ),
            (
                "postgres://db/p?user=me&password=canary",
                "postgres://db/p?user=me&password=***",
            ),
            ("postgres://me@db/p?password=can@ary", "postgres://***"),
            (
                "postgres://db/p?user=me@corp&password=canary",
                "postgres://***",
            ),
            ("postgres://me@h:5432/db?password=can@ary", "postgres://***"),
            (
                "postgresql://me@h1:1,[::1]:2/p?target_session_attrs=primary",
                "postgresql://me@h1:1,[::1]:2/p?target_session_attrs=primary",
            ),
        ] {
            let parsed: DatabaseUrl = url.parse().expect(url);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), shown);
            assert_eq!(parsed.expose(), url);
            assert_eq!(holds_password(url), shown.contains("***"));
        }
        let of_a_file: DatabaseUrl = "postgres://me@db/p\n".parse().expect("a URL");
        assert_eq!(of_a_file.expose(), "postgres://me@db/p");
        assert_eq!(redacted("canary", true), "***");
        assert_eq!(
            redacted("https://canary@host/x?token=canary", false),
            "https://***@host/x?token=***"
        );
    }

    #[test]
    fn the_scheme_says_which_engine() {
        let engine = |url: &str| url.parse::<DatabaseUrl>().map(|url| url.engine());
        assert_eq!(engine("sqlite://x.db"), Ok(Engine::Sqlite));
        assert_eq!(engine("postgres://h/x"), Ok(Engine::Postgres));
        assert_eq!(engine("postgresql://h/x"), Ok(Engine::Postgres));
        for none in ["", "x.db", "sqlite://", "mysql://h/x", "Postgres://h/x"] {
            assert!(engine(none).is_err(), "{none}");
        }
        for (slip, meant) in [
            ("x.db", "sqlite://x.db"),
            ("/var/lib/x.sqlite3", "sqlite:///var/lib/x.sqlite3"),
            ("sqlite:x", "sqlite://x"),
        ] {
            let said = engine(slip).expect_err(slip).to_string();
            assert!(said.ends_with(&format!("did you mean {meant}?")), "{said}");
            assert_eq!(redacted(slip, true), slip);
        }
    }
}
