//! Judgements by hand, and what pauses of them.

use super::*;
use crate::scope::Pause;

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

fn said(outcome: Outcome, scope: PauseWanted) -> Judgement<'static> {
    let plain = Judgement::lost("test", "it said no");
    Judgement {
        outcome,
        scope,
        counts: scope == PauseWanted::None && outcome != Outcome::Throttled,
        ..plain
    }
}

fn at(ms: u64) -> BootInstant {
    static BASE: std::sync::LazyLock<BootInstant> = std::sync::LazyLock::new(BootInstant::now);
    BASE.later(Duration::from_millis(ms))
}

fn delivered() -> Judgement<'static> {
    said(Outcome::Delivered, PauseWanted::None)
}

/// The page is what stands before the slash in `lane`. True if the attempt counts.
fn saw(breaker: &mut Breaker, ms: u64, lane: &str, said: &Judgement<'static>) -> bool {
    let (page, _) = lane.split_once('/').expect("a lane");
    let mut judgement = said.clone();
    breaker.saw(at(ms), &page.into(), &lane.into(), &mut judgement);
    judgement.counts
}

fn scope(word: &str) -> Scope {
    word.parse().expect("a scope")
}

fn opened(breaker: &mut Breaker) -> Vec<String> {
    let changes = breaker.changes();
    changes.iter().for_each(|change| breaker.written(change));
    let sign = |change: &Change| match change {
        Change::Open { .. } => '+',
        Change::Renew { .. } => '~',
        Change::Close { .. } => '-',
    };
    changes
        .iter()
        .map(|change| format!("{}{}", sign(change), change.scope()))
        .collect()
}

/// What a survey sees that begins now.
fn survey(breaker: &mut Breaker, ms: u64, scopes: &[&str]) {
    let ticket = breaker.ticket();
    told(breaker, ms, ticket, scopes);
}

fn told(breaker: &mut Breaker, ms: u64, ticket: u64, scopes: &[&str]) {
    let scopes: Vec<Scope> = scopes.iter().map(|word| scope(word)).collect();
    breaker.set_paused(at(ms), ticket, scopes.iter(), |_| true);
}

/// Three pages fail, and no other is heard of.
fn down() -> Breaker {
    let mut breaker = breaker();
    let failed = said(Outcome::Ambiguous, PauseWanted::None);
    for n in 0..20 {
        let lane = format!("{}/id:{n}", 1 + n % 3);
        saw(&mut breaker, n, &lane, &failed);
    }
    assert_eq!(opened(&mut breaker), ["+endpoint"]);
    breaker
}

fn tried(breaker: &mut Breaker, ms: u64, pauses: &[(&str, i64)], with_work: &[&str]) -> Tries {
    let pauses = pauses
        .iter()
        .map(|(word, at)| (scope(word), Pause::Worker { probe_at: *at }));
    let now = i64::try_from(ms).expect("fits");
    let with_work: Vec<PageId> = with_work.iter().map(|page| (*page).into()).collect();
    breaker.tries(at(ms), now, &pauses.collect(), with_work.iter(), 64)
}

#[test]
fn two_recipients_refused_in_a_row_pause_their_page_and_one_never_does() {
    let mut breaker = breaker();
    let refused = said(Outcome::Retryable, PauseWanted::Page);
    for n in 0..50 {
        saw(&mut breaker, n * 60_000, "1/id:a", &refused);
    }
    assert!(opened(&mut breaker).is_empty(), "one recipient");
    let last = 50 * 60_000;
    assert!(
        !saw(&mut breaker, last, "1/id:b", &refused),
        "does not count"
    );
    assert_eq!(opened(&mut breaker), ["+page:1"]);
    let failed = said(Outcome::Ambiguous, PauseWanted::None);
    assert!(
        !saw(&mut breaker, last, "1/id:c", &failed),
        "nor does anything of a paused page"
    );
    assert!(
        saw(&mut breaker, last, "2/id:c", &failed),
        "another page goes on"
    );
    saw(&mut breaker, last, "1/id:c", &delivered());
    assert_eq!(opened(&mut breaker), ["-page:1"]);
}

