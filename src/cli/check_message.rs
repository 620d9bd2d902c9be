//! `check-message`: says what the rules think of requests, without a database.

use clap::Args;
use postlane_message::validate::{self, Limits, Refusal, Warning};
use serde_json::json;

use super::out::safe;
use super::{Failure, Globals, Out, line, requests};

/// Judge requests by the API's rules, offline
///
/// Reads what `enqueue` reads: one request a line, or a single one on several lines. For each
/// invalid one the line, the rule, the place, the figure and the bound are told, and the exit code
/// is 1; an input without any request ends with 3. Warnings are about what is sent all the same.
/// Bounds and tags are those of the configuration, if there is one.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane check-message requests.jsonl\n  \
    postlane check-message --message card.json     a message alone: the column `message`\n  \
    postlane check-message --json - < requests.jsonl | jq 'select(.valid | not)'\n  \
    postlane check-message --schema > request.schema.json")]
pub struct CheckMessage {
    /// The file, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    /// They are messages alone, without page and recipient
    #[arg(long)]
    message: bool,
    /// A JSON object for each: {"line","valid","rule","place","detail","warnings"}
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of a request, for producers in other languages
    #[arg(long, conflicts_with_all = ["file", "message", "json", "rules"])]
    schema: bool,
    /// Print the names of all rules
    #[arg(long, conflicts_with_all = ["file", "message", "json"])]
    rules: bool,
}

/// What became of all.
#[derive(Default)]
struct Count {
    valid: usize,
    invalid: usize,
    warnings: usize,
}

impl CheckMessage {
    pub fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let config = globals.load()?;
        for warning in config.warnings() {
            out.note(format_args!("warning: {warning}"));
        }
        let limits = config.message;
        if self.schema {
            return Ok(out.line(validate::schema_text(&limits).trim_end())?);
        }
        if self.rules {
            let mut rules = validate::rules(&limits).into_iter();
            return Ok(rules.try_for_each(|rule| out.line(rule))?);
        }
        let count = self.judge(&limits, out)?;
        if count.valid + count.invalid == 0 {
            return Err(Failure::Nothing("there is nothing to check".to_owned()));
        }
        if !self.json {
            let Count {
                valid,
                invalid,
                warnings,
            } = count;
            out.line(format_args!(
                "{valid} valid, {invalid} invalid; warnings: {warnings}"
            ))?;
        }
        Failure::of_invalid(count.invalid)
    }

    fn judge(&self, limits: &Limits, out: &mut Out) -> Result<Count, Failure> {
        let mut count = Count::default();
        let judge = |text: &[u8]| match self.message {
            true => validate::message(text, limits),
            false => line::parse(text, limits).map(|(_, warnings)| warnings),
        };
        requests::each(&self.file, out, judge, |out, number, judged| {
            match &judged {
                Ok(warnings) => {
                    count.valid += 1;
                    count.warnings += warnings.len();
                }
                Err(_) => count.invalid += 1,
            }
            match self.json {
                true => out.json(&report(number, &judged))?,
                false => tell(number, &judged, out)?,
            }
            Ok(())
        })?;
        Ok(count)
    }
}

fn tell(
    number: usize,
    judged: &Result<Vec<Warning>, Refusal>,
    out: &mut Out,
) -> Result<(), Failure> {
    match judged {
        Ok(warnings) => {
            for warning in warnings {
                let warning = safe(&warning.to_string());
                out.line(format_args!("line {number}: warning: {warning}"))?;
            }
        }
        Err(refusal) => {
            let refusal = safe(&refusal.to_string());
            out.line(format_args!("line {number}: {refusal}"))?;
        }
    }
    Ok(())
}

/// The same keys for all: those of the refusal are null where there is none.
fn report(number: usize, judged: &Result<Vec<Warning>, Refusal>) -> serde_json::Value {
    let refusal = judged.as_ref().err();
    let warnings = judged.as_deref().unwrap_or_default().iter();
    let warnings: Vec<_> = warnings
        .map(|w| json!({"rule": w.rule, "place": w.place, "detail": w.detail}))
        .collect();
    json!({
        "line": number,
        "valid": refusal.is_none(),
        "rule": refusal.map(|refusal| &refusal.rule),
        "place": refusal.map(|refusal| &refusal.place),
        "detail": refusal.map(|refusal| &refusal.detail),
        "warnings": warnings,
    })
}
