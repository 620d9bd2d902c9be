//! Any file, environment and flags, by the way that every verb takes: refused in lines that each
//! name something, or a configuration that can be worked with. A secret is never told.
//!
//! The input is the file and, after a NUL each, `NAME=VALUE`, as in a process's environment; an
//! input that begins with a NUL is all file. `--database-url=…` and `--log=…` are flags.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use postlane::config::{Config, ConfigError, Overrides};
use postlane::job::Outcome;
use postlane::judge::{Answer, judge};
use postlane_message::validate::{self, Limits};

/// What `FUZZ_SECRET` holds, and the file `secret`.
const SECRET: &str = "Zq7-hush-hush-91x";

/// What the file `rules.toml` holds: the built-in rules take twenty times as long to read.
const RULES: &str = include_str!("../seeds/rules/small.toml");

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("postlane-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("secret"), SECRET).expect("a file");
    fs::write(folder.join("rules.toml"), RULES).expect("a file");
    folder
});

fuzz_target!(|input: &[u8]| {
    let (file, variables) = match input.split_first() {
        Some((0, file)) => (file, &b""[..]),
        _ => {
            let end = input
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(input.len());
            (&input[..end], &input[end..])
        }
    };
    let path = FOLDER.join("postlane.toml");
    fs::write(&path, file).expect("a file");
    let mut overrides = Overrides {
        config: Some(path),
        ..Overrides::default()
    };
    let environment = environment(variables, &mut overrides);
    let is_told = input
        .windows(SECRET.len())
        .any(|text| text == SECRET.as_bytes());
    look(Config::load(&overrides, environment), is_told);
});

/// The variables, with those that the file may name; flags go to `overrides`.
fn environment(variables: &[u8], overrides: &mut Overrides) -> Vec<(OsString, OsString)> {
    let known = [
        ("FUZZ_SECRET", OsString::from(SECRET)),
        ("CREDENTIALS_DIRECTORY", FOLDER.clone().into_os_string()),
    ];
    let mut all: Vec<_> = known.map(|(name, value)| (name.into(), value)).into();
    for variable in variables.split(|byte| *byte == 0) {
        let Some(at) = variable.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = (&variable[..at], &variable[at + 1..]);
        match (name, std::str::from_utf8(value)) {
            (b"--database-url", Ok(url)) => overrides.database_url = Some(url.to_owned()),
            (b"--log", Ok(filter)) => overrides.log = Some(filter.to_owned()),
            _ => all.push((
                OsStr::from_bytes(name).into(),
                OsStr::from_bytes(value).into(),
            )),
        }
    }
    all
}

fn look(loaded: Result<Config, ConfigError>, is_told: bool) {
    let config = match loaded {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.problems().is_empty());
            told(error.problems(), is_told);
            return;
        }
    };
    told(config.warnings(), is_told);
    let all = format!("{config:?} {:?}", config.resolved());
    assert!(is_told || !all.contains(SECRET), "a secret is told: {all}");
    if let Err(error) = config.require_secrets() {
        told(error.problems(), is_told);
    }
    use_it(&config);
}

fn told(lines: &[String], is_told: bool) {
    for line in lines {
        assert!(!line.trim().is_empty());
        assert!(
            !line.contains(char::is_control),
            "more than a line: {line:?}"
        );
        assert!(
            is_told || !line.contains(SECRET),
            "a secret is told: {line}"
        );
    }
}

/// No value that was let through makes what works with it panic or overflow.
fn use_it(config: &Config) {
    assert!(config.worker.lease >= config.api.shortest_lease());
    assert!(config.retry.first <= config.retry.max);
    for page in ["12345", "default"] {
        assert!(
            config
                .page_rate(page)
                .is_none_or(|rate| rate.is_finite() && rate > 0.0)
        );
        let _ = config.secret(page);
    }
    for file in config.secret_files() {
        let why = file.read().err().unwrap_or_default();
        assert!(!why.contains(SECRET), "a secret is told: {why}");
    }
    assert!(!config.differs_beside_secrets(config));
    let text = br#"{"template_type":"text","text":"Hello World"}"#;
    let _ = validate::message(text, &config.message);
    if config.message != Limits::default() {
        assert!(!validate::rules(&config.message).is_empty());
        assert!(!validate::schema_text(&config.message).is_empty());
    }
    let header = |name: &str| (name == "retry-after").then_some(&b"99999999999"[..]);
    let most = config.retry.max_retry_after;
    let answer = Answer::status(503, header, (Vec::new(), None), 0, most);
    let judgement = judge(&config.judge.rules, &answer);
    assert_ne!(judgement.outcome, Outcome::NotSent);
    let policy = config.policy();
    for step in [1, 2, 20, 64, i64::MAX] {
        let wait = postlane::retry::backoff(&policy, step, 7);
        assert!(wait <= config.retry.max.saturating_mul(2), "{wait:?}");
    }
    assert!(config.retention.delivered < Duration::from_secs(101 * 366 * 24 * 3600));
}
