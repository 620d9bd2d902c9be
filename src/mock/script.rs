//! Scripts: what the sandbox does with the next requests of a recipient.
//!
//! A script is a list of steps, one per request; after the last comes `ok` for ever, or the last
//! step again if a `*` follows it. The text form is meant to be typed: `500 x2, ok`. This file
//! knows the words and nothing of sockets.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The words a step may consist of; every error message ends with them.
pub const WORDS: &str = "ok, a status (500), status NNN, delay 200ms, redirect URL, hang, reset, \
    reset-before, reset-mid, drop, close, cut, drip, drip-body, endless, garbage, raw=BYTES, \
    body=JSON, header=Name:Value, retry-after=VALUE, every=100ms, x3 (three times), \
    * (the last step for ever)";

/// The most often one step may be repeated with `xN`.
const MAX_REPEAT: usize = 10_000;

/// A text that is no script, no target or no script file, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(pub(super) String);

/// How an answer goes out, if it goes out at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Manner {
    /// Status, headers and body in one write.
    #[default]
    Whole,
    /// Every byte alone, this far apart.
    Drip(Duration),
    /// The head at once, then every byte of the body alone, this far apart.
    DripBody(Duration),
    /// The head and half of the body, then FIN.
    Cut,
    /// The head and half of the body, then RST.
    ResetMid,
    /// The head and a chunked body without end.
    Endless,
    /// These bytes, HTTP or not, then FIN.
    Raw(Vec<u8>),
    /// No answer; the connection stays until the client gives up.
    Hang,
    /// The message is taken in, then FIN without an answer.
    Drop,
    /// FIN without an answer; the request does not count as received.
    Close,
    /// RST after the request was read and counted as received.
    Reset,
    /// RST, not counted as received. Before the body is read if the script for everybody says
    /// nothing else (`reset-before *`); else the body is read to know whose request it is.
    ResetBefore,
}

impl Manner {
    /// True if the request leaves no trace in the record.
    pub(super) fn hides_the_request(&self) -> bool {
        matches!(self, Self::Close | Self::ResetBefore)
    }

    /// True if at least the status line of an answer reaches the client.
    fn answers(&self) -> bool {
        !matches!(
            self,
            Self::Hang | Self::Drop | Self::Close | Self::Reset | Self::ResetBefore
        )
    }
}

/// What is done with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Waited after the request was read, before anything else.
    pub delay: Duration,
    /// The status of the answer.
    pub status: u16,
    /// Further headers; `content-type` and `content-length` replace the usual ones.
    pub headers: Vec<(String, String)>,
    /// The body; `None` is what JoinChat says to this status.
    pub body: Option<Vec<u8>>,
    /// How the answer goes out.
    pub manner: Manner,
}

/// The step of every request without a script.
pub(super) static PLAIN: Step = Step {
    delay: Duration::ZERO,
    status: 200,
    headers: Vec::new(),
    body: None,
    manner: Manner::Whole,
};

impl Default for Step {
    fn default() -> Self {
        Self::answer(200)
    }
}

impl Step {
    /// A whole answer with this status and its usual body.
    pub fn answer(status: u16) -> Self {
        let manner = Manner::Whole;
        Self {
            delay: Duration::ZERO,
            status,
            headers: Vec::new(),
            body: None,
            manner,
        }
    }

    /// The status the client can see; `None` if there is no answer.
    pub(super) fn seen_status(&self) -> Option<u16> {
        match &self.manner {
            Manner::Raw(bytes) => raw_status(bytes),
            manner => manner.answers().then_some(self.status),
        }
    }

    /// True if the answer tells the client that the message was delivered.
    pub(super) fn accepts(&self) -> bool {
        let success = self
            .seen_status()
            .is_some_and(|status| (200..300).contains(&status));
        success && !self.body.as_deref().is_some_and(says_failure)
    }

    /// True if the person gets the message, whatever the client is told.
    pub(super) fn takes(&self) -> bool {
        self.manner == Manner::Drop || self.accepts()
    }
}

fn raw_status(bytes: &[u8]) -> Option<u16> {
    let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

/// An explicit failure in the body, by whatever status it comes.
fn says_failure(body: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else {
        return false;
    };
    let set = |key: &str| answer.get(key).is_some_and(|error| !error.is_null());
    answer.get("success") == Some(&serde_json::Value::Bool(false)) || set("error") || set("errors")
}

/// The steps for a row of requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    steps: Vec<Arc<Step>>,
    repeat_last: bool,
}

