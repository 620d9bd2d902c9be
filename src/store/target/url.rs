//! A URL as libpq spells it: several hosts, sockets, parameters.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{CONNECT, Host, Parsed, Wanted};

/// Parameters that say how libpq keeps a connection alive, or what this program does anyway.
const NOT_NEEDED: &[&str] = &[
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "fallback_application_name",
    "load_balance_hosts",
    "sslsni",
    "sslcompression",
    "pgbouncer",
    "statement_cache_size",
    "statement-cache-capacity",
];

/// Parameters that libpq or other drivers know and this program does not honour.
const REFUSED: &[&str] = &[
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "sslcertmode",
    "sslkeylogfile",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "service",
    "servicefile",
    "replication",
    "requirepeer",
    "require_auth",
    "requiressl",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "scram_client_key",
    "scram_server_key",
    "min_protocol_version",
    "max_protocol_version",
    "oauth_issuer",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_scope",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "search_path",
    "currentSchema",
];

pub(super) fn parse(url: &str) -> Result<Parsed, String> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or("use postgres://USER@HOST/DATABASE")?;
    let (before, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match before.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (before, None),
    };
    // Else a part of a password would be told as a host and its port.
    if database.is_some_and(|database| database.contains('@')) {
        return Err(
            "an @ stands behind the first /: in a user name or a password, write / as %2F"
                .to_owned(),
        );
    }
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    // What the environment says (PGUSER, PGSSLMODE, …) holds where the URL says nothing.
    let environment = PgConnectOptions::new_without_pgpass().extra_float_digits(None);
    let mut base = environment.clone();
    let mut password = std::env::var("PGPASSWORD").ok().filter(|p| !p.is_empty());
    if let Some(login) = login {
        let (user, secret) = match login.split_once(':') {
            Some((user, secret)) => (user, Some(secret)),
            None => (login, None),
        };
        if !user.is_empty() {
            base = base.username(&decoded("user name", user)?);
        }
        if let Some(secret) = secret {
            password = Some(decoded("password", secret)?);
        }
    }
    if let Some(database) = database.filter(|database| !database.is_empty()) {
        base = base.database(&decoded("database", database)?);
    }
    let (mut names, mut ports) = authority_hosts(hosts)?;
    let mut addresses = Vec::new();
    let (mut wanted, mut connect, mut passfile) = (Wanted::ReadWrite, CONNECT, None);
    let parameters = query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty());
    for (at, parameter) in parameters.enumerate() {
        let (name, value) = parameter
            .split_once('=')
            .ok_or_else(|| format!("its parameter number {} has no value", at + 1))?;
        let value = decoded(name_of(name, at).as_str(), value)?;
        match name {
            "host" => names = list(&value),
            "hostaddr" => addresses = list(&value),
            "port" => {
                ports = list(&value)
                    .iter()
                    .map(|p| port(p))
                    .collect::<Result<_, _>>()?
            }
            "dbname" => base = base.database(&value),
            "user" => base = base.username(&value),
            "password" => password = Some(value),
            "passfile" => passfile = Some(PathBuf::from(value)),
            "sslmode" | "ssl-mode" => base = base.ssl_mode(ssl_mode(&value)?),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => base = base.ssl_root_cert(value),
            "sslcert" | "ssl-cert" => base = base.ssl_client_cert(value),
            "sslkey" | "ssl-key" => base = base.ssl_client_key(value),
            // Sessions have names of their own, by which the server is asked about them.
            "application_name" => {}
            "options" => base = options(base, &value)?,
            "connect_timeout" => {
                let seconds = value
                    .parse()
                    .map_err(|_| "connect_timeout is no number of seconds")?;
                // As libpq: 0 is no limit, and less than 2 is 2.
                connect = match seconds {
                    0 => CONNECT,
                    1 => Duration::from_secs(2),
                    seconds => Duration::from_secs(seconds).min(CONNECT),
                };
            }
            "target_session_attrs" => wanted = session(&value)?,
            "client_encoding"
                if matches!(&*value.to_ascii_lowercase(), "utf8" | "utf-8" | "auto") => {}
            "client_encoding" => return Err("client_encoding must be utf8".to_owned()),
            "gssencmode" if value != "require" => {}
            "channel_binding" if value != "require" => {}
            "gssencmode" | "channel_binding" => {
                return Err(format!("{name}=require is not supported"));
            }
            "schema" => {
                return Err(
                    "schema is no parameter of Postgres: use options=-csearch_path%3DNAME"
                        .to_owned(),
                );
            }
            name if NOT_NEEDED.contains(&name) => {}
            name if REFUSED.contains(&name) => {
                return Err(format!(
                    "the parameter {name} is not supported: leave it out (settings of the session go into \
                     options=-cNAME%3DVALUE)"
                ));
            }
            // Its name is not told either: it could be the rest of a password with a & in it.
            _ => {
                return Err(format!(
                    "its parameter number {} is none that is known (in a password, write & as %26)",
                    at + 1
                ));
            }
        }
    }
    let hosts = hosts_of(names, addresses, &ports, &environment)?;
    Ok(Parsed {
        hosts,
        base,
        password,
        passfile,
        wanted,
        connect,
    })
}

