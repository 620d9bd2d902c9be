//! One conversation: every message as a bubble, and below it what the sandbox has to say.

use maud::{Markup, html};

use super::bubble::{self, Sent};
use super::{Wall, frame};
use crate::board::Board;
use crate::record::{Name, Received, TurnedAway};

/// How many messages are shown, the newest.
const SHOWN: usize = 100;

/// Something that came for this recipient, or pretended to.
enum Item {
    Received(Box<Received>),
    TurnedAway(TurnedAway),
}

impl Item {
    fn head_ns(&self) -> u64 {
        match self {
            Self::Received(received) => received.head_ns,
            Self::TurnedAway(stranger) => stranger.seen.head_ns,
        }
    }
}

pub(super) fn page(board: &Board, name: &Name, follow: bool) -> String {
    let wall = Wall::now();
    let received = board.received().into_iter().filter(|r| r.is_for(name));
    let strangers = board.turned_away().into_iter();
    let strangers = strangers.filter(|stranger| stranger.name == *name);
    let mut items: Vec<_> = received
        .map(|received| Item::Received(Box::new(received)))
        .chain(strangers.map(Item::TurnedAway))
        .collect();
    items.sort_by_key(Item::head_ns);
    let older = items.len().saturating_sub(SHOWN);
    let items = &items[older..];
    let body = html! {
        section.phone {
            div.bar {
                a href="/" title="all conversations" { "‹" }
                h1 { (name.kind) ": " (name.recipient) }
                span.soft { "page " (name.page_id) }
            }
            div.thread {
                @if older > 0 {
                    p.note { (older) " older ones: " a href="/received" { "/received" } }
                }
                @if items.is_empty() { p.note { "Nothing was received for them yet." } }
                @for (at, item) in items.iter().enumerate() {
                    article id=[(at + 1 == items.len()).then_some("newest")] {
                        @match item {
                            Item::Received(received) => (message(received, &wall)),
                            Item::TurnedAway(stranger) => (turned_away(stranger, &wall)),
                        }
                    }
                }
            }
        }
    };
    frame(&name.recipient, follow, &body)
}

fn message(received: &Received, wall: &Wall) -> Markup {
    let sent = Sent::read(received.body.as_deref().unwrap_or_default());
    html! {
        div.message.gone[!received.taken] { (bubble::show(&sent)) }
        (marks(received))
        p.meta {
            (wall.at(received.head_ns))
            @if let Some(tag) = sent.tag() { span.tag title="tag" { (tag) } }
            span title="in the order of arrival at the sandbox" { "no. " (received.seq) }
            @if let Some(number) = received.number {
                span title="the number that its text ends with" { "#" (number) }
            }
            span.good { "signature ok" }
            span { (answer(received)) }
        }
        (source(received.body.as_deref()))
    }
}

fn turned_away(stranger: &TurnedAway, wall: &Wall) -> Markup {
    let sent = Sent::read(stranger.body.as_deref().unwrap_or_default());
    html! {
        div.message.gone { (bubble::show(&sent)) }
        p.marks { span.mark.bad { "not shown: bad signature" } }
        p.meta {
            (wall.at(stranger.seen.head_ns))
            @if let Some(tag) = sent.tag() { span.tag title="tag" { (tag) } }
            span.bad { "signature wrong or missing" }
            span { "answered 401" }
        }
        (source(stranger.body.as_deref()))
    }
}

/// What the referee and the rules found.
fn marks(received: &Received) -> Markup {
    let good = received.taken && !received.repeat && !received.is_troubled();
    html! {
        @if !good {
            p.marks {
                @if !received.taken { span.mark { "not shown to them" } }
                @if received.duplicate { span.mark.bad { "duplicate: they had it already" } }
                @else if received.repeat { span.mark { "sent again" } }
                @if let Some(after) = received.after {
                    span.mark.bad { "out of order: after #" (after) }
                }
                @if received.overlaps { span.mark.bad { "overlaps another request" } }
                @if let Some(why) = &received.invalid { span.mark.bad { "invalid: " (why) } }
            }
        }
    }
}

fn answer(received: &Received) -> String {
    let took = received.answer_ns.map(|at| at - received.head_ns.min(at));
    match (received.status, took) {
        (Some(status), Some(ns)) if ns < 10_000_000 => {
            format!("answered {status} in {} µs", ns / 1_000)
        }
        (Some(status), Some(ns)) => format!("answered {status} in {} ms", ns / 1_000_000),
        (Some(status), None) => format!("answered {status}"),
        (None, _) => "no answer".to_owned(),
    }
}

fn source(body: Option<&[u8]>) -> Markup {
    html! {
        @if let Some(body) = body {
            details.source {
                summary { "request" }
                pre { (String::from_utf8_lossy(body)) }
            }
        }
    }
}
