//! Any answer is judged, in bounded time.

use proptest::prelude::*;

use super::*;
use crate::job::Outcome::{Delivered, NotSent};

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("1e999".to_owned()),
        Just("-0.0".to_owned()),
        "\\PC{0,12}".prop_map(|text| serde_json::Value::String(text).to_string()),
    ];
    let key = prop_oneof![
        "success",
        "errors?",
        "code",
        "msg",
        "message",
        "recipient_id",
        "error_subcode",
        "[a-z]{0,3}"
    ];
    let json = scalar.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    prop_oneof![
        4 => (json, any::<prop::sample::Index>()).prop_map(|(text, at)| {
            let mut bytes = text.into_bytes();
            let keep = at.index(bytes.len() * 2 + 1);
            bytes.truncate(keep);
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => ("[\\[{\"a:,\\\\]{1,4}", 1..BODY_LIMIT / 4).prop_map(|(text, times)| {
            let mut bytes = text.repeat(times).into_bytes();
            bytes.truncate(BODY_LIMIT);
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_makes_the_judge_panic_or_take_long(
        status in 100_u16..=999,
        body in bodies(),
        content_type in prop::collection::vec(any::<u8>(), 0..20),
        retry_after in prop::collection::vec(any::<u8>(), 0..20),
        cut in any::<bool>(),
        now in any::<i64>(),
    ) {
        let header = |name: &str| match name {
            "content-type" => Some(content_type.as_slice()),
            _ => Some(retry_after.as_slice()),
        };
        let cut = cut.then(|| "cut".to_owned());
        let answer = Answer::status(status, header, (body, cut), now, HOUR);
        let began = crate::clock::BootInstant::now();
        let judgement = judged(&answer);
        // Far beyond what it takes, far below what would matter to others.
        prop_assert!(began.elapsed() < Duration::from_secs(2));
        prop_assert_ne!(judgement.rule, "rules.none");
        prop_assert_ne!(judgement.outcome, NotSent);
        prop_assert!(judgement.reason.chars().count() < 600);
        let failed = !(200..=299).contains(&status);
        prop_assert!(!failed || judgement.outcome != Delivered, "{:?}", judgement);
    }
}