/// Hosts and ports as they stand before the database.
fn authority_hosts(hosts: &str) -> Result<(Vec<String>, Vec<Option<u16>>), String> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    if hosts.is_empty() {
        return Ok((names, ports));
    }
    for host in hosts.split(',') {
        let (name, number) = match host.strip_prefix('[') {
            Some(rest) => {
                let (name, number) = rest.split_once(']').ok_or("an address in [ ] has no ]")?;
                (name, number.strip_prefix(':'))
            }
            None if host.matches(':').count() > 1 => {
                return Err("an IPv6 address stands in brackets: [::1]:5432".to_owned());
            }
            None => match host.split_once(':') {
                Some((name, number)) => (name, Some(number)),
                None => (host, None),
            },
        };
        names.push(decoded("host", name)?);
        ports.push(number.map_or(Ok(None), port)?);
    }
    Ok((names, ports))
}

/// One port for all hosts or one for each; names or addresses, likewise.
fn hosts_of(
    names: Vec<String>,
    addresses: Vec<String>,
    ports: &[Option<u16>],
    environment: &PgConnectOptions,
) -> Result<Vec<(Host, u16)>, String> {
    let count = names.len().max(addresses.len()).max(1);
    for (what, len) in [
        ("host", names.len()),
        ("hostaddr", addresses.len()),
        ("port", ports.len()),
    ] {
        if len > 1 && len != count || (what != "port" && len == 1 && count > 1) {
            return Err(format!("it has {len} values of {what} for {count} hosts"));
        }
    }
    let host = |at: usize| {
        let port = ports
            .get(at)
            .or(ports.first().filter(|_| ports.len() == 1))
            .copied();
        let port = port.flatten().unwrap_or(environment.get_port());
        let address = addresses.get(at).filter(|a| !a.is_empty());
        let host = match (names.get(at).filter(|name| !name.is_empty()), address) {
            (Some(folder), _) if folder.starts_with('/') => Host::Socket(PathBuf::from(folder)),
            (Some(name), address) => Host::Tcp {
                name: name.clone(),
                address: address.cloned(),
            },
            (None, Some(address)) => Host::Tcp {
                name: address.clone(),
                address: None,
            },
            // PGHOST, the folder of a server on this machine, or localhost.
            (None, None) => match environment.get_host() {
                folder if folder.starts_with('/') => Host::Socket(PathBuf::from(folder)),
                name => Host::Tcp {
                    name: name.to_owned(),
                    address: None,
                },
            },
        };
        (host, port)
    };
    Ok((0..count).map(host).collect())
}

fn name_of(name: &str, at: usize) -> String {
    match name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && name.len() < 24 {
        true => name.to_owned(),
        false => format!("parameter number {}", at + 1),
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::to_owned).collect()
}

fn port(text: &str) -> Result<Option<u16>, String> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            "a port is no number (in a user name or a password, write : / ? # @ as %3A %2F %3F %23 %40)".to_owned()
        }),
    }
}

fn decoded(what: &str, text: &str) -> Result<String, String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| format!("{what} is no UTF-8 when its %XX are read"))?;
    match text.contains('\0') {
        true => Err(format!("{what} has a NUL")),
        false => Ok(text.into_owned()),
    }
}

fn ssl_mode(value: &str) -> Result<PgSslMode, String> {
    value.to_ascii_lowercase().parse().map_err(|_| {
        "sslmode is one of disable, allow, prefer, require, verify-ca, verify-full".to_owned()
    })
}

fn session(value: &str) -> Result<Wanted, String> {
    match value {
        "any" | "read-write" => Ok(Wanted::ReadWrite),
        "primary" => Ok(Wanted::Primary),
        "standby" | "read-only" | "prefer-standby" => Err(format!(
            "target_session_attrs={value}: the queue is written to; use read-write or primary"
        )),
        _ => Err("target_session_attrs is one of any, read-write, primary".to_owned()),
    }
}

