//! A claimed job becomes a request, and its answer a completion: sign, send, judge, tell the keyring and the breaker,
//! decide what comes next.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;

use crate::attempt::{Attempt, Claim, Completion, HeldBack};
use crate::breaker::Breaker;
use crate::clock::{BootInstant, millis};
use crate::deliveries::Deliveries;
use crate::events::{Event, Events};
use crate::http::Http;
use crate::job::{Outcome, PauseWanted, State};
use crate::judge::{Answer, Judgement, RuleSet, judge};
use crate::retry::{self, Attempted, Policy};
use crate::secrets::{Refusal, SecretId, Secrets, Signed};
use crate::turn::EXPIRED;

/// What it takes to send: shared by all senders.
pub struct Wire {
    /// The client.
    pub http: Http,
    /// The secret of a page.
    pub secrets: Arc<dyn Secrets>,
    /// What an answer means.
    pub rules: Arc<RuleSet>,
    /// What comes after a failure.
    pub policy: Policy,
    /// How old a claim may be when its first byte is written. Later, the answer could come after the lease,
    /// when another worker may own the lane.
    pub send_within: Duration,
    /// True if the receiver waits for `delay` (`api.delay = "api"`): the lane rests that long, and
    /// [`API_DELAY_MARGIN`] more.
    pub delay_on_wire: bool,
    /// Watches the judgements; shared with the ledger, which writes the pauses.
    pub breaker: Arc<Mutex<Breaker>>,
    /// What was delivered lately; shared with the ledger, which judges lost attempts.
    pub deliveries: Arc<Deliveries>,
    /// True when the worker must end at once; unanswered requests are then ambiguous.
    pub hurry: watch::Sender<bool>,
    /// Where attempts are counted and logged.
    pub events: Arc<Events>,
}

impl Wire {
    /// Ends every attempt that is still unanswered; each reports itself.
    pub fn hurry(&self) {
        self.hurry.send_replace(true);
    }
}

/// How much longer than the requested delay the receiver may take.
pub const API_DELAY_MARGIN: Duration = Duration::from_secs(1);

/// The rule of an attempt whose answer could not be reported.
const PANIC: &str = "ledger.panic";

/// Makes one attempt. Never panics and always returns: a claim without a completion blocks its lane until the
/// lease ends.
pub async fn deliver(claim: Claim, wire: &Wire) -> Completion {
    let mut hurry = wire.hurry.subscribe();
    let mut signed = None;
    let answer = tokio::select! {
        answer = AssertUnwindSafe(send(&claim, &mut signed, wire)).catch_unwind() => {
            answer.unwrap_or_else(|_| Answer::lost("phase=unknown: the sender panicked"))
        }
        _ = hurry.wait_for(|now| *now) => {
            Answer::lost("phase=unknown: the worker stopped before an answer came")
        }
    };
    let reported = AssertUnwindSafe(|| report(&claim, &answer, signed, wire));
    let completion =
        std::panic::catch_unwind(reported).unwrap_or_else(|_| panicked(&claim, &answer));
    Completion {
        slot: Some(claim.slot),
        ..completion
    }
}

/// What is recorded if an answer could not be reported: retrying would fail the same way, so an operator
/// decides, unless nothing was sent.
fn panicked(claim: &Claim, answer: &Answer) -> Completion {
    let why = "the worker crashed while handling the answer; please report this";
    let (judgement, state, reason) = match answer {
        Answer::NotSent { .. } => (
            Judgement::not_sent(PANIC, why),
            State::Queued,
            why.to_owned(),
        ),
        _ => (
            Judgement::lost(PANIC, why),
            State::Unknown,
            format!("it may have arrived: {why}"),
        ),
    };
    let next = retry::Next {
        state,
        failed: false,
        singled_out: false,
        after: Duration::from_secs(10),
        reason: Some(reason),
    };
    let took = claim.claimed.elapsed();
    completion(claim, &judgement, next, took, None, None)
}

/// Sets `with` to the signing secret, even if the future is dropped later.
async fn send(claim: &Claim, with: &mut Option<SecretId>, wire: &Wire) -> Answer {
    let Some(Signed { signature, secret }) = wire.secrets.sign(&claim.page, &claim.body) else {
        return Answer::not_sent("the page has no secret");
    };
    *with = Some(secret);
    let (claimed, expires_in, send_within) = (claim.claimed, claim.expires_in, wire.send_within);
    let gate = move || too_late(claimed.elapsed(), expires_in, send_within);
    // Checked now, to avoid a useless connection, and again right before the first byte.
    if let Some(why) = gate() {
        return Answer::not_sent(why);
    }
    let now = (claim.started + millis(claimed.elapsed())) / 1000;
    let body = claim.body.clone();
    wire.http.post(body, &signature, now, Box::new(gate)).await
}

