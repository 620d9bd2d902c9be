//! Which secret a page gets, where it may come from, and that it is never shown.

use super::*;
use crate::secrets::Slot;

#[test]
fn a_page_without_its_own_keys_takes_those_of_default() {
    let toml =
        "[pages.default]\nsecret = \"d\"\nrate = 5\n[pages.1]\nsecret = \"o\"\n[pages.2]\nrate = 9";
    let config = load(toml, &[("POSTLANE_PAGES__3__RATE", "2.5")]).expect("a configuration");
    let secret = |page: &str| {
        config
            .secret(page)
            .map(|secret| secret.expose_secret().to_owned())
    };
    for (page, own, rate) in [
        ("1", "o", 5.0),
        ("2", "d", 9.0),
        ("3", "d", 2.5),
        ("4", "d", 5.0),
    ] {
        assert_eq!(
            (secret(page).as_deref(), config.page_rate(page)),
            (Some(own), Some(rate)),
            "{page}"
        );
    }
    assert!(
        config
            .written_out()
            .iter()
            .all(|warning| warning.contains("for trials only"))
    );
    assert_eq!(config.written_out().len(), 2);
}

#[test]
fn a_page_whose_own_secret_is_missing_is_not_signed_with_another() {
    let toml = "[pages.default]\nsecret = \"d\"\n[pages.1]\nsecret_env = \"NOT_SET\"\n[pages.2]\nsecret_env = \"EMPTY\"";
    let config = load(toml, &[("EMPTY", " ")]).expect("no error for verbs that sign nothing");
    assert!(config.secret("1").is_none() && config.secret("2").is_none());
    assert!(config.secret("3").is_some());
    let error = config
        .require_secrets()
        .expect_err("an error for those that sign")
        .to_string();
    assert!(
        error.contains("pages.1.secret_env") && error.contains("the variable NOT_SET is not set"),
        "{error}"
    );
    assert!(error.contains("the variable EMPTY is empty"), "{error}");
}

#[test]
fn a_previous_secret_comes_from_where_a_secret_does_and_only_beside_one() {
    let toml = "[pages.1]\nsecret_file = \"s\"\nprevious_secret_file = \"p\"\n\
                [pages.2]\nsecret = \"x\"\nprevious_secret_env = \"POSTLANE_P\"\n\
                [pages.3]\nsecret = \"x\"\nprevious_secret = \"y\"\n[pages.4]\nsecret = \"x\"";
    let folder = Folder::with(toml)
        .secret("s", "new", 0o600)
        .secret("p", "old\n", 0o600);
    let config = folder
        .load(&[("POSTLANE_P", "old")])
        .expect("a configuration");
    let previous = |page: &str| match &config.pages[page].previous {
        PageSecret::Known(secret) => Some(secret.expose_secret().to_owned()),
        _ => None,
    };
    for (page, secret) in [
        ("1", Some("old")),
        ("2", Some("old")),
        ("3", Some("y")),
        ("4", None),
    ] {
        assert_eq!(previous(page).as_deref(), secret, "{page}");
    }
    let files = config.secret_files().iter();
    let files: Vec<_> = files.map(|file| (file.key.as_str(), file.slot)).collect();
    assert_eq!(
        files,
        [
            ("pages.1.secret_file", Slot::Current),
            ("pages.1.previous_secret_file", Slot::Previous)
        ]
    );
    config.require_secrets().expect("all are there");
    let warnings = config.written_out().join("\n");
    assert!(warnings.contains("pages.3.previous_secret ("), "{warnings}");
    assert!(!warnings.contains("POSTLANE_P "), "{warnings}");

    let others = folder.secret("p", "old", 0o604);
    let config = others.load(&[("POSTLANE_P", " ")]).expect("no error yet");
    let error = config.require_secrets().expect_err("two").to_string();
    assert!(error.contains("pages.1.previous_secret_file"), "{error}");
    assert!(error.contains("chmod 640"), "{error}");
    assert!(
        error.contains("the variable POSTLANE_P is empty"),
        "{error}"
    );
    for (toml, said) in [
        (
            "[pages.default]\nsecret = \"d\"\n[pages.1]\nprevious_secret = \"p\"",
            "pages.1.previous_secret = \"***\"",
        ),
        (
            "[pages.default]\nsecret = \"d\"\n[pages.1]\nprevious_secret = \"p\"",
            "set one of secret_env, secret_file, secret beside it",
        ),
        (
            "[pages.1]\nsecret = \"d\"\nprevious_secret = \"p\"\nprevious_secret_env = \"P\"",
            "contradict each other: keep one",
        ),
    ] {
        assert!(problems(toml).contains(said), "{}", problems(toml));
    }
}

