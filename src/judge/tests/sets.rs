//! What a rule set may not say.

use super::*;

const SMALL: &str = r#"
version = 1
[body]
failure = [{ at = "/success", is = [false] }]
success = [{ at = "/success", is = [true] }]
success_text = []
status_code = []
fine_code = []
fine_text = []
code = ["/code"]
subcode = []
text = ["/msg"]
"#;

fn set(rules: &str) -> Result<RuleSet, RulesError> {
    RuleSet::parse(&format!("{SMALL}{rules}"))
}

const REST: &str = "\n[[rule]]\nname = \"rest\"\noutcome = \"ambiguous\"\n";

#[test]
fn a_rule_set_that_cannot_be_used_is_refused_with_its_line_and_what_is_allowed() {
    let rule = |lines: &str| format!("[[rule]]\nname = \"a\"\n{lines}\n{REST}");
    let lines = |lines: &str| (rule(lines), 14);
    for ((rules, line), told) in [
        (
            lines("outcome = \"refussed\""),
            "unknown variant `refussed`, expected one of `delivered`, `refused`",
        ),
        (
            lines("outcom = \"refused\""),
            "unknown field `outcom`, expected one of `name`, `when`, `outcome`",
        ),
        (
            lines("outcome = \"refused\"\nwhen.statuss = [1]"),
            "unknown field `statuss`, expected one of `transport`",
        ),
        (
            lines("outcome = \"refused\"\nwhen.body = [\"bad\"]"),
            "unknown variant `bad`, expected one of `failure`",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = [99]"),
            "99: use a status from 100 to 999, or a range",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = [1000]"),
            "1000: use a status",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = [\"500-400\"]"),
            "use a status",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = []"),
            "when.status = [] can never be true",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.text = '('"),
            "no regular expression: error: unclosed group",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.text = ''"),
            "text is 0 bytes: use 1 to 1000",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.text = '\\w{1000}{1000}'"),
            "no regular expression",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.field = [{ at = \"x\" }]"),
            "is no pointer",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwait = \"0s\""),
            "use a duration from \"1s\" to \"24h\"",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwait = \"25h\""),
            "use a duration from",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nhold = true"),
            "hold = true is for",
        ),
        (
            lines("outcome = \"throttled\"\nwhen.failed = true\ncounts = true"),
            "counts = true",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\ncap = 3"),
            "cap is for",
        ),
        (
            lines("outcome = \"retryable\"\nwhen.failed = true\ncap = 0"),
            "cap = 0",
        ),
        (
            lines("outcome = \"delivered\"\nwhen.failed = true\npause = \"page\""),
            "pause is not for",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\npause_after = 3"),
            "pause_after needs a pause",
        ),
        // What may have arrived is never called anything else, by no rule set.
        (
            lines("outcome = \"retryable\"\nwhen.transport = [\"lost\"]"),
            "for transport lost in phase resolve: use ambiguous",
        ),
        (
            lines("outcome = \"not_sent\"\nwhen.transport = [\"lost\"]"),
            "use ambiguous",
        ),
        (
            lines("outcome = \"delivered\"\nwhen.transport = [\"not_sent\"]"),
            "use not_sent or ambiguous",
        ),
        (
            lines("outcome = \"not_sent\"\nwhen.status = [503]"),
            "use any other",
        ),
        (
            lines("outcome = \"retryable\""),
            "for transport not_sent in phase resolve: use not_sent or ambiguous",
        ),
        // What is never reached.
        (
            lines("outcome = \"refused\"\nwhen.status = [400]\nwhen.phase = [\"wait\"]"),
            "its conditions exclude each other",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = false\nwhen.body = [\"failure\"]"),
            "exclude each other",
        ),
        (
            lines("outcome = \"refused\"\nwhen.transport = [\"lost\"]\nwhen.code = [1]"),
            "exclude each other",
        ),
    ] {
        let error = set(&rules).expect_err(&rules);
        assert!(error.what.contains(told), "{rules}\n{error}");
        assert!((line..line + 6).contains(&error.line), "{rules}\n{error}");
    }
}

