//! The referee: did one recipient get its messages in order, once, and one at a time?
//!
//! A text that ends with `#7` makes the message number 7 of its page and recipient; a message
//! without a number is known by its bytes. The referee only counts and remembers; who asked and
//! what was answered is the board's business.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Everything one recipient of one page was sent so far.
#[derive(Default)]
pub(crate) struct Line {
    /// Sorted; almost always grows at its end.
    numbers: Vec<(u64, bool)>,
    /// Messages without a number, by the hash of their bytes.
    hashes: HashMap<u64, bool>,
}

/// What a message is in its line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// It was received before, whatever became of it.
    pub repeat: bool,
    /// It was received before and taken in: the person has it twice if it is taken in again.
    pub duplicate: bool,
    /// Seen for the first time, after a higher number: the highest so far.
    pub late: Option<u64>,
    /// Seen before, and a higher number since.
    pub echo: bool,
}

impl Line {
    /// Enters a message; `taken` says whether the person gets it this time.
    pub fn enter(&mut self, number: Option<u64>, body: &[u8], taken: bool) -> Verdict {
        let Some(number) = number else {
            return self.enter_bytes(body, taken);
        };
        let highest = self.numbers.last().map(|(highest, _)| *highest);
        let behind = highest.filter(|highest| *highest > number);
        match self
            .numbers
            .binary_search_by_key(&number, |(number, _)| *number)
        {
            Ok(place) => {
                let known = &mut self.numbers[place].1;
                let before = *known;
                *known |= taken;
                Verdict {
                    repeat: true,
                    duplicate: before,
                    late: None,
                    echo: behind.is_some(),
                }
            }
            Err(place) => {
                self.numbers.insert(place, (number, taken));
                Verdict {
                    late: behind,
                    ..Verdict::default()
                }
            }
        }
    }

    fn enter_bytes(&mut self, body: &[u8], taken: bool) -> Verdict {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let hash = hasher.finish();
        let before = self.hashes.get(&hash).copied();
        self.hashes.insert(hash, taken || before == Some(true));
        Verdict {
            repeat: before.is_some(),
            duplicate: before == Some(true),
            ..Verdict::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Verdict = Verdict {
        repeat: false,
        duplicate: false,
        late: None,
        echo: false,
    };

    #[test]
    fn a_number_below_the_highest_is_late_when_new_and_an_echo_when_known() {
        let mut line = Line::default();
        assert_eq!(line.enter(Some(1), b"", true), FIRST);
        assert_eq!(line.enter(Some(3), b"", true), FIRST);
        assert_eq!(
            line.enter(Some(2), b"", true),
            Verdict {
                late: Some(3),
                ..FIRST
            }
        );
        let echo = Verdict {
            repeat: true,
            duplicate: true,
            echo: true,
            ..FIRST
        };
        assert_eq!(line.enter(Some(1), b"", true), echo);
        assert_eq!(line.enter(Some(4), b"", true), FIRST);
    }

    #[test]
    fn a_repeat_is_a_duplicate_only_after_the_message_was_taken_in() {
        for number in [Some(1), None] {
            let mut line = Line::default();
            assert_eq!(line.enter(number, b"a", false), FIRST);
            assert_eq!(
                line.enter(number, b"a", true),
                Verdict {
                    repeat: true,
                    ..FIRST
                }
            );
            let twice = Verdict {
                repeat: true,
                duplicate: true,
                ..FIRST
            };
            assert_eq!(line.enter(number, b"a", false), twice);
            assert_eq!(line.enter(number, b"a", true), twice);
        }
        let mut line = Line::default();
        assert_eq!(line.enter(None, b"a", true), FIRST);
        assert_eq!(line.enter(None, b"b", true), FIRST);
    }
}
