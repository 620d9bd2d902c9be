//! The sandbox's own rules on any bytes, and beside the product's: what the product sends the
//! sandbox takes, and what the product refuses the sandbox refuses too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postlane_message::validate::{self, Limits, WireForm};

/// Rules of Postlane alone: the vendor has none of them, so the sandbox lets these pass. (Of a key
/// that is given twice the sandbox, like PHP, reads the last.)
const OURS: [&str; 6] = [
    "json.duplicate_key",
    "request.unknown_key",
    "page_id.max_40",
    "recipient.max_1024_bytes",
    "message.max_65536_bytes",
    "recipient.value.no_nul",
];

fuzz_target!(|line: &[u8]| {
    let theirs = sandbox::check(line);
    if let Err(breach) = &theirs {
        assert!(!breach.to_string().is_empty());
    }
    match validate::document(line, &[], &Limits::default()) {
        Ok(document) => {
            assert_eq!(theirs, Ok(()), "the product accepts it");
            let body = validate::body(&document.request(), WireForm::default());
            assert_eq!(sandbox::check(&body), Ok(()), "the product sends it");
        }
        Err(refusal) => {
            // What a host may be the product asks a URL parser; the sandbox only sees that there is one.
            let rule = refusal.rule.as_ref();
            let ours = OURS.contains(&rule) || rule.ends_with("url.format");
            assert!(ours || theirs.is_err(), "the product refuses it: {refusal}");
        }
    }
});