#[test]
fn a_configuration_that_differs_in_secrets_alone_needs_no_restart() {
    let first = "[pages.1]\nsecret = \"a\"";
    let config = load(first, &[]).expect("a configuration");
    for (toml, differs) in [
        (first, false),
        (
            "\n[pages.1]\nsecret = \"b\"\nprevious_secret = \"a\"",
            false,
        ),
        ("[pages.2]\nsecret = \"a\"", false),
        ("[pages.1]\nsecret = \"a\"\nrate = 2", true),
        ("[pages.1]\nsecret = \"a\"\n[retry]\nfirst = \"3s\"", true),
        (
            "database_url = \"postgres://me:x@db/x\"\n[pages.1]\nsecret = \"a\"",
            true,
        ),
    ] {
        let other = load(toml, &[]).expect(toml);
        assert_eq!(other.differs_beside_secrets(&config), differs, "{toml}");
    }
    let database = |password: &str| {
        let toml = format!("database_url = \"postgres://me:{password}@db/x\"");
        load(&toml, &[]).expect("a configuration")
    };
    assert!(database("x").differs_beside_secrets(&database("y")));
}

#[test]
fn a_complaint_is_one_line_whatever_a_path_holds() {
    let config = load("", &[("POSTLANE_PAGES__1__SECRET_FILE", "a\n\u{1b}[31mb")]).expect("valid");
    let error = config.require_secrets().expect_err("there is no such file");
    let problem = error.problems()[0].as_str();
    assert!(problem.contains(r"a\n\u{1b}[31mb: "), "{problem:?}");
    let file = SecretFile::of("pages.1.secret_file", Path::new("a\n\u{1b}[31mb"));
    let why = file.expect("a key of a page").read();
    let why = why.expect_err("there is no such file");
    assert!(why.starts_with(r"a\n\u{1b}[31mb: "), "{why:?}");
    let why = rules_of(Path::new("a\nb")).expect_err("there is no such file");
    assert!(why.starts_with(r"a\nb: "), "{why:?}");
    let file = problems("[judge]\nrules = \"a\\nb\"\n");
    assert_eq!(file.lines().count(), 2, "{file}");
}

#[test]
fn a_secret_file_that_others_may_read_is_refused() {
    for (mode, allowed) in [
        (0o600, true),
        (0o640, true),
        (0o440, true),
        (0o644, false),
        (0o604, false),
        (0o601, false),
    ] {
        let folder = Folder::with("[pages.1]\nsecret_file = \"s\"").secret("s", CANARY, mode);
        let config = folder.load(&[]).expect("a configuration");
        assert_eq!(config.secret("1").is_some(), allowed, "{mode:o}");
        match config.require_secrets() {
            Ok(()) => assert!(allowed, "{mode:o}"),
            Err(error) => assert!(error.to_string().contains("chmod 640"), "{error}"),
        }
    }
}

