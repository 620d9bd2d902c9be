//! Judgements by hand, and what pauses of them.

use super::*;

fn breaker() -> Breaker {
    Breaker::new(Settings {
        attempts: 20,
        recipients: 5,
        window: Duration::from_secs(10),
        failing: 0.8,
        probe: Duration::from_secs(1),
        max_probe: Duration::from_secs(30),
    })
}

fn said(outcome: Outcome, scope: Scope) -> Judgement<'static> {
    let plain = Judgement::lost("test", "it said no");
    Judgement {
        outcome,
        scope,
        counts: scope == Scope::None && outcome != Outcome::Throttled,
        ..plain
    }
}

fn at(ms: u64) -> BootInstant {
    static BASE: std::sync::LazyLock<BootInstant> = std::sync::LazyLock::new(BootInstant::now);
    BASE.later(Duration::from_millis(ms))
}

fn delivered() -> Judgement<'static> {
    said(Outcome::Delivered, Scope::None)
}

/// The page is what stands before the slash in `lane`. True if the attempt counts.
fn saw(breaker: &mut Breaker, ms: u64, lane: &str, said: &Judgement<'static>) -> bool {
    let (page, _) = lane.split_once('/').expect("a lane");
    let mut judgement = said.clone();
    breaker.saw(at(ms), page, lane, &mut judgement);
    judgement.counts
}

fn opened(breaker: &mut Breaker) -> Vec<String> {
    let scope = |change| match change {
        Change::Open { scope, .. } => format!("+{scope}"),
        Change::Close { scope } => format!("-{scope}"),
    };
    breaker.changes().into_iter().map(scope).collect()
}

#[test]
fn two_recipients_refused_in_a_row_pause_their_page_and_one_never_does() {
    let mut breaker = breaker();
    let refused = said(Outcome::Retryable, Scope::Page);
    for n in 0..50 {
        saw(&mut breaker, n * 60_000, "1/id:a", &refused);
    }
    assert!(opened(&mut breaker).is_empty(), "one recipient");
    assert!(!saw(&mut breaker, 0, "1/id:b", &refused), "does not count");
    assert_eq!(opened(&mut breaker), ["+page:1"]);
    let failed = said(Outcome::Ambiguous, Scope::None);
    assert!(
        !saw(&mut breaker, 0, "1/id:c", &failed),
        "nor does anything of a paused page"
    );
    assert!(
        saw(&mut breaker, 0, "2/id:c", &failed),
        "another page goes on"
    );
    saw(&mut breaker, 0, "1/id:c", &delivered());
    assert_eq!(opened(&mut breaker), ["-page:1"]);
}

#[test]
fn a_job_refused_while_others_pass_is_judged_alone_and_counts() {
    let mut breaker = breaker();
    let refused = said(Outcome::Retryable, Scope::Page);
    assert!(
        !saw(&mut breaker, 0, "1/id:bad", &refused),
        "nobody has passed yet"
    );
    for n in 0..50 {
        saw(&mut breaker, n, "1/id:good", &delivered());
        assert!(saw(&mut breaker, n, "1/id:bad", &refused));
        saw(&mut breaker, n, "1/id:good", &delivered());
        assert!(saw(&mut breaker, n, "1/id:worse", &refused));
    }
    assert!(opened(&mut breaker).is_empty());
}

#[test]
fn a_throttled_recipient_slows_itself_and_two_slow_their_page() {
    let mut breaker = breaker();
    let mut throttled = said(Outcome::Throttled, Scope::Page);
    throttled.retry_after = Some(Duration::from_secs(17));
    assert!(!saw(&mut breaker, 0, "1/id:a", &throttled));
    saw(&mut breaker, 0, "1/id:b", &delivered());
    assert!(!saw(&mut breaker, 0, "1/id:a", &throttled));
    assert!(breaker.changes().is_empty());
    saw(&mut breaker, 0, "1/id:b", &throttled);
    let opened = breaker.changes();
    assert!(
        matches!(&opened[..], [Change::Open { scope, wait, .. }]
        if scope == "page:1" && wait.as_secs() == 17),
        "{opened:?}"
    );
}