/// Why a claim of this age must not go out any more, if so; its age is on the clock that runs through a
/// suspend.
fn too_late(age: Duration, expires_in: Option<Duration>, send_within: Duration) -> Option<String> {
    if age > send_within {
        return Some(format!(
            "claimed {age:.1?} ago, too late to finish within its lease"
        ));
    }
    expires_in
        .is_some_and(|left| age >= left)
        .then(|| EXPIRED.to_owned())
}

/// Turns an answer into what the ledger records; `signed` says which secret signed the request.
pub fn report(claim: &Claim, answer: &Answer, signed: Option<SecretId>, wire: &Wire) -> Completion {
    let mut judgement = judge(&wire.rules, answer);
    if let Some(secret) = signed {
        heed(&claim.page, secret, &mut judgement, wire);
    }
    // An outcome decided locally says nothing about the receiver.
    let asked = !matches!(
        answer,
        Answer::NotSent { evidence: None, .. } | Answer::Lost { evidence: None, .. }
    );
    if asked {
        let mut breaker = wire.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.saw(BootInstant::now(), &claim.page, &claim.lane, &mut judgement);
    }
    let took = claim.claimed.elapsed();
    if judgement.outcome == Outcome::Delivered {
        wire.deliveries.saw(&claim.lane);
    }
    let since = took + claim.since_previous.unwrap_or_default();
    let attempted = Attempted {
        job: claim.job,
        number: claim.number,
        failures: claim.failures,
        ambiguous: claim.ambiguous,
        others_pass: judgement.outcome == Outcome::Ambiguous
            && wire.deliveries.of_others(&claim.lane, since),
        on_ambiguous: claim.on_ambiguous,
    };
    let next = retry::next(&wire.policy, attempted, &judgement);
    let (status, response) = match answer {
        Answer::Status { status, body, .. } => (Some(*status), excerpt(body)),
        _ => (None, None),
    };
    let rest = match claim.delay {
        delay if wire.delay_on_wire && !delay.is_zero() => delay + API_DELAY_MARGIN,
        _ => Duration::ZERO,
    };
    let mut completion = Completion {
        rest,
        ..completion(claim, &judgement, next, took, status, response)
    };
    // It expired between claim and first byte: the job is dead, not only the attempt.
    if matches!(answer, Answer::NotSent { error, .. } if error == EXPIRED) {
        completion.state = Some(State::Dead);
    }
    wire.events.emit(&Event::Attempt {
        job: claim.job,
        page: &claim.page,
        number: claim.number,
        outcome: judgement.outcome,
        rule: judgement.rule,
        status,
        state: completion.state.unwrap_or(State::Queued),
        took,
    });
    completion
}

/// Tells the keyring whether the secret worked. While there is another to try, the page does not pause.
fn heed(page: &str, secret: SecretId, judgement: &mut Judgement<'_>, wire: &Wire) {
    match (judgement.outcome, judgement.scope) {
        (Outcome::Delivered, _) => wire.secrets.accepted(page, secret),
        // Throttled, or refused because of the message: says nothing about the secret.
        (Outcome::Throttled | Outcome::Refused, _) => {}
        (_, PauseWanted::Page) => {
            let refusal = wire.secrets.refused(page, secret);
            if let Refusal::Switched(to) | Refusal::Both(to) = refusal {
                let to = to.as_str();
                wire.events.emit(&Event::SecretSwitched { page, to });
            }
            if let Refusal::Switched(_) | Refusal::Late = refusal {
                judgement.scope = PauseWanted::None;
            }
        }
        _ => {}
    }
}

fn completion(
    claim: &Claim,
    judgement: &Judgement<'_>,
    next: retry::Next,
    took: Duration,
    status: Option<u16>,
    response: Option<String>,
) -> Completion {
    let finished = claim.started + millis(took);
    let failed = !matches!(next.state, State::Delivered);
    Completion {
        lane: claim.lane.clone(),
        page: claim.page.clone(),
        token: claim.token,
        job: claim.job,
        number: claim.number,
        attempt: Some(Attempt {
            started: claim.started,
            worker: None,
            outcome: judgement.outcome,
            status,
            error: failed.then(|| clean(&judgement.reason).into()),
            response: response.map(Arc::from),
            rule: judgement.rule.into(),
            failed: next.failed,
            singled_out: next.singled_out,
        }),
        state: Some(next.state),
        finished,
        due: finished + millis(next.after),
        reason: next.reason.map(|reason| clean(&reason).into()),
        rest: Duration::ZERO,
        held_back: HeldBack::No,
        slot: None,
    }
}

/// The first 2 KiB of an answer as text that any database takes.
fn excerpt(body: &[u8]) -> Option<String> {
    if body.is_empty() {
        return None;
    }
    let mut text = clean(&String::from_utf8_lossy(&body[..body.len().min(2048)]));
    // An invalid byte becomes U+FFFD, three bytes long.
    text.truncate(text.floor_char_boundary(2048));
    Some(text)
}

/// Postgres refuses NUL in text; what the receiver sends must not stop the ledger.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
