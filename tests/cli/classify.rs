//! `classify`: what the rules make of an answer.

use crate::{Said, run, run_with_input};

/// The words after a key of the output for people.
fn told<'a>(said: &'a Said, key: &str) -> &'a str {
    let line = said.out.lines().find(|line| line.starts_with(key));
    line.unwrap_or_else(|| panic!("{key} is not in {}", said.out))[key.len()..].trim()
}

#[test]
fn classify_says_which_rule_judges_an_answer_and_what_follows() {
    let busy = run(&["classify", "--status", "503", "--header", "Retry-After: 5"]).ends(0);
    for (key, value) in [
        ("rule", "status.503"),
        ("outcome", "throttled"),
        ("state", "queued after a first attempt"),
        ("reason", "HTTP 503"),
        ("counts", "no"),
        ("hold", "no"),
        ("pause", "the page goes more slowly"),
        ("retry after", "5s"),
    ] {
        assert_eq!(told(&busy, key), value, "{key}");
    }
    let unknown = r#"{"success":false,"errors":{"code":10010,"msg":"Recipient not found"}}"#;
    let body = ["classify", "--status", "200", "--body", "-", "-v"];
    let said = run_with_input(&body, unknown).ends(0);
    assert_eq!(told(&said, "rule"), "code.10010");
    assert_eq!(told(&said, "state"), "dead after a first attempt");
    assert!(said.out.contains("not transport.not_sent: transport\n"));
    assert!(said.out.contains("not body.contradiction: status\n"));
    let torn = ["classify", "--status", "200", "--transport", "body"];
    assert_eq!(told(&run(&torn).ends(0), "rule"), "status.2xx");
    let torn = [&torn[..], &["--body", "-"]].concat();
    let said = run_with_input(&torn, r#"{"success":false,"x":"#).ends(0);
    assert!(
        told(&said, "reason").contains("cut: phase=body"),
        "{}",
        said.out
    );
    for (phase, outcome) in [
        ("resolve", "not_sent"),
        ("connect", "not_sent"),
        ("tls", "not_sent"),
        ("write", "ambiguous"),
        ("wait", "ambiguous"),
        ("head", "ambiguous"),
        ("unknown", "ambiguous"),
    ] {
        let said = run(&["classify", "--transport", phase]).ends(0);
        assert_eq!(told(&said, "outcome"), outcome, "{phase}");
    }
    let bad = ["--transport", "tls", "--error", "invalid peer certificate"];
    let said = run(&[&["classify"], &bad[..]].concat()).ends(0);
    assert_eq!(told(&said, "pause"), "all pages");
}

#[test]
fn classify_has_stable_keys_for_machines() {
    let arguments = ["classify", "--status", "401", "--json", "--body", "-"];
    let said = run_with_input(&arguments, "{\"error\":\"\u{1b}[31m\"}").ends(0);
    let json = said.json().remove(0);
    let mut keys: Vec<_> = json.as_object().expect("an object").keys().collect();
    keys.sort();
    let expected = [
        "cap",
        "counts",
        "hold",
        "outcome",
        "pause",
        "pause_after",
        "reason",
        "retry_after_ms",
        "rule",
        "state",
    ];
    assert_eq!(keys, expected);
    assert_eq!(json["pause"], "page");
    assert!(!said.out.contains('\u{1b}'));
    let said = run(&[&arguments[..4], &["-v"]].concat()).ends(0);
    let asked = said.json().remove(0)["asked_before"].clone();
    let first = serde_json::json!({"rule": "transport.certificate", "condition": "transport"});
    assert_eq!(asked[0], first);
}

#[test]
fn classify_takes_a_rule_set_of_ones_own_and_refuses_a_broken_one() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let rules = run(&["classify", "--print-rules"]).ends(0).out;
    let teapot =
        "[[rule]]\nname = \"mine.teapot\"\nwhen.status = [418]\noutcome = \"retryable\"\n\n";
    let at = rules
        .find("[[rule]]\nname = \"status.page\"")
        .expect("a rule");
    let mine = format!("{}{teapot}{}", &rules[..at], &rules[at..]);
    std::fs::write(path("mine.toml"), &mine).expect("writes");
    std::fs::write(path("broken.toml"), mine.replace("retryable", "retriable")).expect("writes");
    std::fs::write(path("postlane.toml"), "[judge]\nrules = \"mine.toml\"\n").expect("writes");
    std::fs::write(path("wrong.toml"), "[judge]\nrules = \"broken.toml\"\n").expect("writes");
    let rule = |more: &[&str]| {
        let said = run(&[&["classify", "--status", "418"], more].concat()).ends(0);
        told(&said, "rule").to_owned()
    };
    assert_eq!(rule(&[]), "status.refused");
    assert_eq!(rule(&["--rules", &path("mine.toml")]), "mine.teapot");
    // Relative to the file that names it.
    assert_eq!(rule(&["--config", &path("postlane.toml")]), "mine.teapot");
    let broken = [
        "classify",
        "--status",
        "418",
        "--rules",
        &path("broken.toml"),
    ];
    run(&broken)
        .ends(2)
        .tells("broken.toml: line ")
        .tells("unknown variant `retriable`, expected one of `delivered`");
    let wrong = path("wrong.toml");
    for verb in [
        &["classify", "--status", "418"][..],
        &["check", "--offline"],
        &["run"],
    ] {
        let said = run(&[&["--config", &wrong], verb].concat());
        said.ends(2)
            .tells("judge.rules")
            .tells("broken.toml: line ")
            .tells("retriable");
    }
    let gone = path("gone.toml");
    run(&["classify", "--status", "418", "--rules", &gone])
        .ends(2)
        .tells("gone.toml");
    std::fs::write(path("long.toml"), "é".repeat(1 << 18)).expect("writes");
    run(&["classify", "--status", "418", "--rules", &path("long.toml")])
        .ends(2)
        .tells("longer than 262144 bytes");
    run(&["classify", "--status", "418", "--rules", "/dev/zero"])
        .ends(2)
        .tells("not a regular file");
}

#[test]
fn classify_says_what_it_needs() {
    for (arguments, told) in [
        (&[][..], "--status or --transport"),
        (&["--status", "99"], "99"),
        (&["--status", "1000"], "1000"),
        (&["--transport", "dns"], "resolve, connect, tls"),
        (&["--transport", "body"], "--status"),
        (
            &["--transport", "wait", "--status", "200"],
            "a status came back",
        ),
        (&["--transport", "wait", "--body", "-"], "--status"),
        (&["--status", "200", "--header", "nonsense"], "NAME: VALUE"),
    ] {
        run(&[&["classify"], arguments].concat())
            .ends(2)
            .tells(told);
    }
    run(&["classify", "--status", "200", "--body", "/nowhere"])
        .ends(1)
        .tells("/nowhere");
}
