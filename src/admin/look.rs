//! Every look at the database: bounded in time for who asks, in number for the database.
//!
//! A look runs on a task of its own that is never dropped half-way; who asks waits for it only so
//! long. One page is looked up at a time, and what is the same for everybody is kept for a while,
//! so that asking hard costs the worker nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::{Readers, pool_of};
use crate::clock::BootInstant;
use crate::store::look::{Waiting, waiting};
use crate::store::read::{Stats, stats};
use crate::store::waits::{Verdict, Waits, verdict, waits};
use crate::store::{Error, Pool, schema};

/// How long a page waits for the database.
const PAGE: Duration = Duration::from_secs(5);
/// How long a probe, a scrape or a total waits.
const SHORT: Duration = Duration::from_secs(2);

/// Why there is nothing to see.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Blind {
    /// The worker has not reached the database yet.
    #[error("the database is not connected yet")]
    NotConnected,
    /// It takes too long.
    #[error("the database did not answer in time")]
    Slow,
    /// The schema is not the one this binary works on.
    #[error("{0}")]
    Schema(String),
    /// Anything else it said; not for those who need no token.
    #[error("the database cannot be read")]
    Failed(String),
}

impl From<Error> for Blind {
    fn from(error: Error) -> Self {
        match error {
            Error::Schema(_) => Self::Schema(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Blind {
    /// The whole story, for those who may see the dashboard.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Failed(what) => format!("{self}: {what}"),
            other => other.to_string(),
        }
    }
}

type Seen<T> = Result<T, Blind>;

/// The way to the database.
pub(super) struct Look {
    readers: Readers,
    /// Pages, one at a time.
    turn: Arc<Semaphore>,
    /// Counts, one at a time; a long one keeps no page waiting.
    counting: Arc<Semaphore>,
    schema: Arc<Kept<()>>,
    totals: Arc<Kept<Arc<Stats>>>,
    waiting: Arc<Kept<Waiting>>,
    waits: Arc<Kept<Arc<Waits>>>,
    has_secret: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Look {
    pub(super) fn new(
        readers: Readers,
        has_secret: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    ) -> Self {
        Self {
            readers,
            turn: Arc::new(Semaphore::new(1)),
            counting: Arc::new(Semaphore::new(1)),
            schema: Kept::new(Duration::from_secs(1)),
            totals: Kept::new(Duration::from_secs(5)),
            waiting: Kept::new(Duration::from_secs(5)),
            waits: Kept::new(Duration::from_secs(2)),
            has_secret,
        }
    }

    fn pool(&self) -> Seen<Pool> {
        pool_of(&self.readers).ok_or(Blind::NotConnected)
    }

    /// Whether the database answers and its schema is one to work on.
    pub(super) async fn schema(&self) -> Seen<()> {
        let pool = self.pool()?;
        let check = async move { Ok(schema::check(&pool).await?) };
        self.schema.get(SHORT, check).await
    }

    /// All counts; older ones while newer ones are being counted.
    pub(super) async fn totals(&self) -> Seen<Arc<Stats>> {
        let (pool, turn) = (self.pool()?, Arc::clone(&self.counting));
        let count = async move {
            let _turn = turn.acquire().await;
            Ok(Arc::new(stats(&pool).await?))
        };
        match self.totals.get(SHORT, count).await {
            Err(Blind::Slow) => self.totals.last().unwrap_or(Err(Blind::Slow)),
            seen => seen,
        }
    }

    /// The gauges of the small tables, if they are to be had in time.
    pub(super) async fn waiting(&self) -> Seen<Waiting> {
        let (pool, turn) = (self.pool()?, Arc::clone(&self.counting));
        let count = async move {
            let _turn = turn.acquire().await;
            Ok(waiting(&pool).await?)
        };
        self.waiting.get(SHORT, count).await
    }

    /// For how long what has been waiting, if it is to be had in time.
    pub(super) async fn waits(&self) -> Seen<Arc<Waits>> {
        let (pool, turn) = (self.pool()?, Arc::clone(&self.counting));
        let has_secret = Arc::clone(&self.has_secret);
        let look = async move {
            let _turn = turn.acquire().await;
            Ok(Arc::new(waits(&pool, &*has_secret).await?))
        };
        self.waits.get(SHORT, look).await
    }

    /// How it goes, in one line. The worker is this one.
    pub(super) async fn verdict(&self) -> Seen<Verdict> {
        let (waits, pool) = (self.waits().await?, self.pool()?);
        self.page(|_| async move { verdict(&pool, &waits, Some(true)).await })
            .await
    }

    /// Anything else, in its turn. `look` runs to its end even if its caller is gone.
    pub(super) async fn page<T, F>(&self, look: impl FnOnce(Pool) -> F) -> Seen<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let look = look(self.pool()?);
        let turn = Arc::clone(&self.turn);
        let waited = timeout(PAGE, async move {
            // Given up while it waits here, it has not begun.
            let turn = turn.acquire_owned().await.map_err(|_| Blind::Slow)?;
            let task = tokio::spawn(async move {
                let _turn = turn;
                look.await
            });
            match task.await {
                Ok(seen) => seen.map_err(Blind::from),
                Err(error) => Err(Blind::Failed(error.to_string())),
            }
        });
        waited.await.unwrap_or(Err(Blind::Slow))
    }
}

/// What was seen, looked up by one at a time and kept for a while: at least `least`, and twenty
/// times as long as it took. A failure is not: it took long because something was away, and may be
/// mended by now.
struct Kept<T> {
    least: Duration,
    value: RwLock<Option<(BootInstant, Duration, Seen<T>)>>,
    making: AtomicBool,
    made: Notify,
}

/// Ends the making, also of a task that panics.
struct Making<T>(Arc<Kept<T>>);

impl<T> Drop for Making<T> {
    fn drop(&mut self) {
        self.0.making.store(false, Ordering::Release);
        self.0.made.notify_waiters();
    }
}

impl<T: Clone + Send + Sync + 'static> Kept<T> {
    fn new(least: Duration) -> Arc<Self> {
        Arc::new(Self {
            least,
            value: RwLock::new(None),
            making: AtomicBool::new(false),
            made: Notify::new(),
        })
    }

    /// What was seen last, however long ago.
    fn last(&self) -> Option<Seen<T>> {
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner);
        value.as_ref().map(|(_, _, value)| value.clone())
    }

