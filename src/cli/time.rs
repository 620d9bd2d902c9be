//! Moments: how people write them, and how they are shown to people and to machines.
//!
//! Machines get RFC 3339 in UTC with milliseconds, on either engine. People get their own time
//! zone and how long ago that was.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::clock::{Millis, millis};

/// For machines: `2026-11-22T14:03:22.123Z`.
pub fn utc(at: Millis) -> String {
    Timestamp::from_millisecond(at).map_or_else(
        |_| at.to_string(),
        |at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

/// For people: `14:03:22 UTC, 3m 10s ago`, with the zone, and the date if it is not today.
pub fn local(at: Millis, now: Millis) -> String {
    let zoned = |at| Timestamp::from_millisecond(at).map(|at| at.to_zoned(TimeZone::system()));
    let (Ok(moment), Ok(today)) = (zoned(at), zoned(now)) else {
        return at.to_string();
    };
    let format = if moment.date() == today.date() {
        "%H:%M:%S %Z"
    } else {
        "%Y-%m-%d %H:%M:%S %Z"
    };
    let age = if at > now {
        format!("in {}", span(at - now))
    } else {
        format!("{} ago", span(now - at))
    };
    format!("{}, {age}", moment.strftime(format))
}

/// A span in its two largest units: `250ms`, `3s`, `5m 10s`, `2h 20m`, `9d 4h`.
pub fn span(ms: Millis) -> String {
    let two = |large, unit, small, sub| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{sub}"),
    };
    match ms / 1_000 {
        0 => format!("{ms}ms"),
        s @ ..60 => format!("{s}s"),
        s @ 60..3_600 => two(s / 60, "m", s % 60, "s"),
        s @ 3_600..86_400 => two(s / 3_600, "h", s % 3_600 / 60, "m"),
        s => two(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// A moment as an operator names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This very one.
    At(Millis),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    /// The moment itself.
    pub fn resolve(self, now: Millis) -> Millis {
        match self {
            Self::At(at) => at,
            Self::Ago(age) => now.saturating_sub(millis(age)).max(0),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(age) = humantime::parse_duration(text) {
            return Ok(Self::Ago(age));
        }
        let at = text.parse::<Timestamp>().ok().or_else(|| {
            let local = text.parse::<DateTime>().ok()?;
            Some(local.to_zoned(TimeZone::system()).ok()?.timestamp())
        });
        at.map(|at| Self::At(at.as_millisecond())).ok_or_else(|| {
            "use an age (2h, 3d), a local date (2026-11-22, 2026-11-22T14:00) or an RFC 3339 time \
             (2026-11-22T14:00:00Z)"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_ages_dates_and_times() {
        assert_eq!("2h".parse(), Ok(Moment::Ago(Duration::from_secs(7200))));
        assert_eq!("1970-01-01T00:00:01.5Z".parse(), Ok(Moment::At(1500)));
        assert_eq!("1970-01-01T01:00:00+01:00".parse(), Ok(Moment::At(0)));
        assert!(matches!("2026-11-22".parse(), Ok(Moment::At(_))));
        assert!(matches!("2026-11-22T14:00".parse(), Ok(Moment::At(_))));
        assert!("yesterday".parse::<Moment>().is_err());
        assert_eq!(Moment::Ago(Duration::from_secs(2)).resolve(5_000), 3_000);
    }

    #[test]
    fn machines_get_milliseconds_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(1_795_356_202_123), "2026-11-22T14:03:22.123Z");
    }

    #[test]
    fn spans_are_told_in_their_two_largest_units() {
        let told: Vec<String> = [250, 3_999, 61_000, 8_400_000, 878_400_000]
            .map(span)
            .into();
        assert_eq!(told, ["250ms", "3s", "1m 1s", "2h 20m", "10d 4h"]);
    }
}
