//! Jobs on every way through a ledger, so that every statement is run once.

use std::collections::BTreeSet;
use std::time::Duration;

use postlane::job::AfterUnknown;
use postlane::store::Pool;

use crate::backlog::insert;
use crate::calm;
use crate::seen::{Seen, heading};
use crate::support::{Db, Engine, Steps};

/// Where the statements of a cycle stand.
const SOURCES: [&str; 3] = [
    include_str!("../../src/store/lanes.rs"),
    include_str!("../../src/store/record.rs"),
    include_str!("../../src/store/intake.rs"),
];

/// Statements that the tour cannot reach, and why their plans do not matter.
const UNSEEN: [(Option<Engine>, &str, &str); 7] = [
    (None, "mark: look at a lane again", "operators' verbs, and only inserts"),
    (Some(Engine::Sqlite), "intake: marks of lanes that somebody else has in hand", "one writer"),
    (Some(Engine::Sqlite), "claim: which of them began", "one writer: nobody moves a job meanwhile"),
    (Some(Engine::Sqlite), "intake: take marks", "Postgres's own"),
    (Some(Engine::Postgres), "intake: read marks", "SQLite's own"),
    (Some(Engine::Postgres), "intake: they are taken", "SQLite's own"),
    (Some(Engine::Postgres), "intake: jobs of a lane whose name is no UTF-8", "text is UTF-8"),
];

/// Runs every statement of the ledger on `pool`, some for one row and some for a batch.
pub async fn tour(db: &Db, pool: &Pool) {
    let lease = Duration::from_secs(60);
    let mut other = calm("w2", 64);
    other.after_unknown = AfterUnknown::Continue;
    let mut second = Steps::on(pool.clone(), other).await;
    for jobs in [1, 40] {
        // Two of each: the first fails and is tried again, the other waits behind it.
        insert(db, "tour", 2 * jobs, jobs, &[]).await;
        let mut first = Steps::on(pool.clone(), calm("w1", 64)).await;
        for claim in first.claims().await {
            first.answer(claim, 503);
        }
        first.claims().await;
        first.pass(Duration::from_secs(5));
        assert_eq!(first.deliver_all().await.len(), 2 * jobs);

        // One alone in its lane, one expired, one that joins later.
        insert(db, "alone", jobs, jobs, &[]).await;
        first.now = pool.now().await.expect("now") + 500;
        let past = db.time(first.now - 1000);
        insert(db, "gone", jobs, jobs, &[("expires_at", &past)]).await;
        let soon = db.time(first.now + 1000);
        insert(db, "timed", jobs, jobs, &[("send_at", &soon)]).await;
        if db.engine == Engine::Sqlite {
            insert(db, "garbled", 1, 1, &[("ordering_key", "cast(x'ff' as text)")]).await;
        }
        assert_eq!(first.deliver_all().await.len(), jobs);
        first.pass(Duration::from_secs(2));
        assert_eq!(first.deliver_all().await.len(), jobs);

        // A worker is lost, and comes back with a success.
        insert(db, &format!("lost{jobs}"), jobs, jobs, &[]).await;
        first.now = pool.now().await.expect("now") + 10;
        let late = first.claims().await;
        second.now = first.now;
        second.pass(lease);
        assert!(second.claims().await.is_empty());
        for claim in late {
            first.answer(claim, 200);
        }
        first.claims().await;
        let sent = format!("select count(*) from send_jobs where lane like '1/id:lost{jobs}%' and state = 'delivered'");
        assert_eq!(usize::try_from(db.int(&sent).await), Ok(jobs));
        second.pass(Duration::from_secs(5));
        assert!(second.claims().await.is_empty(), "their lanes end");
    }
}

/// Every statement was run, or there is a reason.
pub fn is_whole(engine: Engine, seen: &Seen) {
    let ran: BTreeSet<&str> = seen.0.iter().map(|text| heading(text)).collect();
    let written = SOURCES.iter().flat_map(|source| source.split("\"-- ").skip(1));
    for text in written {
        let end = text.find(['\n', '\\']).expect("a line ends");
        let name = &text[..end];
        let excused = UNSEEN.iter().any(|(on, unseen, _)| on.is_none_or(|on| on == engine) && *unseen == name);
        assert!(ran.contains(name) != excused, "{name:?}: run {}, excused {excused}", ran.contains(name));
    }
}
