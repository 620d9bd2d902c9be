//! `/`: how the worker is, what waits, what is paused, what ended badly, and the latest jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::Shown;
use super::page::{blind, moment, number, page, sorry, span, state};
use super::ready;
use crate::job::{JobId, State};
use crate::store::look::{Line, Lines, WINDOW, ended_badly, lines};
use crate::store::read::Stats;
use crate::store::waits::Verdict;

/// Jobs in one listing.
const ROWS: i64 = 50;
/// Pages in the table of counts.
const PAGES: usize = 50;

/// What is asked for; an empty text is as good as none, forms send it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    state: String,
    #[serde(default)]
    page: String,
    #[serde(default)]
    before: String,
}

/// What is shown of all jobs.
#[derive(Debug, Default)]
struct Filter {
    state: Option<State>,
    page: Option<String>,
    before: Option<JobId>,
}

impl Filter {
    fn read(asked: Asked) -> Result<Self, String> {
        let state = match asked.state.as_str() {
            "" => None,
            word => Some(word.parse::<State>().map_err(|error| error.to_string())?),
        };
        let before = match asked.before.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| "before is no id".to_owned())?),
        };
        let page = Some(asked.page.trim().to_owned()).filter(|page| !page.is_empty());
        Ok(Self {
            state,
            page,
            before,
        })
    }

    fn is_set(&self) -> bool {
        self.state.is_some() || self.page.is_some() || self.before.is_some()
    }

    /// The same filter, further back.
    fn older(&self, before: JobId) -> String {
        let mut link = format!("/?before={before}");
        if let Some(state) = self.state {
            link.push_str("&state=");
            link.push_str(state.as_str());
        }
        if let Some(page) = &self.page {
            // A page is a number; anything else found nothing and has nothing older to show.
            link.push_str("&page=");
            link.extend(page.chars().filter(char::is_ascii_digit));
        }
        link
    }
}

pub(super) async fn show(
    Shared(shown): Shared<Arc<Shown>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let filter = match asked {
        Ok(Query(asked)) => Filter::read(asked),
        Err(_) => Err("this address cannot be read".to_owned()),
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(why) => return sorry(StatusCode::BAD_REQUEST, &why),
    };
    let body = if filter.is_set() {
        let (worker, jobs) = tokio::join!(worker(&shown), jobs(&shown, &filter));
        html! { (worker) (jobs) }
    } else {
        // At once: a database that is stuck is waited for once, not for each part of the page.
        let (worker, counts, badly, jobs) = tokio::join!(
            worker(&shown),
            counts(&shown),
            badly(&shown),
            jobs(&shown, &filter)
        );
        html! { (worker) (counts) (badly) (jobs) }
    };
    page(StatusCode::OK, "Overview", &body)
}

async fn counts(shown: &Shown) -> Markup {
    match shown.look.totals().await {
        Ok(stats) => html! { (totals(&stats)) (paused(&stats)) },
        Err(why) => blind(&why),
    }
}

async fn badly(shown: &Shown) -> Markup {
    let found = shown
        .look
        .page(|pool| async move { ended_badly(&pool, ROWS).await });
    let found = match found.await {
        Ok(lines) => table(&lines, "Nothing has ended badly."),
        Err(why) => blind(&why),
    };
    html! { section { h2 { "Ended badly" } (found) } }
}

async fn worker(shown: &Shown) -> Markup {
    let (ready, verdict) = tokio::join!(ready::check(shown), shown.look.verdict());
    let detail = match &ready {
        Ok(()) => None,
        Err(ready::NotReady::Blind(why)) => Some(why.detail()),
        Err(why) => Some(why.to_string()),
    };
    html! {
        section.worker {
            @match detail {
                // Ready is not the same as well: while all is paused nothing goes out.
                None => @match verdict {
                    Ok(Verdict { is_well: true, line }) => { span class="state delivered" { "ready" } " " span.muted { (line) } },
                    Ok(Verdict { line, .. }) => { span class="state dead" { "trouble" } " " span.trouble { (line) } },
                    Err(why) => { span class="state held" { "ready" } " " span.trouble { (why.detail()) } },
                },
                Some(why) => { span class="state dead" { "not ready" } " " span.trouble { (why) } },
            }
            span.muted { (number(shown.events.in_flight())) " in flight" }
        }
    }
}