#[test]
fn some_rules_want_more_in_a_row() {
    let mut breaker = breaker();
    let mut refused = said(Outcome::Refused, Scope::Page);
    refused.pause_after = Some(5);
    for n in 0..4 {
        saw(&mut breaker, 0, &format!("1/id:{n}"), &refused);
    }
    assert!(opened(&mut breaker).is_empty());
    saw(&mut breaker, 0, "1/id:4", &refused);
    assert_eq!(opened(&mut breaker), ["+page:1"]);
}

#[test]
fn a_wrong_url_pauses_the_endpoint_and_any_real_answer_ends_that() {
    for well in [
        delivered(),
        said(Outcome::Refused, Scope::None),
        said(Outcome::Retryable, Scope::Page),
        said(Outcome::Throttled, Scope::Page),
    ] {
        let mut breaker = breaker();
        let refused = said(Outcome::Retryable, Scope::Endpoint);
        saw(&mut breaker, 0, "1/id:a", &refused);
        saw(&mut breaker, 0, "2/id:a", &refused);
        assert_eq!(opened(&mut breaker), ["+endpoint"]);
        saw(
            &mut breaker,
            0,
            "1/id:a",
            &said(Outcome::Retryable, Scope::None),
        );
        assert!(
            opened(&mut breaker).is_empty(),
            "a 500 says nothing about the URL"
        );
        saw(&mut breaker, 0, "1/id:c", &well);
        assert_eq!(opened(&mut breaker), ["-endpoint"], "{well:?}");
    }
}

#[test]
fn the_circuit_opens_at_its_figures_and_not_before() {
    let failed = said(Outcome::Ambiguous, Scope::None);
    let run = |attempts: usize, lanes: usize, good: usize, gap: u64| {
        let mut breaker = breaker();
        for n in 0..attempts {
            let what = match n < good {
                true => delivered(),
                false => failed.clone(),
            };
            let lane = format!("1/id:{}", n % lanes);
            saw(&mut breaker, n as u64 * gap, &lane, &what);
        }
        !opened(&mut breaker).is_empty()
    };
    assert!(run(20, 5, 0, 100));
    assert!(!run(19, 5, 0, 100), "19 attempts");
    assert!(!run(20, 4, 0, 100), "4 recipients");
    assert!(run(20, 5, 4, 100), "16 of 20");
    assert!(!run(20, 5, 5, 100), "15 of 20");
    assert!(!run(200, 5, 0, 600), "never 20 within 10 seconds");
}

#[test]
fn the_first_page_to_fail_is_not_taken_for_the_endpoint_while_others_have_work() {
    let failed = said(Outcome::Ambiguous, Scope::None);
    let fail = |breaker: &mut Breaker, page: u64, from: u64, to: u64| {
        for n in from..to {
            saw(breaker, n, &format!("{page}/id:{n}"), &failed);
        }
        opened(breaker)
    };
    let mut one = breaker();
    assert_eq!(fail(&mut one, 1, 0, 20), ["+endpoint"], "nobody else");
    let mut several = breaker();
    several.set_several(true);
    assert_eq!(fail(&mut several, 1, 0, 20), ["+page:1"]);
    assert!(fail(&mut several, 1, 20, 90).is_empty(), "was on its way");
    assert!(fail(&mut several, 2, 90, 109).is_empty(), "one page of two");
    several.set_several(false);
    assert_eq!(fail(&mut several, 2, 109, 110), ["+endpoint"]);
    let mut mixed = breaker();
    mixed.set_several(true);
    assert!(fail(&mut mixed, 1, 0, 10).is_empty());
    assert_eq!(fail(&mut mixed, 2, 10, 20), ["+endpoint"]);
}

