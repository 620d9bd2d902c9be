//! `classify`: what the rules make of an answer, and why. Needs no database.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::out::safe;
use super::time::span;
use super::{Failure, Globals, Out};
use crate::clock::millis;
use crate::config::{Config, rules_of};
use crate::job::{AttemptNo, JobId, Outcome, PauseWanted};
use crate::judge::{Answer, BODY_LIMIT, BUILT_IN, Evidence, Judgement, Passed, Phase, judge_aloud};
use crate::retry::{self, Attempted};

/// Say which rule judges an answer, what follows, and why
///
/// Describe the answer by its status, headers and body, or, if none came, by the part of the
/// request that failed. The rules are those of --rules, else those of the configuration, else the
/// built-in ones. Nothing is sent and no database is asked.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane classify --status 503 --header 'Retry-After: 5'\n  \
    echo '{\"success\":false,\"errors\":{\"code\":10010}}' | postlane classify --status 200 --body -\n  \
    postlane classify --transport wait -v\n  \
    postlane classify --status 200 --transport body --body half.json\n  \
    postlane classify --print-rules > rules.toml\n  \
    postlane classify --rules rules.toml --status 418 --json")]
pub struct Classify {
    /// The HTTP status, 100 to 999
    #[arg(long, value_parser = clap::value_parser!(u16).range(100..=999))]
    status: Option<u16>,
    /// A header of the answer; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header, requires = "status")]
    header: Vec<(String, String)>,
    /// The answer's body, or - for standard input; 64 KiB of it are read
    #[arg(long, value_name = "FILE", requires = "status")]
    body: Option<PathBuf>,
    /// What failed: resolve, connect or tls (nothing was sent), write, wait, head or unknown (it
    /// may have arrived), or, with --status, body (it did not come whole)
    #[arg(long, value_name = "PHASE")]
    transport: Option<Phase>,
    /// What the transport said
    #[arg(long, value_name = "TEXT", requires = "transport")]
    error: Option<String>,
    /// A rule set in place of the configured one
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Print the built-in rules, as a beginning for your own
    #[arg(long, exclusive = true)]
    print_rules: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Also the rules that were asked before, and the condition of each that did not hold
    #[arg(short, long)]
    verbose: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        }
        _ => Err("use 'NAME: VALUE'".to_owned()),
    }
}

impl Classify {
    pub fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        if self.print_rules {
            return Ok(out.line(BUILT_IN.trim_end())?);
        }
        let mut config = match self.rules {
            Some(_) => Config::default(),
            None => globals.load()?,
        };
        if let Some(file) = &self.rules {
            config.judge.rules = Arc::new(rules_of(file).map_err(Failure::Usage)?);
        }
        let answer = self.answer(&config)?;
        let mut passed = Vec::new();
        let judgement = judge_aloud(&config.judge.rules, &answer, |rule| passed.push(rule));
        if !self.verbose {
            passed.clear();
        }
        let first = Attempted {
            job: JobId(1),
            number: AttemptNo::FIRST,
            failures: 0,
            ambiguous: 0,
            others_pass: false,
            on_ambiguous: None,
        };
        let then = retry::next(&config.policy(), first, &judgement)
            .state
            .as_str();
        match self.json {
            true => Ok(out.json(&machine(&judgement, then, self.verbose.then_some(&passed)))?),
            false => human(&judgement, then, &passed, out),
        }
    }

    fn answer(&self, config: &Config) -> Result<Answer, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        let phase = match (self.status, self.transport) {
            (Some(status), None | Some(Phase::Body)) => {
                return self.with_status(status, config);
            }
            (Some(_), Some(_)) => {
                return usage(
                    "with --status only --transport body makes sense: a status came back",
                );
            }
            (None, Some(Phase::Body)) => return usage("--transport body: give --status, too"),
            (None, None) => return usage("give --status or --transport"),
            (None, Some(phase)) => phase,
        };
        let error = self.error.clone().unwrap_or_else(|| "failed".to_owned());
        let evidence = |body_sent| Some(Evidence { phase, body_sent });
        Ok(match phase {
            Phase::Resolve | Phase::Connect | Phase::Tls => Answer::NotSent {
                error,
                evidence: evidence(false),
            },
            _ => Answer::Lost {
                error,
                evidence: evidence(true),
            },
        })
    }

    fn with_status(&self, status: u16, config: &Config) -> Result<Answer, Failure> {
        let (body, long) = self.read_body()?;
        let broken = self.transport.map(|phase| {
            let evidence = Evidence {
                phase,
                body_sent: true,
            };
            let error = self.error.as_deref().unwrap_or("failed");
            format!("{evidence}: {error}")
        });
        let find = |wanted: &str| {
            let mut named = self.header.iter().filter(|(name, _)| name == wanted);
            named.next().map(|(_, value)| value.as_bytes())
        };
        Ok(Answer::status(
            status,
            find,
            (body, broken.or(long)),
            Timestamp::now().as_second(),
            config.retry.max_retry_after,
        ))
    }

    /// The body as the worker would read it: to its bound, and whether that is all.
    fn read_body(&self) -> Result<(Vec<u8>, Option<String>), Failure> {
        let Some(path) = &self.body else {
            return Ok((Vec::new(), None));
        };
        let failed = |error| Failure::Failed(format!("{}: {error}", path.display()));
        let from: Box<dyn Read> = match path.to_str() {
            Some("-") => Box::new(std::io::stdin().lock()),
            _ => Box::new(File::open(path).map_err(failed)?),
        };
        let mut body = Vec::new();
        let mut from = from.take(BODY_LIMIT as u64 + 1);
        from.read_to_end(&mut body).map_err(failed)?;
        let long = body.len() > BODY_LIMIT;
        body.truncate(BODY_LIMIT);
        Ok((
            body,
            long.then(|| format!("longer than {BODY_LIMIT} bytes")),
        ))
    }
}

