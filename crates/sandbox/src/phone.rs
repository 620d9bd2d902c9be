//! What people look at: the conversations as a phone would show them.
//!
//! Pages without scripts, without a form and without anything from elsewhere: an image is a box
//! with its address, a link is text. Everything a sender wrote passes through the template's
//! escaping. Nothing here judges: marks and verdicts are the board's, and a message that breaks
//! every rule is shown as far as it can be understood.

mod bubble;
mod chat;
mod inbox;
mod receipt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::board::Board;
use crate::clock::boot_ns;
use crate::record::Name;

/// The one style sheet.
pub(crate) const STYLE: &str = include_str!("phone/style.css");

/// Letters that may stand in a path as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b'+');

/// How often a page that follows loads itself again, in seconds.
const EVERY: u32 = 2;

/// The list of conversations.
pub(crate) fn inbox(board: &Board, follow: bool) -> String {
    inbox::page(board, follow)
}

/// One conversation, `PAGE/KIND:VALUE` as in a path; `None` if it is not of that form.
pub(crate) fn chat(board: &Board, lane: &str, follow: bool) -> Option<String> {
    let lane = percent_decode_str(lane).decode_utf8().ok()?;
    let (page_id, rest) = lane.split_once('/')?;
    let (kind, recipient) = rest.split_once(':')?;
    let kinds = ["id", "phone", "email", "uuid"];
    let kind = kinds.into_iter().find(|known| *known == kind)?;
    let name = Name {
        page_id: page_id.to_owned(),
        kind,
        recipient: recipient.to_owned(),
    };
    Some(chat::page(board, &name, follow))
}

/// Where the conversation with a person is.
fn path_of(name: &Name) -> String {
    let escape = |text| utf8_percent_encode(text, ESCAPED);
    let (page, kind, value) = (&name.page_id, name.kind, &name.recipient);
    format!("/chat/{}/{kind}:{}", escape(page), escape(value))
}

/// The frame of a page.
fn frame(title: &str, follow: bool, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if follow { meta http-equiv="refresh" content=(EVERY); }
                title { (title) " · Postlane sandbox" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                header {
                    a.brand href="/" { "Postlane sandbox" }
                    nav {
                        @if follow { a href="?" { "stop following" } }
                        @else { a href="?" { "reload" } a href="?follow" { "follow" } }
                        a href="/received" { "received" }
                        a href="/stats" { "stats" }
                    }
                }
                main { (body) }
            }
        }
    };
    page.into_string()
}

/// Turns moments of the boot clock into those on a wall.
struct Wall {
    now: Zoned,
    boot_ns: u64,
}

impl Wall {
    fn now() -> Self {
        Self {
            now: Timestamp::now().to_zoned(TimeZone::system()),
            boot_ns: boot_ns(),
        }
    }

    fn at(&self, ns: u64) -> Markup {
        let ago = self.boot_ns.saturating_sub(ns).try_into();
        let ago = SignedDuration::from_nanos(ago.unwrap_or(i64::MAX));
        let at = self.now.checked_sub(ago).unwrap_or(self.now.clone());
        let format = if at.date() == self.now.date() {
            "%H:%M:%S"
        } else {
            "%b %d %H:%M"
        };
        html! {
            time title=(at.strftime("%Y-%m-%d %H:%M:%S%.3f %Z")) { (at.strftime(format)) }
        }
    }
}
