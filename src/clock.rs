//! The one source of time.
//!
//! Two clocks are used and never mixed. Moments that are stored or compared between workers
//! ([`Millis`]) come from the database. Spans inside one process ([`BootInstant`]) come from
//! `CLOCK_BOOTTIME`, which goes on while the machine is suspended; Rust's `Instant` stands still
//! then, and a lease would look younger than it is.

use std::time::Duration;

/// A moment on the database's clock: milliseconds since 1970-01-01 UTC.
pub type Millis = i64;

/// A duration as whole milliseconds, saturating; the unit of every stored span.
pub fn millis(span: Duration) -> Millis {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// A moment on this machine's boot clock. Only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// The current moment, counted through suspends.
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(clock);
        let secs = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Self(Duration::new(secs, nanos))
    }

    /// The span since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The span from this moment until now.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// Nanoseconds since the machine was started: for records that are compared across processes.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// This moment moved on by `span`.
    pub fn later(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// This moment moved back by `span`; how a test makes a claim older than it is.
    pub fn back(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_runs_backwards() {
        let first = BootInstant::now();
        assert!(BootInstant::now() >= first);
        assert_eq!(
            first.since(BootInstant::now().back(Duration::ZERO)),
            Duration::ZERO
        );
        assert!(first.back(Duration::from_secs(1)).elapsed() >= Duration::from_secs(1));
    }
}
