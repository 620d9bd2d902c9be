//! The bytes of a request, from the INSERT to the receiver: those of the vendor's example, and the
//! same ones again after a restart, an upgrade and a requeue.
//!
//! The receiver is a bare socket, so that what is compared is what came over it.

mod rig;
mod support;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postlane::service::Service;
use postlane::store::schema;
use rig::{Sql, until};
use support::{Db, Engine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(20);

/// What came over the socket: request line and headers, and the body.
type Got = Arc<Mutex<Vec<(String, String)>>>;

/// Answers the first so many requests with 503, all others with success.
async fn receiver(refused: usize) -> (u16, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let got = Got::default();
    let all = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&all), refused));
        }
    });
    (port, got)
}

async fn serve(mut stream: TcpStream, all: Got, refused: usize) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = text.split_once("\r\n\r\n").filter(|(head, body)| {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).expect("a length");
            let length = length.lines().next().expect("a line");
            body.len() == length.parse::<usize>().expect("a number")
        });
        let Some((head, body)) = whole else {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let count = {
            let mut all = all.lock().expect("no panic");
            all.push((head.to_owned(), body.to_owned()));
            all.len()
        };
        let answer = match count <= refused {
            true => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
            false => {
                let body = r#"{"success":true,"recipient_id":"1"}"#;
                let length = body.len();
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
            }
        };
        stream.write_all(answer.as_bytes()).await?;
        bytes.clear();
    }
}

async fn service(db: &Db, port: u16, api: &str) -> Service {
    let text = format!(
        "database_url = \"{}\"\n[pages.default]\nsecret = \"xxxxx\"\n\
         [retry]\nfirst = \"1s\"\nmax = \"1s\"\n\
         [api]\nurl = \"http://127.0.0.1:{port}/api/send/message\"\n{api}",
        db.url
    );
    support::service(&text).await
}

/// The bodies that came for a recipient, given as its JSON, in their order.
fn bodies(got: &Got, recipient: &str) -> Vec<String> {
    let all = got.lock().expect("no panic");
    let mine = all.iter().filter(|(_, body)| body.contains(recipient));
    mine.map(|(_, body)| body.clone()).collect()
}

/// `page_id`, `recipient`, `message`, and the body they make.
const JOBS: [(&str, &str, &str, &str); 3] = [
    (
        "12345",
        r#"{ "id" : "one" }"#,
        r#"{ "summary" : {"total_cost":75.00, "subtotal":7.5E1,"total_tax":12345678901234567890.10},
  "payment_method":"Visa 2345","currency":"USD", "order_number":"1","recipient_name":"\u60a8 \/ é",
  "template_type":"receipt" , "b":1,"a":2}"#,
        r#"{"page_id":12345,"recipient":{ "id" : "one" },"message":{ "summary" : {"total_cost":75.00, "subtotal":7.5E1,"total_tax":12345678901234567890.10},
  "payment_method":"Visa 2345","currency":"USD", "order_number":"1","recipient_name":"\u60a8 \/ é",
  "template_type":"receipt" , "b":1,"a":2}}"#,
    ),
    (
        "9007199254740993",
        r#"{"phone":"two"}"#,
        r#"{"text":"t","template_type":"button","buttons":[{"title":"Go","payload": { "flow_id" : 1, "block_id":"2" } ,"type":"postback"}]}"#,
        r#"{"page_id":9007199254740993,"recipient":{"phone":"two"},"message":{"text":"t","template_type":"button","buttons":[{"title":"Go","payload": "{\"flow_id\":1,\"block_id\":\"2\"}" ,"type":"postback"}]}}"#,
    ),
    (
        "18446744073709551616",
        r#"{"uuid":"three"}"#,
        r#"{"template_type":"text","text":"\ud83d\udce6 📦"}"#,
        r#"{"page_id":"18446744073709551616","recipient":{"uuid":"three"},"message":{"template_type":"text","text":"\ud83d\udce6 📦"}}"#,
    ),
];