#[test]
fn a_job_refused_while_others_pass_is_judged_alone_and_counts() {
    for scope in [PauseWanted::Page, PauseWanted::Endpoint] {
        let mut breaker = breaker();
        let refused = said(Outcome::Retryable, scope);
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
}

#[test]
fn a_throttled_recipient_slows_itself_and_two_slow_their_page() {
    let mut breaker = breaker();
    let mut throttled = said(Outcome::Throttled, PauseWanted::Page);
    throttled.retry_after = Some(Duration::from_secs(17));
    assert!(!saw(&mut breaker, 0, "1/id:a", &throttled));
    saw(&mut breaker, 0, "1/id:b", &delivered());
    assert!(!saw(&mut breaker, 0, "1/id:a", &throttled));
    assert!(breaker.changes().is_empty());
    saw(&mut breaker, 0, "1/id:b", &throttled);
    let opened = breaker.changes();
    assert!(
        matches!(&opened[..], [Change::Open { scope, wait, suspect: Suspect::Page, .. }]
        if *scope == self::scope("page:1") && wait.as_secs() == 17),
        "{opened:?}"
    );
}

#[test]
fn some_rules_want_more_recipients_in_a_row() {
    let mut breaker = breaker();
    let mut refused = said(Outcome::Refused, PauseWanted::Page);
    refused.pause_after = Some(5);
    for n in 0..40 {
        saw(&mut breaker, 0, &format!("1/id:{}", n % 4), &refused);
    }
    assert!(opened(&mut breaker).is_empty(), "four people");
    saw(&mut breaker, 0, "1/id:4", &refused);
    let changes = breaker.changes();
    assert!(
        matches!(
            &changes[..],
            [Change::Open {
                suspect: Suspect::People,
                ..
            }]
        ),
        "{changes:?}"
    );
    // One success in between, and the row begins anew.
    saw(&mut breaker, 0, "1/id:well", &delivered());
    assert_eq!(opened(&mut breaker), ["-page:1"]);
    for n in 0..4 {
        saw(&mut breaker, 0, &format!("1/id:{n}"), &refused);
    }
    assert!(opened(&mut breaker).is_empty());
}

#[test]
fn a_wrong_url_pauses_each_page_it_meets_and_the_endpoint_after_three() {
    for well in [
        delivered(),
        said(Outcome::Refused, PauseWanted::None),
        said(Outcome::Retryable, PauseWanted::Page),
        said(Outcome::Throttled, PauseWanted::Page),
    ] {
        let mut breaker = breaker();
        let refused = said(Outcome::Retryable, PauseWanted::Endpoint);
        saw(&mut breaker, 0, "1/id:a", &refused);
        saw(&mut breaker, 0, "1/id:b", &refused);
        assert_eq!(opened(&mut breaker), ["+page:1"]);
        saw(&mut breaker, 0, "2/id:a", &refused);
        assert!(opened(&mut breaker).is_empty(), "two pages");
        saw(&mut breaker, 0, "3/id:a", &refused);
        let changes = breaker.changes();
        assert!(
            matches!(&changes[..], [Change::Open { scope, pages, .. }]
            if *scope == Scope::Endpoint && pages == &["1", "2", "3"].map(PageId::from)),
            "{changes:?}"
        );
        saw(
            &mut breaker,
            0,
            "1/id:a",
            &said(Outcome::Retryable, PauseWanted::None),
        );
        assert!(
            opened(&mut breaker).is_empty(),
            "a 500 says nothing about the URL"
        );
        saw(&mut breaker, 0, "4/id:c", &well);
        assert_eq!(opened(&mut breaker), ["-endpoint"], "{well:?}");
    }
}

#[test]
fn a_page_pauses_at_the_figures_of_the_circuit_and_not_before() {
    let failed = said(Outcome::Ambiguous, PauseWanted::None);
    let run = |attempts: usize, lanes: usize, good: usize, gap: u64| {
        let mut breaker = breaker();
        for n in 0..attempts {
            let what = match n % (attempts / good.max(1)) == 0 && good > 0 {
                true => delivered(),
                false => failed.clone(),
            };
            let lane = format!("1/id:{}", n % lanes);
            saw(&mut breaker, n as u64 * gap, &lane, &what);
        }
        opened(&mut breaker) == ["+page:1"]
    };
    assert!(run(20, 5, 0, 100));
    assert!(!run(19, 5, 0, 100), "19 attempts");
    assert!(!run(20, 4, 0, 100), "4 recipients");
    assert!(run(20, 5, 4, 100), "16 of 20");
    assert!(!run(20, 5, 5, 100), "15 of 20");
    assert!(
        run(20, 5, 0, 60_000),
        "seldom, and nobody passes for 20 minutes"
    );
    assert!(!run(200, 5, 10, 600), "somebody passes now and then");
    assert!(!run(200, 5, 0, 16 * 60_000), "so far apart is not a series");
}

#[test]
fn one_sick_page_alone_is_never_taken_for_the_endpoint() {
    let failed = said(Outcome::Ambiguous, PauseWanted::None);
    let mut breaker = breaker();
    for n in 0..90 {
        saw(&mut breaker, n, &format!("1/id:{n}"), &failed);
    }
    assert_eq!(opened(&mut breaker), ["+page:1"]);
    saw(&mut breaker, 100, "2/id:a", &failed);
    assert!(opened(&mut breaker).is_empty(), "two pages");
    saw(&mut breaker, 100, "3/id:a", &failed);
    assert_eq!(opened(&mut breaker), ["+endpoint"], "and none passes");
}

#[test]
fn pages_that_fail_while_others_pass_are_paused_alone() {
    let failed = said(Outcome::Ambiguous, PauseWanted::None);
    let mut breaker = breaker();
    for n in 0..20 {
        for page in 1..=6 {
            saw(&mut breaker, n, &format!("{page}/id:{n}"), &failed);
        }
        saw(&mut breaker, n, "7/id:a", &delivered());
    }
    let pages: Vec<String> = (1..=6).map(|page| format!("+page:{page}")).collect();
    assert_eq!(opened(&mut breaker), pages);
}

#[test]
fn one_error_in_five_never_pauses() {
    let mut breaker = breaker();
    for n in 0..10_000_u64 {
        let outcome = match n % 5 {
            0 => Outcome::Retryable,
            _ => Outcome::Delivered,
        };
        let lane = format!("1/id:{n}");
        saw(&mut breaker, n, &lane, &said(outcome, PauseWanted::None));
    }
    assert!(opened(&mut breaker).is_empty());
}

#[test]
fn while_the_endpoint_is_paused_one_failure_pauses_its_page_and_one_success_ends_it() {
    let mut breaker = down();
    let failed = said(Outcome::Ambiguous, PauseWanted::None);
    assert!(!saw(&mut breaker, 30, "4/id:a", &failed), "does not count");
    assert_eq!(opened(&mut breaker), ["+page:4"]);
    saw(&mut breaker, 40, "5/id:a", &delivered());
    assert_eq!(opened(&mut breaker), ["-endpoint"]);
    assert!(
        !saw(&mut breaker, 50, "4/id:b", &failed),
        "the pause of the page that fails is what is left"
    );
    assert!(saw(&mut breaker, 50, "5/id:b", &failed));
}

#[test]
fn a_page_without_a_pause_tries_a_job_at_once_while_the_endpoint_is_paused() {
    let mut breaker = down();
    let pauses = [("endpoint", 1000), ("page:1", 5000), ("page:2", 50)];
    let tries = tried(&mut breaker, 100, &pauses, &["1", "2", "9"]);
    assert_eq!(
        (&*tries.trials, &*tries.probes),
        (&["9".into()][..], &["2".into()][..])
    );
    assert_eq!(tries.next_in, Some(4900));
    // What hangs delays nothing else: the next job follows after a wait that doubles.
    let mut times = Vec::new();
    for ms in 101..40_000 {
        if !tried(&mut breaker, ms, &[("endpoint", 0)], &["9"])
            .trials
            .is_empty()
        {
            times.push(ms - 100);
        }
    }
    assert_eq!(times, [1000, 3000, 7000, 15_000, 31_000]);
    // The next pause of the endpoint is another matter.
    survey(&mut breaker, 40_000, &[]);
    survey(&mut breaker, 40_000, &["endpoint"]);
    assert_eq!(
        tried(&mut breaker, 40_000, &[("endpoint", 0)], &["9"]).trials,
        ["9".into()]
    );
}

#[test]
fn who_has_failed_tries_after_who_has_not_and_many_pages_do_not_press() {
    let mut breaker = down();
    let names: Vec<String> = (1..=1000).map(|page| page.to_string()).collect();
    let with_work: Vec<&str> = names.iter().map(String::as_str).collect();
    let tries = tried(&mut breaker, 100, &[("endpoint", 0)], &with_work);
    assert_eq!(tries.trials.len(), 32);
    assert!(
        !tries
            .trials
            .iter()
            .any(|page| ["1", "2", "3"].contains(&&**page))
    );
    assert_eq!(tries.next_in, Some(31));
    let mut tries = 0;
    for ms in (110..10_110).step_by(10) {
        tries += tried(&mut breaker, ms, &[("endpoint", 0)], &with_work)
            .trials
            .len();
    }
    assert!((315..=325).contains(&tries), "{tries} in ten seconds");
}

#[test]
fn what_an_operator_paused_is_not_tried() {
    let mut breaker = down();
    for word in ["all", "endpoint", "page:9"] {
        let mut pauses = HashMap::from([(Scope::Endpoint, Pause::Worker { probe_at: 0 })]);
        pauses.insert(scope(word), Pause::Operator);
        let tries = breaker.tries(at(100), 100, &pauses, [PageId::from("9")].iter(), 64);
        assert_eq!(tries, Tries::default(), "{word}");
    }
}

#[test]
fn a_pause_that_somebody_ended_begins_anew() {
    let mut breaker = breaker();
    let refused = said(Outcome::Retryable, PauseWanted::Page);
    saw(&mut breaker, 0, "1/id:a", &refused);
    saw(&mut breaker, 0, "1/id:b", &refused);
    assert_eq!(opened(&mut breaker), ["+page:1"]);
    survey(&mut breaker, 0, &["page:1"]);
    survey(&mut breaker, 0, &[]);
    saw(&mut breaker, 0, "1/id:c", &refused);
    assert!(opened(&mut breaker).is_empty(), "one recipient since");
    saw(&mut breaker, 0, "1/id:d", &refused);
    assert_eq!(opened(&mut breaker), ["+page:1"]);
}

#[test]
fn refused_signatures_are_the_pages_and_not_the_endpoints() {
    let mut breaker = breaker();
    for n in 0..300 {
        let lane = format!("{}/id:{n}", n % 3);
        saw(
            &mut breaker,
            n,
            &lane,
            &said(Outcome::Retryable, PauseWanted::Page),
        );
    }
    assert_eq!(opened(&mut breaker), ["+page:0", "+page:1", "+page:2"]);
}

#[test]
fn a_page_that_is_paused_kills_no_job() {
    let mut breaker = breaker();
    let refused = said(Outcome::Refused, PauseWanted::Page);
    for lane in ["1/id:a", "1/id:b"] {
        saw(&mut breaker, 0, lane, &refused);
    }
    let mut probe = refused.clone();
    breaker.saw(at(0), &"1".into(), &"1/id:c".into(), &mut probe);
    assert_eq!((probe.outcome, probe.counts), (Outcome::Retryable, false));
}

#[test]
fn a_survey_that_began_before_a_pause_was_written_does_not_end_it() {
    let mut breaker = breaker();
    let refused = said(Outcome::Retryable, PauseWanted::Page);
    let failed = said(Outcome::Ambiguous, PauseWanted::None);
    saw(&mut breaker, 0, "1/id:a", &refused);
    saw(&mut breaker, 0, "1/id:b", &refused);
    let old = breaker.ticket();
    let changes = breaker.changes();
    // The other ledger has read before this one writes.
    told(&mut breaker, 0, old, &[]);
    assert!(!saw(&mut breaker, 0, "1/id:c", &failed), "not yet written");
    breaker.written(&changes[0]);
    told(&mut breaker, 0, old, &[]);
    assert!(!saw(&mut breaker, 0, "1/id:c", &failed), "written since");
    survey(&mut breaker, 0, &["page:1"]);
    assert!(!saw(&mut breaker, 0, "1/id:c", &failed));
    // And the other way round: what is ended here is not paused again by an old survey.
    saw(&mut breaker, 0, "1/id:c", &delivered());
    assert_eq!(opened(&mut breaker), ["-page:1"]);
    told(&mut breaker, 0, old, &["page:1"]);
    assert!(saw(&mut breaker, 0, "1/id:c", &failed));
    survey(&mut breaker, 0, &["page:1"]);
    assert!(
        !saw(&mut breaker, 0, "1/id:c", &failed),
        "somebody paused it anew"
    );
}

#[test]
fn a_pause_that_goes_on_for_another_reason_says_so_once() {
    let mut breaker = breaker();
    let because = |rule, scope| Judgement {
        rule,
        ..said(Outcome::Retryable, scope)
    };
    let (first, then) = (
        because("401", PauseWanted::Page),
        because("405", PauseWanted::Endpoint),
    );
    saw(&mut breaker, 0, "1/id:a", &first);
    saw(&mut breaker, 0, "1/id:b", &first);
    saw(&mut breaker, 0, "1/id:c", &first);
    assert_eq!(opened(&mut breaker), ["+page:1"]);
    saw(&mut breaker, 0, "1/id:d", &then);
    saw(&mut breaker, 0, "1/id:e", &then);
    let changes = breaker.changes();
    assert!(
        matches!(&changes[..], [Change::Renew { scope, rule, .. }] if *scope == self::scope("page:1") && rule == "405"),
        "{changes:?}"
    );
}

#[test]
fn pages_that_were_not_heard_of_for_long_are_forgotten() {
    let mut breaker = breaker();
    for page in 0..5000_u64 {
        let lane = format!("{page}/id:a");
        let what = [delivered(), said(Outcome::Ambiguous, PauseWanted::None)];
        saw(
            &mut breaker,
            page * 1000,
            &lane,
            &what[usize::from(page % 7 == 0)],
        );
        survey(&mut breaker, page * 1000, &[]);
    }
    // Fifteen minutes and the minute between two looks.
    assert!(breaker.pages.len() <= 961, "{}", breaker.pages.len());
    assert!(breaker.pages.contains_key("4999"));
    assert!(breaker.pages.capacity() < 5000);
}

#[test]
fn a_page_without_a_secret_is_news_once_until_secrets_change() {
    let mut breaker = breaker();
    let [one, two] = ["1", "2"].map(PageId::from);
    assert!(breaker.lacks_secret(&one) && breaker.lacks_secret(&two));
    assert!(!breaker.lacks_secret(&one));
    breaker.secret_changed("default", |page| page == "2");
    assert!(breaker.lacks_secret(&one) && !breaker.lacks_secret(&two));
}

#[test]
fn another_secret_ends_the_pauses_of_its_pages_and_of_no_other() {
    let mut breaker = breaker();
    for lane in ["1/id:a", "1/id:b", "2/id:a", "2/id:b"] {
        saw(
            &mut breaker,
            0,
            lane,
            &said(Outcome::Retryable, PauseWanted::Page),
        );
    }
    assert_eq!(opened(&mut breaker), ["+page:1", "+page:2"]);
    breaker.secret_changed("default", |page| page == "2");
    assert_eq!(opened(&mut breaker), ["-page:1"]);
    breaker.secret_changed("2", |page| page == "2");
    assert_eq!(opened(&mut breaker), ["-page:2"]);
}
