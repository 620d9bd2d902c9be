//! Any `Retry-After`, at any time: seconds, one of three forms of a date, or nothing; never over the
//! cap, and never under a second (or the cap, if that is less).
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use postlane::judge::{Answer, retry_after};

/// The last second of the year 9999: no HTTP date is later.
const LAST: u64 = 253_402_300_799;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    now_unix_secs: i64,
    most_ms: u64,
    moment: u64,
    value: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let now = input.now_unix_secs;
    let most = Duration::from_millis(input.most_ms);
    let least = Duration::from_secs(1).min(most);
    let read = |value: &[u8]| retry_after(value, now, most);

    let asked = read(input.value);
    assert!(
        asked.is_none_or(|wait| (least..=most).contains(&wait)),
        "{asked:?}"
    );
    let text = input.value.trim_ascii();
    if text.is_empty() {
        assert_eq!(asked, None);
    } else if text.iter().all(u8::is_ascii_digit) {
        let seconds = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok());
        let wait = seconds.map_or(most, Duration::from_secs);
        assert_eq!(asked, Some(wait.clamp(least, most)));
    }

    // A date as servers write it.
    let moment = Duration::from_secs(input.moment % (LAST + 1));
    let date = httpdate::fmt_http_date(UNIX_EPOCH + moment);
    let wait = moment.saturating_sub(Duration::from_secs(now.try_into().unwrap_or_default()));
    assert_eq!(
        read(date.as_bytes()),
        Some(wait.clamp(least, most)),
        "{date}"
    );

    // The way it takes in an answer.
    let header = |name: &str| (name == "retry-after").then_some(input.value);
    let answer = Answer::status(503, header, (Vec::new(), None), now, most);
    let Answer::Status { retry_after, .. } = answer else {
        panic!("a status came: {answer:?}");
    };
    assert_eq!(retry_after, asked);
});
