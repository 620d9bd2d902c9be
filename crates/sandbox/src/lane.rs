//! One recipient of one page: how far its script is, what the referee knows, what is in flight.

use std::os::fd::AsFd;

use tokio::net::TcpStream;

use crate::board::Turn;
use crate::order::Order;
use crate::playbook::Cursor;
use crate::record::Name;
use crate::referee::Line;
use crate::script::Manner;

/// See the module.
pub(crate) struct Lane {
    pub name: Name,
    pub cursor: Cursor,
    pub line: Line,
    /// Requests in flight whose turn takes no time.
    open: usize,
    /// Those in flight whose turn takes time, with a handle to see whether the client is still there.
    waiting: Vec<(u64, std::net::TcpStream)>,
    pub answered_ns: u64,
}

impl Lane {
    pub fn new(order: &Order<'_>) -> Self {
        Self {
            name: order.name(),
            cursor: Cursor::default(),
            line: Line::default(),
            open: 0,
            waiting: Vec::new(),
            answered_ns: 0,
        }
    }

    /// True if a request is in flight whose client has not hung up; forgets the others.
    pub fn in_flight(&mut self) -> bool {
        self.waiting
            .retain(|(_, stream)| match stream.peek(&mut [0]) {
                Ok(read) => read > 0,
                Err(why) => why.kind() == std::io::ErrorKind::WouldBlock,
            });
        self.open > 0 || !self.waiting.is_empty()
    }

    pub fn open(&mut self, turn: &mut Turn, stream: &TcpStream) {
        let slow = !turn.wait.is_zero() || turn.step().manner == Manner::Hang;
        if slow && let Ok(handle) = stream.as_fd().try_clone_to_owned() {
            self.waiting.push((turn.seq, handle.into()));
            turn.waits = true;
        } else {
            self.open += 1;
        }
    }

    pub fn close(&mut self, turn: &Turn) {
        if turn.waits {
            self.waiting.retain(|(seq, _)| *seq != turn.seq);
        } else {
            self.open -= 1;
        }
    }
}