#[test]
fn a_page_that_fails_among_many_that_pass_is_paused_alone() {
    let failed = said(Outcome::Ambiguous, Scope::None);
    let mut breaker = breaker();
    breaker.set_several(true);
    for n in 0..19 {
        saw(&mut breaker, n, &format!("1/id:{n}"), &failed);
        for other in 0..10 {
            saw(&mut breaker, n, &format!("2/id:{other}"), &delivered());
        }
        // One failure of another page is no reason to pause all.
        saw(&mut breaker, n, "3/id:x", &failed);
    }
    assert!(opened(&mut breaker).is_empty(), "19 attempts");
    saw(&mut breaker, 20, "1/id:x", &failed);
    assert_eq!(opened(&mut breaker), ["+page:1"]);
}

#[test]
fn one_error_in_five_never_opens_the_circuit() {
    let mut breaker = breaker();
    for n in 0..10_000_u64 {
        let outcome = match n % 5 {
            0 => Outcome::Retryable,
            _ => Outcome::Delivered,
        };
        saw(
            &mut breaker,
            n,
            &format!("1/id:{n}"),
            &said(outcome, Scope::None),
        );
    }
    assert!(opened(&mut breaker).is_empty());
}

#[test]
fn a_pause_that_somebody_ended_begins_anew() {
    let mut breaker = breaker();
    let refused = said(Outcome::Retryable, Scope::Page);
    saw(&mut breaker, 0, "1/id:a", &refused);
    saw(&mut breaker, 0, "1/id:b", &refused);
    assert_eq!(opened(&mut breaker), ["+page:1"]);
    breaker.set_paused(["page:1".to_owned()].iter());
    breaker.set_paused([].iter());
    saw(&mut breaker, 0, "1/id:c", &refused);
    assert!(opened(&mut breaker).is_empty(), "one recipient since");
    saw(&mut breaker, 0, "1/id:d", &refused);
    assert_eq!(opened(&mut breaker), ["+page:1"]);
}

#[test]
fn the_failures_of_one_page_pause_that_page_while_others_pass() {
    let failed = said(Outcome::Ambiguous, Scope::None);
    let mut breaker = breaker();
    saw(&mut breaker, 0, "2/id:a", &delivered());
    for n in 0..30 {
        saw(&mut breaker, n, &format!("1/id:{n}"), &failed);
    }
    assert_eq!(opened(&mut breaker), ["+page:1"]);
}

#[test]
fn refused_signatures_do_not_open_the_circuit() {
    let mut breaker = breaker();
    for n in 0..300 {
        saw(
            &mut breaker,
            n,
            &format!("1/id:{n}"),
            &said(Outcome::Retryable, Scope::Page),
        );
    }
    assert_eq!(opened(&mut breaker), ["+page:1"]);
}

#[test]
fn a_page_that_is_paused_kills_no_job() {
    let mut breaker = breaker();
    let refused = said(Outcome::Refused, Scope::Page);
    for lane in ["1/id:a", "1/id:b"] {
        saw(&mut breaker, 0, lane, &refused);
    }
    let mut probe = refused.clone();
    breaker.saw(at(0), "1", "1/id:c", &mut probe);
    assert_eq!((probe.outcome, probe.counts), (Outcome::Retryable, false));
}

#[test]
fn what_opens_while_the_pauses_are_written_stays_open() {
    let mut breaker = breaker();
    let refused = said(Outcome::Retryable, Scope::Page);
    saw(&mut breaker, 0, "1/id:a", &refused);
    saw(&mut breaker, 0, "1/id:b", &refused);
    breaker.set_paused([].iter());
    assert!(!saw(
        &mut breaker,
        0,
        "1/id:c",
        &said(Outcome::Ambiguous, Scope::None)
    ));
    saw(&mut breaker, 0, "1/id:c", &delivered());
    assert_eq!(opened(&mut breaker), ["+page:1", "-page:1"]);
}

#[test]
fn a_page_without_a_secret_is_news_once_until_secrets_change() {
    let mut breaker = breaker();
    assert!(breaker.lacks_secret("1") && breaker.lacks_secret("2"));
    assert!(!breaker.lacks_secret("1"));
    breaker.secret_changed("default", |page| page == "2");
    assert!(breaker.lacks_secret("1") && !breaker.lacks_secret("2"));
}
