//! The boot clock, which goes on while the machine is suspended.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine was started, the same in every process: the clock of
/// [`Received`](crate::Received) and of the log file.
pub fn boot_ns() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let now = clock_gettime(clock);
    let secs = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    secs * 1_000_000_000 + nanos
}
