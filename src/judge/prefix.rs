//! What the part of a JSON document that was read already says.
//!
//! An answer that is too long, cut or endless can still be an explicit failure
//! (spec 4.5, rule 5), so its beginning is completed to a document of its own.

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

#[cfg(test)]
mod tests {
    use super::*;

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
