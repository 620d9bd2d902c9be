//! What holds where nothing is set, in the code, the documentation and the packaged example.

use super::*;

/// The example of the documentation, as operators copy it.
const EXAMPLE: &str = r#"
database_url = "sqlite://postlane.db"          # or postgres://…
[api]
url = "https://joinchat.ai/api/send_message"
signature_header = "x-joinchat-signature"
timeout = "30s"
connect_timeout = "5s"
tcp_user_timeout = "10s"
delay = "worker"
[worker]
concurrency = 256
shutdown_timeout = "30s"
notify = true
lease = "45s"
[retry]
max_attempts = 20
first = "2s"
max = "10m"
on_ambiguous = "retry"
[pages."12345"]
secret_env = "POSTLANE_SECRET_12345"
rate = 300
[lanes]
after_unknown = "block"
min_gap = "0s"
[retention]
delivered = "7d"
dead = "90d"
[admin]
listen = "127.0.0.1:9464"
"#;

#[test]
fn the_documented_example_holds_the_defaults() {
    let config = load(EXAMPLE, &[("POSTLANE_SECRET_12345", CANARY)]).expect("the example");
    let default = Config::default();
    assert_eq!(config.database_url.expose(), default.database_url.expose());
    assert_eq!(config.api, default.api);
    assert_eq!(config.message, default.message);
    assert_eq!(config.worker, default.worker);
    assert_eq!(config.retry, default.retry);
    assert_eq!(config.lanes, default.lanes);
    assert_eq!(config.retention, default.retention);
    assert_eq!(config.admin.listen, default.admin.listen);
    assert_eq!(config.log, default.log);
    assert_eq!(config.page_rate("12345"), Some(300.0));
    assert_eq!(
        config.secret("12345").map(|secret| secret.expose_secret()),
        Some(CANARY)
    );
    assert_eq!(config.warnings(), [""; 0]);
    config.require_secrets().expect("the secret is there");
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = Config::default();
    assert_eq!(config.database_url.engine(), Engine::Sqlite);
    assert_eq!(
        config.api.url.as_str(),
        "https://joinchat.ai/api/send_message"
    );
    assert_eq!(config.api.signature_header, "x-joinchat-signature");
    assert_eq!(config.api.timeout, seconds(30));
    assert_eq!(config.api.connect_timeout, seconds(5));
    assert_eq!(config.api.tcp_user_timeout, seconds(10));
    assert_eq!(config.api.keep_alive, seconds(1));
    assert_eq!(config.api.delay, Delay::Worker);
    assert_eq!(config.api.version, "2020-11");
    assert_eq!(config.message, Limits::default());
    assert_eq!(config.api.shortest_lease(), seconds(43));
    assert_eq!(
        config.worker,
        Worker {
            name: None,
            concurrency: 256,
            shutdown_timeout: seconds(30),
            notify: true,
            lease: seconds(45)
        }
    );
    assert_eq!(
        config.retry,
        Retry {
            max_attempts: 20,
            first: seconds(2),
            max: seconds(600),
            max_retry_after: seconds(3600),
            on_ambiguous: OnAmbiguous::Retry,
            max_ambiguous: 5
        }
    );
    assert_eq!(
        config.lanes,
        Lanes {
            after_unknown: AfterUnknown::Block,
            min_gap: Duration::ZERO
        }
    );
    assert_eq!(
        config.retention,
        Retention {
            delivered: seconds(7 * 86400),
            dead: seconds(90 * 86400)
        }
    );
    assert_eq!(config.admin.listen, Some(([127, 0, 0, 1], 9464).into()));
    assert_eq!(
        config.log,
        Log {
            format: LogFormat::Human,
            level: "info".to_owned()
        }
    );
    assert!(
        config.pages.is_empty() && config.secret("1").is_none() && config.page_rate("1").is_none()
    );
}

/// The packaged example; its lines that begin with `#: ` are examples of keys without a default.
const PACKAGED: &str = include_str!("../../../packaging/postlane.toml");

#[test]
fn the_packaged_example_parses_and_every_key_in_it_stands_at_its_default() {
    let config = load(PACKAGED, &[]).expect("the packaged example");
    assert_eq!(config.warnings(), [""; 0]);
    let default = Config::default();
    for (set, default) in config.resolved().iter().zip(default.resolved()) {
        assert_eq!((&set.key, &set.value), (&default.key, &default.value));
        let unset = default.value.is_empty();
        assert_eq!(
            unset,
            set.source == Source::Default,
            "{} is written out",
            set.key
        );
    }
    assert_eq!(
        config.resolved().len(),
        default.resolved().len(),
        "no page is set"
    );
}

#[test]
fn every_key_stands_in_the_packaged_example_even_those_without_a_default() {
    let uncommented = PACKAGED
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
        // A file that is there: the rules that are built in.
        .replace(
            "\"rules.toml\"",
            concat!("\"", env!("CARGO_MANIFEST_DIR"), "/src/judge/rules.toml\""),
        );
    let environment = [
        ("POSTLANE_SECRET_12345", CANARY),
        ("POSTLANE_SECRET_12345_BEFORE", CANARY),
        ("POSTLANE_SECRET", CANARY),
        ("POSTLANE_ADMIN_TOKEN", CANARY),
    ];
    let config = load(&uncommented, &environment).expect("the example with all examples on");
    let unset: Vec<_> = config
        .resolved()
        .iter()
        .filter(|row| row.source == Source::Default)
        .collect();
    assert!(
        unset.iter().all(|row| row.key == "admin.token_file"),
        "{unset:?}"
    );
    assert_eq!(config.page_rate("12345"), Some(300.0));
    config.require_secrets().expect("all secrets are there");
}

#[test]
fn the_variables_of_the_compose_file_make_a_configuration() {
    let compose = include_str!("../../../docker-compose.yml");
    let environment: Vec<(&str, &str)> = compose
        .lines()
        .filter_map(|line| {
            line.strip_prefix("    POSTLANE_")
                .and(line.trim().split_once(": "))
        })
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect();
    let none = Overrides::default();
    let config = Config::load_from(&[], &none, environment).expect("a configuration");
    assert_eq!(config.warnings(), [""; 0]);
    assert_eq!(config.database_url.engine(), Engine::Postgres);
    assert_eq!(config.api.url.host_str(), Some("mock"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.admin.token.is_some() && config.secret("12345").is_some());
    config.require_secrets().expect("all secrets are there");
}
