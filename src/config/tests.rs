//! The layers and the keys; values, defaults, messages and secrets in `tests/`.

mod defaults;
mod messages;
mod secrets;
mod values;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

/// What no error and no listing may ever show.
const CANARY: &str = "kanarienvogel-7f3a";

/// A folder with a `postlane.toml`, and what may lie beside it.
struct Folder(TempDir);

impl Folder {
    fn with(toml: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.secret("postlane.toml", toml, 0o600)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn secret(self, name: &str, content: &str, mode: u32) -> Self {
        fs::write(self.path(name), content).expect("a file");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("its mode");
        self
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let overrides = Overrides {
            config: Some(self.path("postlane.toml")),
            ..Overrides::default()
        };
        Config::load(&overrides, environment.iter().copied())
    }
}

fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Folder::with(toml).load(environment)
}

fn problems(toml: &str) -> String {
    load(toml, &[])
        .expect_err("a configuration that is refused")
        .to_string()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let folder = Folder::with(
        "database_url = \"sqlite://file.db\"\n[api]\ntimeout = \"10s\"\n[retry]\nfirst = \"3s\"",
    );
    let overrides = Overrides {
        config: Some(folder.path("postlane.toml")),
        database_url: Some("sqlite://flag.db".to_owned()),
        log: Some("debug".to_owned()),
    };
    let environment = [
        ("POSTLANE_DATABASE_URL", "sqlite://env.db"),
        ("POSTLANE_API__TIMEOUT", "20s"),
        ("POSTLANE_LOG__LEVEL", "warn"),
        ("POSTLANE_WORKER__CONCURRENCY", "8"),
        ("POSTLANE_WORKER__NOTIFY", "false"),
    ];
    let config = Config::load(&overrides, environment).expect("a configuration");
    assert_eq!(config.database_url.expose(), "sqlite://flag.db");
    assert_eq!(config.api.timeout, seconds(20));
    assert_eq!(config.retry.first, seconds(3));
    assert_eq!(config.log.level, "debug");
    assert_eq!(
        (config.worker.concurrency, config.worker.notify),
        (8, false)
    );
    assert_eq!(config.file(), Some(folder.path("postlane.toml").as_path()));
    for (key, value, source) in [
        (
            "database_url",
            "sqlite://flag.db",
            Source::Flag("--database-url"),
        ),
        (
            "api.timeout",
            "20s",
            Source::Env("POSTLANE_API__TIMEOUT".to_owned()),
        ),
        (
            "retry.first",
            "3s",
            Source::File(folder.path("postlane.toml"), 5),
        ),
        ("retry.max", "10m", Source::Default),
        ("log.level", "debug", Source::Flag("--log")),
    ] {
        let expected = Resolved {
            key: key.to_owned(),
            value: value.to_owned(),
            source,
        };
        assert!(
            config.resolved().contains(&expected),
            "{expected:?} in {:?}",
            config.resolved()
        );
    }
}

#[test]
fn the_first_file_that_exists_is_read_and_a_named_one_must_exist() {
    let folder = Folder::with("[worker]\nconcurrency = 7");
    let (missing, there) = (folder.path("missing.toml"), folder.path("postlane.toml"));
    let none: [(&str, &str); 0] = [];
    let overrides = Overrides::default();
    let found = Config::load_from(&[&missing, &there], &overrides, none).expect("the second");
    assert_eq!(found.worker.concurrency, 7);
    let nothing = Config::load_from(&[&missing], &overrides, none).expect("the defaults");
    assert_eq!((nothing.worker.concurrency, nothing.file()), (256, None));
    let overrides = Overrides {
        config: Some(missing.clone()),
        ..overrides
    };
    let error = Config::load_from(&[&there], &overrides, none)
        .expect_err("no such file")
        .to_string();
    assert!(
        error.contains("missing.toml (named by --config)"),
        "{error}"
    );
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_key_that_was_meant() {
    let error = problems(
        "[api]\n\nulr = \"https://x/\"\n[pages.1]\nsecret = \"s\"\nrat = 3\n[wroker]\nlease = \"1s\"",
    );
    assert!(
        error.contains("postlane.toml:3: unknown key \"api.ulr\"; did you mean \"api.url\"?"),
        "{error}"
    );
    assert!(
        error.contains(
            "postlane.toml:6: unknown key \"pages.1.rat\"; did you mean \"pages.1.rate\"?"
        ),
        "{error}"
    );
    assert!(
        error.contains("postlane.toml:7: unknown key \"wroker\"; did you mean \"worker\"?"),
        "{error}"
    );
    let error = problems("api = 3\n[pages.012]\nrate = 1\n[retry.first]\nx = 1");
    assert!(
        error.contains("postlane.toml:1: api is a section: write [api]"),
        "{error}"
    );
    assert!(error.contains("\"pages.012\" is no page"), "{error}");
    assert!(
        error.contains("retry.first takes one value, not a TOML table"),
        "{error}"
    );
}

#[test]
fn a_variable_that_is_no_key_gets_a_warning_unless_a_secret_is_in_it() {
    let toml = "[pages.1]\nsecret_env = \"POSTLANE_SECRET_1\"\n[pages.2]\nsecret_env = \"POSTLANE_API__URL\"";
    let environment = [
        ("POSTLANE_SECRET_1", CANARY),
        ("POSTLANE_API__URL", CANARY),
        ("POSTLANE_API_URL", CANARY),
        ("POSTLANE_SECRET_3", CANARY),
        ("POSTLANE_PAGES__3__SECRET_ENV", "POSTLANE_SECRET_3"),
        ("POSTLANE_TEST_POSTGRES_URL", CANARY),
        ("POSTGRES_URL", CANARY),
    ];
    let config = load(toml, &environment).expect("a configuration");
    assert_eq!(
        config.warnings(),
        ["POSTLANE_API_URL is no key and is ignored; did you mean POSTLANE_API__URL?"]
    );
    assert_eq!(config.api, Config::default().api);
    for page in ["1", "2", "3"] {
        assert_eq!(
            config.secret(page).map(|secret| secret.expose_secret()),
            Some(CANARY),
            "{page}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reading_panic(toml in ".*", key in 0..keys::KEYS.len(), value in ".*") {
        let mut layers = Layers::default();
        layers.toml(&toml, Path::new("any.toml"));
        layers.toml(&format!("[pages.1]\nsecret = {value:?}\n{value} = {toml:?}"), Path::new("any.toml"));
        let variable = (keys::variable(keys::KEYS[key].0).into(), value.into());
        layers.environment([variable].into_iter());
        let _ = sections::config(layers);
    }
}
