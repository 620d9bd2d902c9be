//! JSON that is not whole, and JSON that is not alone.
//!
//! An answer that is too long, cut or endless can still be an explicit failure
//! (spec 4.5, rule 5), so its beginning is completed to a document of its own. What a server puts before or
//! behind a document (a PHP notice, a comment) is stepped over.

use serde_json::{Deserializer, Value};

/// How often the beginning of a document is looked for.
const TRIES: usize = 32;

/// How deep a document may nest; what the JSON reader allows.
const DEPTH: usize = 127;

/// The beginning of `text` up to its last whole member, with all that is open closed. None if
/// nothing in it is whole. Takes time and room in proportion to `text`.
pub(super) fn completed(text: &str) -> Option<String> {
    let mut open: Vec<char> = Vec::new();
    // Where the last whole member ends, and how much was open there. After it only more was
    // opened, or there would be a later one.
    let mut whole: Option<(usize, usize)> = None;
    let (mut in_string, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' => open.push('}'),
            b'[' => open.push(']'),
            b'}' | b']' => {
                open.pop()?;
                whole = Some((at + 1, open.len()));
            }
            b',' => whole = Some((at, open.len())),
            _ => {}
        }
        if open.len() > DEPTH {
            break;
        }
    }
    let (end, depth) = whole?;
    let closing = open.get(..depth)?.iter().rev();
    Some(text.get(..end)?.chars().chain(closing.copied()).collect())
}

/// The object or list that stands after something else, with nothing but a remark behind it. Takes time in
/// proportion to `text`.
pub(super) fn stepped_over(text: &str) -> Option<Value> {
    let starts = text.match_indices(['{', '[']).take(TRIES);
    let (json, behind) = starts.map(|(at, _)| at).find_map(|at| {
        let rest = text.get(at..)?;
        let mut documents = Deserializer::from_str(rest).into_iter::<Value>();
        let json = documents.next()?.ok()?;
        // A list of plain values is more likely part of a text.
        let has_marks = match &json {
            Value::Array(items) => items.iter().any(Value::is_object),
            json => json.is_object(),
        };
        has_marks.then_some((json, rest.get(documents.byte_offset()..)?))
    })?;
    is_remark(behind.trim()).then_some(json)
}

/// True for what may stand behind a document: the end of a call, a comment, or a notice of PHP.
fn is_remark(text: &str) -> bool {
    let text = text.trim_start_matches([')', ';']).trim_start();
    let in_signs = |open, close| text.starts_with(open) && text.ends_with(close);
    text.is_empty()
        || in_signs("<!--", "-->")
        || in_signs("/*", "*/")
        || (text.starts_with("//") || text.starts_with('#')) && !text.contains('\n')
        || text.starts_with("<br")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_document_is_stepped_over() {
        for text in [
            "ok.{\"a\":1}",
            "<br />\n<b>Notice</b>: Undefined index: x in <b>/w/[a].php</b> on line <b>3</b><br />\n{\"a\":1}",
            "/* cached */ {\"a\":1}",
            "call({\"a\":1});",
            "{\"a\":1} // 3 ms",
            "{\"a\":1}\n<!-- 0.02s -->",
            "{\"a\":1}<br />\n<b>Deprecated</b>: x",
        ] {
            let found = stepped_over(text);
            assert_eq!(found, Some(serde_json::json!({"a": 1})), "{text}");
        }
        for text in [
            "",
            "sent [1, 2]",
            "<script>x={\"a\":1}</script>",
            "{\"a\":1} {\"b\":2}",
            "{\"a\":1} and more",
            "{\"a\":1",
        ] {
            assert_eq!(stepped_over(text), None, "{text}");
        }
        assert_eq!(stepped_over(&"[{".repeat(1 << 15)), None);
    }

    #[test]
    fn a_beginning_is_completed_after_its_last_whole_member() {
        for (text, expected) in [
            (
                r#"{"a":1,"b":{"c":2,"d":"x"#,
                Some(r#"{"a":1,"b":{"c":2}}"#),
            ),
            (r#"{"a":"\",}","b"#, Some(r#"{"a":"\",}"}"#)),
            (r#"{"a":"\\","b"#, Some(r#"{"a":"\\"}"#)),
            (r#"[1,2,[3]"#, Some("[1,2,[3]]")),
            (r#"{"a":[],"#, Some(r#"{"a":[]}"#)),
            (r#"{"a":1"#, None),
            ("", None),
            ("}", None),
            ("<html>", None),
        ] {
            assert_eq!(completed(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn endless_nesting_is_given_up() {
        assert_eq!(completed(&"[".repeat(1 << 20)), None);
        let text = format!("[1,{}", "[".repeat(1 << 20));
        assert_eq!(completed(&text).as_deref(), Some("[1]"));
    }
}
