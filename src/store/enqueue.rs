//! Enqueueing from a program: the same INSERT a producer writes, many in one transaction.

use super::{Result, Tx};
use crate::clock::Millis;
use crate::job::{JobId, OnAmbiguous};

/// The columns a producer writes.
#[derive(Debug, Clone, Default)]
pub struct NewJob {
    /// `page_id`.
    pub page_id: String,
    /// `recipient`, JSON text.
    pub recipient: String,
    /// `message`, JSON text.
    pub message: String,
    /// `tag`.
    pub tag: Option<String>,
    /// `delay`, seconds.
    pub delay: i64,
    /// `send_at`.
    pub send_at: Option<Millis>,
    /// `expires_at`.
    pub expires_at: Option<Millis>,
    /// `ordering_key`.
    pub ordering_key: Option<String>,
    /// `idempotency_key`.
    pub idempotency_key: Option<String>,
    /// `on_ambiguous`.
    pub on_ambiguous: Option<OnAmbiguous>,
    /// `metadata`, JSON text.
    pub metadata: Option<String>,
}

const INSERT: &str = "-- enqueue
insert into send_jobs (page_id, recipient, message, tag, delay, send_at, expires_at, ordering_key,
    idempotency_key, on_ambiguous, metadata)
select r.page_id, {json: r.recipient}, {json: r.message}, r.tag, r.delay, {at: r.send_at}, {at: r.expires_at},
    r.ordering_key, r.idempotency_key, r.on_ambiguous, {json: r.metadata}
from {rows: page_id text, recipient text, message text, tag text, delay bigint, send_at bigint, expires_at bigint, ordering_key text, idempotency_key text, on_ambiguous text, metadata text}
returning id";

/// Inserts jobs in their order; returns their ids.
pub async fn insert(tx: &mut Tx, jobs: &[NewJob]) -> Result<Vec<JobId>> {
    let row = |job: &NewJob| {
        [
            job.page_id.as_str().into(),
            job.recipient.as_str().into(),
            job.message.as_str().into(),
            job.tag.as_deref().into(),
            job.delay.into(),
            job.send_at.into(),
            job.expires_at.into(),
            job.ordering_key.as_deref().into(),
            job.idempotency_key.as_deref().into(),
            job.on_ambiguous.map(OnAmbiguous::as_str).into(),
            job.metadata.as_deref().into(),
        ]
    };
    let rows = tx.batch(INSERT, &[], jobs.iter().map(row)).await?;
    let mut ids = rows
        .iter()
        .map(|row| Ok(row.job("id")?))
        .collect::<Result<Vec<_>>>()?;
    ids.sort_unstable();
    Ok(ids)
}
