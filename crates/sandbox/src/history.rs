//! What is remembered: the newest received requests, and the newest that were turned away.
//!
//! Bounded by number and, where bodies are kept, by their bytes: the oldest go first.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::record::{Record, TurnedAway};

/// How many of those that were turned away are remembered.
const TURNED_AWAY: usize = 100;

/// See the module.
pub(crate) struct History {
    records: VecDeque<Record>,
    turned_away: VecDeque<TurnedAway>,
    /// The number of the oldest record.
    first: u64,
    /// Bytes of all bodies in `records`.
    bytes: usize,
    keep: usize,
    keep_bodies: Option<usize>,
}

impl History {
    /// Keeps so many records, and, unless `None`, so many bytes of bodies.
    pub fn new(keep: usize, keep_bodies: Option<usize>) -> Self {
        Self {
            records: VecDeque::new(),
            turned_away: VecDeque::new(),
            first: 1,
            bytes: 0,
            keep,
            keep_bodies,
        }
    }

    /// A copy of a body, if bodies are kept.
    pub fn body(&self, body: &[u8]) -> Option<Bytes> {
        self.keep_bodies.map(|_| Bytes::copy_from_slice(body))
    }

    /// Enters a record; its number is one more than the last one's.
    pub fn push(&mut self, record: Record) {
        self.bytes += record.weight();
        self.records.push_back(record);
        let most = self.keep_bodies.unwrap_or_default();
        while self.records.len() > self.keep || self.bytes > most {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.bytes -= oldest.weight();
            self.first += 1;
        }
    }

    /// Enters a request whose signature was not good.
    pub fn turn_away(&mut self, stranger: TurnedAway) {
        if self.turned_away.len() == self.keep.min(TURNED_AWAY) {
            self.turned_away.pop_front();
        }
        if self.keep > 0 {
            self.turned_away.push_back(stranger);
        }
    }

    /// The record with this number, unless it is forgotten.
    pub fn get_mut(&mut self, seq: u64) -> Option<&mut Record> {
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.records.get_mut(place)
    }

    /// Everything that is remembered, with its number, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = (u64, &Record)> {
        let places = 0..self.records.len();
        places.map(|place| (self.first + place as u64, &self.records[place]))
    }

    /// Those that were turned away, oldest first.
    pub fn turned_away(&self) -> impl DoubleEndedIterator<Item = &TurnedAway> {
        self.turned_away.iter()
    }
}
