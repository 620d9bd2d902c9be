//! Who waits, for what and for how long: a lane, a page that hangs, an answer that asks for it.

use std::time::Duration;

use sandbox::{Script, Step};
use tokio::time::Instant;

use crate::both;
use crate::rig::until;
use crate::stage::{LONG, Stage, apart, receiver, script, sqlite};
use crate::support::{self, Engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let stage = Stage::new().await;
    stage.mock.script("1", script("429 retry-after=2, ok"));
    let now = stage.db.pool.now().await.expect("now");
    let date = Duration::from_secs(u64::try_from(now / 1000).expect("after 1970") + 4);
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + date);
    let by_date = Step {
        headers: vec![("retry-after".to_owned(), date)],
        ..Step::answer(503)
    };
    stage.mock.script("2", Script::new([by_date]));
    stage.mock.script("3", script("429 retry-after=soon, ok"));
    // Each on a page of its own: a page that throttles two recipients waits as a whole.
    for name in ["1", "2", "3"] {
        stage.db.insert_on(name, name, "hello #1", &[]).await;
    }
    stage.sql.finished(LONG).await;
    let gap = |recipient: &str| {
        let got = stage.got(recipient);
        assert_eq!(got.len(), 2, "{recipient}");
        apart(got[0].answer_ns.expect("answered"), got[1].head_ns).as_secs_f64()
    };
    let (in_seconds, as_date, nonsense) = (gap("1"), gap("2"), gap("3"));
    assert!((1.95..3.0).contains(&in_seconds), "{in_seconds}");
    assert!((1.9..5.0).contains(&as_date), "{as_date}");
    assert!(nonsense < 1.0, "{nonsense}");
    assert_eq!(stage.sql.count("send_jobs where failures > 0").await, 0);
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_hangs_does_not_delay_another() {
    let few = "[worker]\nconcurrency = 16\n";
    let stage = Stage::with(sqlite().await, receiver(), few).await;
    stage.mock.bind("2/*=hang *".parse().expect("a binding"));
    let insert = |page: u32, recipient: &str| {
        format!(
            "insert into send_jobs (page_id, recipient, message) values ('{page}', \
             '{{\"id\":\"{recipient}\"}}', '{{\"template_type\":\"text\",\"text\":\"hello #1\"}}')"
        )
    };
    for recipient in 0..60 {
        stage.sql.rows(&insert(2, &format!("s{recipient}"))).await;
    }
    assert!(
        stage.mock.wait_for(15, LONG).await,
        "the slow page takes what it may"
    );
    let mut waits = Vec::new();
    for recipient in 0..41 {
        let (told, recipient) = (Instant::now(), format!("r{recipient}"));
        stage.sql.rows(&insert(1, &recipient)).await;
        until("it arrives", LONG, async || {
            !stage.got(&recipient).is_empty()
        })
        .await;
        waits.push(told.elapsed());
    }
    waits.sort();
    let (p50, most) = (waits[20], waits[40]);
    println!("beside a page that hangs: p50 {p50:?}, most {most:?}");
    assert!(p50 < Duration::from_millis(200), "{p50:?}");
    assert!(most < Duration::from_millis(900), "{most:?}");
    assert_eq!(stage.service.stop().await, 0);
}

both! {
    what_a_delay_promises_and_what_the_line_promises_hold_at_once, |db| {
        let stage = Stage::on(db).await;
        let began = Instant::now();
        let first = stage.db.insert_with("1", "A #1", &[("delay", "3")]).await;
        stage.db.insert("1", "B #2").await;
        let other = stage.db.insert("2", "C #1").await;
        assert_eq!(stage.attempt(other, 1).await.outcome, "delivered");
        assert!(began.elapsed() < Duration::from_secs(2), "another lane is not delayed");
        stage.sql.finished(LONG).await;
        // By this process's clock as well as by the database's.
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
        let got = stage.got("1");
        assert_eq!(got.iter().map(|r| r.number).collect::<Vec<_>>(), [Some(1), Some(2)]);
        let three = match stage.db.engine {
            Engine::Sqlite => "3000",
            Engine::Postgres => "interval '3 seconds'",
        };
        let early = format!("send_attempts a join send_jobs j on j.id = a.job_id \
            where j.id = {first} and a.started_at < j.created_at + {three}");
        assert_eq!(stage.sql.count(&early).await, 0);
        let behind = apart(got[0].head_ns, got[1].head_ns);
        assert!(behind < Duration::from_secs(1), "B waits for A and no longer: {behind:?}");
        stage.ends().await;
    }
}
