//! What a send request says: whose it is, and which number its text carries.
//!
//! Reads only what the sandbox answers by and the referee counts by, borrowed from the body. It
//! shares no line with the product's own validation, so that one cannot hide the other's mistakes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::record::Name;

/// A request as the sandbox sees it.
pub(crate) struct Order<'a> {
    pub page_id: Cow<'a, str>,
    /// `id`, `phone`, `email` or `uuid`.
    pub kind: &'static str,
    pub recipient: Cow<'a, str>,
    /// The recipient's value as JSON, quotes and all; echoed in the answer.
    pub recipient_json: &'a str,
    /// `7` if the text ends with `#7`.
    pub number: Option<u64>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    page_id: &'a RawValue,
    #[serde(borrow)]
    recipient: &'a RawValue,
    #[serde(borrow)]
    message: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipient<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    phone: Option<&'a RawValue>,
    #[serde(borrow)]
    email: Option<&'a RawValue>,
    #[serde(borrow)]
    uuid: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

impl<'a> Order<'a> {
    /// Whose it is.
    pub fn name(&self) -> Name {
        Name {
            page_id: self.page_id.to_string(),
            kind: self.kind,
            recipient: self.recipient.to_string(),
        }
    }

    /// Reads a body; the error is the `msg` of the answer 400.
    pub fn parse(body: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|why| why.to_string())?;
        let request: Request<'a> = object(text)?;
        let page_id = page(request.page_id.get()).ok_or("page_id is no positive integer")?;
        let Recipient {
            id,
            phone,
            email,
            uuid,
        } = object(request.recipient.get())?;
        let given = [
            ("id", id),
            ("phone", phone),
            ("email", email),
            ("uuid", uuid),
        ];
        let mut given = given
            .into_iter()
            .filter_map(|(kind, raw)| Some((kind, raw?.get())));
        let (Some((kind, recipient_json)), None) = (given.next(), given.next()) else {
            return Err("recipient needs exactly one of id, phone, email, uuid".to_owned());
        };
        let recipient = string(recipient_json).ok_or("recipient is no string")?;
        if recipient.trim().is_empty() {
            return Err("recipient is blank".to_owned());
        }
        let message: Message<'a> = object(request.message.get())?;
        let number = message.text.and_then(|raw| number(&string(raw.get())?));
        Ok(Self {
            page_id,
            kind,
            recipient,
            recipient_json,
            number,
        })
    }
}

/// Reads an object; an array of the same values, which serde would take too, is none.
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    if !json.trim_start().starts_with('{') {
        return Err("expected a JSON object".to_owned());
    }
    serde_json::from_str(json).map_err(|why| why.to_string())
}

/// A JSON string, borrowed unless it contains an escape.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

fn page(json: &str) -> Option<Cow<'_, str>> {
    let page = if json.starts_with('"') {
        string(json)?
    } else {
        Cow::Borrowed(json)
    };
    let digits = !page.starts_with('0') && page.bytes().all(|b| b.is_ascii_digit());
    (digits && !page.is_empty()).then_some(page)
}

fn number(text: &str) -> Option<u64> {
    let digits = &text[text.rfind('#')? + 1..];
    let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if all { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(body: &str) -> Result<(String, String, Option<u64>), String> {
        let order = Order::parse(body.as_bytes())?;
        Ok((
            order.page_id.into_owned(),
            format!("{}:{}", order.kind, order.recipient),
            order.number,
        ))
    }

    #[test]
    fn a_request_is_read_with_a_page_as_number_or_string_and_escapes_decoded() {
        let read = order(r#"{"page_id":12345,"recipient":{"id":"7"},"message":{"text":"a #12"}}"#);
        assert_eq!(read, Ok(("12345".into(), "id:7".into(), Some(12))));
        let read =
            order(r##"{"message":{"text":"#x"},"page_id":"9","recipient":{"email":"\u0061"}}"##);
        assert_eq!(read, Ok(("9".into(), "email:a".into(), None)));
        let read = order(r#"{"page_id":9,"recipient":{"uuid":"u"},"message":{"elements":[1]}}"#);
        assert_eq!(read, Ok(("9".into(), "uuid:u".into(), None)));
    }

    #[test]
    fn a_request_without_a_page_a_message_or_exactly_one_recipient_is_refused() {
        for body in [
            "",
            "[]",
            "not json",
            r#"{"recipient":{"id":"7"},"message":{}}"#,
            r#"{"page_id":1,"message":{}}"#,
            r#"{"page_id":1,"recipient":{"id":"7"}}"#,
            r#"{"page_id":1,"recipient":{"id":"7"},"message":null}"#,
            r#"{"page_id":1,"recipient":["7"],"message":{}}"#,
            r#"[1,{"id":"7"},{}]"#,
            r#"{"page_id":1,"recipient":{"id":"7","phone":"8"},"message":{}}"#,
            r#"{"page_id":1,"recipient":{"id":7},"message":{}}"#,
            r#"{"page_id":1,"recipient":{"id":" "},"message":{}}"#,
            r#"{"page_id":1,"recipient":{"fax":"7"},"message":{}}"#,
            r#"{"page_id":1.5,"recipient":{"id":"7"},"message":{}}"#,
            r#"{"page_id":1,"recipient":{"id":"\ud83d"},"message":{}}"#,
        ] {
            assert!(order(body).is_err(), "{body} was taken");
        }
    }
}
