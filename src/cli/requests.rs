//! Requests from a file or a pipe, judged one by one: what `enqueue` and `check-message` share.
//!
//! It reads with a bound and goes on after what cannot be read; what is told of each, and where, is
//! the verb's.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use indicatif::ProgressBar;
use postlane_message::validate::Refusal;
use serde_json::value::RawValue;

use super::line::{self, LONGEST, Read};
use super::out::progress;
use super::{Failure, Out};

/// What some editors put in front of UTF-8, and what UTF-16 begins with.
const BOM: &[u8] = b"\xef\xbb\xbf";
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Reads `file` (`-` is standard input) and gives each request's line, from 1, and its judgement to
/// `tell`: one request a line, or a single one on several lines. Blank lines and a byte order mark are
/// skipped.
pub fn each<T>(
    file: &str,
    out: &mut Out,
    judge: impl Fn(&[u8]) -> Result<T, Refusal>,
    mut tell: impl FnMut(&mut Out, usize, Result<T, Refusal>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (from, length): (Box<dyn io::Read>, u64) = if file == "-" {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let failed = |error| Failure::Failed(format!("{}: {error}", Path::new(file).display()));
        let opened = File::open(file).map_err(failed)?;
        let length = opened.metadata().map_err(failed)?.len();
        (Box::new(opened), length)
    };
    let bar = match length {
        0 => ProgressBar::hidden(),
        length => progress(length, "read"),
    };
    let tell = |number, judged| bar.suspend(|| tell(out, number, judged));
    let done = read(from, &bar, judge, tell);
    bar.finish_and_clear();
    done
}

fn read<T>(
    mut from: impl io::Read,
    bar: &ProgressBar,
    judge: impl Fn(&[u8]) -> Result<T, Refusal>,
    mut tell: impl FnMut(usize, Result<T, Refusal>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut head = Vec::new();
    let longest = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    let failed = |error| Failure::Failed(format!("the input cannot be read: {error}"));
    from.by_ref()
        .take(longest)
        .read_to_end(&mut head)
        .map_err(failed)?;
    if UTF_16.iter().any(|mark| head.starts_with(mark)) {
        let why = "the input is UTF-16: save it as UTF-8";
        return Err(Failure::Failed(why.to_owned()));
    }
    let head = head.strip_prefix(BOM).unwrap_or(&head);
    if serde_json::from_slice::<&RawValue>(head).is_ok() {
        return tell(1, judge(head));
    }
    let mut from = BufReader::with_capacity(64 * 1024, head.chain(from));
    let (mut text, mut number) = (Vec::new(), 0);
    loop {
        number += 1;
        let failed = |error| Failure::Failed(format!("line {number}: {error}"));
        let (taken, judged) = match line::read(&mut from, &mut text).map_err(failed)? {
            Read::End => return Ok(()),
            Read::TooLong(taken) => (taken, Err(line::too_long())),
            Read::Line(taken) if text.iter().all(u8::is_ascii_whitespace) => {
                bar.inc(u64::try_from(taken).unwrap_or_default());
                continue;
            }
            Read::Line(taken) => (taken, judge(&text)),
        };
        bar.inc(u64::try_from(taken).unwrap_or_default());
        tell(number, judged)?;
    }
}
