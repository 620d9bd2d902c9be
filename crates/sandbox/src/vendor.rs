//! What the vendor is known to answer, and nothing invented.
//!
//! JoinChat's own two shapes are those of its predecessor's documents; errors of Meta's Graph API
//! are taken to be relayed as they are. The texts are for people: only codes mean anything.

use serde_json::{Value, json};

/// Meta's code for a value that it does not take.
pub(crate) const PARAMETER: i64 = 100;
/// Meta's code for too few or too many items of a list.
pub(crate) const COUNT: i64 = 105;

/// The text that usually comes with a code of JoinChat's or of the Graph API.
pub(crate) fn text_of(code: i64, subcode: Option<i64>) -> &'static str {
    match (code, subcode) {
        (10010, _) => "Recipient not found",
        (-1, _) => "(#-1) Send message failure. Internal error occurred",
        (1, Some(1_357_046)) => "Received Invalid JSON reply.",
        (1, _) => "An unknown error occurred",
        (2, _) => "An unexpected error has occurred. Please retry your request later.",
        (4, _) => "(#4) Application request limit reached",
        (10, Some(2_018_278)) => "(#10) This message is sent outside of allowed window.",
        (10, Some(2_018_108)) => "(#10) This person isn't receiving messages from you right now.",
        (10, Some(1_893_063)) => "(#10) The Page is temporarily restricted from sending messages.",
        (10, _) => "(#10) Application does not have permission for this action",
        (17, _) => "(#17) User request limit reached",
        (32, _) => "(#32) Page request limit reached",
        (100, Some(2_018_001)) => "(#100) No matching user found",
        (100, Some(2_018_034)) => "(#100) Message cannot be empty",
        (100, _) => "(#100) Invalid parameter",
        (105, _) => "(#105) Param has too many elements.",
        (190, _) => "Error validating access token: the session is invalid.",
        (200, Some(1_545_041)) => "(#200) This person isn't available right now.",
        (200, _) => "(#200) Permissions error",
        (368, _) => "The action attempted has been deemed abusive or is otherwise disallowed",
        (551, _) => "(#551) This person isn't available right now.",
        (613, _) => "(#613) Calls to this api have exceeded the rate limit.",
        (1200, _) => "(#1200) Temporary send message failure. Please try again later.",
        _ => "Unknown error",
    }
}

/// Success, for the recipient of this JSON value.
pub(crate) fn delivered(recipient_json: &str) -> String {
    format!(r#"{{"success":true,"recipient_id":{recipient_json}}}"#)
}

/// JoinChat's failure with a code.
pub(crate) fn failure(code: i64, msg: &str) -> String {
    fail(&json!({"code": code, "msg": msg}))
}

/// JoinChat's failure in words alone, as its webhooks have it.
pub(crate) fn failure_in_words(words: &str) -> String {
    fail(&words.into())
}

fn fail(errors: &Value) -> String {
    json!({"success": false, "errors": errors}).to_string()
}

/// A relayed error of the Graph API.
pub(crate) fn graph_error(code: i64, subcode: Option<i64>, message: &str) -> String {
    let mut error = json!({"message": message, "type": "OAuthException", "code": code});
    if let Some(subcode) = subcode {
        error["error_subcode"] = subcode.into();
    }
    error["fbtrace_id"] = "AsandboxHasNoTrace0123".into();
    json!({ "error": error }).to_string()
}
