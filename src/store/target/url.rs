//! A URL as libpq spells it: several hosts, sockets, parameters.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{CONNECT, Host, Parsed, Wanted};

/// Where servers of this machine have their sockets.
pub(super) const SOCKETS: [&str; 4] = [
    "/var/run/postgresql",
    "/run/postgresql",
    "/private/tmp",
    "/tmp",
];

/// The port of a server that says none.
const PORT: u16 = 5432;

/// Parameters that say how libpq keeps a connection alive, or what this program does anyway.
const NOT_NEEDED: &[&str] = &[
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    // Sessions have names of their own, by which the server is asked about them.
    "application_name",
    "fallback_application_name",
    "load_balance_hosts",
    "sslsni",
    "sslcompression",
    "pgbouncer",
    "statement_cache_size",
    "statement-cache-capacity",
    "uselibpqcompat",
];

/// Parameters that say something that counts here.
const HONOURED: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "passfile",
    "ssl",
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "options",
    "connect_timeout",
    "target_session_attrs",
    "client_encoding",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
    "schema",
];

/// Parameters that libpq or other drivers know and this program does not honour.
const REFUSED: &[&str] = &[
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "sslcertmode",
    "sslkeylogfile",
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

/// What libpq's variables mean where the URL says nothing.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    // Demands of security that would be dropped without a word.
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGREQUIRESSL", "requiressl"),
];

/// Those that say where: for a URL that names no host.
const ENVIRONMENT_OF_HOSTS: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGSERVICE", "service"),
];

pub(super) fn parse(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Parsed, String> {
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
    // The driver reads these by itself, and cannot be told otherwise.
    if env("PGOPTIONS").is_some_and(|options| !options.is_empty()) {
        return Err(
            "the environment's PGOPTIONS is not supported: write options=… into the URL".to_owned(),
        );
    }
    for variable in ["PGUSER", "PGSSLCERT", "PGSSLKEY"] {
        if env(variable).is_some_and(|value| value.is_empty()) {
            return Err(format!("the environment's {variable} is empty: unset it"));
        }
    }
    let mut said = Said::new();
    said.environment(ENVIRONMENT, env)?;
    let default_ports = std::mem::take(&mut said.ports);
    if let Some(login) = login {
        let (user, secret) = match login.split_once(':') {
            Some((user, secret)) => (user, Some(secret)),
            None => (login, None),
        };
        if !user.is_empty() {
            said.base = said.base.username(&decoded("user name", user)?);
        }
        if let Some(secret) = secret {
            said.parameter("password", decoded("password", secret)?)?;
        }
    }
    if let Some(database) = database.filter(|database| !database.is_empty()) {
        said.base = said.base.database(&decoded("database", database)?);
    }
    (said.names, said.ports) = authority_hosts(hosts)?;
    let parameters = query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty());
    for (at, parameter) in parameters.enumerate() {
        let number = at + 1;
        let (name, value) = parameter
            .split_once('=')
            .ok_or_else(|| format!("its parameter number {number} has no value"))?;
        if !is_known(name) {
            // Its name is not told either: it could be the rest of a password with a & in it.
            return Err(format!(
                "its parameter number {number} is none that is known (in a password, write & as %26)"
            ));
        }
        said.parameter(name, decoded(name, value)?)?;
    }
    if said
        .names
        .iter()
        .chain(&said.addresses)
        .all(String::is_empty)
    {
        said.environment(ENVIRONMENT_OF_HOSTS, env)?;
    }
    if said.ports.iter().all(Option::is_none) {
        said.ports = default_ports;
    }
    said.parsed()
}

