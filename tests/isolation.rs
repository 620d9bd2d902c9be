//! A healthy page beside sick ones, with the real service against the sandbox: by night, when nobody else
//! has work, through one worker, two, and one that has just been born again.

mod rig;
mod support;

use std::time::Duration;

use rig::{Setup, Sql, Worker, sandbox, until};
use support::Db;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(30);
/// What a healthy page's job may wait for others.
const PROMISE: Duration = Duration::from_secs(2);

async fn workers(setup: &Setup, names: &[&str]) -> Vec<Worker> {
    let workers: Vec<Worker> = names.iter().map(|name| setup.named(name).start()).collect();
    for worker in &workers {
        worker.ready(true, LONG).await;
    }
    workers
}

async fn insert(db: &Db, page: &str, recipients: u64) {
    for n in 0..recipients {
        db.insert_on(page, &format!("r{n}"), "hello", &[]).await;
    }
}

/// One job for a page that is well; how long it took.
async fn delivers(db: &Db, sql: &Sql, page: &str) -> Duration {
    let began = Instant::now();
    let job = db.insert_on(page, "healthy", "hello", &[]).await;
    let what = format!("send_jobs where id = {job} and state = 'delivered'");
    until("it is delivered", LONG, async || {
        sql.count(&what).await == 1
    })
    .await;
    began.elapsed()
}

both! {
    a_sick_page_never_holds_up_another_that_has_work_later, |db| {
        let mock = sandbox();
        for (sick, script) in [(8, "503 x9999"), (60, "503 x9999"), (20, "hang x9999"), (20, "401 x9999"), (20, "404 x9999")] {
            for names in [&["a"][..], &["a", "b"]] {
                let page = format!("{sick}{}{}", names.len(), script.len());
                mock.bind(format!("{page}/*={script}").parse().expect("a script"));
                let sql = Sql::open(&db.url);
                let workers = workers(&Setup::new(&db.url, &mock.url()), names).await;
                insert(&db, &page, sick).await;
                let paused = format!("send_pauses where scope = 'page:{page}'");
                until("it pauses", LONG, async || sql.count(&paused).await == 1).await;
                let took = delivers(&db, &sql, &format!("7{page}")).await;
                assert!(took < PROMISE, "{took:?} beside {sick} of {script}, {} workers", names.len());
                assert_eq!(sql.count("send_pauses where scope = 'endpoint'").await, 0, "{script}");
                drop(workers);
                db.run("delete from send_jobs", &[]).await;
                db.run("delete from send_lanes", &[]).await;
                db.run("delete from send_pauses", &[]).await;
            }
        }
    }

    a_page_that_is_well_goes_through_a_paused_endpoint_at_once_and_ends_its_pause, |db| {
        let mock = sandbox();
        for page in ["2001", "2003", "2004"] {
            mock.bind(format!("{page}/*=503 x9999").parse().expect("a script"));
        }
        let sql = Sql::open(&db.url);
        let mut setup = Setup::new(&db.url, &mock.url());
        // Each page pauses late, so that the endpoint does first.
        setup.env.push(("POSTLANE_CIRCUIT__ATTEMPTS".to_owned(), "12".to_owned()));
        for names in [&["a"][..], &["a", "b"]] {
            let mut running = workers(&setup, &["first"]).await;
            for page in ["2001", "2003", "2004"] {
                insert(&db, page, 7).await;
            }
            let endpoint = "send_pauses where scope = 'endpoint'";
            until("the endpoint pauses", LONG, async || sql.count(endpoint).await == 1).await;
            let text = running[0].get("/metrics").await.expect("metrics");
            for scope in ["page", "endpoint"] {
                for what in ["opened", "closed"] {
                    let series = format!("postlane_pauses_{what}_total{{scope=\"{scope}\"}}");
                    assert!(text.contains(&series), "{series}: {text}");
                }
            }
            // Who comes after it remembers nothing, and the rows say what is needed.
            assert_eq!(running[0].stop().await, 0);
            let running = workers(&setup, names).await;
            let took = delivers(&db, &sql, &format!("77{}", names.len())).await;
            assert!(took < PROMISE, "{took:?} through a paused endpoint, {} workers", names.len());
            until("the endpoint goes on", PROMISE, async || sql.count(endpoint).await == 0).await;
            drop(running);
            db.run("delete from send_jobs", &[]).await;
            db.run("delete from send_lanes", &[]).await;
            db.run("delete from send_pauses", &[]).await;
        }
    }
}