/// `-c NAME=VALUE` and `--NAME=VALUE`, as the server reads them; a backslash keeps a blank.
fn options(base: PgConnectOptions, value: &str) -> Result<PgConnectOptions, String> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for c in value.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            c if c.is_whitespace() && !escaped => words.push(String::new()),
            c => {
                if let Some(word) = words.last_mut() {
                    word.push(c);
                }
                escaped = false;
            }
        }
    }
    let mut settings = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => setting.to_owned(),
            (_, Some("")) => words.next().unwrap_or_default(),
            (_, Some(setting)) => setting.to_owned(),
            _ => String::new(),
        };
        let (name, value) = setting
            .split_once('=')
            .ok_or("options is -cNAME%3DVALUE, several with a blank (%20) between")?;
        settings.push((name.to_owned(), value.to_owned()));
    }
    Ok(base.options(settings))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Target;

    fn hosts(url: &str) -> String {
        match Target::parse(url) {
            Ok(target) => target.to_string(),
            Err(why) => format!("! {why}"),
        }
    }

    #[test]
    fn hosts_are_read_as_libpq_reads_them() {
        for (url, found) in [
            ("postgres://me@h/db", "h:5432"),
            ("postgresql://me:x@h1:1,h2:2,h3/db", "h1:1, h2:2, h3:5432"),
            ("postgres://me@[::1]:5433/db", "[::1]:5433"),
            (
                "postgres://[fe80::1],10.0.0.1:7/db",
                "[fe80::1]:5432, 10.0.0.1:7",
            ),
            ("postgres://%2Frun%2Fpg/db", "/run/pg/.s.PGSQL.5432"),
            (
                "postgres:///db?host=/run/pg&port=5433",
                "/run/pg/.s.PGSQL.5433",
            ),
            ("postgres:///db?host=a,b&port=1,2", "a:1, b:2"),
            ("postgres:///db?host=a,b&port=7", "a:7, b:7"),
            (
                "postgres:///db?host=a,b&hostaddr=10.0.0.1,10.0.0.2",
                "a:5432, b:5432",
            ),
            ("postgres:///db?hostaddr=10.0.0.1", "10.0.0.1:5432"),
            (
                "postgres://me:p%40%2F%3F%23@h/db?sslmode=require&target_session_attrs=primary",
                "h:5432",
            ),
            (
                "postgres://h/db?keepalives_idle=5&options=-csearch_path%3Dx%20--work_mem%3D1MB",
                "h:5432",
            ),
        ] {
            assert_eq!(hosts(url), found, "{url}");
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name_and_no_value_is_told() {
        const CANARY: &str = "canary5";
        for (parameter, said) in [
            (
                format!("sslpassword={CANARY}"),
                "sslpassword is not supported",
            ),
            (format!("service={CANARY}"), "service is not supported"),
            (format!("schema={CANARY}"), "options=-csearch_path"),
            (format!("x={CANARY}"), "parameter number 1 is none"),
            (
                format!("password=a&{CANARY}=b"),
                "parameter number 2 is none",
            ),
            (
                format!("password=a&{CANARY}"),
                "parameter number 2 has no value",
            ),
            (format!("sslmode={CANARY}"), "sslmode is one of"),
            (format!("port={CANARY}"), "a port is no number"),
            (
                format!("target_session_attrs={CANARY}"),
                "target_session_attrs is one of",
            ),
            (
                format!("connect_timeout={CANARY}"),
                "connect_timeout is no number",
            ),
            (format!("options={CANARY}"), "options is -c"),
            (
                format!("client_encoding={CANARY}"),
                "client_encoding must be utf8",
            ),
            (
                "target_session_attrs=standby".to_owned(),
                "the queue is written to",
            ),
            (
                "host=a,b,c&port=1,2".to_owned(),
                "2 values of port for 3 hosts",
            ),
            (
                "channel_binding=require".to_owned(),
                "channel_binding=require is not supported",
            ),
        ] {
            let why = hosts(&format!("postgres://me@h/db?{parameter}"));
            assert!(
                why.contains(said) && !why.contains(CANARY),
                "{parameter}: {why}"
            );
        }
        for url in [
            "postgres://me:canary5/x@h/db",
            "postgres://me:12/canary5@h/db",
            "postgres://::1/db",
            "postgres://[::1/db",
        ] {
            let why = hosts(url);
            assert!(
                why.starts_with("! ") && !why.contains(CANARY),
                "{url}: {why}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_it_or_comes_back_in_its_words(text in "[a-z0-9:/?#@%&=,\\[\\]. -]{0,60}") {
            let url = format!("postgres://u:zQ7canary@{text}");
            if let Err(why) = Target::parse(&url) {
                prop_assert!(!why.contains("zQ7canary"));
            }
            let _ = Target::parse(&text);
        }
    }
}