#[test]
fn rules_that_others_hide_are_refused() {
    let two = |first: &str, second: &str| {
        set(&format!(
            "[[rule]]\nname = \"a\"\noutcome = \"refused\"\n{first}\n[[rule]]\nname = \"b\"\noutcome = \"refused\"\n{second}\n{REST}"
        ))
    };
    for (first, second) in [
        ("when.status = [\"400-499\"]", "when.status = [404]"),
        (
            "when.status = [\"400-499\"]",
            "when.status = [404]\nwhen.code = [1]",
        ),
        ("when.failed = true", "when.status = [300, 999]"),
        ("when.failed = true", "when.body = [\"failure\"]"),
        (
            "when.failed = true\nwhen.code = [1, 2]",
            "when.failed = true\nwhen.code = [2]\nwhen.text = 'x'",
        ),
        (
            "when.failed = true\nwhen.text = 'x'",
            "when.failed = true\nwhen.text = 'x'\nwhen.code = [2]",
        ),
        (
            "when.failed = true\nwhen.field = [{at=\"/a\"}]",
            "when.failed = true\nwhen.field = [{at=\"/a\"}, {at=\"/b\"}]",
        ),
    ] {
        let error = two(first, second).expect_err(second);
        assert!(
            error
                .what
                .starts_with("rule \"b\": can never be reached: \"a\" (line 14)"),
            "{error}"
        );
    }
    for (first, second) in [
        ("when.status = [404]", "when.status = [\"400-499\"]"),
        ("when.status = [\"400-499\"]", "when.status = [\"499-500\"]"),
        (
            "when.failed = true\nwhen.code = [1]",
            "when.failed = true\nwhen.code = [1, 2]",
        ),
        (
            "when.failed = true\nwhen.text = 'x'",
            "when.failed = true\nwhen.text = 'y'",
        ),
        ("when.failed = true\nwhen.code = [1]", "when.failed = true"),
    ] {
        two(first, second).expect(second);
    }
    // Two together hide a third.
    let three = "[[rule]]\nname = \"a\"\noutcome = \"refused\"\nwhen.status = [\"400-449\"]\n\
                 [[rule]]\nname = \"b\"\noutcome = \"refused\"\nwhen.status = [\"450-499\"]\n\
                 [[rule]]\nname = \"c\"\noutcome = \"refused\"\nwhen.status = [\"400-499\"]\n";
    let error = set(&format!("{three}{REST}")).expect_err("hidden");
    assert_eq!(
        error.to_string(),
        "line 22: rule \"c\": can never be reached: rules before it take all of it"
    );
}

#[test]
fn a_rule_set_is_whole_versioned_and_bounded() {
    let error = set("[[rule]]\nname = \"a\"\noutcome = \"refused\"\nwhen.failed = true\n")
        .expect_err("gaps");
    assert!(
        error
            .what
            .starts_with("no rule takes transport not_sent in phase resolve: end with"),
        "{error}"
    );
    let error = set(&format!("{REST}{REST}")).expect_err("twice");
    assert_eq!(
        error.to_string(),
        "line 19: rule \"rest\": line 15 has a rule of this name"
    );
    for (name, told) in [
        ("", "use a name"),
        ("A", "use a name"),
        ("ledger.lost", "the ledger's own"),
    ] {
        let error = set(&REST.replace("rest", name)).expect_err(name);
        assert!(error.what.contains(told), "{error}");
    }
    for (text, told) in [
        (
            "version = 2\nnew_key = 1".to_owned(),
            "line 1: version = 2: this postlane reads version 1",
        ),
        ("\nversion = 0".to_owned(), "line 2: version = 0"),
        ("".to_owned(), "missing field `version`"),
        ("version = 1".to_owned(), "missing field `body`"),
        ("version = \"1\"".to_owned(), "invalid type: string"),
        ("version = ".to_owned(), "line 1: "),
        (
            format!("{SMALL}{REST}").replace("\"/code\"", "\"code\""),
            "[body]: \"code\" is no pointer",
        ),
        (
            format!("{SMALL}{REST}").replace("is = [false]", "is = [1.5]"),
            "use true, false, whole numbers",
        ),
        (
            format!("{SMALL}{REST}").replace("subcode = []\n", ""),
            "missing field `subcode`",
        ),
        (
            format!("{SMALL}{REST}").replace("subcode", "sub"),
            "unknown field `sub`, expected one of",
        ),
        (" ".repeat(RULES_LIMIT + 1), "longer than 262144 bytes"),
    ] {
        let error = RuleSet::parse(&text).expect_err(told).to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    let many: String = (0..301).map(|n| format!("[[rule]]\nname = \"r{n}\"\noutcome = \"refused\"\nwhen.failed = true\nwhen.code = [{n}]\n")).collect();
    let error = set(&format!("{many}{REST}")).expect_err("many");
    assert!(error.what.contains("at most 300 rules"), "{error}");
}

#[test]
fn the_built_in_rules_are_read_in_order_and_have_the_names_that_are_recorded() {
    let rules = RuleSet::parse(BUILT_IN).expect("reads");
    let names: Vec<&str> = rules.names().collect();
    assert_eq!(names.len(), BUILT_IN.matches("\n[[rule]]\n").count());
    for name in [
        "transport.not_sent",
        "transport.ambiguous",
        "body.failure",
        "body.success",
        "body.suspicious",
        "body.signature",
        "code.10010",
        "status.2xx",
        "status.page",
        "status.endpoint",
        "status.429",
        "status.503",
        "status.retryable",
        "status.refused",
        "status.ambiguous",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    for crlf in [BUILT_IN.replace('\n', "\r\n"), BUILT_IN.to_owned()] {
        assert_eq!(
            RuleSet::parse(&crlf)
                .expect("reads")
                .names()
                .collect::<Vec<_>>(),
            names
        );
    }
}