fn totals(stats: &Stats) -> Markup {
    let waiting = &stats.waiting;
    let mut by_state: BTreeMap<&str, i64> = BTreeMap::new();
    let mut by_page: BTreeMap<&str, BTreeMap<&str, i64>> = BTreeMap::new();
    for count in &stats.jobs {
        *by_state.entry(&count.state).or_default() += count.jobs;
        let page = by_page.entry(&count.page_id).or_default();
        *page.entry(&count.state).or_default() += count.jobs;
    }
    let of = |counts: &BTreeMap<&str, i64>, state: State| {
        counts.get(state.as_str()).copied().unwrap_or_default()
    };
    let oldest = match waiting.oldest_due_ms {
        0 => "none".to_owned(),
        waited => span(waited),
    };
    html! {
        section.cards {
            @for name in State::ALL {
                a.card href={ "/?state=" (name.as_str()) } {
                    strong { (number(of(&by_state, *name))) } (state(name.as_str()))
                }
            }
        }
        dl.facts {
            dt { "lanes with work" } dd { (number(waiting.lanes)) }
            dt { "lanes in a worker's hands" } dd { (number(waiting.leased)) }
            dt { "changes that no worker has looked at yet" } dd { (number(waiting.inbox)) }
            dt { "waiting for their send_at" } dd { (number(waiting.scheduled)) }
            dt { "longest due and not taken" } dd { (oldest) }
        }
        @if by_page.len() > 1 {
            details {
                summary { "By page" }
                div.scroll { table {
                    thead { tr { th { "page" } @for name in State::ALL { th.number { (name.as_str()) } } } }
                    tbody {
                        @for (page, counts) in by_page.iter().take(PAGES) {
                            tr {
                                td { a href={ "/?page=" (page) } { (page) } }
                                @for name in State::ALL { td.number { (number(of(counts, *name))) } }
                            }
                        }
                    }
                } }
                @if by_page.len() > PAGES {
                    p.muted { "and " (by_page.len() - PAGES) " more" }
                }
            }
        }
    }
}

fn paused(stats: &Stats) -> Markup {
    html! {
        @if !stats.pauses.is_empty() {
            section {
                h2 { "Paused" }
                div.scroll { table {
                    thead { tr { th { "what" } th { "why" } th { "by" } th { "since" } th { "next" } } }
                    tbody {
                        @for pause in stats.pauses.iter().take(PAGES) {
                            tr {
                                td { bdi { (pause.scope) } }
                                td.text { bdi { (pause.evidence()) } }
                                td { bdi { (pause.who) } }
                                td.time { (moment(pause.since)) }
                                td.text { (pause.next(moment).unwrap_or_default()) }
                            }
                        }
                    }
                } }
                @if stats.pauses.len() > PAGES {
                    p.muted { "and " (stats.pauses.len() - PAGES) " more" }
                }
            }
        }
    }
}

async fn jobs(shown: &Shown, filter: &Filter) -> Markup {
    let (state, page, before) = (filter.state, filter.page.clone(), filter.before);
    let found = shown
        .look
        .page(move |pool| async move { lines(&pool, state, page.as_deref(), before, ROWS).await });
    let found = found.await;
    html! {
        section {
            h2 { @if filter.is_set() { "Jobs" } @else { "Latest jobs" } }
            (form(filter))
            @match found {
                Ok(found) => (listing(filter, &found)),
                Err(why) => (blind(&why)),
            }
        }
    }
}

fn form(filter: &Filter) -> Markup {
    html! {
        form method="get" action="/" {
            label { "state "
                select name="state" {
                    option value="" { "any" }
                    @for name in State::ALL {
                        option value=(name.as_str()) selected[filter.state == Some(*name)] { (name.as_str()) }
                    }
                }
            }
            label { "page "
                input name="page" inputmode="numeric" size="14" value=(filter.page.as_deref().unwrap_or_default());
            }
            button { "Show" }
            @if filter.is_set() { a href="/" { "all" } }
        }
    }
}

fn listing(filter: &Filter, found: &Lines) -> Markup {
    let nothing = if found.older.is_some() {
        format!("None among {} ids.", number(WINDOW))
    } else {
        "No jobs.".to_owned()
    };
    html! {
        (table(&found.jobs, &nothing))
        @if let Some(older) = found.older {
            p { a href=(filter.older(older)) { "older" } }
        }
    }
}

fn table(jobs: &[Line], nothing: &str) -> Markup {
    html! {
        @if jobs.is_empty() {
            p.muted { (nothing) }
        } @else {
            div.scroll { table {
                thead { tr {
                    th.number { "id" } th { "state" } th { "lane" } th.number { "attempts" }
                    th.number { "status" } th { "reason" } th { "enqueued" } th { "ended" }
                } }
                tbody { @for job in jobs { tr {
                    td.number { a href={ "/jobs/" (job.id) } { (job.id) } }
                    td { (state(&job.state)) }
                    td.lane { bdi { (job.lane) } }
                    td.number { (job.attempts) }
                    td.number { @if let Some(status) = job.last_status { (status) } }
                    td.text { bdi { (job.reason.as_deref().unwrap_or_default()) } }
                    td.time { (moment(job.created_at)) }
                    td.time { @if let Some(at) = job.finished_at { (moment(at)) } }
                } } }
            } }
        }
    }
}
