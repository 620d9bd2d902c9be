//! The text form of a script, meant to be typed: `500 x2, ok`.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{Manner, Script, ScriptError, Step};
use crate::vendor;

/// The words a step may consist of; every error message ends with them.
pub const WORDS: &str = "ok, a status (500), status NNN, code=10010, graph=100/2018001, msg=TEXT, \
    errors=TEXT, body=JSON, header=Name:Value, retry-after=VALUE, retry-date=30s, redirect URL, \
    delay 200ms, taken, hang, reset, reset-before, reset-mid, drop, close, cut, drip, drip-body, \
    every=100ms, endless, garbage, raw=BYTES, x3 (three times), * (the last step for ever)";

/// The most often one step may be repeated with `xN`.
const MAX_REPEAT: usize = 10_000;
/// The latest date of a `Retry-After`: such dates have four digits for the year.
const MAX_RETRY_DATE: Duration = Duration::from_secs(366 * 86_400);

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let steps = split(text)?;
        let count = steps.len();
        for (index, words) in steps.iter().enumerate() {
            let number = index + 1;
            let (words, star) = match words.split_last() {
                Some((last, rest)) if last == "*" => (rest, true),
                _ => (words.as_slice(), false),
            };
            if star && number < count {
                return Err(ScriptError(format!(
                    "step {number}: \"*\" ends a script, nothing may follow"
                )));
            }
            script.repeat_last = star;
            if words.is_empty() && star && number > 1 {
                continue; // `500, *` is `500 *`
            }
            let (step, times) = parse_step(words)
                .map_err(|why| ScriptError(format!("step {number}: {why}; use {WORDS}")))?;
            script
                .steps
                .extend(std::iter::repeat_n(Arc::new(step), times));
        }
        Ok(script)
    }
}

