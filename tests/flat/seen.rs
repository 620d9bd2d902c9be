//! The statements that a part of a test really ran.
//!
//! sqlx reports each statement as a tracing event, on both engines and without an extension of the
//! server. SQLite's come from a thread of their own; the span they carry says whose they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Instrument as _, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// The texts that were run, in their order.
#[derive(Debug, Default)]
pub struct Seen(pub Vec<String>);

impl Seen {
    /// What `work` runs.
    pub async fn during<T>(work: impl Future<Output = T>) -> (T, Self) {
        static LISTEN: Once = Once::new();
        LISTEN.call_once(|| {
            let ours = filter_fn(|meta| meta.is_span() || meta.target() == "sqlx::query");
            let listener = tracing_subscriber::registry().with(Listener.with_filter(ours));
            tracing::subscriber::set_global_default(listener).expect("the only listener");
        });
        let span = tracing::info_span!("seen");
        let id = span.id().expect("somebody listens").into_u64();
        let done = work.instrument(span).await;
        let texts = heard(|all| all.remove(&id)).unwrap_or_default();
        (done, Self(texts))
    }

    /// How often each was run.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for text in &self.0 {
            *counts.entry(heading(text)).or_default() += 1;
        }
        counts
    }
}

/// The comment that a statement begins with; `BEGIN` and its like have none.
pub fn heading(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("-- ").unwrap_or(first)
}

/// The texts of each span.
fn heard<T>(with: impl FnOnce(&mut HashMap<u64, Vec<String>>) -> T) -> T {
    static HEARD: Mutex<Option<HashMap<u64, Vec<String>>>> = Mutex::new(None);
    let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    with(heard.get_or_insert_default())
}

struct Listener;

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let span = context.event_scope(event).into_iter().flatten();
        let Some(span) = span.into_iter().find(|span| span.name() == "seen") else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        let text = [text.whole, text.summary]
            .into_iter()
            .find(|t| !t.is_empty());
        heard(|all| {
            let texts = all.entry(span.id().into_u64()).or_default();
            let text = text.expect("an event of sqlx has a text");
            // Only on Postgres it is a statement of its own; its commit counts.
            if text != "begin" {
                texts.push(text);
            }
        });
    }
}

/// The fields of sqlx's event: a short text is its own summary and stands nowhere else.
#[derive(Default)]
struct Text {
    whole: String,
    summary: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "db.statement" => self.whole = value.trim().to_owned(),
            "summary" => self.summary = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
