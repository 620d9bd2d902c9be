//! A SQLite file that is known by several names, one that is replaced under a worker's hands, and a
//! worker that may open few.
//!
//! With the real binary: SQLite's own end of a connection, which deletes a log by its name, is part of it.

mod rig;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rig::{Setup, Sql, Worker, sandbox, until};
use sandbox::Mock;

const SOON: Duration = Duration::from_secs(5);
/// README: an INSERT wakes an idle worker, or is found within two seconds.
const FOUND: Duration = Duration::from_secs(3);

struct Scene {
    folder: tempfile::TempDir,
    mock: Arc<Mock>,
}

impl Scene {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            mock: sandbox(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn setup(&self, file: &Path) -> Setup {
        Setup::new(&url(file), &self.mock.url())
    }

    fn migrate(&self, file: &Path) {
        let (code, _, error) = self.setup(file).verb(&["migrate"]);
        assert_eq!(code, 0, "{error}");
    }

    async fn delivers(&self, sql: &Sql, recipient: &str, limit: Duration) {
        let before = self.mock.count();
        insert(sql, recipient).await;
        until("the job arrives", limit, async || {
            self.mock.count() == before + 1
        })
        .await;
    }

    /// A worker that has found nothing to do for so long that it leaves its files alone.
    async fn at_rest(&self, setup: &Setup) -> Worker {
        let worker = setup.start();
        worker.ready(true, SOON).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        worker
    }
}

fn url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

fn log_of(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", file.display()))
}

async fn insert(sql: &Sql, recipient: &str) {
    sql.rows(&format!(
        "insert into send_jobs (page_id, recipient, message) values ('1', '{{\"id\":\"{recipient}\"}}', \
         '{{\"template_type\":\"text\",\"text\":\"hello\"}}')"
    ))
    .await;
}

/// The file with its log taken in, and no other file beside it.
async fn copy(from: &Path, to: &Path) {
    Sql::open(&url(from))
        .rows(&format!("vacuum into '{}'", to.display()))
        .await;
    let journal = Sql::open(&url(to)).rows("pragma journal_mode = wal").await;
    assert_eq!(journal[0][0].as_deref(), Some("wal"));
}

#[tokio::test]
async fn an_idle_worker_hears_of_a_job_whatever_links_lead_to_its_file() {
    let scene = Scene::new();
    fs::create_dir(scene.path("real")).expect("a folder");
    let file = scene.path("real/q.db");
    scene.migrate(&file);
    symlink("real/q.db", scene.path("link.db")).expect("links");
    symlink("link.db", scene.path("link to a link.db")).expect("links");
    symlink("real", scene.path("folder")).expect("links");
    for name in ["link.db", "link to a link.db", "folder/q.db"] {
        let link = scene.path(name);
        let mut worker = scene.at_rest(&scene.setup(&link)).await;
        for (by, at) in [("file", &file), ("link", &link)] {
            let sql = Sql::open(&url(at));
            scene.delivers(&sql, &format!("{name} {by}"), FOUND).await;
        }
        assert_eq!(worker.stop().await, 0, "{}", worker.log());
    }
}

#[tokio::test]
async fn a_worker_whose_file_is_replaced_ends_and_leaves_the_new_one_alone() {
    for how in ["seen by itself", "told to stop"] {
        let scene = Scene::new();
        let file = scene.path("q.db");
        scene.migrate(&file);
        let setup = scene.setup(&file);
        let mut worker = scene.at_rest(&setup).await;
        scene
            .delivers(&Sql::open(&url(&file)), "before", FOUND)
            .await;
        copy(&file, &scene.path("copy.db")).await;

        // A restore, as people do it: without stopping anything.
        for part in ["q.db-wal", "q.db-shm"] {
            fs::remove_file(scene.path(part)).expect("removes");
        }
        fs::rename(scene.path("copy.db"), &file).expect("replaces");
        let sql = Sql::open(&url(&file));
        insert(&sql, "after").await;
        let log = fs::metadata(log_of(&file)).expect("a log").ino();
        let code = match how {
            "told to stop" => worker.stop().await,
            _ => worker.ends(SOON).await,
        };
        assert_eq!(code, 1, "{how}: {}", worker.log());
        assert!(
            worker.says("q.db was replaced or removed") > 0,
            "{}",
            worker.log()
        );
        let now = fs::metadata(log_of(&file)).map(|about| about.ino());
        assert_eq!(
            now.ok(),
            Some(log),
            "{how}: the log of the new file is gone"
        );

        // The next one works on what is there now.
        let mut worker = setup.start();
        until("the job of the new file arrives", SOON, async || {
            sql.count("send_jobs where state = 'delivered'").await == 2
        })
        .await;
        assert_eq!(worker.stop().await, 0);
        let whole = sql.rows("pragma integrity_check").await;
        assert_eq!(whole[0][0].as_deref(), Some("ok"));
    }
}

#[tokio::test]
async fn a_worker_whose_file_or_log_is_removed_ends() {
    for gone in ["q.db", "q.db-wal"] {
        let scene = Scene::new();
        let file = scene.path("q.db");
        scene.migrate(&file);
        let mut worker = scene.at_rest(&scene.setup(&file)).await;
        fs::remove_file(scene.path(gone)).expect("removes");
        assert_eq!(worker.ends(SOON).await, 1, "{gone}: {}", worker.log());
        assert!(
            worker.says("q.db was replaced or removed") > 0,
            "{}",
            worker.log()
        );
    }
}

#[tokio::test]
async fn a_file_with_two_names_is_told_of() {
    let scene = Scene::new();
    let file = scene.path("q.db");
    scene.migrate(&file);
    fs::hard_link(&file, scene.path("other.db")).expect("links");
    let mut worker = scene.at_rest(&scene.setup(&file)).await;
    assert_eq!(
        worker.says("several names (hard links)"),
        1,
        "{}",
        worker.log()
    );
    assert_eq!(worker.stop().await, 0);
}

/// Each try without a free descriptor would be an attempt, and a row.
#[tokio::test]
async fn a_low_limit_of_open_files_costs_no_attempts() {
    let scene = Scene::new();
    let file = scene.path("q.db");
    scene.migrate(&file);
    let sql = Sql::open(&url(&file));
    sql.rows(
        "with recursive n(n) as (select 1 union all select n + 1 from n where n < 600) \
         insert into send_jobs (page_id, recipient, message) select '1', json_object('id', 'r' || n), \
         '{\"template_type\":\"text\",\"text\":\"hello\"}' from n",
    )
    .await;
    scene.mock.set_latency(Duration::from_millis(50));
    let setup = Setup {
        concurrency: 256,
        open_files: Some(64),
        ..scene.setup(&file)
    };
    let mut worker = setup.start();
    sql.finished(Duration::from_secs(30)).await;
    assert_eq!(sql.count("send_attempts").await, 600);
    assert_eq!(worker.says("the limit of open files is too low"), 1);
    assert_eq!(worker.stop().await, 0);
}
