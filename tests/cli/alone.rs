//! What needs no database: usage, help, secrets, and input that is only read.

use crate::{GOOD, Said, postlane, run, run_with_input};

#[test]
fn the_demo_ends_as_meant_whatever_the_environment_says() {
    let mut demo = postlane(&["demo"]);
    demo.env("POSTLANE_DATABASE_URL", "postgres://nowhere.invalid/x");
    demo.env("POSTLANE_API__URL", "nonsense");
    let said = Said::from(demo.output().expect("starts")).ends(0);
    for kind in ["text", "button", "generic", "list", "receipt"] {
        assert!(said.out.contains(&format!("   {kind} ")), "{kind}");
    }
    assert!(said.out.contains("insert into send_jobs"));
    assert!(said.out.contains("All ended as meant"));
    assert_eq!(said.err, "");
}

#[test]
fn wrong_usage_and_a_wrong_configuration_end_with_2() {
    run(&[]).ends(2);
    run(&["frobnicate"]).ends(2);
    run(&["list", "--state", "sent"])
        .ends(2)
        .tells("queued, sending, delivered");
    run(&["list", "--since", "yesterday"])
        .ends(2)
        .tells("use an age");
    run(&["resolve", "1"]).ends(2);
    run(&["pause"]).ends(2);
    run(&["pause", "--all", "--page", "1"]).ends(2);
    run(&["pause", "--page", "x"])
        .ends(2)
        .tells("not the id of a page");
    run(&["pause", "--lane", "777"])
        .ends(2)
        .tells("12345/id:777");
    run(&["check", "--config", "/nowhere/postlane.toml"]).ends(2);
    run(&["--database-url", "mysql://h/x", "list"])
        .ends(2)
        .tells("sqlite://FILE");
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("postlane.toml");
    std::fs::write(&file, "[api]\nulr = 1\n").expect("writes");
    let file = file.to_str().expect("UTF-8");
    run(&["check", "--config", file]).ends(2).tells("api.url");
    run(&["--config", file, "run"]).ends(2).tells("api.url");
}

#[test]
fn help_names_every_verb_and_each_verb_has_examples() {
    let help = run(&["--help"]).ends(0).out;
    for verb in [
        "demo",
        "run",
        "migrate",
        "check",
        "check-message",
        "enqueue",
        "list",
        "show",
        "requeue",
        "cancel",
        "hold",
        "release",
        "resolve",
        "pause",
        "resume",
        "stats",
        "prune",
        "mock",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
        let help = run(&[verb, "--help"]).ends(0).out;
        assert!(help.contains("Examples:"), "{verb}");
        assert!(help.contains("--database-url"), "{verb}");
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    assert!(
        run(&["completions", "bash"])
            .ends(0)
            .out
            .contains("requeue")
    );
    assert!(run(&["man"]).ends(0).out.contains(".TH postlane 1"));
    let folder = tempfile::tempdir().expect("temp folder");
    run(&["man", "--out", folder.path().to_str().expect("UTF-8")]).ends(0);
    assert!(folder.path().join("postlane-requeue.1").exists());
    run(&["man", "--out", "/nowhere"]).ends(1);
}

#[test]
fn a_secret_is_never_shown() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("postlane.toml");
    let text = "database_url = \"postgres://me:canary@127.0.0.1:1/x\"\n[pages.1]\nsecret = \"canary\"\n[pages.2]\nsecret_env = \"PAGE_2\"\n";
    std::fs::write(&file, text).expect("writes");
    let file = file.to_str().expect("UTF-8");
    for more in [&["--offline"][..], &[], &["--json"]] {
        let mut check = postlane(&[&["check", "--config", file], more].concat());
        let said = Said::from(check.env("PAGE_2", "canary").output().expect("starts")).ends(0);
        assert!(
            !said.out.contains("canary") && !said.err.contains("canary"),
            "{}{}",
            said.out,
            said.err
        );
        assert!(said.out.contains("***"));
    }
    let said = run(&["check", "--config", file, "--offline"])
        .ends(2)
        .tells("PAGE_2");
    assert!(
        said.out.contains("pages.2.secret_env"),
        "the settings are shown all the same"
    );
    let said = run(&["list", "--config", file]).ends(1);
    assert!(!said.err.contains("canary"), "{}", said.err);
}

#[test]
fn enqueue_validates_without_a_database() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("requests.jsonl");
    let lines = format!(
        "{GOOD}\n\n{{\"page_id\":0}}\n[]\nnot json\n{{\"page_id\":1,\"recipient\":{{\"id\":\"a\"}},\"message\":{{\"template_type\":\"text\",\"text\":\"{}\"}}}}\n",
        "x".repeat(641)
    );
    std::fs::write(&file, &lines).expect("writes");
    let said = run(&["enqueue", "--dry-run", file.to_str().expect("UTF-8")]).ends(1);
    for place in [
        "line 3: page_id",
        "line 4: request.object",
        "line 5: ",
        "line 6: text.max_640: message.text",
    ] {
        assert!(said.err.contains(place), "{place}: {}", said.err);
    }
    assert!(said.err.contains("1 valid, 4 invalid"));
    run_with_input(&["enqueue", "-", "--dry-run"], GOOD).ends(0);
    run(&["enqueue", "/nowhere"]).ends(1).tells("/nowhere");
    let long = format!("{}\n{GOOD}\n", "x".repeat(1024 * 1024 + 1));
    run_with_input(&["enqueue", "--dry-run"], &long)
        .ends(1)
        .tells("line 1: request.max_bytes");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = postlane(&["demo"]).spawn().expect("starts");
    drop(child.stdout.take());
    let said = Said::from(child.wait_with_output().expect("ends")).ends(0);
    assert_eq!(said.err, "");
    let mut child = postlane(&["completions", "zsh"]).spawn().expect("starts");
    drop(child.stdout.take());
    assert_eq!(
        Said::from(child.wait_with_output().expect("ends"))
            .ends(0)
            .err,
        ""
    );
}
