//! The demo's jobs: plain SQL as any producer would write it, and how each is meant to end.

use crate::job::State;

/// A job of the demo.
pub struct Case {
    /// The producer's whole statement.
    pub sql: &'static str,
    /// The kind of its message.
    pub template_type: &'static str,
    /// Whose it is.
    pub recipient: &'static str,
    /// How it is meant to end, and after how many attempts.
    pub wanted: (State, i64),
}

/// What the sandbox answers to whom, `TARGET=SCRIPT`; everybody else gets ok.
pub const SCRIPTS: [&str; 4] = [
    "stumbles=500, ok",
    "throttled=429 retry-after=1, ok",
    r#"unknown-user=200 body={"success":false,"error":{"code":10010,"message":"no such user on this page"}} *"#,
    "down=503 *",
];

/// Attempts that the demo's configuration allows.
pub const MAX_ATTEMPTS: i64 = 3;

macro_rules! case {
    ($recipient:literal, $kind:literal, $state:ident, $attempts:expr, $message:literal) => {
        case!($recipient, $kind, $state, $attempts, $message, "", "")
    };
    ($recipient:literal, $kind:literal, $state:ident, $attempts:expr, $message:literal, $column:literal, $value:literal) => {
        Case {
            sql: concat!(
                "insert into send_jobs (page_id, recipient, message",
                $column,
                ")\n  values ('12345', '{\"id\":\"",
                $recipient,
                "\"}', '{\"template_type\":\"",
                $kind,
                "\",",
                $message,
                "}'",
                $value,
                ");"
            ),
            template_type: $kind,
            recipient: $recipient,
            wanted: (State::$state, $attempts),
        }
    };
}

/// All of them, in the order of their ids.
pub const CASES: [Case; 13] = [
    case!("ada", "text", Delivered, 1, r#""text":"Hello World""#),
    case!(
        "grace",
        "button",
        Delivered,
        1,
        r#""text":"What next?","buttons":[{"type":"web_url","url":"https://example.com/","title":"Visit us"}]"#
    ),
    case!(
        "edsger",
        "generic",
        Delivered,
        1,
        r#""elements":[{"title":"Welcome!","subtitle":"A hat for everyone.","buttons":[{"type":"postback","title":"Start","payload":"START"}]}]"#
    ),
    case!(
        "barbara",
        "list",
        Delivered,
        1,
        r#""elements":[{"title":"Classic shirt","subtitle":"In all colours"},{"title":"White shirt","subtitle":"In white"}]"#
    ),
    case!(
        "donald",
        "receipt",
        Delivered,
        1,
        r#""recipient_name":"Donald","order_number":"1001","currency":"USD","payment_method":"Visa 2345","summary":{"total_cost":56.14},"elements":[{"title":"White shirt","price":56.14}]"#
    ),
    case!("stumbles", "text", Delivered, 2, r#""text":"500, then ok""#),
    case!(
        "throttled",
        "text",
        Delivered,
        2,
        r#""text":"429 with Retry-After, then ok""#
    ),
    case!(
        "unknown-user",
        "text",
        Dead,
        1,
        r#""text":"refused with a status of 200""#
    ),
    case!(
        "down",
        "text",
        Dead,
        MAX_ATTEMPTS,
        r#""text":"503 for ever""#
    ),
    case!(
        "too-long",
        "button",
        Dead,
        0,
        r#""text":"What next?","buttons":[{"type":"postback","title":"a title of 21 letters","payload":"X"}]"#
    ),
    case!(
        "too-late",
        "text",
        Dead,
        0,
        r#""text":"news of yesterday""#,
        ", expires_at",
        ", 1700000000000"
    ),
    case!(
        "alan",
        "text",
        Delivered,
        1,
        r#""text":"after a second, message 1""#,
        ", delay",
        ", 1"
    ),
    case!(
        "alan",
        "text",
        Delivered,
        1,
        r#""text":"in its place, message 2""#
    ),
];
