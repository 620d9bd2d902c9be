//! What a role that may only INSERT can do, and what a worker's role must be able to.
//!
//! On Postgres; SQLite knows no roles. Each test tries to get in, as somebody would who has read the migration.

mod rig;
mod support;

use std::process::Command;

use rig::{Setup, Sql, sandbox};
use support::{Db, Engine};

/// The columns of the README.
const COLUMNS: &str = "page_id, recipient, message, tag, delay, send_at, expires_at, ordering_key, \
     idempotency_key, on_ambiguous, metadata";

const INSERT: &str = "insert into send_jobs (page_id, recipient, message) \
     values ('1', '{\"id\":\"x\"}', '{\"template_type\":\"text\",\"text\":\"x\"}')";

/// A database with a producer's role.
struct Scene {
    db: Db,
    owner: Sql,
    role: String,
}

impl Scene {
    async fn new(name: &str) -> Option<Self> {
        let db = Db::fresh(Engine::Postgres).await?;
        let scene = Self {
            owner: Sql::open(&db.url),
            role: format!("{name}_{}", std::process::id()),
            db,
        };
        scene
            .owner
            .rows(&format!("create role {} login", scene.role))
            .await;
        Some(scene)
    }

    async fn producer(name: &str) -> Option<Self> {
        let scene = Self::new(name).await?;
        let role = &scene.role;
        let grant = format!("grant insert ({COLUMNS}) on send_jobs to {role}");
        scene.owner.rows(&grant).await;
        Some(scene)
    }

    fn url(&self) -> String {
        let (scheme, rest) = self.db.url.split_once("://").expect("a URL");
        let (_, host) = rest.split_once('@').expect("a user");
        format!("{scheme}://{}@{host}", self.role)
    }

    /// Statements of one session of the role; what it was refused.
    async fn tries(&self, texts: &[&str]) -> Vec<String> {
        use sqlx::Connection as _;
        let mut session = sqlx::PgConnection::connect(&self.url())
            .await
            .expect("connects");
        let mut refused = Vec::new();
        for text in texts {
            let text = sqlx::AssertSqlSafe((*text).to_owned());
            if let Err(error) = sqlx::raw_sql(text).execute(&mut session).await {
                refused.push(error.to_string());
            }
        }
        session.close().await.expect("closes");
        refused
    }

    async fn text(&self, what: &str) -> String {
        let rows = self
            .owner
            .rows(&format!("select cast(({what}) as text)"))
            .await;
        rows[0][0].clone().unwrap_or_else(|| "null".to_owned())
    }

    async fn ends(self) {
        let role = &self.role;
        self.owner.rows(&format!("drop owned by {role}")).await;
        self.owner.rows(&format!("drop role {role}")).await;
    }
}

#[tokio::test]
async fn a_producer_cannot_have_its_own_code_run_as_the_owner() {
    let Some(scene) = Scene::producer("thief").await else {
        return;
    };
    scene.owner.rows(INSERT).await;
    // A schema of its own in front, and one where it may create what is looked for: both happen.
    let role = scene.role.clone();
    scene
        .owner
        .rows(&format!("create schema {role} authorization {role}"))
        .await;
    let evil = "create function pg_temp.evil() returns trigger language plpgsql as $$ begin \
         update public.send_jobs set state = 'cancelled', finished_at = now(); return new; end $$";
    let operator = |schema: &str| {
        format!(
            "create function {schema}.evil(numeric, integer) returns numeric language plpgsql as $$ begin \
             update public.send_jobs set state = 'cancelled', finished_at = now(); return 0; end $$; \
             create operator {schema}.* (leftarg = numeric, rightarg = integer, function = {schema}.evil)"
        )
    };
    let (mine, path) = (
        operator(&role),
        format!("set search_path = pg_temp, {role}, public"),
    );
    let scheduled = "insert into public.send_jobs (page_id, recipient, message, send_at, delay) \
         values ('1', '{\"id\":\"y\"}', '{\"template_type\":\"text\",\"text\":\"x\"}', now() + interval '1 hour', 3)";
    let refused = scene
        .tries(&[
            "create temp table send_inbox (page_id text, id bigserial, lane text, look boolean default false)",
            "create temp table send_timers (at bigint, job_id bigint)",
            "create temp table inserted (page_id text, id bigint, lane text, send_at timestamptz)",
            evil,
            "create trigger evil before insert on send_inbox for each row execute function pg_temp.evil()",
            "create trigger evil before insert on send_timers for each row execute function pg_temp.evil()",
            "create function pg_temp.wakes() returns timestamptz language plpgsql as $$ begin \
             update public.send_jobs set state = 'cancelled', finished_at = now(); return now(); end $$",
            "create temp view send_sleepers as select 'w' as worker, pg_temp.wakes() as until",
            "create function pg_temp.pg_notify(text, text) returns void language plpgsql as $$ begin \
             update public.send_jobs set state = 'cancelled', finished_at = now(); end $$",
            "grant all on send_inbox, send_timers, send_sleepers to public",
            &mine,
            &path,
            scheduled,
            &INSERT.replace("into send_jobs", "into public.send_jobs"),
        ])
        .await;
    assert_eq!(refused, [""; 0], "each of these is allowed to anybody");
    assert_eq!(
        scene
            .text("select count(*) from send_jobs where state = 'queued'")
            .await,
        "3"
    );
    assert_eq!(scene.text("select count(*) from send_inbox").await, "2");
    assert_eq!(scene.text("select count(*) from send_timers").await, "1");
    scene.ends().await;
}

