//! From outcome, attempts and policy: what happens next.
//!
//! Pure: jitter is drawn from the job and the attempt, so every run can be replayed. Nothing here
//! knows the time: it says how long to wait, not until when.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use crate::job::{AttemptNo, JobId, OnAmbiguous, Outcome, State};
use crate::judge::Judgement;

/// The `[retry]` part of the configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How many failures that count end a job; at least 1.
    pub max_attempts: u32,
    /// The first step of the backoff; each further one doubles it.
    pub first: Duration,
    /// The longest step. Jitter moves each step between two and four thirds of itself.
    pub max: Duration,
    /// What an ambiguous attempt leads to, unless the job says otherwise.
    pub on_ambiguous: OnAmbiguous,
    /// How many ambiguous attempts make a job unknown, whatever the policy; at least 1. One counts
    /// only if others were delivered meanwhile.
    pub max_ambiguous: u32,
}

/// What happens to a job after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The state it goes to.
    pub state: State,
    /// True if the attempt counts towards `max_attempts`.
    pub failed: bool,
    /// True if the attempt counts towards `max_ambiguous`.
    pub singled_out: bool,
    /// How long it waits, if it is queued again.
    pub after: Duration,
    /// Why, in one line; none if it was delivered.
    pub reason: Option<String>,
}

/// The job and the attempt that was judged.
#[derive(Debug, Clone, Copy)]
pub struct Attempted {
    /// The job.
    pub job: JobId,
    /// The number of this attempt, from 1.
    pub number: AttemptNo,
    /// Failures before this one.
    pub failures: i64,
    /// Ambiguous attempts before this one that count towards `max_ambiguous`.
    pub ambiguous: i64,
    /// Something of another lane was delivered since the job's previous attempt (for the first: since
    /// it began itself).
    pub others_pass: bool,
    /// The job's own policy, if it has one.
    pub on_ambiguous: Option<OnAmbiguous>,
}

/// Decides what a judgement means for the job.
pub fn next(policy: &Policy, attempted: Attempted, judgement: &Judgement<'_>) -> Next {
    let done = |state, reason| Next {
        state,
        failed: state != State::Delivered,
        singled_out: false,
        after: Duration::ZERO,
        reason,
    };
    let hold = judgement.hold
        || attempted.on_ambiguous.unwrap_or(policy.on_ambiguous) == OnAmbiguous::Hold;
    let singled_out = judgement.outcome == Outcome::Ambiguous && attempted.others_pass;
    let ambiguous = attempted.ambiguous + i64::from(singled_out);
    let next = match judgement.outcome {
        Outcome::Delivered => done(State::Delivered, None),
        Outcome::Refused => done(State::Dead, Some(judgement.reason.clone())),
        Outcome::Ambiguous if hold => done(
            State::Unknown,
            Some(format!("it may have arrived: {}", judgement.reason)),
        ),
        // At-least-once is bounded: the recipient may have received every one of them.
        Outcome::Ambiguous if singled_out && ambiguous >= i64::from(policy.max_ambiguous) => {
            let reason = match ambiguous {
                1 => format!("1 attempt may have arrived: {}", judgement.reason),
                _ => format!(
                    "{ambiguous} attempts may each have arrived: {}",
                    judgement.reason
                ),
            };
            done(State::Unknown, Some(reason))
        }
        Outcome::Retryable | Outcome::Throttled | Outcome::NotSent | Outcome::Ambiguous => {
            again(policy, attempted, judgement)
        }
    };
    Next {
        singled_out,
        ..next
    }
}

fn again(policy: &Policy, attempted: Attempted, judgement: &Judgement<'_>) -> Next {
    let failures = attempted.failures + i64::from(judgement.counts);
    let most = judgement
        .cap
        .map_or(policy.max_attempts, |cap| cap.min(policy.max_attempts));
    if judgement.counts && failures >= i64::from(most) {
        let reason = format!(
            "out of attempts ({failures} of {most}): {}",
            judgement.reason
        );
        return Next {
            state: State::Dead,
            failed: true,
            singled_out: false,
            after: Duration::ZERO,
            reason: Some(reason),
        };
    }
    // Attempts that do not count still step the backoff, or a wrong URL would be hammered.
    let step = if judgement.counts {
        failures
    } else {
        attempted.number.0
    };
    let backoff = backoff(policy, step, attempted.job);
    let after = judgement
        .retry_after
        .map_or(backoff, |least| least.max(backoff.min(policy.first)));
    Next {
        state: State::Queued,
        failed: judgement.counts,
        singled_out: false,
        after,
        reason: Some(judgement.reason.clone()),
    }
}

