//! The names of all keys, their defaults, and what a misspelt one was meant to be.
//!
//! This table is the only list of keys: the file, the environment and `postlane check` go by it.
//! It knows nothing of values; what a value may be is decided in `sections.rs` and `api.rs`.

/// Every key outside `[pages]` with its default as an operator would write it; empty is "not set".
pub(super) const KEYS: &[(&str, &str)] = &[
    ("database_url", "sqlite://postlane.db"),
    ("api.version", "2020-11"),
    ("api.url", "https://joinchat.ai/api/send_message"),
    ("api.allow_http", "false"),
    ("api.signature_header", "x-joinchat-signature"),
    ("api.timeout", "30s"),
    ("api.connect_timeout", "5s"),
    ("api.tcp_user_timeout", "10s"),
    ("api.keep_alive", "1s"),
    ("api.delay", "worker"),
    ("api.page_id", "number"),
    ("api.payload", "string"),
    ("message.text_max", "640"),
    ("message.button_title_max", "20"),
    ("message.element_title_max", "80"),
    ("message.element_subtitle_max", "80"),
    ("message.payload_max", "1000"),
    ("message.buttons_max", "3"),
    ("message.generic_elements_max", "10"),
    ("message.list_elements_max", "4"),
    ("message.receipt_elements_max", "100"),
    (
        "message.tags",
        "BUSINESS_PRODUCTIVITY, COMMUNITY_ALERT, CONFIRMED_EVENT_REMINDER, \
         NON_PROMOTIONAL_SUBSCRIPTION, PAIRING_UPDATE, APPLICATION_UPDATE, ACCOUNT_UPDATE, \
         PAYMENT_UPDATE, PERSONAL_FINANCE_UPDATE, SHIPPING_UPDATE, RESERVATION_UPDATE, \
         ISSUE_RESOLUTION, APPOINTMENT_UPDATE, GAME_EVENT, TRANSPORTATION_UPDATE, \
         FEATURE_FUNCTIONALITY_UPDATE, TICKET_UPDATE, CONFIRMED_EVENT_UPDATE, \
         POST_PURCHASE_UPDATE, HUMAN_AGENT",
    ),
    (
        "message.tags_retired",
        "BUSINESS_PRODUCTIVITY, COMMUNITY_ALERT, CONFIRMED_EVENT_REMINDER, PAIRING_UPDATE, \
         APPLICATION_UPDATE, ACCOUNT_UPDATE, PAYMENT_UPDATE, PERSONAL_FINANCE_UPDATE, \
         SHIPPING_UPDATE, RESERVATION_UPDATE, ISSUE_RESOLUTION, APPOINTMENT_UPDATE, GAME_EVENT, \
         TRANSPORTATION_UPDATE, FEATURE_FUNCTIONALITY_UPDATE, TICKET_UPDATE, \
         CONFIRMED_EVENT_UPDATE, POST_PURCHASE_UPDATE",
    ),
    ("worker.name", ""),
    ("worker.concurrency", "256"),
    ("worker.shutdown_timeout", "30s"),
    ("worker.notify", "true"),
    ("worker.lease", "45s"),
    ("retry.max_attempts", "20"),
    ("retry.first", "2s"),
    ("retry.max", "10m"),
    ("retry.max_retry_after", "1h"),
    ("retry.on_ambiguous", "retry"),
    ("retry.max_ambiguous", "5"),
    ("judge.rules", ""),
    ("circuit.attempts", "20"),
    ("circuit.recipients", "5"),
    ("circuit.window", "10s"),
    ("circuit.failing_percent", "80"),
    ("circuit.probe", "1s"),
    ("circuit.max_probe", "30s"),
    ("lanes.after_unknown", "block"),
    ("lanes.min_gap", "0s"),
    ("retention.delivered", "7d"),
    ("retention.dead", "90d"),
    ("admin.listen", "127.0.0.1:9464"),
    ("admin.token_file", ""),
    ("admin.token_env", ""),
    ("log.format", "human"),
    ("log.level", "info"),
];

/// What `api.version` presets: a document of the vendor, by the month of its last edit, and the keys
/// that it settles where nothing else does. The first is the default and says what [`KEYS`] says.
///
/// The older page names two paths, `/api/send/message` under its heading and `/api/send/messenger`
/// in its example; the one before it had only the latter, so the heading is the newer.
pub(super) const VERSIONS: [(&str, [(&str, &str); 2]); 2] = [
    (
        "2020-11",
        [
            ("api.url", "https://joinchat.ai/api/send_message"),
            ("api.signature_header", "x-joinchat-signature"),
        ],
    ),
    (
        "2019-07",
        [
            ("api.url", "https://joinchat.ai/api/send/message"),
            ("api.signature_header", "x_joinchat_signature"),
        ],
    ),
];

/// True for a key whose value is a list.
pub(super) fn takes_list(path: &str) -> bool {
    matches!(path, "message.tags" | "message.tags_retired")
}