fn machine(judgement: &Judgement<'_>, then: &str, passed: Option<&Vec<Passed<'_>>>) -> Value {
    let mut object = json!({
        "rule": judgement.rule,
        "outcome": judgement.outcome,
        "state": then,
        "counts": judgement.counts,
        "cap": judgement.cap,
        "hold": judgement.hold,
        "pause": judgement.scope,
        "pause_after": judgement.pause_after,
        "retry_after_ms": judgement.retry_after.map(millis),
        "reason": judgement.reason,
    });
    if let Some(passed) = passed {
        let rule = |p: &Passed<'_>| json!({"rule": p.rule, "condition": p.condition});
        object["asked_before"] = passed.iter().map(rule).collect();
    }
    object
}

fn human(
    judgement: &Judgement<'_>,
    then: &str,
    passed: &[Passed<'_>],
    out: &mut Out,
) -> Result<(), Failure> {
    for Passed { rule, condition } in passed {
        out.line(format_args!("not {rule}: {condition}"))?;
    }
    let mut line = |key: &str, value: &str| out.line(format_args!("{key:<12} {value}"));
    line("rule", judgement.rule)?;
    line("outcome", judgement.outcome.as_str())?;
    line("state", &format!("{then} after a first attempt"))?;
    if judgement.outcome != Outcome::Delivered {
        line("reason", &safe(&judgement.reason))?;
        line("counts", &counts(judgement))?;
        line(
            "hold",
            if judgement.hold {
                "yes: an operator decides"
            } else {
                "no"
            },
        )?;
        line("pause", &pause(judgement))?;
    }
    if let Some(wait) = judgement.retry_after {
        line("retry after", &span(millis(wait)))?;
    }
    Ok(())
}

fn counts(judgement: &Judgement<'_>) -> String {
    match (judgement.counts, judgement.cap) {
        (false, _) => "no".to_owned(),
        (true, None) => "yes".to_owned(),
        (true, Some(cap)) => format!("yes, and {cap} failures end the job"),
    }
}

fn pause(judgement: &Judgement<'_>) -> String {
    let what = match (judgement.scope, judgement.outcome) {
        (PauseWanted::None, _) => "nothing",
        (PauseWanted::Page, Outcome::Throttled) => "the page goes more slowly",
        (PauseWanted::Page, _) => "the page",
        (PauseWanted::Endpoint, _) => "all pages",
    };
    match judgement.pause_after {
        Some(times) => format!("{what}, after {times} in a row"),
        None => what.to_owned(),
    }
}
