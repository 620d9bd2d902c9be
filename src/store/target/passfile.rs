//! `~/.pgpass` and its like: which password a host, a database and a user have.
//!
//! libpq's format: `host:port:database:user:password` a line, `*` for any, a backslash before `:` and `\`.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::store::words;

/// The password of the first line that fits.
///
/// # Errors
/// There is none: why, for the error of a server that wanted one.
pub(super) fn find(
    file: Option<&Path>,
    host: &str,
    port: u16,
    database: &str,
    user: &str,
) -> Result<String, String> {
    let named = file.is_some();
    let none = "no password was given (in the URL, PGPASSWORD or a password file)";
    let file = file.map(Path::to_path_buf).or_else(default).ok_or(none)?;
    let refused = |why: &dyn Display| format!("the password file {}: {why}", file.display());
    let about = match fs::metadata(&file) {
        Ok(about) => about,
        Err(error) if named => return Err(refused(&words::of_io(&error))),
        Err(_) => return Err(none.to_owned()),
    };
    if !about.is_file() {
        return Err(refused(&"is not a file"));
    }
    // As libpq.
    if about.mode() & 0o077 != 0 {
        return Err(refused(
            &"is not used, since others may read it: chmod 600 it",
        ));
    }
    let text = fs::read(&file).map_err(|error| refused(&words::of_io(&error)))?;
    let text = String::from_utf8_lossy(&text);
    let port = port.to_string();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(fields)
        .find(|fields| {
            let wanted = [host, &port, database, user];
            wanted
                .iter()
                .zip(fields)
                .all(|(is, field)| field == "*" || field == is)
        })
        .map(|[.., password]| password)
        .ok_or_else(|| refused(&"no line matches this host, port, database and user"))
}

fn default() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"))
}

fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields = [const { String::new() }; 5];
    let (mut at, mut escaped) = (0, false);
    for c in line.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            ':' if !escaped && at < 4 => at += 1,
            c => {
                fields[at].push(c);
                escaped = false;
            }
        }
    }
    if escaped {
        fields[at].push('\\');
    }
    (at == 4).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_five_fields_with_escapes() {
        let read = |line: &str| fields(line).map(|f| f.join("|"));
        assert_eq!(
            read("h:5432:db:me:pa\\:ss\\\\w").as_deref(),
            Some("h|5432|db|me|pa:ss\\w")
        );
        assert_eq!(read("*:*:*:me:a:b").as_deref(), Some("*|*|*|me|a:b"));
        assert_eq!(
            read("h:5432:db:me:pass\\").as_deref(),
            Some("h|5432|db|me|pass\\")
        );
        assert_eq!(read("h:5432:db:me"), None);
    }

    #[test]
    fn the_first_line_that_fits_decides_and_others_must_not_read_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(
            file.path(),
            "# x\nh1:1:db:me:one\n*:2:*:me:two\n*:*:*:*:any\n",
        )
        .expect("writes");
        let ask = |host, port| find(Some(file.path()), host, port, "db", "me");
        assert_eq!(ask("h1", 1).as_deref(), Ok("one"));
        assert_eq!(ask("h9", 2).as_deref(), Ok("two"));
        assert_eq!(ask("h9", 9).as_deref(), Ok("any"));
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(file.path(), open).expect("changes");
        let refused = ask("h1", 1).expect_err("others may read it");
        assert!(refused.ends_with("chmod 600 it"), "{refused}");
    }
}