    /// The value if it is still good, or was made after `asked`.
    fn fresh(&self, asked: BootInstant) -> Option<Seen<T>> {
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner);
        let (at, good_for, value) = value.as_ref()?;
        (*at >= asked || at.elapsed() < *good_for).then(|| value.clone())
    }

    /// A fresh value; too slow if it is not there within `longest`. `make` goes on all the same.
    async fn get(
        self: &Arc<Self>,
        longest: Duration,
        make: impl Future<Output = Seen<T>> + Send + 'static,
    ) -> Seen<T> {
        // Registered before the value is looked at, so that it cannot be missed.
        let made = self.made.notified();
        tokio::pin!(made);
        made.as_mut().enable();
        let asked = BootInstant::now();
        if let Some(value) = self.fresh(asked) {
            return value;
        }
        if !self.making.swap(true, Ordering::AcqRel) {
            let making = Making(Arc::clone(self));
            tokio::spawn(async move {
                let began = BootInstant::now();
                let value = make.await;
                let dear = value
                    .as_ref()
                    .map_or(Duration::ZERO, |_| began.elapsed() * 20);
                let good_for = dear.max(making.0.least);
                *making
                    .0
                    .value
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) =
                    Some((BootInstant::now(), good_for, value));
            });
        }
        let _ = timeout(longest, made).await;
        self.fresh(asked).unwrap_or(Err(Blind::Slow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kept_value_is_made_once_for_all_who_ask_at_once() {
        let kept = Kept::new(Duration::from_secs(60));
        let made = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let asks = (0..50).map(|_| {
            let (kept, made) = (Arc::clone(&kept), Arc::clone(&made));
            async move {
                kept.get(Duration::from_secs(5), async move {
                    tokio::task::yield_now().await;
                    Ok(made.fetch_add(1, Ordering::Relaxed))
                })
                .await
            }
        });
        let got = futures_util::future::join_all(asks).await;
        assert!(got.iter().all(|seen| matches!(seen, Ok(0))), "{got:?}");
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn who_asks_does_not_wait_longer_than_he_said_and_the_last_value_stays() {
        let kept = Kept::new(Duration::ZERO);
        let first = kept.get(Duration::from_secs(5), async { Ok(1) }).await;
        assert!(matches!(first, Ok(1)), "{first:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let never = std::future::pending::<Seen<i32>>();
        let second = kept.get(Duration::from_millis(20), never).await;
        assert!(matches!(second, Err(Blind::Slow)), "{second:?}");
        assert!(matches!(kept.last(), Some(Ok(1))));
    }

    #[tokio::test]
    async fn a_failure_that_took_long_is_not_kept_for_long() {
        let slow = |seen: Seen<i32>| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            seen
        };
        let again = async |first: Seen<i32>| {
            let kept = Kept::new(Duration::from_millis(10));
            let _ = kept.get(Duration::from_secs(5), slow(first)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            kept.get(Duration::from_secs(5), slow(Ok(2))).await
        };
        assert!(matches!(again(Ok(1)).await, Ok(1)), "a value is");
        assert!(matches!(again(Err(Blind::Slow)).await, Ok(2)));
    }

    #[test]
    fn what_a_database_says_is_not_for_everybody() {
        let blind = Blind::from(Error::Url("password hunter2".to_owned()));
        assert!(!blind.to_string().contains("hunter2"));
        assert!(blind.detail().contains("hunter2"));
    }
}
