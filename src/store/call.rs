//! Slow database calls: reported, watched, and abandoned when no answer will come.
//!
//! A server that works on a call is waited for as long as it takes (a lock, a disk, a commit whose
//! standby is away): its own time-outs bound that. A server that has vanished is not waited for: a second
//! connection asks what it is doing. SQLite's calls can only be reported.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use tokio::task::futures::TaskLocalFuture;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Error, Result, words};

/// How long a call takes before it is told.
pub const TOLD_AFTER: Duration = Duration::from_secs(5);
/// How long it takes before the server is asked what it does.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(4);
/// The longest look, connecting included. A call is abandoned after two looks that found no activity.
const LOOK: Duration = Duration::from_secs(3);
/// Refused looks (no connection left) after which the call is abandoned anyway.
const REFUSALS: u32 = 4;

/// What is told of a call that takes long.
#[derive(Debug)]
pub enum News<'a> {
    /// It is still waited for; once for each call.
    Waits {
        /// The verb of the statement.
        verb: &'a str,
        /// How long by now.
        waited: Duration,
        /// What the server says, or why it cannot be asked.
        why: &'a str,
        /// The server said that it is at work on it.
        is_known: bool,
    },
    /// It is over, one way or the other.
    Over,
}

/// Receives reports of slow calls.
pub type Tell = Arc<dyn Fn(&News<'_>) + Send + Sync>;

tokio::task_local! {
    static TELL: Tell;
}

/// Tells of the calls that `task` makes.
pub fn told<F: Future>(tell: Tell, task: F) -> TaskLocalFuture<Tell, F> {
    TELL.scope(tell, task)
}

fn tell(news: &News<'_>) {
    // Without a reporter, slow calls are not reported.
    let _ = TELL.try_with(|tell| tell(news));
}

/// The verb of a statement: its first line, a comment.
pub(super) fn verb(text: &str) -> &str {
    let (_, text) = text.split_once("-- ").unwrap_or(("", "a statement"));
    text.split([':', '\n']).next().unwrap_or_default()
}

/// Waits for a call that cannot be left, and tells of it if it takes long.
pub(super) async fn patient<T>(verb: &str, call: impl Future<Output = T>) -> T {
    let (mut call, began) = (pin!(call), Instant::now());
    if let Ok(done) = timeout(TOLD_AFTER, &mut call).await {
        return done;
    }
    let _over = Over;
    tell(&News::Waits {
        verb,
        waited: began.elapsed(),
        why: "the database file is locked, or its disk does not answer",
        is_known: false,
    });
    call.await
}

/// Reports the end of a reported wait, even if the future is dropped.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        tell(&News::Over);
    }
}

/// Waits for a call of the session of that name. After [`Error::Silent`] the outcome of
/// the call is unknown: its connection must not be used again.
pub(super) async fn watched<T, E>(
    verb: &str,
    place: &str,
    session: &str,
    options: &PgConnectOptions,
    call: impl Future<Output = std::result::Result<T, E>>,
) -> Result<T>
where
    Error: From<E>,
{
    let named = async { call.await.map_err(|error| Error::from(error).at(place)) };
    let mut call = pin!(named);
    if let Ok(done) = timeout(FIRST_LOOK, &mut call).await {
        return done;
    }
    let began = Instant::now() - FIRST_LOOK;
    let mut over = None;
    let (mut silent, mut refused) = (0, 0);
    loop {
        let seen = tokio::select! {
            biased;
            done = &mut call => return done,
            seen = look(session, options) => seen,
        };
        match seen {
            Seen::Works(_) => (silent, refused) = (0, 0),
            Seen::Silent(_) => silent += 1,
            Seen::Refused(_) => refused += 1,
        }
        if over.is_none() {
            tokio::select! {
                biased;
                done = &mut call => return done,
                () = sleep_until(began + TOLD_AFTER) => {}
            }
            over = Some(Over);
            tell(&News::Waits {
                verb,
                waited: began.elapsed(),
                why: seen.why(),
                is_known: matches!(seen, Seen::Works(_)),
            });
        }
        if silent >= 2 || refused >= REFUSALS {
            return Err(Error::Silent {
                place: place.to_owned(),
                verb: verb.to_owned(),
                waited: began.elapsed(),
                why: seen.why().to_owned(),
            });
        }
        tokio::select! {
            biased;
            done = &mut call => return done,
            () = sleep(BETWEEN_LOOKS) => {}
        }
    }
}