#[tokio::test]
async fn an_operator_in_the_schema_of_the_tables_is_not_taken_for_ours() {
    let Some(scene) = Scene::producer("neighbour").await else {
        return;
    };
    // As in `public` before Postgres 15.
    let role = scene.role.clone();
    scene
        .owner
        .rows(&format!("grant create on schema public to {role}"))
        .await;
    let mut texts = Vec::new();
    for (name, left, right, gives) in [
        ("*", "numeric", "integer", "numeric"),
        ("*", "integer", "interval", "interval"),
        (">", "timestamptz", "timestamptz", "boolean"),
    ] {
        let value = match gives {
            "boolean" => "true",
            "interval" => "interval '1 hour'",
            _ => "0",
        };
        texts.push(format!(
            "create function public.evil({left}, {right}) returns {gives} language plpgsql as $$ begin \
             update public.send_jobs set state = 'cancelled', finished_at = now(); return {value}; end $$"
        ));
        texts.push(format!(
            "create operator public.{name} (leftarg = {left}, rightarg = {right}, function = public.evil)"
        ));
    }
    texts.push(
        "insert into send_jobs (page_id, recipient, message, send_at, delay) values \
         ('1', '{\"id\":\"y\"}', '{\"template_type\":\"text\",\"text\":\"x\"}', now() + interval '1 hour', 3)"
            .to_owned(),
    );
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(scene.tries(&texts).await, [""; 0]);
    assert_eq!(scene.text("select state from send_jobs").await, "queued");
    assert_eq!(
        scene.text("select due_at between send_at + interval '3 s' and send_at + interval '3 s' from send_jobs").await,
        "true"
    );
    scene.ends().await;
}

/// An operator for each pair of types for which Postgres has none: whoever writes `a = b` with types that do not
/// fit exactly gets one of these.
const OPERATORS: &str = "do $do$
declare o text; l text; r text; gives text;
    types constant text[] := array['integer', 'bigint', 'numeric', 'double precision', 'text', 'varchar', 'boolean',
        'timestamptz', 'timestamp', 'interval', 'json', 'bigint[]', 'text[]'];
begin
    foreach o in array array['=', '<>', '<', '<=', '>', '>=', '+', '-', '*', '/', '||', '->', '->>'] loop
        foreach l in array types loop foreach r in array types loop
            if not exists (select from pg_operator where oprname = o and oprleft = l::regtype and oprright = r::regtype
                and oprnamespace = 'pg_catalog'::regnamespace) and not (o = '||' and (l like '%[]' or r like '%[]'))
            then
                gives := case when o in ('=', '<>', '<', '<=', '>', '>=') then 'boolean' else l end;
                execute format('create or replace function public.evil_%s(a %s, b %s) returns %s language plpgsql as
                    $f$ begin raise exception ''an operator of somebody else was called''; end $f$',
                    md5(o || l || r), l, r, gives);
                execute format('create operator public.%s (leftarg = %s, rightarg = %s, function = public.evil_%s)',
                    o, l, r, md5(o || l || r));
            end if;
        end loop; end loop;
    end loop;
end $do$";

