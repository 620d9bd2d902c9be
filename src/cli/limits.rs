//! What the system lets this process have, enough open files for the requests in flight, and what it
//! shall not give away.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Keeps the secrets in this process's memory out of core dumps, and from other processes of its user.
/// Where the system does not let it, nothing else changes.
pub(super) fn keep_memory_private() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Files that the worker needs beside its requests: the database, the admin server, its log.
const OTHERS: u64 = 160;

/// Raises the limit of open files as far as is allowed and needed. Returns how many requests may be in
/// flight with it, at most `wanted`: with more, some could never be sent, and each try would be a row.
pub(super) fn requests_by_open_files(wanted: usize) -> usize {
    let needed = u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(mut limit) = current else {
        return wanted;
    };
    if limit < needed {
        let raised = Rlimit {
            current: Some(maximum.map_or(needed, |most| most.min(needed))),
            maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised.current.unwrap_or(limit);
        }
    }
    allowed(wanted, limit)
}

fn allowed(wanted: usize, limit: u64) -> usize {
    let requests = limit.saturating_sub(OTHERS).max(limit / 4).max(1);
    wanted.min(usize::try_from(requests).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_of_open_files_leaves_some_for_the_rest() {
        for (limit, requests) in [
            (65_536, 256),
            (416, 256),
            (415, 255),
            (256, 96),
            (64, 16),
            (3, 1),
        ] {
            assert_eq!(allowed(256, limit), requests, "{limit}");
        }
        assert_eq!(allowed(8, 64), 8);
    }
}
