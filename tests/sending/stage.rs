//! A service in this process against a receiver that is played by script.

use std::time::Duration;

use postlane::job::JobId;
use postlane::service::Service;
use sandbox::{Mock, MockConfig, Received, Script, Step};

use crate::rig::{SECRET, Sql, until};
use crate::support::{Db, Engine, service};

/// Longer than anything takes here.
pub const LONG: Duration = Duration::from_secs(20);

/// A service in this process, its database and its receiver.
pub struct Stage {
    pub db: Db,
    pub sql: Sql,
    pub mock: Mock,
    pub service: Service,
}

impl Stage {
    pub async fn new() -> Self {
        Self::on(sqlite().await).await
    }

    pub async fn on(db: Db) -> Self {
        Self::with(db, receiver(), "").await
    }

    /// `api` are further lines of `[api]`, and sections after it.
    pub async fn with(db: Db, mock: Mock, api: &str) -> Self {
        let url = mock.url();
        Self::to(db, mock, &url, api).await
    }

    pub async fn to(db: Db, mock: Mock, url: &str, api: &str) -> Self {
        let text = format!(
            "database_url = \"{}\"\n[pages.default]\nsecret = \"{SECRET}\"\n\
             [retry]\nfirst = \"50ms\"\nmax = \"200ms\"\n\
             [api]\nurl = \"{url}\"\ntimeout = \"1s\"\n{api}",
            db.url
        );
        Self {
            service: service(&text).await,
            sql: Sql::open(&db.url),
            db,
            mock,
        }
    }

    /// Plays a script to a recipient, sends a job there, waits for the end of its first attempt.
    pub async fn first(&self, recipient: &str, script: Script) -> Attempt {
        self.mock.script(recipient, script);
        let job = self.db.insert(recipient, "hello #1").await;
        self.attempt(job, 1).await
    }

    pub async fn attempt(&self, job: JobId, number: i64) -> Attempt {
        let ended = format!(
            "send_attempts where job_id = {job} and number = {number} and outcome is not null"
        );
        until("the attempt ends", LONG, async || {
            self.sql.count(&ended).await == 1
        })
        .await;
        let what = format!(
            "select outcome, rule, coalesce(response, ''), \
             (select state from send_jobs where id = job_id) from {ended}"
        );
        let row = self.sql.rows(&what).await.remove(0);
        let mut texts = row.into_iter().map(|text| text.expect("set"));
        let mut next = || texts.next().expect("a column");
        Attempt {
            job,
            outcome: next(),
            rule: next(),
            response: next(),
            state: next(),
        }
    }

    /// What the receiver got for a recipient.
    pub fn got(&self, recipient: &str) -> Vec<Received> {
        let mut got = self.mock.received();
        got.retain(|received| received.recipient == recipient);
        got
    }

    pub async fn ends(self) {
        let stats = self.mock.stats();
        let wrong = [
            stats.bad_signatures,
            stats.bad_requests,
            stats.order_violations,
            stats.overlaps,
        ];
        assert_eq!(wrong, [0; 4], "{stats:?} {:?}", self.mock.findings());
        assert_eq!(self.service.stop().await, 0);
    }
}

pub struct Attempt {
    pub job: JobId,
    pub outcome: String,
    pub rule: String,
    pub response: String,
    pub state: String,
}

impl Attempt {
    pub fn verdict(&self) -> (&str, &str) {
        (&self.outcome, &self.rule)
    }
}

pub async fn sqlite() -> Db {
    Db::fresh(Engine::Sqlite).await.expect("sqlite is built in")
}

pub fn receiver() -> Mock {
    let config = MockConfig {
        default_secrets: vec![SECRET.to_owned()],
        keep_bodies: true,
        ..MockConfig::default()
    };
    Mock::start(config).expect("a free port on loopback")
}

pub fn script(text: &str) -> Script {
    text.parse().expect(text)
}

pub fn answer(status: u16, body: &[u8]) -> Script {
    let body = Some(body.to_vec());
    Script::new([Step {
        body,
        ..Step::answer(status)
    }])
}

pub fn apart(earlier: u64, later: u64) -> Duration {
    Duration::from_nanos(later - earlier)
}
