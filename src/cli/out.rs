//! Where verbs write: standard output, with dead pipes and foreign text taken care of.
//!
//! A reader that has gone (`| head`) is not an error: what is written after that is dropped, and a
//! verb that changes jobs still finishes its work. Control characters never reach a terminal.

use std::fmt::{Display, Write as _};
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::clean::obeyed;
pub use crate::clean::safe;

/// A terminal of fewer columns breaks lines by itself.
const NARROW: u16 = 60;

/// The columns that are never broken into lines.
const WHOLE: [&str; 9] = [
    "ID", "STATE", "TRIES", "ENQUEUED", "STARTED", "TOOK", "ATTEMPT", "OUTCOME", "STATUS",
];

/// Standard output of one verb.
#[derive(Debug)]
pub struct Out {
    stdout: BufWriter<Stdout>,
    terminal: bool,
    colour: bool,
    gone: bool,
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

impl Out {
    /// Looks at what standard output is.
    pub fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Self {
            stdout: BufWriter::new(io::stdout()),
            terminal,
            colour: terminal && !no_colour,
            gone: false,
        }
    }

    /// True once the reader is gone: a listing may stop.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Writes a line; the text must be our own, or made safe.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self, "{text}")?;
        if self.terminal { self.flush() } else { Ok(()) }
    }

    /// Writes a value as one line of JSON, whatever line breaks its parts hold.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = one_line(&serde_json::to_string(value)?);
        self.line(text)
    }

    /// Writes a table.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        let text = table.trim_fmt();
        self.line(text)
    }

    /// A table with these headings, as wide as the terminal.
    pub fn new_table(&self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if !self.terminal {
            table.force_no_tty();
        }
        table.set_header(headings.iter().map(|heading| Cell::new(*heading)));
        // Only long text is broken into lines, and only where there is room for that.
        if table.width().is_some_and(|width| width >= NARROW) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            for column in table.column_iter_mut().zip(headings) {
                if WHOLE.contains(column.1) {
                    column.0.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        table
    }

    /// A cell for a word that says how something went.
    pub fn word(&self, word: &str) -> Cell {
        let cell = Cell::new(safe(word));
        let colour = match word {
            "delivered" | "ok" => Color::Green,
            "dead" | "refused" | "unknown" | "ambiguous" => Color::Red,
            "held" | "cancelled" | "retryable" | "throttled" | "not_sent" => Color::Yellow,
            _ => return cell,
        };
        if self.colour { cell.fg(colour) } else { cell }
    }

    /// Says something on standard error, after all that was written before.
    pub fn note(&mut self, text: impl Display) {
        let _ = self.flush();
        // If this fails, there is no reader left to tell.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Writes what is left.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }

    fn taken<T>(&mut self, done: io::Result<T>, if_gone: T) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(if_gone)
            }
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("standard output: {error}"),
            )),
            done => done,
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gone {
            return Ok(bytes.len());
        }
        let done = self.stdout.write(bytes);
        self.taken(done, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let done = self.stdout.flush();
        self.taken(done, ())
    }
}

/// A bar on standard error, or none where that is not a terminal.
pub fn progress(length: u64, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length)
        .with_style(style)
        .with_message(what.to_owned())
}

/// JSON text on one line: blanks for breaks between its parts, escapes inside its strings. JSON
/// allows raw control characters only between parts, except for DEL and those beyond ASCII.
fn one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if obeyed(c) => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_json_of_many_lines_becomes_one_line_that_means_the_same() {
        let text = "{\n\t\"a\": \"x\u{9b}\u{7f}\"\r\n}";
        let line = one_line(text);
        assert!(!line.chars().any(char::is_control), "{line}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&line), read(text));
    }
}