/// The wait before the next attempt: `first * 2^(step-1)`, at most `max`, times 2/3 to 4/3.
pub fn backoff(policy: &Policy, step: i64, job: JobId) -> Duration {
    let seed = u64::from_ne_bytes(job.0.to_ne_bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ u64::from_ne_bytes(step.to_ne_bytes());
    // The builder's jitter adds up to one whole step: from two thirds that makes four thirds.
    let step = usize::try_from(step.clamp(1, 64)).unwrap_or(1);
    ExponentialBuilder::new()
        .with_min_delay(policy.first * 2 / 3)
        .with_max_delay(policy.max * 2 / 3)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(seed)
        .build()
        .nth(step - 1)
        .unwrap_or(policy.max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::PauseWanted;

    fn policy() -> Policy {
        Policy {
            max_attempts: 20,
            first: Duration::from_secs(2),
            max: Duration::from_secs(600),
            on_ambiguous: OnAmbiguous::Retry,
            max_ambiguous: 5,
        }
    }

    fn judged(outcome: Outcome, counts: bool) -> Judgement<'static> {
        Judgement {
            outcome,
            rule: "test",
            reason: "why".to_owned(),
            counts,
            retry_after: None,
            hold: false,
            cap: None,
            scope: PauseWanted::None,
            pause_after: None,
        }
    }

    fn attempted(number: i64, failures: i64) -> Attempted {
        Attempted {
            job: JobId(7),
            number: AttemptNo(number),
            failures,
            ambiguous: 0,
            others_pass: false,
            on_ambiguous: None,
        }
    }

    #[test]
    fn each_step_stays_within_its_third_and_doubles_up_to_the_longest() {
        for job in (1..200).map(JobId) {
            for (step, seconds) in [
                (1, 2.0),
                (2, 4.0),
                (3, 8.0),
                (9, 512.0),
                (10, 600.0),
                (64, 600.0),
            ] {
                let wait = backoff(&policy(), step, job).as_secs_f64();
                assert!(
                    wait >= seconds * 0.66 && wait <= seconds * 1.34,
                    "step {step}: {wait}"
                );
            }
        }
    }

    #[test]
    fn jitter_spreads_jobs_and_is_the_same_on_every_run() {
        let waits: std::collections::HashSet<_> = (1..100)
            .map(|job| backoff(&policy(), 3, JobId(job)))
            .collect();
        assert!(waits.len() > 90);
        assert_eq!(
            backoff(&policy(), 3, JobId(5)),
            backoff(&policy(), 3, JobId(5))
        );
    }

    #[test]
    fn all_attempts_together_last_about_two_hours() {
        let total: Duration = (1..20).map(|step| backoff(&policy(), step, JobId(3))).sum();
        assert!(
            total > Duration::from_secs(5400) && total < Duration::from_secs(9000),
            "{total:?}"
        );
    }

    #[test]
    fn the_last_failure_that_counts_ends_the_job() {
        let failure = judged(Outcome::Retryable, true);
        assert_eq!(
            next(&policy(), attempted(19, 18), &failure).state,
            State::Queued
        );
        let last = next(&policy(), attempted(20, 19), &failure);
        assert_eq!(last.state, State::Dead);
        assert_eq!(
            last.reason.as_deref(),
            Some("out of attempts (20 of 20): why")
        );
    }

    #[test]
    fn attempts_that_are_not_the_jobs_fault_never_end_it() {
        for outcome in [Outcome::NotSent, Outcome::Throttled, Outcome::Retryable] {
            let next = next(&policy(), attempted(500, 19), &judged(outcome, false));
            assert_eq!((next.state, next.failed), (State::Queued, false));
        }
    }

    #[test]
    fn a_cap_ends_the_job_before_the_policy_does() {
        let capped = Judgement {
            cap: Some(3),
            ..judged(Outcome::Retryable, true)
        };
        assert_eq!(
            next(&policy(), attempted(2, 1), &capped).state,
            State::Queued
        );
        assert_eq!(next(&policy(), attempted(3, 2), &capped).state, State::Dead);
    }

    #[test]
    fn an_ambiguous_attempt_follows_the_job_then_the_policy_then_the_rule() {
        let ambiguous = judged(Outcome::Ambiguous, true);
        let state = |own, judgement: &Judgement<'_>| {
            next(
                &policy(),
                Attempted {
                    on_ambiguous: own,
                    ..attempted(1, 0)
                },
                judgement,
            )
            .state
        };
        assert_eq!(state(None, &ambiguous), State::Queued);
        assert_eq!(state(Some(OnAmbiguous::Hold), &ambiguous), State::Unknown);
        let held = Judgement {
            hold: true,
            ..ambiguous
        };
        assert_eq!(state(Some(OnAmbiguous::Retry), &held), State::Unknown);
    }

    #[test]
    fn ambiguous_attempts_end_unknown_once_there_were_enough_while_others_passed() {
        let ambiguous = judged(Outcome::Ambiguous, true);
        let after = |before, others_pass, judgement: &Judgement<'_>| {
            let attempted = Attempted {
                ambiguous: before,
                others_pass,
                ..attempted(9, 0)
            };
            next(&policy(), attempted, judgement)
        };
        let fourth = after(3, true, &ambiguous);
        assert_eq!((fourth.state, fourth.singled_out), (State::Queued, true));
        let fifth = after(4, true, &ambiguous);
        assert_eq!((fifth.state, fifth.singled_out), (State::Unknown, true));
        let reason = fifth.reason.as_deref();
        assert_eq!(reason, Some("5 attempts may each have arrived: why"));
        // An outage uses up nothing.
        let down = after(4, false, &ambiguous);
        assert_eq!((down.state, down.singled_out), (State::Queued, false));
        // A paused page does not allow another copy.
        let paused = judged(Outcome::Ambiguous, false);
        assert_eq!(after(4, true, &paused).state, State::Unknown);
        for outcome in [Outcome::Retryable, Outcome::Throttled, Outcome::NotSent] {
            let other = after(4, true, &judged(outcome, true));
            assert_eq!((other.state, other.singled_out), (State::Queued, false));
        }
    }

    #[test]
    fn retry_after_replaces_the_backoff() {
        let asked = Judgement {
            retry_after: Some(Duration::from_secs(90)),
            ..judged(Outcome::Throttled, false)
        };
        assert_eq!(
            next(&policy(), attempted(1, 0), &asked).after,
            Duration::from_secs(90)
        );
    }
}