/// What has been said so far; the last word holds.
struct Said {
    names: Vec<String>,
    addresses: Vec<String>,
    ports: Vec<Option<u16>>,
    base: PgConnectOptions,
    settings: Vec<(String, String)>,
    password: Option<String>,
    passfile: Option<PathBuf>,
    wanted: Wanted,
    connect: Duration,
    ssl: Option<PgSslMode>,
    root: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl Said {
    fn new() -> Self {
        Self {
            names: Vec::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            // The driver reads some variables by itself. All that it reads is refused or set again here, but for
            // a name in PGAPPNAME.
            base: PgConnectOptions::new_without_pgpass().extra_float_digits(None),
            settings: Vec::new(),
            password: None,
            passfile: None,
            wanted: Wanted::ReadWrite,
            connect: CONNECT,
            ssl: None,
            root: None,
            cert: None,
            key: None,
        }
    }

    fn environment(
        &mut self,
        variables: &[(&str, &str)],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        for (variable, parameter) in variables {
            if let Some(value) = env(variable).filter(|value| !value.is_empty()) {
                self.parameter(parameter, value)
                    .map_err(|why| format!("the environment's {variable}: {why}"))?;
            }
        }
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), String> {
        // Other drivers take the text of a key there, and files are named in errors.
        if name.starts_with("ssl") && (value.contains("-----") || value.contains('\n')) {
            return Err(format!("{name} is the name of a file, not its text"));
        }
        match name {
            "host" => self.names = list(&value),
            "hostaddr" => self.addresses = list(&value),
            "port" => {
                let ports = list(&value);
                self.ports = ports.iter().map(|p| port(p)).collect::<Result<_, _>>()?;
            }
            "dbname" => self.base = self.base.clone().database(&value),
            "user" => self.base = self.base.clone().username(&value),
            // As libpq: an empty one is none.
            "password" | "passfile" if value.is_empty() => {}
            "password" => self.password = Some(value),
            "passfile" => self.passfile = Some(PathBuf::from(value)),
            "ssl" if value == "true" => self.ssl = Some(PgSslMode::Require),
            "ssl" => return Err("ssl is true, or left out: use sslmode".to_owned()),
            "sslmode" | "ssl-mode" => self.ssl = Some(ssl_mode(&value)?),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => self.root = Some(value),
            "sslcert" | "ssl-cert" => self.cert = Some(value),
            "sslkey" | "ssl-key" => self.key = Some(value),
            "options" => self.settings = options(&value)?,
            "connect_timeout" => {
                let seconds = value
                    .parse()
                    .map_err(|_| "connect_timeout is no number of seconds")?;
                // As libpq: 0 is no limit, and less than 2 is 2.
                self.connect = match seconds {
                    0 => CONNECT,
                    1 => Duration::from_secs(2),
                    seconds => Duration::from_secs(seconds).min(CONNECT),
                };
            }
            "target_session_attrs" => self.wanted = session(&value)?,
            "client_encoding"
                if matches!(&*value.to_ascii_lowercase(), "utf8" | "utf-8" | "auto") => {}
            "client_encoding" => return Err("client_encoding must be utf8".to_owned()),
            "gssencmode" | "channel_binding" if value != "require" => {}
            "gssencmode" | "channel_binding" => {
                return Err(format!("{name}=require is not supported"));
            }
            "sslnegotiation" if value == "postgres" => {}
            "schema" => {
                return Err(
                    "schema is no parameter of Postgres: use options=-csearch_path%3DNAME"
                        .to_owned(),
                );
            }
            name if NOT_NEEDED.contains(&name) => {}
            name => {
                return Err(format!(
                    "the parameter {name} is not supported: leave it out (settings of the session go into \
                     options=-cNAME%3DVALUE)"
                ));
            }
        }
        Ok(())
    }

    fn parsed(self) -> Result<Parsed, String> {
        let (mut base, mut files) = (self.base, Vec::new());
        // As libpq: who says by which authority the server is to be known means it.
        let ssl = match (self.root.as_deref(), self.ssl) {
            (Some("system"), None | Some(PgSslMode::VerifyFull)) => PgSslMode::VerifyFull,
            (Some("system"), _) => {
                return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
            }
            (Some(_), Some(PgSslMode::Require)) => PgSslMode::VerifyCa,
            (_, ssl) => ssl.unwrap_or_default(),
        };
        let both = !self.names.is_empty() && !self.addresses.is_empty();
        if both && matches!(ssl, PgSslMode::VerifyFull) {
            return Err(
                "hostaddr is not supported with sslmode=verify-full: the certificate would have to be the address's"
                    .to_owned(),
            );
        }
        // Without one the driver would take that of PGSSLROOTCERT, which may say "system".
        base = match self.root.filter(|root| root != "system") {
            None => base.ssl_root_cert_from_pem(Vec::new()),
            Some(root) => {
                files.push(("sslrootcert", PathBuf::from(&root)));
                base.ssl_root_cert(&root)
            }
        };
        if let Some(cert) = self.cert {
            base = base.ssl_client_cert(&cert);
            files.push(("sslcert", cert.into()));
        }
        if let Some(key) = self.key {
            base = base.ssl_client_key(&key);
            files.push(("sslkey", key.into()));
        }
        if matches!(ssl, PgSslMode::Disable) {
            files.clear();
        }
        Ok(Parsed {
            files,
            hosts: hosts_of(self.names, self.addresses, &self.ports)?,
            base: base.ssl_mode(ssl),
            settings: self.settings,
            password: self.password,
            passfile: self.passfile,
            wanted: self.wanted,
            connect: self.connect,
        })
    }
}

fn is_known(name: &str) -> bool {
    HONOURED.contains(&name) || NOT_NEEDED.contains(&name) || REFUSED.contains(&name)
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
        let port = port.flatten().unwrap_or(PORT);
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
            (None, None) => here(port),
        };
        (host, port)
    };
    Ok((0..count).map(host).collect())
}

