//! `[message]`, and the keys of `[api]` that say how a request looks.

use postlane_message::validate::{PageForm, PayloadForm, WireForm};

use super::*;

/// The value and the source of a key, as `check` shows them.
fn shown(config: &Config, key: &str) -> (String, String) {
    let row = config.resolved().iter().find(|row| row.key == key);
    let row = row.expect("a key");
    (row.value.clone(), row.source.to_string())
}

#[test]
fn bounds_and_tags_come_from_the_file_and_from_variables() {
    let toml = "[message]\ntext_max = 2000\nbuttons_max = 4\ntags = [\"MINE\", \"HUMAN_AGENT\"]\n\
                [api]\npage_id = \"string\"\npayload = \"as_given\"";
    let environment = [
        ("POSTLANE_MESSAGE__BUTTON_TITLE_MAX", "30"),
        ("POSTLANE_MESSAGE__TAGS_RETIRED", "A,B_2"),
    ];
    let config = load(toml, &environment).expect("a configuration");
    let wanted = Limits {
        text_max: 2000,
        button_title_max: 30,
        buttons_max: 4,
        tags: vec!["MINE".to_owned(), "HUMAN_AGENT".to_owned()],
        tags_retired: vec!["A".to_owned(), "B_2".to_owned()],
        form: WireForm {
            page_id: PageForm::String,
            payload: PayloadForm::AsGiven,
        },
        ..Limits::default()
    };
    assert_eq!(config.message, wanted);
    let (value, source) = shown(&config, "message.tags");
    assert_eq!(value, "MINE, HUMAN_AGENT");
    assert!(source.ends_with("postlane.toml:4"), "{source}");
    assert_eq!(
        shown(&config, "message.tags_retired"),
        (
            "A,B_2".to_owned(),
            "POSTLANE_MESSAGE__TAGS_RETIRED".to_owned()
        )
    );
    let none = load("[message]\ntags = []", &[]).expect("a configuration");
    assert_eq!(none.message.tags, [""; 0]);
}

#[test]
fn what_no_bound_and_no_tag_can_be_is_refused_by_its_key() {
    for (toml, why) in [
        ("[message]\ntext_max = 0", "message.text_max = \"0\""),
        (
            "[message]\ntext_max = 65537",
            "use a whole number from 1 to 65536",
        ),
        (
            "[message]\nlist_elements_max = 1",
            "use a whole number from 2 to 65536",
        ),
        (
            "[message]\ntext_max = \"640\"",
            "write a number without quotes",
        ),
        (
            "[message]\ntext_may = 640",
            "did you mean \"message.text_max\"?",
        ),
        (
            "[message]\ntags = \"MINE\"",
            "write a list of strings, such as [\"A\", \"B\"]",
        ),
        (
            "[message]\ntags = [1]",
            "message.tags takes a list of strings, not a TOML array",
        ),
        ("[message]\ntags = [\"A B\"]", "use at most 100 names"),
        ("[message]\ntags = [\"A\", \"\"]", "use at most 100 names"),
        (
            "[api]\nurl = [\"https://a.example\"]",
            "api.url takes one value, not a TOML array",
        ),
        ("[api]\npage_id = \"hex\"", "use \"number\" or \"string\""),
        (
            "[api]\npayload = \"object\"",
            "use \"string\" or \"as_given\"",
        ),
        (
            "[api]\nversion = \"2018\"",
            "use \"2020-11\" or \"2019-07\"",
        ),
    ] {
        let problems = problems(toml);
        assert!(problems.contains(why), "{toml}: {problems}");
    }
    let long = format!("[message]\ntags = [{}]", "\"A\",".repeat(101));
    assert!(problems(&long).contains("use at most 100 names"));
}

#[test]
fn the_older_version_presets_path_and_header_and_what_is_set_wins() {
    let preset = "[api]\nversion = \"2019-07\"\n";
    let config = load(preset, &[]).expect("a configuration");
    assert_eq!(
        config.api.url.as_str(),
        "https://joinchat.ai/api/send/message"
    );
    assert_eq!(config.api.signature_header, "x_joinchat_signature");
    assert_eq!(
        shown(&config, "api.url"),
        (
            "https://joinchat.ai/api/send/message".to_owned(),
            "preset 2019-07".to_owned()
        )
    );
    assert_eq!(shown(&config, "api.signature_header").1, "preset 2019-07");
    assert_eq!(config.warnings(), [""; 0]);

    let url = "url = \"https://other.example/x\"";
    let config = load(&format!("{preset}{url}"), &[]).expect("a configuration");
    assert_eq!(config.api.url.as_str(), "https://other.example/x");
    assert_eq!(config.api.signature_header, "x_joinchat_signature");

    // A flag or a variable chooses the version, the file's own header stays.
    let header = "[api]\nsignature_header = \"x-other\"";
    let chosen = [("POSTLANE_API__VERSION", "2019-07")];
    let config = load(header, &chosen).expect("a configuration");
    assert_eq!(config.api.signature_header, "x-other");
    assert_eq!(shown(&config, "api.url").1, "preset 2019-07");
}

#[test]
fn the_newer_version_presets_what_holds_by_default() {
    let config = load("[api]\nversion = \"2020-11\"", &[]).expect("a configuration");
    assert_eq!(config.api, Config::default().api);
    assert_eq!(shown(&config, "api.url").1, "preset 2020-11");
    assert_eq!(shown(&Config::default(), "api.url").1, "default");
}
