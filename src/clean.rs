//! Makes foreign text safe to show in a terminal, a page or a log.

use std::fmt::Write as _;

/// Text that came from elsewhere, without anything that a terminal would obey, on one line.
pub fn safe(text: &str) -> String {
    clean(text, false)
}

/// The same for text of many lines, of which each stays one.
pub fn safe_lines(text: &str) -> String {
    clean(text, true)
}

fn clean(text: &str, lines: bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) && !(lines && c == '\n') {
            // Writing into a String cannot fail.
            let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Control characters, and characters that change the writing direction.
pub fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        let text = "a\u{1b}[31mb\nc\u{202e}d";
        assert_eq!(safe(text), "a\\u{1b}[31mb\\u{a}c\\u{202e}d");
        assert_eq!(safe_lines(text), "a\\u{1b}[31mb\nc\\u{202e}d");
        assert_eq!(safe("é ü 漢字"), "é ü 漢字");
    }
}
