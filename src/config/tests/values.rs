//! Which values are allowed, on both sides of every edge, and what is said of the others.

use super::*;

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    for (toml, said) in [
        ("[worker]\nlease = \"42s\"", "worker.lease = \"42s\""),
        (
            "[worker]\nlease = \"42s\"",
            "must be at least 43s: api.timeout (30s), api.tcp_user_timeout (10s)",
        ),
        (
            "[api]\ntimeout = \"33s\"",
            "worker.lease = \"45s\" (default): must be at least 46s 300ms",
        ),
        (
            "[api]\ntimeout = \"100ms\"\ntcp_user_timeout = \"1s\"\n[worker]\nlease = \"1199ms\"",
            "at least 1s 200ms",
        ),
        (
            "[api]\nurl = \"http://example.com/\"",
            "plain http only to loopback, or with api.allow_http = true",
        ),
        (
            "[api]\nurl = \"http://127.0.0.1.example.com/\"",
            "plain http only to loopback",
        ),
        ("[api]\nurl = \"ftp://example.com/\"", "use https"),
        ("[api]\nurl = \"joinchat.ai\"", "not a URL"),
        ("[api]\nurl = \"joinchat.ai\"", "api.url = \"joinchat.ai\""),
        ("[api]\nurl = 3", "write a string in quotes"),
        (
            "\"api.url\" = \"https://h/\"",
            "unknown key \"api.url\"; write it without quotes",
        ),
        (
            "[\"pages.1\"]\nsecret = \"s\"",
            "unknown key \"pages.1\"; write it without quotes",
        ),
        (
            "[api]\nsignature_header = \"x joinchat\"",
            "use a header name",
        ),
        (
            "[api]\nsignature_header = \"Content-Type\"",
            "the request needs this header itself",
        ),
        ("[api]\ntimeout = \"0s\"", "use at least 1ms"),
        ("[api]\ntimeout = 30", "write a string in quotes"),
        ("[api]\ndelay = \"me\"", "use \"worker\" or \"api\""),
        ("[retention]\ndead = \"ever\"", "use a duration such as"),
        ("[retention]\ndead = \"1000y\"", "at most 100 years"),
        ("[worker]\nconcurrency = 0", "from 1 to 100000"),
        ("[worker]\nconcurrency = 100001", "from 1 to 100000"),
        (
            "[worker]\nconcurrency = \"8\"",
            "write a number without quotes",
        ),
        (
            "[worker]\nnotify = \"no\"",
            "write true or false without quotes",
        ),
        ("[retry]\nfirst = \"11m\"", "retry.first = \"11m\""),
        (
            "[retry]\nfirst = \"11m\"",
            "must not be over retry.max (10m)",
        ),
        ("[retry]\nmax_attempts = 0", "from 1 to 1000000"),
        ("[retry]\nmax_ambiguous = 0", "from 1 to 1000000"),
        ("[api]\nkeep_alive = \"61s\"", "must not be over 1m"),
        (
            "[retry]\non_ambiguous = \"Hold\"",
            "use \"retry\" or \"hold\"",
        ),
        (
            "[lanes]\nafter_unknown = \"go\"",
            "use \"block\" or \"continue\"",
        ),
        (
            "[admin]\nlisten = \"localhost\"",
            "use an IP address and a port",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:9464\"",
            "is not loopback: set admin.token_file or admin.token_env",
        ),
        (
            "[admin]\ntoken_env = \"A\"\ntoken_file = \"b\"",
            "contradict each other: keep one",
        ),
        ("[log]\nlevel = \"\"", "use off, error"),
        ("[log]\nlevel = \"verbose\"", "use off, error"),
        ("[log]\nformat = \"xml\"", "use \"human\" or \"json\""),
        (
            "database_url = \"mysql://db/x\"",
            "use sqlite://FILE or postgres://",
        ),
        ("[pages.1]\nsecret = \"a\"\nrate = 0", "use a number over 0"),
        (
            "[pages.1]\nsecret = \"a\"\nrate = inf",
            "use a number over 0",
        ),
        (
            "[pages.1]\nsecret = \"a\"\nrate = \"9\"",
            "use a number over 0",
        ),
        (
            "[pages.1]\nsecret = \"a\"\nsecret_env = \"A\"",
            "contradict each other: keep one",
        ),
        ("[pages.1]\nsecret = \"\"", "must not be empty"),
        (
            "[pages.1]\nrate = 5",
            "pages.1 names no secret, nor does pages.default",
        ),
        (
            "[pages.1]",
            "pages.1 names no secret, nor does pages.default",
        ),
    ] {
        assert!(
            problems(toml).contains(said),
            "{toml}\nshould say {said}\nand says {}",
            problems(toml)
        );
    }
    let error = load(
        "[api]\ntimeout = \"x\"\n[retry]\nfirst = \"y\"",
        &[("POSTLANE_WORKER__NOTIFY", "z")],
    );
    assert_eq!(error.expect_err("three").problems().len(), 3);
}

#[test]
fn what_is_at_the_edge_of_the_allowed_is_allowed() {
    for toml in [
        "[worker]\nlease = \"43s\"",
        "[api]\nurl = \"http://localhost:8080/\"",
        "[api]\nurl = \"http://127.0.0.1:8080/\"",
        "[api]\nurl = \"http://[::1]:8080/\"",
        "[api]\nurl = \"http://mock:8080/\"\nallow_http = true",
        "[retry]\nfirst = \"10m\"",
        "[admin]\nlisten = \"\"",
        "[admin]\nlisten = \"[::1]:0\"",
        "[retention]\ndelivered = \"0s\"",
        "[log]\nlevel = \"info,postlane::ledger=debug\"",
        "[pages.default]\nrate = 5",
        "[pages.default]\nsecret = \"a\"\n[pages.1]\nrate = 0.5",
    ] {
        load(toml, &[]).expect(toml);
    }
}
