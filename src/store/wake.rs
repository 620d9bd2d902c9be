//! What wakes a sleeping worker: only hints; the next poll finds what no hint announced.
//!
//! On Postgres a row in `send_sleepers` asks the insert trigger to notify. A producer that
//! inserted before that row was there and commits after wakes no worker, so until the transactions
//! that were open then have ended, the poll is fast. On SQLite the write-ahead log is watched. The standby,
//! the second ledger of a process, is woken by the first one alone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::Connection as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::backends::Backends;
use super::file::{REST, Stamp};
use super::target::Found;
use super::watch::Watch;
use super::{Error, Pool, Result, Tx, one};
use crate::clock::BootInstant;

/// The poll while busy, when producers need not wake the worker.
const BUSY_POLL: Duration = Duration::from_millis(3);
/// Claims a second from which producers need not wake it any more, and below which they must again.
const BUSY: f64 = 150.0;
const QUIET: f64 = 75.0;
/// How long claims are counted for that.
const COUNTED: Duration = Duration::from_millis(200);
/// The poll that finds what no hint announced.
pub const POLL: Duration = Duration::from_secs(2);
/// The poll of a worker that nothing wakes (`worker.notify = false`, or no watch on the file).
const BLIND_POLL: Duration = Duration::from_millis(100);
/// Looks at once after a ring: some take about as long as a commit.
const LOOKS_AT_ONCE: u32 = 8;
/// The first of the looks after those, each twice as far as the one before. A commit can be seen once its
/// log is synced, which nothing tells: however long the disk takes, it is seen in twice that time.
const FIRST_LOOK: Duration = Duration::from_micros(500);
/// The shortest sleep of a worker that found work it could not take (another worker holds the lanes).
const SHORTEST: Duration = Duration::from_millis(5);
/// How long a subscription lasts before it must be renewed.
const ARMED_FOR: Duration = Duration::from_secs(60);
/// Busy steps in a row after which producers need not notify any more, and the standby is called.
const BUSY_STEPS: u32 = 16;
/// Jobs that a step must claim for the standby to find some, too.
const WORTH_A_RELIEF: usize = 16;
/// The sleep of a standby that is not called.
const OFF_DUTY: Duration = Duration::from_secs(3600);

/// What has woken a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// An attempt has ended.
    Ended,
    /// A producer says that there are marks.
    Marks,
    /// It is time to look for marks, since producers do not say so while there are many.
    Poll,
    /// Something is due, or it is time to look at everything.
    Time,
}

/// Wakes one worker.
pub struct Waker {
    bell: Arc<Notify>,
    kind: Kind,
    busy_steps: u32,
    load: Load,
    /// The sleep is only until the next look.
    looks: bool,
    relief: Option<Arc<Notify>>,
}

/// How much is claimed.
struct Load {
    since: BootInstant,
    claimed: usize,
    is_busy: bool,
}

impl Load {
    fn new() -> Self {
        Self {
            since: BootInstant::now(),
            claimed: 0,
            is_busy: false,
        }
    }

    /// Counts claims, or that there were none. True while there are many.
    fn add(&mut self, claimed: usize) -> bool {
        self.claimed += claimed;
        let passed = self.since.elapsed();
        if passed >= COUNTED {
            let least = if self.is_busy { QUIET } else { BUSY };
            let claimed = u32::try_from(self.claimed).unwrap_or(u32::MAX);
            self.is_busy = f64::from(claimed) >= least * passed.as_secs_f64();
            (self.since, self.claimed) = (BootInstant::now(), 0);
        }
        self.is_busy
    }
}

enum Kind {
    /// Asks the trigger to notify; `None` if it must not.
    Postgres {
        worker: String,
        armed: Option<Armed>,
        _listening: Listening,
    },
    /// Watches the file, while there is little to do: else its own writes would wake it.
    Sqlite {
        watch: Option<Watch>,
        fast: Option<Fast>,
        /// Changes when another connection commits.
        version: Option<i64>,
        /// How the files were when the worker last found nothing in them.
        rests: Option<Stamp>,
    },
    /// Nothing wakes it.
    Blind,
    /// Only the first ledger of its process wakes it.
    Relief,
}

