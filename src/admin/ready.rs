//! `/readyz`: may this worker take work, and if not, why, in one line.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Shown;
use super::look::Blind;
use crate::events::Standing;

/// Why a worker is not ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    /// The database cannot be looked at.
    #[error(transparent)]
    Blind(#[from] Blind),
    /// A ledger stands still.
    #[error("the ledger has stood still for {} s: {}", .0.since.as_secs(), .0.what)]
    Standing(Standing),
    /// Outcomes cannot be written.
    #[error("the worker cannot write to the database, nothing is sent")]
    NotWritable,
}

/// The reason why it is not ready, if it is not.
pub(super) async fn check(shown: &Shown) -> Result<(), NotReady> {
    // First, for it says more than that the database does not answer.
    if let Some(standing) = shown.events.standing() {
        return Err(NotReady::Standing(standing));
    }
    shown.look.schema().await?;
    if !(shown.writable)() {
        return Err(NotReady::NotWritable);
    }
    Ok(())
}

pub(super) async fn show(State(shown): State<Arc<Shown>>) -> Response {
    match check(&shown).await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        )
            .into_response(),
    }
}