/// The server of this machine: its socket where one is, else `localhost`.
fn here(port: u16) -> Host {
    let folders = SOCKETS.map(PathBuf::from);
    let has_socket = |folder: &PathBuf| folder.join(format!(".s.PGSQL.{port}")).exists();
    match folders.into_iter().find(has_socket) {
        Some(folder) => Host::Socket(folder),
        None => Host::Tcp {
            name: "localhost".to_owned(),
            address: None,
        },
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
        .map_err(|_| format!("{what} is not UTF-8 when its %XX are read"))?;
    match text.contains('\0') {
        true => Err(format!("{what} has a NUL")),
        false => Ok(text.into_owned()),
    }
}

fn ssl_mode(value: &str) -> Result<PgSslMode, String> {
    match value.to_ascii_lowercase().parse() {
        // The driver takes it for `disable`, and a server that wants TLS would not be reached.
        Ok(PgSslMode::Allow) => {
            Err("sslmode=allow is not supported: use prefer or require".to_owned())
        }
        Ok(mode) => Ok(mode),
        Err(_) => {
            Err("sslmode is one of disable, prefer, require, verify-ca, verify-full".to_owned())
        }
    }
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
/// The same URL for sessions that find their tables in this schema.
pub(in crate::store) fn with_schema(url: &str, schema: &str) -> String {
    let setting = format!("-csearch_path%3D{schema}");
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let mut parameters: Vec<String> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(str::to_owned)
        .collect();
    match parameters.iter_mut().rfind(|p| p.starts_with("options=")) {
        Some(options) => *options = format!("{options}%20{setting}"),
        None => parameters.push(format!("options={setting}")),
    }
    format!("{before}?{}", parameters.join("&"))
}

fn options(value: &str) -> Result<Vec<(String, String)>, String> {
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
        // `--work-mem` is `work_mem`.
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Target;

    #[test]
    fn a_schema_joins_what_a_url_says_of_its_sessions() {
        for (url, with) in [
            ("postgres://h/x", "postgres://h/x?options=-csearch_path%3Ds"),
            (
                "postgres://h/x?sslmode=require",
                "postgres://h/x?sslmode=require&options=-csearch_path%3Ds",
            ),
            (
                "postgres://h/x?options=-cwork_mem%3D1MB&user=me",
                "postgres://h/x?options=-cwork_mem%3D1MB%20-csearch_path%3Ds&user=me",
            ),
        ] {
            assert_eq!(super::with_schema(url, "s"), with);
        }
    }

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

    fn parsed(parameters: &str, env: &[(&str, &str)]) -> Result<super::Parsed, String> {
        let env: std::collections::HashMap<_, _> = env.iter().copied().collect();
        let url = format!("postgres://me@h/db?{parameters}");
        super::parse(&url, &|name| env.get(name).map(|&v| v.to_owned()))
    }

    #[test]
    fn tls_is_as_strict_as_libpqs() {
        use sqlx::postgres::PgSslMode::{self, Prefer, Require, VerifyCa, VerifyFull};
        let mode = |parameters: &str, env: &[(&str, &str)]| -> Option<PgSslMode> {
            Some(parsed(parameters, env).ok()?.base.get_ssl_mode())
        };
        for (parameters, env, wanted) in [
            ("", &[][..], Some(Prefer)),
            ("ssl=true", &[], Some(Require)),
            ("sslmode=require", &[], Some(Require)),
            // Who names an authority wants it asked.
            ("sslmode=require&sslrootcert=/ca", &[], Some(VerifyCa)),
            (
                "sslmode=require",
                &[("PGSSLROOTCERT", "/ca")],
                Some(VerifyCa),
            ),
            (
                "sslrootcert=/ca",
                &[("PGSSLMODE", "require")],
                Some(VerifyCa),
            ),
            ("sslmode=verify-full&sslrootcert=/ca", &[], Some(VerifyFull)),
            ("sslrootcert=system", &[], Some(VerifyFull)),
            ("sslmode=verify-ca&sslrootcert=system", &[], None),
            ("sslmode=allow", &[], None),
            ("", &[("PGSSLMODE", "verify_full")], None),
        ] {
            let found = mode(parameters, env).map(|mode| format!("{mode:?}"));
            assert_eq!(
                found,
                wanted.map(|mode| format!("{mode:?}")),
                "{parameters}"
            );
        }
    }

    #[test]
    fn what_the_environment_says_is_honoured_or_refused_and_no_key_is_told() {
        for (parameters, env, word) in [
            (
                "",
                ("PGOPTIONS", "-cwork_mem=1MB"),
                "write options=… into the URL",
            ),
            ("", ("PGSSLKEY", ""), "PGSSLKEY is empty: unset it"),
            ("", ("PGUSER", ""), "PGUSER is empty: unset it"),
            (
                "",
                ("PGREQUIREPEER", "me"),
                "PGREQUIREPEER: the parameter requirepeer is not supported",
            ),
            (
                "",
                ("PGSSLKEY", "-----BEGIN zQ7canary"),
                "sslkey is the name of a file",
            ),
            (
                "sslkey=-----BEGIN%20zQ7canary",
                ("X", ""),
                "sslkey is the name of a file",
            ),
            (
                "sslmode=verify-full&hostaddr=10.0.0.1",
                ("X", ""),
                "hostaddr is not supported with sslmode=verify-full",
            ),
        ] {
            let why = parsed(parameters, &[env]).err().expect(word);
            assert!(why.contains(word) && !why.contains("zQ7canary"), "{why}");
        }
        let env = [
            ("PGSSLCERT", "/gone"),
            ("PGSSLROOTCERT", "system"),
            ("PGSSLMODE", "verify-full"),
        ];
        let files = parsed("sslcert=/good", &env).expect("a URL").files;
        assert_eq!(
            files,
            [("sslcert", "/good".into())],
            "what the URL overrides is not read"
        );
        assert_eq!(parsed("password=", &[]).expect("a URL").password, None);
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