#[test]
fn a_secret_file_loses_one_newline_and_must_hold_something() {
    for (content, secret) in [
        ("s", Some("s")),
        ("s\n", Some("s")),
        ("s\r\n", Some("s")),
        ("s\n\n", Some("s\n")),
        ("\n", None),
        ("", None),
    ] {
        let folder = Folder::with("[pages.1]\nsecret_file = \"s\"").secret("s", content, 0o600);
        let config = folder.load(&[]).expect("a configuration");
        assert_eq!(
            config.secret("1").map(|secret| secret.expose_secret()),
            secret,
            "{content:?}"
        );
        assert_eq!(
            config.warnings().len(),
            usize::from(secret == Some("s\n")),
            "{content:?}"
        );
    }
    for (file, said) in [
        (".", "is not a regular file"),
        ("none", "No such file"),
        ("$HOME/s", "only $CREDENTIALS"),
    ] {
        let config =
            load(&format!("[pages.1]\nsecret_file = \"{file}\""), &[]).expect("a configuration");
        let error = config.require_secrets().expect_err(file).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_systemd_credential_is_found_in_its_folder() {
    let credentials = Folder::with("").secret("page", "0123456789abcdef\n", 0o440);
    let folder = credentials.0.path().to_str().expect("a path");
    for file in [
        "$CREDENTIALS_DIRECTORY/page",
        "${CREDENTIALS_DIRECTORY}/page",
    ] {
        let toml = format!(
            "[pages.1]\nsecret_file = \"{file}\"\n[admin]\nlisten = \"0.0.0.0:1\"\ntoken_file = \"{file}\""
        );
        let config = load(&toml, &[("CREDENTIALS_DIRECTORY", folder)]).expect("a configuration");
        assert_eq!(
            config.secret("1").map(|secret| secret.expose_secret()),
            Some("0123456789abcdef")
        );
        assert_eq!(
            config
                .admin
                .token
                .as_ref()
                .map(|token| token.expose_secret()),
            Some("0123456789abcdef")
        );
        let error = load(&toml, &[])
            .expect("a configuration")
            .require_secrets()
            .expect_err("no folder");
        assert!(
            error
                .to_string()
                .contains("CREDENTIALS_DIRECTORY is not set"),
            "{error}"
        );
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let toml = format!(
        "database_url = \"postgres://me:{CANARY}@db/x?password={CANARY}\"\n[api]\nurl = \"https://h/?key={CANARY}\"\n\
         [pages.1]\nsecret = \"{CANARY}\"\n[pages.2]\nsecret_env = \"B\"\n[pages.3]\nsecret_file = \"s\"\n\
         [pages.4]\nsecret_env = \"MISSING\"\nprevious_secret = \"{CANARY}\"\n[admin]\ntoken_env = \"B\""
    );
    let folder = Folder::with(&toml).secret("s", CANARY, 0o600);
    let config = folder
        .load(&[("B", CANARY), ("POSTLANE_X", CANARY)])
        .expect("a configuration");
    assert!(config.secret("3").is_some() && config.admin.token.is_some());
    let shown = format!(
        "{config:?}{:?}{:?}{:?}",
        config.resolved(),
        [config.warnings(), config.written_out()],
        config.require_secrets()
    );
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(
        shown.contains("postgres://me:***@db/x?password=***"),
        "{shown}"
    );

    for toml in [
        format!("database_url = \"{CANARY}\""),
        format!("database_url = \"mysql://me:{CANARY}@db/x\""),
        format!("database_url = \"postgres://me:{CANARY}@db/x"),
        format!("database_url = [\"{CANARY}\"]"),
        format!("[api]\nurl = \"https://me:{CANARY}@host/\""),
        format!("[api]\nurl = \"https://{CANARY}@host/\""),
        format!("[api]\nurl = \"http://host/?key={CANARY}\""),
        format!("[pages.1]\nsecret = \"{CANARY}\nrate = 1"),
        format!("[pages.1]\nsecret = {CANARY}"),
        format!("[pages.1]\nsecret = [\"{CANARY}\"]"),
        format!("[pages.1]\nsecret = \"{CANARY}\"\nsecret_env = \"A\""),
        format!("[pages.1]\nsecret = \"{CANARY}\"\nsecret = \"{CANARY}\""),
        format!("[pages.1]\nsecret_env = \"{CANARY}\""),
        format!("[pages.1]\nsecret_env = \"A\"\nprevious_secret_env = \"{CANARY}\""),
        format!("[pages.1]\nprevious_secret = \"{CANARY}\""),
        format!("[admin]\ntoken_env = \"{CANARY}\""),
    ] {
        let error = load(&toml, &[("POSTLANE_PAGES__2__SECRET", CANARY)]).expect_err(&toml);
        assert!(
            !format!("{error} {error:?}").contains(CANARY),
            "{toml}\n{error}"
        );
    }
}

#[test]
fn a_password_on_the_command_line_gets_a_warning() {
    for (url, warnings) in [("postgres://me:s@db/x", 1), ("postgres://me@db/x", 0)] {
        let overrides = Overrides {
            database_url: Some(url.to_owned()),
            ..Overrides::default()
        };
        let none: [(&str, &str); 0] = [];
        let config = Config::load_from(&[], &overrides, none).expect("a configuration");
        assert_eq!(config.warnings().len(), warnings, "{url}");
    }
}

#[test]
fn what_an_editor_adds_to_a_secret_is_refused() {
    for (text, why) in [
        ("\u{feff}secret\n", "begins with a byte order mark"),
        ("secret\nanother\n", "has more than one line"),
        ("secret\r\n# of page 1", "has more than one line"),
    ] {
        let toml = "[pages.1]\nsecret_file = \"s\"\n[pages.2]\nsecret_env = \"S\"";
        let folder = Folder::with(toml).secret("s", text, 0o600);
        let config = folder.load(&[("S", text)]).expect("a configuration");
        let error = config.require_secrets().expect_err("refused").to_string();
        assert_eq!(error.matches(why).count(), 2, "{error}");
        assert!(!error.contains("another"), "{error}");
    }
}