/// Steps split at commas and words split at blanks, both outside of quotes and brackets.
fn split(text: &str) -> Result<Vec<Vec<String>>, ScriptError> {
    let (mut steps, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for c in text.chars() {
        let outside = depth == 0 && !quoted;
        if outside && (c == ',' || c.is_whitespace()) {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if c == ',' {
                steps.push(std::mem::take(&mut words));
            }
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        word.push(c);
    }
    if quoted || depth > 0 {
        return Err(ScriptError(format!(
            "a quote or bracket is never closed in \"{text}\""
        )));
    }
    if !word.is_empty() {
        words.push(word);
    }
    steps.push(words);
    Ok(steps)
}

/// A step while its words are read: what they said so far, each thing once.
#[derive(Default)]
struct Draft {
    step: Step,
    status: Option<u16>,
    manner: Option<Manner>,
    every: Option<Duration>,
    times: Option<usize>,
    /// The answer's failure, `code=` or `graph=` with a subcode.
    code: Option<Code>,
    msg: Option<String>,
    /// What the status is if no word says so.
    usual: Option<u16>,
}

/// A code and whose it is.
enum Code {
    Joinchat(i64),
    Graph(i64, Option<i64>),
}

fn parse_step(words: &[String]) -> Result<(Step, usize), String> {
    if words.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut draft = Draft::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut operand = |what: &str| words.next().ok_or(format!("\"{word}\" needs {what}"));
        match word {
            "ok" => set(&mut draft.status, 200, word)?,
            "status" => set(&mut draft.status, status(operand("a status")?)?, word)?,
            "redirect" => draft.redirect(operand("a URL")?, word)?,
            "delay" => draft.step.delay = duration(operand("a duration")?)?,
            "taken" => draft.step.taken = true,
            _ => draft.word(word)?,
        }
    }
    draft.finish()
}

impl Draft {
    /// A word that stands alone.
    fn word(&mut self, word: &str) -> Result<(), String> {
        let manner = match word {
            "hang" => Manner::Hang,
            "reset" => Manner::Reset,
            "reset-before" => Manner::ResetBefore,
            "reset-mid" => Manner::ResetMid,
            "drop" => Manner::Drop,
            "close" => Manner::Close,
            "cut" => Manner::Cut,
            "drip" => Manner::Drip(Duration::ZERO),
            "drip-body" => Manner::DripBody(Duration::ZERO),
            "endless" => Manner::Endless,
            "garbage" => Manner::Raw(b"\x00\xff\x16\x03 this is not HTTP\r\n\r\n".to_vec()),
            _ if word.bytes().all(|b| b.is_ascii_digit()) => {
                return set(&mut self.status, status(word)?, word);
            }
            _ => match word.strip_prefix('x').map(str::parse) {
                Some(Ok(times)) if (1..=MAX_REPEAT).contains(&times) => {
                    return set(&mut self.times, times, word);
                }
                Some(Ok(_)) => return Err(format!("\"{word}\" is not within x1..x{MAX_REPEAT}")),
                _ => return self.option(word),
            },
        };
        set(&mut self.manner, manner, word)
    }

    /// A word of the form `name=value`.
    fn option(&mut self, word: &str) -> Result<(), String> {
        let unknown = || format!("unknown word \"{word}\"");
        let (name, value) = word.split_once('=').ok_or_else(unknown)?;
        let value = unquote(value)?;
        let headers = &mut self.step.headers;
        match name {
            "body" => set(&mut self.step.body, value.into_bytes(), word)?,
            "errors" => {
                let body = vendor::failure_in_words(&value).into_bytes();
                set(&mut self.step.body, body, word)?;
            }
            "code" => set(&mut self.code, Code::Joinchat(code(&value)?), word)?,
            "graph" => {
                self.usual = Some(400);
                let (main, sub) = match value.split_once('/') {
                    Some((main, sub)) => (main, Some(code(sub)?)),
                    None => (value.as_str(), None),
                };
                set(&mut self.code, Code::Graph(code(main)?, sub), word)?;
            }
            "msg" => set(&mut self.msg, value, word)?,
            "raw" => set(&mut self.manner, Manner::Raw(value.into_bytes()), word)?,
            "every" => set(&mut self.every, duration(&value)?, word)?,
            "retry-after" => headers.push((name.to_owned(), value)),
            "retry-date" => {
                let span = duration(&value)?;
                if span > MAX_RETRY_DATE {
                    return Err(format!("\"{word}\" is more than a year away"));
                }
                set(&mut self.step.retry_date, span, word)?;
            }
            "header" => {
                let parts = value.split_once(':');
                let (name, value) = parts.ok_or(format!("no colon in \"{word}\""))?;
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn redirect(&mut self, url: &str, word: &str) -> Result<(), String> {
        let headers = &mut self.step.headers;
        headers.push(("location".to_owned(), url.to_owned()));
        set(&mut self.usual, 302, word)
    }

    fn finish(self) -> Result<(Step, usize), String> {
        let mut step = self.step;
        let every = self.every.unwrap_or(Duration::from_millis(100));
        step.manner = match self.manner.unwrap_or_default() {
            Manner::Drip(_) => Manner::Drip(every),
            Manner::DripBody(_) => Manner::DripBody(every),
            manner => manner,
        };
        if step.taken && step.manner.hides_the_request() {
            return Err("\"taken\" contradicts \"close\" and \"reset-before\"".to_owned());
        }
        if let Some(code) = self.code {
            let body = code.body(self.msg.as_deref()).into_bytes();
            set(&mut step.body, body, "code= or graph=")?;
        } else if self.msg.is_some() {
            return Err("\"msg=\" needs code= or graph=".to_owned());
        }
        step.status = self.status.or(self.usual).unwrap_or(200);
        Ok((step, self.times.unwrap_or(1)))
    }
}

impl Code {
    fn body(&self, msg: Option<&str>) -> String {
        match *self {
            Self::Joinchat(code) => {
                vendor::failure(code, msg.unwrap_or(vendor::text_of(code, None)))
            }
            Self::Graph(code, sub) => {
                vendor::graph_error(code, sub, msg.unwrap_or(vendor::text_of(code, sub)))
            }
        }
    }
}

/// A value in quotes is a JSON string (`\u0000` and friends); any other stands for itself.
fn unquote(value: &str) -> Result<String, String> {
    if !value.starts_with('"') {
        return Ok(value.to_owned());
    }
    serde_json::from_str(value).map_err(|why| format!("{value} is not a JSON string ({why})"))
}

fn set<T>(slot: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("\"{word}\" contradicts a word before it")),
    }
}

fn status(word: &str) -> Result<u16, String> {
    let status = word
        .parse()
        .ok()
        .filter(|status| (100..=999).contains(status));
    status.ok_or(format!("\"{word}\" is not a status of three digits"))
}

fn code(word: &str) -> Result<i64, String> {
    let code = word.parse();
    code.map_err(|_| format!("\"{word}\" is not a code, a whole number"))
}

fn duration(word: &str) -> Result<Duration, String> {
    humantime::parse_duration(word).map_err(|why| format!("\"{word}\" is not a duration ({why})"))
}