/// Listens until it is dropped.
struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What follows a ring.
#[derive(Clone, Copy)]
struct Fast {
    at_once: u32,
    then: Duration,
}

struct Armed {
    since: BootInstant,
    /// Transactions older than this one may still commit rows without a notification.
    horizon: Option<i64>,
    fast: Duration,
}

impl Waker {
    /// Starts listening or watching. `notify` false: poll only.
    pub async fn start(pool: &Pool, worker: &str, notify: bool) -> Result<Self> {
        let bell = Arc::new(Notify::new());
        let kind = match pool {
            Pool::Postgres(_) if !notify => Kind::Blind,
            Pool::Postgres(pg) => {
                let listener = listener(pg).await?;
                let listening = listen(listener, pg.clone(), Arc::clone(&bell));
                Kind::Postgres {
                    worker: worker.to_owned(),
                    armed: None,
                    _listening: Listening(tokio::spawn(listening)),
                }
            }
            Pool::Sqlite(_, file) => Kind::Sqlite {
                watch: Watch::new(file, Arc::clone(&bell)),
                fast: None,
                version: None,
                rests: None,
            },
        };
        Ok(Self::new(bell, kind))
    }

    fn new(bell: Arc<Notify>, kind: Kind) -> Self {
        Self {
            bell,
            kind,
            busy_steps: 0,
            load: Load::new(),
            looks: false,
            relief: None,
        }
    }

    /// What wakes a second ledger: this one, while it has more to do than it can.
    pub fn relief(&mut self) -> Self {
        let bell = Arc::new(Notify::new());
        self.relief = Some(Arc::clone(&bell));
        Self::new(bell, Kind::Relief)
    }

