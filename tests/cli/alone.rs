//! What needs no database: usage, help, secrets, and input that is only read.

use crate::{GOOD, Said, keys, postlane, run, run_with_input};

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
        "classify",
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
        "bench",
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
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&file, mode).expect("sets the mode");
    };
    let text = "database_url = \"postgres://me:canary@127.0.0.1:1/x\"\n[pages.1]\nsecret = \"canary\"\n[pages.2]\nsecret_env = \"PAGE_2\"\n";
    std::fs::write(&file, text).expect("writes");
    for (bits, why) in [
        (0o644, "holds a password that others may read (mode 0644)"),
        (0o602, "(mode 0602): chmod o-w it"),
    ] {
        mode(bits);
        let file = file.to_str().expect("UTF-8");
        run(&["check", "--offline", "--config", file])
            .ends(2)
            .tells(why);
    }
    mode(0o640);
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
fn a_credential_that_only_the_service_has_is_no_fault_of_the_configuration() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("postlane.toml");
    let text = "[pages.default]\nsecret_file = \"$CREDENTIALS_DIRECTORY/page\"\n";
    std::fs::write(&file, text).expect("writes");
    let file = file.to_str().expect("UTF-8");
    run(&["check", "--offline", "--config", file])
        .ends(0)
        .tells("CREDENTIALS_DIRECTORY is not set")
        .tells("cannot be checked here");
    run(&["run", "--config", file])
        .ends(2)
        .tells("CREDENTIALS_DIRECTORY is not set");
}

#[test]
fn a_secret_that_is_written_out_is_told_by_those_who_sign_or_check() {
    let with_secret = |arguments: &[&str]| {
        let mut command = postlane(arguments);
        command.env("POSTLANE_PAGES__DEFAULT__SECRET", "sandbox");
        Said::from(command.output().expect("starts"))
    };
    with_secret(&["check", "--offline"])
        .ends(0)
        .tells("written out");
    let said = with_secret(&["check-message", "/nowhere"]).ends(1);
    assert!(!said.err.contains("written out"), "{}", said.err);
}

#[test]
fn a_token_that_can_be_guessed_is_refused() {
    let mut check = postlane(&["check", "--offline"]);
    check
        .env("POSTLANE_ADMIN__TOKEN_ENV", "TOKEN")
        .env("TOKEN", "123456789012345");
    Said::from(check.output().expect("starts"))
        .ends(2)
        .tells("admin.token_env names a token of fewer than 16 bytes");
    check.env("TOKEN", "1234567890123456");
    Said::from(check.output().expect("starts")).ends(0);
}

