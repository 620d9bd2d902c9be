//! What one cycle of a ledger writes: on Postgres each statement is a transaction of its own, on SQLite all of them are
//! one, since a commit there costs more than all of them together.

use super::{Batch, Bind, Pool, Result, Row, Tx};

/// The statements of one cycle.
pub struct Work {
    pool: Pool,
    tx: Option<Tx>,
}

impl Work {
    /// Nothing is written yet.
    pub fn new(pool: &Pool) -> Self {
        Self {
            pool: pool.clone(),
            tx: None,
        }
    }

    /// True if what a statement wrote is committed when it returns.
    pub fn commits_each(&self) -> bool {
        matches!(self.pool, Pool::Postgres(_))
    }

    /// Runs a statement over a batch of rows.
    ///
    /// # Errors
    /// After a conflict or a refusal nothing of it has happened; after anything else the outcome is unknown.
    pub async fn batch<const N: usize>(
        &mut self,
        template: &'static str,
        binds: &[Bind],
        rows: impl Batch<N>,
    ) -> Result<Vec<Row>> {
        if self.commits_each() {
            return self.pool.batch(template, binds, rows).await;
        }
        self.tx().await?.batch(template, binds, rows).await
    }

    /// Runs a statement on Postgres.
    pub async fn rows(&self, text: &'static str, binds: &[Bind]) -> Result<Vec<Row>> {
        self.pool.rows(text, binds).await
    }

    /// SQLite's transaction.
    pub async fn tx(&mut self) -> Result<&mut Tx> {
        match &mut self.tx {
            Some(tx) => Ok(tx),
            none => Ok(none.insert(self.pool.begin().await?)),
        }
    }

    /// Commits what is not committed yet.
    ///
    /// # Errors
    /// The outcome is unknown.
    pub async fn commit(self) -> Result<()> {
        match self.tx {
            Some(tx) => tx.commit().await,
            None => Ok(()),
        }
    }

    /// Rolls back what is not committed, so that the connection can be used again. If it cannot, it is closed.
    pub async fn rollback(self) {
        if let Some(tx) = self.tx {
            let _ = tx.rollback().await;
        }
    }
}