/// The keys of one page, `pages.PAGE.KEY`; none has a default.
pub(super) const PAGE_KEYS: &[&str] = &[
    "secret_env",
    "secret_file",
    "secret",
    "previous_secret_env",
    "previous_secret_file",
    "previous_secret",
    "rate",
];

/// The keys that name a page's secret, and those that name the one before it.
pub(super) const SECRET_KEYS: [&str; 3] = ["secret_env", "secret_file", "secret"];
/// See [`SECRET_KEYS`].
pub(super) const PREVIOUS_KEYS: [&str; 3] = [
    "previous_secret_env",
    "previous_secret_file",
    "previous_secret",
];

/// The section that takes every page key, for pages without their own.
pub(super) use crate::keyring::DEFAULT_PAGE;

const PREFIX: &str = "POSTLANE_";

/// True for `default` and for what the API calls a page id: digits, the first no zero.
pub(super) fn is_page(name: &str) -> bool {
    name == DEFAULT_PAGE
        || (name.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() && !name.starts_with('0'))
}

/// Splits `pages.PAGE.KEY`; `None` where the page or the key is none.
pub(super) fn page_key(path: &str) -> Option<(&str, &str)> {
    let (page, key) = path.strip_prefix("pages.")?.split_once('.')?;
    (is_page(page) && PAGE_KEYS.contains(&key)).then_some((page, key))
}

/// True if a value may stand at `path`.
pub(super) fn is_key(path: &str) -> bool {
    KEYS.iter().any(|(key, _)| *key == path) || page_key(path).is_some()
}

/// True if a table may stand at `path`.
pub(super) fn is_section(path: &str) -> bool {
    match path.strip_prefix("pages") {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(is_page),
        None => KEYS
            .iter()
            .any(|(key, _)| key.split_once('.').is_some_and(|(s, _)| s == path)),
    }
}

/// The environment variable that sets `path`.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// The key that an environment variable sets, if it sets one.
pub(super) fn of_variable(name: &str) -> Option<String> {
    let path = name
        .strip_prefix(PREFIX)?
        .to_ascii_lowercase()
        .replace("__", ".");
    (is_key(&path) && variable(&path) == name).then_some(path)
}

/// True for a variable that looks like a key and has to be one, or gets a warning.
/// `POSTLANE_TEST_…` belongs to the test suite.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) && !name.starts_with("POSTLANE_TEST_")
}

/// The allowed key closest to `path`: the same name in another section first, then by spelling.
pub(super) fn nearest(path: &str) -> String {
    let page = path
        .strip_prefix("pages.")
        .and_then(|rest| rest.split_once('.'));
    if let Some((page, key)) = page.filter(|(page, _)| is_page(page)) {
        let key = closest(key, PAGE_KEYS.iter().copied());
        return format!("pages.{page}.{key}");
    }
    let last = |path: &'static str| path.rsplit_once('.').map_or(path, |(_, last)| last);
    let wanted = path.rsplit_once('.').map_or(path, |(_, last)| last);
    if let Some((key, _)) = KEYS.iter().find(|(key, _)| last(key) == wanted) {
        return (*key).to_owned();
    }
    if PAGE_KEYS.contains(&wanted) {
        return format!("pages.{DEFAULT_PAGE}.{wanted}");
    }
    let sections = KEYS
        .iter()
        .filter_map(|(key, _)| key.split_once('.').map(|(s, _)| s));
    closest(
        path,
        KEYS.iter()
            .map(|(key, _)| *key)
            .chain(sections)
            .chain(["pages"]),
    )
    .to_owned()
}

fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    candidates
        .min_by_key(|candidate| distance(word, candidate))
        .unwrap_or_default()
}

/// Edits between two words (Levenshtein), with one row of the table at a time.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, r) in right.bytes().enumerate() {
            let change = corner + usize::from(!l.eq_ignore_ascii_case(&r));
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_variable_that_leads_back_to_it() {
        for (key, _) in KEYS {
            assert_eq!(of_variable(&variable(key)).as_deref(), Some(*key));
        }
        assert_eq!(
            of_variable("POSTLANE_PAGES__12345__RATE").as_deref(),
            Some("pages.12345.rate")
        );
        assert_eq!(
            of_variable("POSTLANE_PAGES__DEFAULT__SECRET_ENV").as_deref(),
            Some("pages.default.secret_env")
        );
        for none in [
            "POSTLANE_API_URL",
            "POSTLANE_api__url",
            "POSTLANE_PAGES__012__RATE",
            "API__URL",
        ] {
            assert_eq!(of_variable(none), None, "{none}");
        }
    }

    #[test]
    fn a_misspelt_key_is_led_to_the_one_that_was_meant() {
        for (wrong, meant) in [
            ("api.ulr", "api.url"),
            ("apii", "api"),
            ("timeout", "api.timeout"),
            ("api.database_url", "database_url"),
            ("worker.concurency", "worker.concurrency"),
            ("pages.12345.secert_env", "pages.12345.secret_env"),
            ("rate", "pages.default.rate"),
        ] {
            assert_eq!(nearest(wrong), meant, "{wrong}");
        }
    }
}