#[test]
fn the_sandbox_takes_a_port_alone() {
    for (listen, why) in [("x", "use a port such as 8081"), ("70000", "use a port")] {
        run(&["mock", "--listen", listen]).ends(2).tells(why);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("address").port();
    for listen in [port.to_string(), format!(":{port}")] {
        run(&["mock", "--listen", &listen])
            .ends(1)
            .tells(&format!("127.0.0.1:{port}"));
    }
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

/// A button with a title of 21 characters, a text with a retired tag, and what is no JSON.
const MIXED: &str = r#"{"page_id":1,"recipient":{"id":"a"},"message":{"template_type":"button","text":"t","buttons":[{"type":"postback","title":"aaaaaaaaaaaaaaaaaaaaa","payload":"p"}]}}

{"page_id":1,"recipient":{"id":"a"},"message":{"template_type":"text","text":"t"},"tag":"ACCOUNT_UPDATE","send_at":5}
{"page_id":
"#;

#[test]
fn check_message_explains_each_refusal_and_each_warning() {
    let said = run_with_input(&["check-message"], &format!("{MIXED}{GOOD}")).ends(1);
    assert_eq!(
        said.out,
        "line 1: button.title.max_20: message.buttons[0].title: is 21 characters, at most 20\n\
         line 3: warning: tag.retired: tag: ACCOUNT_UPDATE is retired, Meta may refuse the message\n\
         line 4: json.syntax: request: is not JSON: EOF while parsing a value at line 1 column 11\n\
         2 valid, 2 invalid; warnings: 1\n"
    );
    assert_eq!(said.err, "postlane: 2 lines are invalid\n");
    let said = run_with_input(&["check-message", "-", "--json"], MIXED).ends(1);
    let lines = said.json();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        let wanted = ["line", "valid", "rule", "place", "detail", "warnings"];
        assert_eq!(keys(line), wanted);
    }
    assert_eq!(lines[0]["line"], 1);
    assert_eq!(lines[0]["valid"], false);
    assert_eq!(lines[0]["rule"], "button.title.max_20");
    assert_eq!(lines[0]["place"], "message.buttons[0].title");
    assert_eq!(lines[0]["detail"], "is 21 characters, at most 20");
    assert_eq!(lines[1]["valid"], true);
    assert!(lines[1]["rule"].is_null());
    assert_eq!(lines[1]["warnings"][0]["rule"], "tag.retired");
    assert_eq!(lines[2]["rule"], "json.syntax");

    let said = run_with_input(&["check-message"], GOOD).ends(0);
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("1 valid, 0 invalid; warnings: 0\n", "")
    );
    run_with_input(&["check-message"], "\n \n")
        .ends(3)
        .tells("nothing to check");
    run(&["check-message", "/nowhere"])
        .ends(1)
        .tells("/nowhere");
    run(&["check-message", "--schema", "--json"]).ends(2);
}

#[test]
fn check_message_takes_one_request_on_many_lines_and_messages_alone() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/joinchat/samples");
    let sample = format!("{samples}/001-receipt.json");
    let file = std::fs::read_to_string(&sample).expect("reads");
    assert!(file.lines().count() > 1);
    // With and without the byte order mark that some editors write; and one on one line.
    let lines = format!("{GOOD}\n\n{GOOD}\n");
    for (text, count) in [(&file, 1), (&GOOD.to_owned(), 1), (&lines, 2)] {
        for text in [text.clone(), format!("\u{feff}{text}")] {
            let said = run_with_input(&["check-message"], &text).ends(0);
            assert!(
                said.out.contains(&format!("{count} valid, 0 invalid")),
                "{}",
                said.out
            );
            run_with_input(&["enqueue", "--dry-run"], &text)
                .ends(0)
                .tells(&format!("{count} valid, 0 invalid"));
        }
    }
    for verb in [&["check-message"][..], &["enqueue", "--dry-run"]] {
        let path = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(&path, [0xff, 0xfe, b'{', 0, b'}', 0]).expect("writes");
        let path = path.path().to_str().expect("UTF-8");
        run(&[verb, &[path]].concat()).ends(1).tells("UTF-16");
    }
    run_with_input(&["enqueue", "--dry-run"], "\u{feff}\n").ends(3);
    let message = r#"{"template_type":"text","text":""}"#;
    run_with_input(&["check-message"], message).ends(1);
    let said = run_with_input(&["check-message", "--message"], message).ends(1);
    assert!(
        said.out
            .starts_with("line 1: text.nonempty: message.text: is blank\n"),
        "{}",
        said.out
    );
    // More than is looked at for a single request: line by line all the same.
    let many = format!("{GOOD}\n").repeat(20_000);
    assert!(many.len() > 1024 * 1024);
    let said = run_with_input(&["check-message"], &many).ends(0);
    assert_eq!(said.out, "20000 valid, 0 invalid; warnings: 0\n");
}

#[test]
fn check_message_and_enqueue_go_by_the_configured_bounds() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("postlane.toml");
    std::fs::write(&file, "[message]\ntext_max = 1\ntags = [\"MINE\"]\n").expect("writes");
    let file = file.to_str().expect("UTF-8");
    for verb in [&["check-message"][..], &["enqueue", "--dry-run"]] {
        let said = run_with_input(&[verb, &["--config", file]].concat(), GOOD).ends(1);
        let all = said.out + &said.err;
        let refusal = "line 1: text.max_1: message.text: is 2 characters, at most 1";
        assert!(all.contains(refusal), "{all}");
    }
    let schema = run(&["check-message", "--schema", "--config", file])
        .ends(0)
        .out;
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(
        schema["$defs"]["Text"]["properties"]["text"]["maxLength"],
        1
    );
    let rules = run(&["check-message", "--rules", "--config", file])
        .ends(0)
        .out;
    assert!(rules.lines().any(|rule| rule == "text.max_1"), "{rules}");
    let shipped = include_str!("../../schema/request.schema.json");
    assert_eq!(run(&["check-message", "--schema"]).ends(0).out, shipped);
    run(&["check-message", "--config", "/nowhere.toml"]).ends(2);
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