/// What a look at a session found.
#[derive(Debug)]
enum Seen {
    /// The server is at work on its call.
    Works(String),
    /// It is not: the call never arrived, the answer was lost, or the server does not respond.
    Silent(String),
    /// The server answers, but not this.
    Refused(String),
}

impl Seen {
    fn why(&self) -> &str {
        match self {
            Self::Works(why) | Self::Silent(why) | Self::Refused(why) => why,
        }
    }
}

// A role sees the waits of its own sessions. By name, not by the number of the process: behind a pooler
// the server's session changes with each transaction, and carries the name along.
const LOOK_AT: &str = "-- call: what does the server do
select a.state, coalesce(a.wait_event_type, '') as kind, coalesce(a.wait_event, '') as event,
    case when a.wait_event = 'SyncRep' then current_setting('synchronous_standby_names') end as standbys,
    case when a.wait_event = 'SyncRep' then
        (select string_agg(r.application_name, ', ') from pg_stat_replication r) end as connected,
    case when a.wait_event_type = 'Lock' then
        (select string_agg(format('%s %s', b.pid, b.application_name), ', ')
         from pg_stat_activity b where b.pid = any (pg_blocking_pids(a.pid))) end as blockers
from pg_stat_activity a where starts_with(a.application_name, $1)
order by (a.state = 'active') desc nulls last limit 1";

async fn look(session: &str, options: &PgConnectOptions) -> Seen {
    let asked = async {
        let mut side = options.connect().await?;
        let question = sqlx::query(LOOK_AT).bind(session).persistent(false);
        let found = question.fetch_optional(&mut side).await?;
        found.map(|row| activity(&row)).transpose()
    };
    match timeout(LOOK, asked).await {
        Err(_) => Seen::Silent("the server does not answer a new connection either".to_owned()),
        Ok(Ok(Some(seen))) => seen,
        Ok(Ok(None)) => {
            Seen::Silent("the server at that address does not know this session".to_owned())
        }
        // Starting, stopping: the session is gone or soon will be.
        Ok(Err(sqlx::Error::Database(error))) if error.code().as_deref() != Some("57P03") => {
            Seen::Refused(format!("the server cannot be asked: {}", error.message()))
        }
        Ok(Err(error)) => Seen::Silent(format!("no new connection: {}", words::of(&error))),
    }
}

fn activity(row: &sqlx::postgres::PgRow) -> sqlx::Result<Seen> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let (state, kind, event) = (text("state")?, text("kind")?, text("event")?);
    let (kind, event) = (kind.unwrap_or_default(), event.unwrap_or_default());
    let state = state.unwrap_or_default();
    // Without track_activities there is no state, but what is waited for is known.
    let idle = state.starts_with("idle") || kind == "Client";
    if idle {
        return Ok(Seen::Silent(format!(
            "the server waits for this worker ({state}, {event}): a packet was lost on the way"
        )));
    }
    let named = |name: Option<String>| {
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| "none".to_owned())
    };
    Ok(Seen::Works(match &*event {
        "SyncRep" => format!(
            "the commit waits for a synchronous standby (synchronous_standby_names: {}; connected: {})",
            named(text("standbys")?),
            named(text("connected")?)
        ),
        _ if kind == "Lock" => format!(
            "the server waits for a lock ({event}) that is held by {}",
            named(text("blockers")?)
        ),
        "" => "the server works on it".to_owned(),
        _ => format!("the server waits ({kind}: {event})"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_named_by_its_verb() {
        assert_eq!(verb("-- wake: ask\nselect 1"), "wake");
        assert_eq!(verb("{batch: a text}-- advance\nselect 1"), "advance");
        assert_eq!(verb("select 1"), "a statement");
    }
}