impl Script {
    /// These steps once each, then `ok` for ever.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().map(Arc::new).collect(),
            repeat_last: false,
        }
    }

    /// The last step again for ever, instead of `ok`.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.repeat_last = true;
        self
    }

    /// The step for request `number`, counted from 0; `None` is a plain `ok`.
    pub(super) fn step(&self, number: usize) -> Option<&Arc<Step>> {
        let last = if self.repeat_last {
            self.steps.last()
        } else {
            None
        };
        self.steps.get(number).or(last)
    }

    /// True if no request needs its body read to know what happens.
    pub(super) fn only_resets_before(&self) -> bool {
        let resets = |step: &Arc<Step>| step.manner == Manner::ResetBefore;
        self.repeat_last && !self.steps.is_empty() && self.steps.iter().all(resets)
    }
}

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

fn parse_step(words: &[String]) -> Result<(Step, usize), String> {
    let (mut step, mut times, mut every) = (Step::default(), 1, Duration::from_millis(100));
    let (mut status, mut manner) = (None, None);
    let mut words = words.iter().map(String::as_str).peekable();
    if words.peek().is_none() {
        return Err("it is empty".to_owned());
    }
    while let Some(word) = words.next() {
        let mut operand = |what: &str| words.next().ok_or(format!("\"{word}\" needs {what}"));
        let how = match word {
            "ok" => set(&mut status, 200, word).map(|()| None)?,
            "status" => set(&mut status, number(operand("a status")?)?, word).map(|()| None)?,
            "redirect" => {
                set(&mut status, 302, word)?;
                step.headers
                    .push(("location".to_owned(), operand("a URL")?.to_owned()));
                None
            }
            "delay" => {
                step.delay = duration(operand("a duration")?)?;
                None
            }
            "hang" => Some(Manner::Hang),
            "reset" => Some(Manner::Reset),
            "reset-before" => Some(Manner::ResetBefore),
            "reset-mid" => Some(Manner::ResetMid),
            "drop" => Some(Manner::Drop),
            "close" => Some(Manner::Close),
            "cut" => Some(Manner::Cut),
            "drip" => Some(Manner::Drip(every)),
            "drip-body" => Some(Manner::DripBody(every)),
            "endless" => Some(Manner::Endless),
            "garbage" => Some(Manner::Raw(
                b"\x00\xff\x16\x03 this is not HTTP\r\n\r\n".to_vec(),
            )),
            _ if word.bytes().all(|b| b.is_ascii_digit()) => {
                set(&mut status, number(word)?, word).map(|()| None)?
            }
            _ if word.starts_with('x') && word[1..].parse::<usize>().is_ok() => {
                times = word[1..].parse().unwrap_or_default();
                if !(1..=MAX_REPEAT).contains(&times) {
                    return Err(format!("\"{word}\" is not within x1..x{MAX_REPEAT}"));
                }
                None
            }
            _ => option(word, &mut step, &mut every)?,
        };
        if let Some(how) = how {
            set(&mut manner, how, word)?;
        }
    }
    step.status = status.unwrap_or(200);
    step.manner = match manner {
        Some(Manner::Drip(_)) => Manner::Drip(every),
        Some(Manner::DripBody(_)) => Manner::DripBody(every),
        other => other.unwrap_or_default(),
    };
    Ok((step, times))
}

/// The words of the form `name=value`.
fn option(word: &str, step: &mut Step, every: &mut Duration) -> Result<Option<Manner>, String> {
    let unknown = || format!("unknown word \"{word}\"");
    let (name, value) = word.split_once('=').ok_or_else(unknown)?;
    let value = unquote(value)?;
    match name {
        "body" => step.body = Some(value.into_bytes()),
        "raw" => return Ok(Some(Manner::Raw(value.into_bytes()))),
        "every" => *every = duration(&value)?,
        "retry-after" => step.headers.push((name.to_owned(), value)),
        "header" => {
            let (name, value) = value
                .split_once(':')
                .ok_or(format!("no colon in \"{word}\""))?;
            step.headers
                .push((name.trim().to_owned(), value.trim().to_owned()));
        }
        _ => return Err(unknown()),
    }
    Ok(None)
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

fn number(word: &str) -> Result<u16, String> {
    let status = word
        .parse()
        .ok()
        .filter(|status| (100..=999).contains(status));
    status.ok_or(format!("\"{word}\" is not a status of three digits"))
}

fn duration(word: &str) -> Result<Duration, String> {
    humantime::parse_duration(word).map_err(|why| format!("\"{word}\" is not a duration ({why})"))
}