    /// Completes when something may have changed.
    pub async fn woken(&self) {
        let Kind::Sqlite {
            watch: Some(watch),
            rests: Some(then),
            ..
        } = &self.kind
        else {
            return self.bell.notified().await;
        };
        let changed = async {
            while watch.stamp() == *then {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            () = self.bell.notified() => {}
            () = changed => {}
        }
    }

    /// Something rang. SQLite writes its log before the commit can be seen, and the commit itself
    /// rings nothing: for a while the worker looks again and again.
    pub fn rung(&mut self) {
        if let Kind::Sqlite { fast, rests, .. } = &mut self.kind {
            let looks = Fast {
                at_once: LOOKS_AT_ONCE,
                then: FIRST_LOOK,
            };
            (*fast, *rests) = (Some(looks), None);
        }
    }

    /// What a completed sleep means: where producers do not wake, a look for marks.
    pub fn time_is_up(&self) -> Woken {
        match &self.kind {
            Kind::Postgres { armed: None, .. } | Kind::Sqlite { .. } if self.looks => Woken::Poll,
            _ => Woken::Time,
        }
    }

    /// Whether another connection has committed something since the last call; `None` where finding out costs as
    /// much as a survey.
    pub async fn has_news(&mut self, pool: &Pool) -> Result<Option<bool>> {
        let Kind::Sqlite { version, .. } = &mut self.kind else {
            return Ok(None);
        };
        let now = one(pool.rows(VERSION, &[]).await?)?.int(0)?;
        Ok(Some(version.replace(now) != Some(now)))
    }

    /// True while producers need not say that there are marks.
    pub fn is_unarmed(&self) -> bool {
        match &self.kind {
            Kind::Postgres { armed, .. } => armed.is_none(),
            Kind::Sqlite { watch, .. } => watch.as_ref().is_none_or(|watch| !watch.is_on),
            Kind::Blind | Kind::Relief => true,
        }
    }

    /// True if there was a notification; consumes it.
    pub fn take_ring(&mut self) -> bool {
        let rings = self.bell.notified().now_or_never().is_some();
        if rings {
            self.rung();
        }
        rings
    }

    /// Asks to be woken, and says how long the worker may sleep, whether work is left or not; something is due in
    /// `next_in`. The pool is the ledger's own.
    pub async fn before_sleep(
        &mut self,
        pool: &Pool,
        has_open: bool,
        next_in: Option<Duration>,
    ) -> Result<Duration> {
        let longest = match (self.longest(pool).await?, &self.kind) {
            // While work is left, what the hints do not say is looked for.
            (longest, Kind::Sqlite { .. }) if has_open => longest.min(POLL),
            (longest, _) => longest,
        };
        let next = match next_in {
            // What is due is the first ledger's, too, and that one watches the time.
            Some(next) if !matches!(self.kind, Kind::Relief) => next.max(SHORTEST),
            _ => Duration::MAX,
        };
        self.looks = longest < next;
        Ok(longest.min(next))
    }

    /// How long the worker may sleep at most. Zero: look once more first.
    async fn longest(&mut self, pool: &Pool) -> Result<Duration> {
        self.busy_steps = 0;
        let quiet = !self.load.add(0);
        match &mut self.kind {
            Kind::Blind => Ok(BLIND_POLL),
            Kind::Relief => Ok(OFF_DUTY),
            Kind::Sqlite { watch: None, .. } => Ok(BLIND_POLL),
            Kind::Sqlite {
                watch: Some(watch),
                fast,
                rests,
                ..
            } => Ok(match fast.as_mut().filter(|looks| looks.then < REST) {
                _ if !watch.is_on && !quiet => BUSY_POLL,
                _ if !watch.is_on => {
                    watch.set(true);
                    if watch.is_on {
                        Duration::ZERO
                    } else {
                        BLIND_POLL
                    }
                }
                Some(looks) if looks.at_once > 0 => {
                    looks.at_once -= 1;
                    Duration::ZERO
                }
                Some(looks) if looks.then < POLL => {
                    let wait = looks.then;
                    looks.then *= 2;
                    wait
                }
                looks => {
                    // A look between two equal stamps has seen all that they stand for.
                    let now = watch.stamp();
                    if rests.replace(now) != Some(now) {
                        return Ok(Duration::ZERO);
                    }
                    let wait = looks.as_ref().map_or(REST, |looks| looks.then);
                    looks.into_iter().for_each(|looks| looks.then *= 2);
                    wait
                }
            }),
            Kind::Postgres { armed: None, .. } if !quiet => Ok(BUSY_POLL),
            Kind::Postgres { worker, armed, .. } => {
                let Some(state) = armed.as_mut().filter(|a| a.since.elapsed() < ARMED_FOR / 2)
                else {
                    *armed = Some(arm(pool, worker).await?);
                    return Ok(Duration::ZERO);
                };
                if let Some(horizon) = state.horizon {
                    if oldest_open(pool).await? < horizon {
                        state.fast = (state.fast * 2).min(Duration::from_secs(1));
                        return Ok(state.fast);
                    }
                    state.horizon = None;
                    return Ok(Duration::ZERO);
                }
                Ok(POLL)
            }
        }
    }

    /// The worker found work: after a while of that, producers need not notify, and the standby ledger is called.
    pub async fn busy(&mut self, pool: &Pool, claimed: usize) -> Result<()> {
        self.busy_steps += 1;
        let is_busy = self.load.add(claimed);
        if let Some(relief) = &self.relief
            && self.busy_steps >= BUSY_STEPS
            && claimed >= WORTH_A_RELIEF
        {
            relief.notify_one();
        }
        if let Kind::Sqlite { rests, .. } = &mut self.kind {
            *rests = None;
        }
        match &mut self.kind {
            _ if !is_busy => {}
            Kind::Postgres { worker, armed, .. } if armed.is_some() => {
                *armed = None;
                disarm(pool, worker).await?;
            }
            Kind::Sqlite {
                watch: Some(watch), ..
            } if watch.is_on => watch.set(false),
            _ => {}
        }
        Ok(())
    }

    /// The worker stops: it need not be woken.
    pub async fn leave(&mut self, pool: &Pool) {
        if let Kind::Postgres { worker, .. } = &self.kind {
            // The row runs out by itself if this fails.
            let _ = disarm(pool, worker).await;
        }
    }
}

const VERSION: &str = "-- wake: has another connection committed\npragma data_version";
const ARM: &str = "-- wake: ask to be notified
insert into send_sleepers (worker, until) values ($1, clock_timestamp() + $2::double precision * interval '1 second')
on conflict (worker) do update set until = excluded.until";
const SWEEP: &str = "-- wake: forget sleepers that are gone
delete from send_sleepers where until < clock_timestamp() - interval '10 minutes'";
const HORIZON: &str = "-- wake: transactions that began before this one may insert unseen
select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as horizon";
const OLDEST: &str = "-- wake: the oldest transaction still open
select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as oldest";
const DISARM: &str = "-- wake: no need to notify\ndelete from send_sleepers where worker = $1";

async fn arm(pool: &Pool, worker: &str) -> Result<Armed> {
    let seconds = i64::try_from(ARMED_FOR.as_secs()).unwrap_or(60);
    let mut tx = pool.begin().await?;
    tx.run(ARM, &[worker.into(), seconds.into()]).await?;
    tx.run(SWEEP, &[]).await?;
    tx.commit().await?;
    let horizon = one(pool.rows(HORIZON, &[]).await?)?.int("horizon")?;
    Ok(Armed {
        since: BootInstant::now(),
        horizon: Some(horizon),
        fast: Duration::from_millis(2),
    })
}

async fn oldest_open(pool: &Pool) -> Result<i64> {
    Ok(one(pool.rows(OLDEST, &[]).await?)?.int("oldest")?)
}

async fn disarm(pool: &Pool, worker: &str) -> Result<()> {
    let mut tx: Tx = pool.begin().await?;
    tx.run(DISARM, &[worker.into()]).await?;
    tx.commit().await
}

/// After so long without a notification the listener's connection is tried, and for so long.
const LISTEN_FOR: Duration = Duration::from_secs(12);
const TRY_FOR: Duration = Duration::from_secs(5);

/// The most rings a second.
const RINGS: u32 = 200;
/// When a ring that was one too many is tried again.
const RING_AGAIN: Duration = Duration::from_millis(5);

/// How many rings are left: as many as [`RINGS`] at once, and as many each second.
struct Rings {
    left: f64,
    at: BootInstant,
}

impl Rings {
    fn new() -> Self {
        Self {
            left: f64::from(RINGS),
            at: BootInstant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let more = self.at.elapsed().as_secs_f64() * f64::from(RINGS);
        self.at = BootInstant::now();
        self.left = (self.left + more).min(f64::from(RINGS));
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

/// Listens on a connection of its own.
async fn listener(server: &Backends) -> Result<PgListener> {
    let Found {
        connection,
        options,
        place,
    } = server.connect().await?;
    // The listener makes its own to the server that was found.
    let _ = timeout(TRY_FOR, connection.close()).await;
    // A listener wants a pool. This one has nothing else to do, and is never asked to connect again.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(TRY_FOR)
        .connect_lazy_with(options);
    let listening = async {
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.listen("postlane").await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let silent = || Error::Silent {
        place: place.clone(),
        verb: "listen".to_owned(),
        waited: 2 * TRY_FOR,
        why: "the server does not answer".to_owned(),
    };
    match timeout(2 * TRY_FOR, listening).await {
        Ok(listening) => listening.map_err(|error| Error::from(error).at(&place)),
        Err(_) => Err(silent()),
    }
}

/// Rings for every notification and for every new connection: what came meanwhile was missed. A
/// connection that says nothing is tried, and replaced if it does not answer.
///
/// Any role may notify, as often as it likes: more than [`RINGS`] a second are merged. They are still
/// received, because the server keeps unread ones.
async fn listen(mut listener: PgListener, server: Backends, bell: Arc<Notify>) {
    let (mut rings, mut owed) = (Rings::new(), false);
    loop {
        let wait = if owed { RING_AGAIN } else { LISTEN_FOR };
        let received = timeout(wait, listener.try_recv()).await;
        owed |= matches!(received, Ok(Ok(Some(_))));
        if owed && rings.take() {
            bell.notify_one();
            owed = false;
        }
        let dead = match received {
            Ok(Ok(Some(_))) => false,
            Ok(Ok(None) | Err(_)) => true,
            Err(_) if wait < LISTEN_FOR => false,
            Err(_) => {
                let alive = sqlx::raw_sql("-- wake: still there?").execute(&mut listener);
                !matches!(timeout(TRY_FOR, alive).await, Ok(Ok(_)))
            }
        };
        if dead {
            listener = listen_again(&server).await;
            bell.notify_one();
        }
    }
}

async fn listen_again(server: &Backends) -> PgListener {
    loop {
        match listener(server).await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::store::Use;

    #[tokio::test]
    async fn rings_beyond_a_bound_are_drawn_together() {
        let mut rings = Rings::new();
        let began = BootInstant::now();
        let mut taken = 0;
        while began.elapsed() < Duration::from_millis(300) {
            taken += u32::from(rings.take());
            tokio::task::yield_now().await;
        }
        let most = RINGS + RINGS * 2;
        assert!((RINGS..most).contains(&taken), "{taken} in 0.3 s");
        tokio::time::sleep(RING_AGAIN * 2).await;
        assert!(rings.take(), "there are more each second");
    }

    /// Sleeps until nothing rings any more; true if that comes.
    async fn falls_silent(waker: &Waker) -> bool {
        for _ in 0..20 {
            let woken = tokio::time::timeout(Duration::from_millis(50), waker.woken());
            if woken.await.is_err() {
                return true;
            }
        }
        false
    }

    async fn comes_to_rest(pool: &Pool, waker: &mut Waker) -> bool {
        for _ in 0..40 {
            if waker.before_sleep(pool, false, None).await.expect("sleeps") == REST {
                return true;
            }
        }
        false
    }

    /// A worker that sleeps on a SQLite file of its own.
    async fn at_rest() -> (tempfile::TempDir, Pool, Waker) {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}/x.db", folder.path().display());
        let pool = Pool::open(&url, Use::Write, true).await.expect("opens");
        let mut waker = Waker::start(&pool, "w1", true).await.expect("starts");
        assert!(comes_to_rest(&pool, &mut waker).await && falls_silent(&waker).await);
        (folder, pool, waker)
    }

    /// A producer's log is written, which rings, and synced for seconds: only then its commit is seen.
    #[tokio::test]
    async fn after_a_ring_a_commit_is_seen_in_twice_the_time_that_a_disk_takes() {
        let (_folder, pool, mut waker) = at_rest().await;
        waker.rung();
        let (mut passed, mut last) = (Duration::ZERO, Duration::ZERO);
        while last < REST {
            let wait = waker
                .before_sleep(&pool, false, None)
                .await
                .expect("sleeps");
            assert!(
                wait <= (2 * passed).max(FIRST_LOOK),
                "{wait:?} after {passed:?}"
            );
            (passed, last) = (passed + wait, wait.max(last));
        }
    }

    #[tokio::test]
    async fn a_file_that_rests_is_left_alone_until_it_is_written() {
        let (_folder, pool, mut waker) = at_rest().await;
        let mut tx = pool.begin().await.expect("begins");
        tx.run("create table x (y)", &[]).await.expect("writes");
        tx.commit().await.expect("commits");
        let woken = tokio::time::timeout(Duration::from_secs(10), waker.woken());
        assert!(woken.await.is_ok());
        waker.rung();
        assert!(falls_silent(&waker).await, "it rings without end");
        assert!(comes_to_rest(&pool, &mut waker).await);
    }
}