both! {
    a_jobs_bytes_stay_the_same_over_a_restart_an_upgrade_and_a_requeue, |db| {
        let sql = Sql::open(&db.url);
        let (port, got) = receiver(JOBS.len()).await;
        for (page, recipient, message, _) in JOBS {
            let insert = format!("insert into send_jobs (page_id, recipient, message) values ('{page}', '{recipient}', '{message}')");
            sql.rows(&insert).await;
        }
        let first = service(&db, port, "").await;
        let refused = "send_jobs where last_status = 503";
        until("each is refused once", LONG, async || sql.count(refused).await == 3).await;
        assert_eq!(first.stop().await, 0);
        assert_eq!(got.lock().expect("no panic").len(), 3, "the restart is in time");

        // Every row is written anew: by the engine, and by an UPDATE.
        let default = if db.engine == Engine::Postgres { "clock_timestamp()::text" } else { "'x'" };
        sql.rows(&format!("alter table send_jobs add column later text default {default}")).await;
        sql.rows("update send_jobs set metadata = '{}'").await;
        sql.rows(if db.engine == Engine::Postgres { "vacuum full send_jobs" } else { "vacuum" }).await;
        schema::migrate(&db.url).await.expect("migrates");

        let second = service(&db, port, "").await;
        sql.finished(LONG).await;
        let mut requeue = Command::new(env!("CARGO_BIN_EXE_postlane"));
        requeue.args(["--database-url", &db.url, "requeue", "1", "2", "3"]).env_clear();
        let said = requeue.output().expect("starts");
        assert!(said.status.success(), "{said:?}");
        sql.finished(LONG).await;
        assert_eq!(second.stop().await, 0);
        for (_, recipient, _, body) in JOBS {
            assert_eq!(bodies(&got, recipient), [body; 3], "refused, sent, requeued");
        }
    }

    the_documented_example_goes_from_an_insert_to_the_receiver_byte_for_byte, |db| {
        let sql = Sql::open(&db.url);
        let (port, got) = receiver(0).await;
        let api = "version = \"2019-07\"\ndelay = \"api\"\n";
        let service = service(&db, port, api).await;
        sql.rows(
            r#"insert into send_jobs (page_id, recipient, message, tag, delay)
               values ('12345', '{"id":"123456"}', '{"template_type":"text","text":"Hello World"}', 'ACCOUNT_UPDATE', 1)"#,
        ).await;
        sql.finished(LONG).await;
        assert_eq!(service.stop().await, 0);
        let got = got.lock().expect("no panic");
        let [(head, body)] = got.as_slice() else { panic!("{got:?}") };
        assert_eq!(body, include_str!("data/joinchat/samples/000-php-body.txt"));
        let mut head = head.lines();
        assert_eq!(head.next(), Some("POST /api/send/message HTTP/1.1"));
        let headers: Vec<_> = head.collect();
        let signed = "x_joinchat_signature: pjxfCwQlwtXvvMRKAPy5T16qFq9qBYc3CEWjI45M3mo=";
        assert!(headers.contains(&signed), "{headers:?}");
        assert!(headers.contains(&"content-type: application/json"), "{headers:?}");
        assert!(!headers.iter().any(|line| line.starts_with("x-joinchat")), "never both: {headers:?}");
    }

    the_switches_of_page_and_payload_reach_the_wire, |db| {
        let sql = Sql::open(&db.url);
        let (port, got) = receiver(0).await;
        let service = service(&db, port, "page_id = \"string\"\npayload = \"as_given\"\n[message]\ntext_max = 1\n").await;
        let (page, recipient, message, _) = JOBS[1];
        sql.rows(&format!("insert into send_jobs (page_id, recipient, message) values ('{page}', '{recipient}', '{message}')")).await;
        let long = message.replace(r#""t""#, r#""tt""#);
        sql.rows(&format!("insert into send_jobs (page_id, recipient, message) values ('{page}', '{recipient}', '{long}')")).await;
        sql.finished(LONG).await;
        assert_eq!(service.stop().await, 0);
        let wanted = format!(r#"{{"page_id":"{page}","recipient":{recipient},"message":{message}}}"#);
        assert_eq!(bodies(&got, recipient), [wanted]);
        assert_eq!(db.text("select reason from send_jobs where id = 2").await, "invalid: text.max_1: message.text: is 2 characters, at most 1");
    }
}