#[tokio::test]
async fn no_statement_of_ours_takes_an_operator_of_somebody_else() {
    let Some(db) = Db::fresh(Engine::Postgres).await else {
        return;
    };
    let owner = Sql::open(&db.url);
    owner.rows(OPERATORS).await;
    let mock = sandbox();
    for (recipient, script) in [
        ("fails", "500 x2, ok"),
        ("hangs", "hang, ok"),
        ("no", "400 *"),
    ] {
        mock.script(recipient, script.parse().expect("a script"));
    }
    let mut setup = Setup::new(&db.url, &mock.url());
    setup.pages = format!("[pages.default]\nsecret = \"{}\"\nrate = 500", rig::SECRET);
    for (key, value) in [
        ("RETENTION__DEAD", "1s"),
        ("RETRY__FIRST", "100ms"),
        ("RETRY__MAX", "200ms"),
    ] {
        setup
            .env
            .push((format!("POSTLANE_{key}"), value.to_owned()));
    }
    let insert = |recipient: &str, more: &str, values: &str| {
        format!(
            "insert into send_jobs (page_id, recipient, message{more}) values ('1', '{{\"id\":\"{recipient}\"}}', \
             '{{\"template_type\":\"text\",\"text\":\"x\"}}'{values})"
        )
    };
    let mut worker = setup.start();
    for recipient in ["fails", "hangs", "no", "a", "a", "a", "b"] {
        owner.rows(&insert(recipient, "", "")).await;
    }
    owner.rows(&insert("c", ", delay", ", 1")).await;
    owner
        .rows(&insert(
            "d",
            ", send_at, delay",
            ", now() + interval '1 s', 1",
        ))
        .await;
    owner
        .rows(&insert("e", ", expires_at", ", now() - interval '1 s'"))
        .await;
    // What heals: a lane and a timer are missing.
    owner.finished(std::time::Duration::from_secs(20)).await;
    let _ = worker.stop().await;
    let job = &*db.insert("f", "x").await.to_string();
    let other = &*db.insert("g", "x").await.to_string();
    owner
        .rows(&format!(
            "update send_jobs set state = 'unknown' where id = {other}"
        ))
        .await;
    let verbs: [&[&str]; 13] = [
        &["check"],
        &["list", "--since", "1h", "--state", "delivered"],
        &["stats"],
        &["show", job],
        &["hold", job],
        &["release", job],
        &["pause", "--lane", "1/id:f"],
        &["resume", "--lane", "1/id:f"],
        &["cancel", job],
        &["requeue", job],
        &["resolve", other, "--resend"],
        &["list", "--enqueued-since", "1h", "--reason", "cancelled"],
        &["prune", "--dead", "0s", "--yes"],
    ];
    for verb in verbs {
        let (code, out, error) = setup.verb(verb);
        assert!(
            code == 0 && !error.contains("somebody else"),
            "{verb:?}: {code} {out} {error}"
        );
    }
    let mut second = setup.start();
    owner.finished(std::time::Duration::from_secs(20)).await;
    let _ = second.stop().await;
    for worker in [&worker, &second] {
        let log = worker.log();
        assert!(
            !log.contains("somebody else") && !log.contains("not unique"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn a_producer_can_do_nothing_but_insert() {
    let Some(scene) = Scene::producer("producer").await else {
        return;
    };
    let allowed = scene.tries(&[INSERT, "insert into send_jobs (page_id, recipient, message, metadata) \
        values ('1', '{\"id\":\"z\"}', '{\"template_type\":\"text\",\"text\":\"x\"}', '{\"order\":1}')"]).await;
    assert_eq!(allowed, [""; 0]);
    let forbidden = [
        "select message from send_jobs",
        "update send_jobs set state = 'delivered'",
        "delete from send_jobs",
        "truncate send_jobs",
        "insert into send_jobs (page_id, recipient, message, state) values ('1', '{\"id\":\"x\"}', '{}', 'held')",
        "insert into send_inbox (page_id, lane) values ('1', '1/id:x')",
        "insert into send_pauses (scope, who) values ('all', 'me')",
        "select * from send_lanes",
        "select nextval('send_tokens')",
        "alter table send_jobs disable trigger user",
        "create trigger mine before insert on send_jobs for each row execute function send_jobs_due()",
        "alter function send_jobs_mark() set search_path = pg_temp",
        "create or replace function send_jobs_mark() returns trigger language plpgsql as $$ begin return null; end $$",
        "lock table send_jobs in access exclusive mode",
    ];
    assert_eq!(scene.tries(&forbidden).await.len(), forbidden.len());
    scene.ends().await;
}

#[tokio::test]
async fn a_worker_refuses_to_start_where_it_would_see_or_do_less() {
    let Some(scene) = Scene::new("worker").await else {
        return;
    };
    let (mock, role) = (sandbox(), scene.role.clone());
    let setup = Setup::new(&scene.url(), &mock.url());
    let says = async |text: &str| {
        let mut worker = setup.start();
        rig::until(text, std::time::Duration::from_secs(10), async || {
            worker.says(text) > 0
        })
        .await;
        assert_eq!(worker.stop().await, 0, "{}", worker.log());
    };
    scene
        .owner
        .rows(&format!(
            "grant select on all tables in schema public to {role}"
        ))
        .await;
    says(&format!(
        "role {role} lacks update on send_jobs, delete on send_jobs, insert on send_attempts"
    ))
    .await;
    scene
        .owner
        .rows(&format!(
            "grant select, insert, update, delete on all tables in schema public to {role}"
        ))
        .await;
    says(&format!("role {role} lacks usage on sequence send_tokens")).await;
    scene
        .owner
        .rows(&format!(
            "grant usage on all sequences in schema public to {role}"
        ))
        .await;
    scene
        .owner
        .rows("alter table send_jobs enable row level security")
        .await;
    says(&format!(
        "row level security hides rows of send_jobs from role {role}: ALTER ROLE {role} BYPASSRLS"
    ))
    .await;
    scene
        .owner
        .rows(&format!("alter role {role} bypassrls"))
        .await;
    scene.owner.rows(INSERT).await;
    let mut worker = setup.start();
    scene
        .owner
        .finished(std::time::Duration::from_secs(10))
        .await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    assert_eq!(mock.count(), 1);
    scene.ends().await;
}

#[tokio::test]
async fn insert_works_after_a_restore_with_another_owner_and_in_a_renamed_schema() {
    let Some(db) = Db::empty(Engine::Postgres).await else {
        return;
    };
    // As Postgres 15 has it: a role with a schema of its own name.
    let role = format!("app_{}", std::process::id());
    let admin = Sql::open(&db.url);
    admin.rows(&format!("create role {role} login")).await;
    admin
        .rows(&format!("create schema {role} authorization {role}"))
        .await;
    let (scheme, rest) = db.url.split_once("://").expect("a URL");
    let (user, host) = rest.split_once('@').expect("a user");
    let as_role = Setup::new(&format!("{scheme}://{role}@{host}"), "http://127.0.0.1:9/");
    let (code, _, error) = as_role.verb(&["migrate"]);
    assert_eq!(code, 0, "{error}");
    let insert = INSERT.replace("into send_jobs", &format!("into {role}.send_jobs"));
    admin.rows(&insert).await;

    let dump = Command::new("pg_dump")
        .args(["--no-owner", "--no-privileges", &db.url])
        .output()
        .expect("pg_dump");
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let other = Db::empty(Engine::Postgres).await.expect("a server");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &dump.stdout).expect("writes");
    let restored = Command::new("psql")
        .args(["-q", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(file.path())
        .arg(&other.url)
        .output()
        .expect("psql");
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    let sql = Sql::open(&other.url);
    sql.rows(&insert).await;
    assert_eq!(sql.count(&format!("{role}.send_inbox")).await, 2);

    // A renamed schema is what no name in a function survives: it is said, and `migrate` mends it.
    admin
        .rows(&format!("alter schema {role} rename to shop"))
        .await;
    let moved = Setup::new(
        &format!("{scheme}://{user}@{host}?options=-csearch_path%3Dshop"),
        "http://127.0.0.1:9/",
    );
    let mut worker = moved.start();
    rig::until(
        "it is said",
        std::time::Duration::from_secs(10),
        async || {
            worker.says(
                "looks for its tables in another schema (was it renamed?); run `postlane migrate`",
            ) > 0
        },
    )
    .await;
    assert_eq!(worker.stop().await, 0);
    let (code, _, error) = moved.verb(&["migrate"]);
    assert_eq!(code, 0, "{error}");
    admin
        .rows(&INSERT.replace("into send_jobs", "into shop.send_jobs"))
        .await;
    assert_eq!(admin.count("shop.send_inbox").await, 2);
    for sql in [&admin, &sql] {
        sql.rows(&format!("drop owned by {role}")).await;
    }
    admin.rows(&format!("drop role {role}")).await;
}

/// Runs the block of the README that creates this role, under another name.
async fn create_as_in_the_readme(owner: &Sql, role: &str, name: &str) {
    let readme = include_str!("../README.md");
    let create = format!("CREATE ROLE {role} LOGIN;");
    let (_, block) = readme.split_once(&create).expect("a block");
    let (block, _) = block.split_once("```").expect("it ends");
    owner.rows(&format!("create role {name} login")).await;
    for text in block.split(';').filter(|text| !text.trim().is_empty()) {
        let to = |role: &str| format!("TO {role}");
        owner.rows(&text.replace(&to(role), &to(name))).await;
    }
}

/// The same database as another role.
fn as_role(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (_, host) = rest.split_once('@').expect("a user");
    format!("{scheme}://{role}@{host}")
}

#[tokio::test]
async fn the_rights_that_the_readme_gives_operators_and_readers_are_enough() {
    let Some(db) = Db::fresh(Engine::Postgres).await else {
        return;
    };
    let owner = Sql::open(&db.url);
    for n in 0..8 {
        db.insert(&format!("r{n}"), "x").await;
    }
    owner
        .rows("update send_jobs set state = 'unknown' where id in (5, 6, 7)")
        .await;
    let looks: [&[&str]; 3] = [&["list"], &["show", "1"], &["stats"]];
    let changes: [&[&str]; 13] = [
        &["hold", "1", "2"],
        &["release", "1"],
        &["cancel", "3"],
        &["requeue", "3"],
        &["resolve", "5", "--delivered"],
        &["resolve", "6", "--dead"],
        &["resolve", "7", "--resend"],
        &["pause", "--page", "1"],
        &["resume", "--page", "1"],
        &["pause", "--all"],
        &["resume", "--all"],
        &["cancel", "--page", "1", "--yes"],
        &["prune", "--delivered", "0s", "--yes"],
    ];
    for (role, verbs, may) in [
        ("reader", &looks[..], true),
        ("reader", &changes[..1], false),
        ("operator", &looks[..], true),
        ("operator", &changes[..], true),
    ] {
        let name = format!("readme_{role}_{}_{may}_{}", std::process::id(), verbs.len());
        create_as_in_the_readme(&owner, role, &name).await;
        let setup = Setup::new(&as_role(&db.url, &name), "http://127.0.0.1:9/");
        for verb in verbs {
            let (code, out, error) = setup.verb(verb);
            assert_eq!(code == 0, may, "{role} {verb:?}: {out} {error}");
            assert_eq!(
                error.contains("permission denied"),
                !may,
                "{role} {verb:?}: {error}"
            );
        }
        owner.rows(&format!("drop owned by {name}")).await;
        owner.rows(&format!("drop role {name}")).await;
    }
}

#[tokio::test]
async fn the_rights_that_the_readme_gives_a_worker_are_enough() {
    let Some(db) = Db::fresh(Engine::Postgres).await else {
        return;
    };
    let owner = Sql::open(&db.url);
    let role = format!("readme_{}", std::process::id());
    create_as_in_the_readme(&owner, "worker", &role).await;
    for n in 0..20 {
        owner
            .rows(&INSERT.replace("\"x\"}'", &format!("\"r{n}\"}}'")))
            .await;
    }
    let mock = sandbox();
    let setup = Setup::new(&as_role(&db.url, &role), &mock.url());
    let (code, _, error) =
        Setup::new(&db.url, "http://127.0.0.1:9/").verb(&["migrate", "--role", &role]);
    assert_eq!(code, 0, "{error}");
    let set = owner
        .rows(&format!(
            "select array_to_string(setconfig, ' ') from pg_db_role_setting s join pg_roles r on r.oid = s.setrole \
             where r.rolname = '{role}' and s.setdatabase <> 0"
        ))
        .await;
    let set = set[0][0].as_deref().expect("set");
    assert!(set.contains("synchronous_commit=on"), "{set}");
    let mut worker = setup.start();
    owner.finished(std::time::Duration::from_secs(10)).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    assert_eq!(worker.says("ERROR"), 0, "{}", worker.log());
    assert_eq!(mock.count(), 20);
    owner.rows(&format!("drop owned by {role}")).await;
    owner.rows(&format!("drop role {role}")).await;
}
