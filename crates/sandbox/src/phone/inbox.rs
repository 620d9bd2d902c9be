//! The list of conversations, the newest first, and what the referee says about all of them.

use std::collections::HashMap;

use maud::{Markup, html};

use super::bubble::preview;
use super::{Wall, frame, path_of};
use crate::board::Board;
use crate::record::{MockStats, Received, TurnedAway};

/// How many conversations are listed.
const LISTED: usize = 200;

/// One conversation in the list.
struct Chat {
    newest: Received,
    messages: usize,
    /// How many of them are not as they should be.
    troubles: usize,
}

pub(super) fn page(board: &Board, follow: bool) -> String {
    let wall = Wall::now();
    let (chats, strangers) = (chats(board), board.turned_away());
    let findings = board.findings();
    let body = html! {
        (counts(&board.stats()))
        @if !findings.is_empty() {
            details.findings {
                summary { "The referee has " (findings.len()) " findings" }
                ol { @for finding in &findings { li { (finding) } } }
            }
        }
        section.phone {
            h1.bar { "Conversations" }
            @if chats.is_empty() { (nothing_yet()) }
            ul.inbox { @for chat in chats.iter().take(LISTED) { (row(chat, &wall)) } }
            @if chats.len() > LISTED {
                p.note { "and " (chats.len() - LISTED) " more, which are older" }
            }
        }
        @if !strangers.is_empty() { (turned_away(&strangers, &wall)) }
    };
    frame("Conversations", follow, &body)
}

/// The one with the newest message first.
fn chats(board: &Board) -> Vec<Chat> {
    let mut chats: Vec<Chat> = Vec::new();
    let mut places = HashMap::new();
    for received in board.received().into_iter().rev() {
        let trouble = usize::from(received.is_troubled());
        let place = *places.entry(received.name()).or_insert(chats.len());
        if place == chats.len() {
            chats.push(Chat {
                newest: received,
                messages: 0,
                troubles: 0,
            });
        }
        chats[place].messages += 1;
        chats[place].troubles += trouble;
    }
    chats
}

fn row(chat: &Chat, wall: &Wall) -> Markup {
    let name = chat.newest.name();
    let body = chat.newest.body.as_deref().unwrap_or_default();
    html! {
        li {
            a href={ (path_of(&name)) "#newest" } {
                span.face { (name.recipient.chars().find(|c| c.is_alphanumeric()).unwrap_or('?')) }
                span.who {
                    strong { (name.kind) ": " (name.recipient) }
                    span.soft { "page " (name.page_id) }
                }
                span.preview.gone[!chat.newest.taken] { (preview(body)) }
                span.when {
                    (wall.at(chat.newest.head_ns))
                    span.count { (chat.messages) }
                    @if chat.troubles > 0 { span.mark.bad { (chat.troubles) " in trouble" } }
                }
            }
        }
    }
}

/// The counts; those that should be nought stand out if they are not.
fn counts(stats: &MockStats) -> Markup {
    let good = [
        ("requests", stats.requests),
        ("received", stats.received),
        ("accepted", stats.accepted),
        ("sent again", stats.repeats),
    ];
    let bad = [
        ("order violations", stats.order_violations),
        ("duplicates", stats.duplicates),
        ("overlaps", stats.overlaps),
        ("bad signatures", stats.bad_signatures),
        ("invalid", stats.invalid),
        ("malformed", stats.bad_requests),
    ];
    html! {
        dl.counts {
            @for (word, count) in good { div { dd { (count) } dt { (word) } } }
            @for (word, count) in bad { div.bad[count > 0] { dd { (count) } dt { (word) } } }
        }
    }
}

fn nothing_yet() -> Markup {
    html! {
        p.note {
            "Nothing was received yet. Point the worker here with "
            code { "POSTLANE_API__URL" } " and the same secret, then enqueue a message."
        }
    }
}

/// What was not shown, because it was not signed as it should be.
fn turned_away(strangers: &[TurnedAway], wall: &Wall) -> Markup {
    html! {
        section.strangers {
            h2 { "Turned away: no good signature" }
            p.soft {
                "The page's secret here and in the worker's configuration differ, or the bytes that "
                "were signed are not those that were sent. Nobody can say who wrote these:"
            }
            ul {
                @for stranger in strangers.iter().rev().take(20) {
                    li {
                        (wall.at(stranger.seen.head_ns)) " "
                        a href=(path_of(&stranger.name)) {
                            "page " (stranger.name.page_id) ", "
                            (stranger.name.kind) ": " (stranger.name.recipient)
                        }
                        " " span.soft { (preview(stranger.body.as_deref().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}
