//! Least privilege in Postgres: each role of `src/sink/README.md` can do what it is for with exactly the grants that stand there, and
//! no more; a grant that is missing is named, and holds up its shard only until it is there.

use crate::child::Process;
use crate::pond::{Pond, Sent, Shape, admin_client};
use postgres::Client;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const README: &str = include_str!("../../src/sink/README.md");
const APP: &str = "10000000-0000-4000-8000-000000000001";

/// A pond whose configuration names the role that a command is run as. Roles are of the whole server, so they have the pond's name.
struct Roles {
    /// Goes first: a role that a database still knows can't be dropped.
    pond: Option<Pond>,
    prefix: String,
    user: String,
}

/// The blocks of SQL below the heading.
fn documented() -> [String; 2] {
    let (_, below) = README.split_once("## Who may do what\n").unwrap();
    let (section, _) = below.split_once("\n## ").unwrap();
    let blocks = section.split("```sql\n").skip(1);
    let blocks: Vec<String> = blocks
        .map(|block| block.split_once("```").unwrap().0.to_owned())
        .collect();
    blocks.try_into().expect("before init, and after it")
}

impl Roles {
    /// Topic and tables are not made yet.
    fn new(name: &str) -> Self {
        let shape = Shape {
            partitions: 4,
            ..Shape::default()
        };
        let pond = Pond::without_init(name, &shape);
        let prefix = pond.topic.replace('-', "_");
        Self {
            pond: Some(pond),
            prefix,
            user: "user=postgres".to_owned(),
        }
    }

    fn pond(&self) -> &Pond {
        self.pond.as_ref().expect("until the end")
    }

    /// What the documentation says, for this pond's roles and databases.
    fn apply(&self, shard: usize, sql: &str) {
        let mut client = self.pond().shard(shard);
        let database: String = client
            .query_one("SELECT current_database()", &[])
            .unwrap()
            .get(0);
        let sql = sql
            .replace("DATABASE millpond", &format!("DATABASE {database}"))
            .replace("millpond_source", "SOURCE")
            .replace("millpond_partition", "PARTITION_TABLE")
            .replace("millpond_", &format!("{}_", self.prefix))
            .replace("SOURCE", "millpond_source")
            .replace("PARTITION_TABLE", "millpond_partition");
        // The second shard may be on a server that has the roles already.
        for statement in sql.lines().filter(|line| !line.trim().is_empty()) {
            if let Err(error) = client.batch_execute(statement) {
                let there = error.code().is_some_and(|code| code.code() == "42710");
                assert!(there, "{statement}: {error:?}");
            }
        }
    }

    /// From now on commands are run as this role.
    fn become_role(&mut self, role: &str) {
        let user = format!("user={}_{role}", self.prefix);
        self.pond().reconfigure(&self.user, &user);
        self.user = user;
    }

    /// A connection as a role.
    fn client(&self, shard: usize, role: &str) -> Client {
        let mut client = self.pond().shard(shard);
        client
            .batch_execute(&format!("SET SESSION AUTHORIZATION {}_{role}", self.prefix))
            .unwrap();
        client
    }

    /// Changes what the role that runs may do on the second shard.
    fn change(&self, verb: &str, what: &str, to: &str) {
        let sql = format!("{verb} {what} {to} {}_run", self.prefix);
        self.pond().shard(1).batch_execute(&sql).unwrap();
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        self.pond = None;
        for shard in 0..2 {
            for role in ["owner", "run", "read"] {
                let sql = format!("DROP ROLE IF EXISTS {}_{role}", self.prefix);
                let _ = admin_client(shard).batch_execute(&sql);
            }
        }
    }
}

/// Updates that take all of the consumer's ways: rows, counts that overflow, links, and links beyond the limit.
fn produce(pond: &Pond, round: u32) -> usize {
    let partition = pond.partition_of(APP);
    let id = |row: u32| format!("2000{round:04}-0000-4000-8000-{row:012x}");
    let mut updates = Vec::new();
    for row in 0..12 {
        let id = id(row);
        let ids = format!(r#""app_id":"{APP}","subscription_id":"{id}""#);
        let large = i64::MAX;
        updates.push((
            id.clone(),
            format!(r#"{{{ids},"tags":{{"a":{row}}},"counts":{{"c":{large}}}}}"#),
        ));
        updates.push((id.clone(), format!(r#"{{{ids},"counts":{{"c":1}}}}"#)));
        updates.push((
            id,
            format!(r#"{{{ids},"parent_id":"3000{round:04}-0000-4000-8000-000000000001"}}"#),
        ));
    }
    let messages = updates.iter().map(|(key, value)| Sent {
        partition,
        key: Some(key),
        value: Some(value),
        headers: &[],
    });
    pond.produce(&messages.collect::<Vec<_>>());
    updates.len()
}

fn assert_refused(client: &mut Client, sql: &str) {
    let error = client.batch_execute(sql).expect_err(sql);
    assert_eq!(
        error.code().map(|code| code.code()),
        Some("42501"),
        "{sql}: {error:?}"
    );
}

#[test]
fn each_role_can_do_what_it_is_for_and_no_more() {
    let mut roles = Roles::new("roles");
    roles.pond().reconfigure(
        "[consumer]",
        "[rules]\nlinks_per_parent_max = 8\n[consumer]",
    );
    let [before, after] = documented();
    (0..2).for_each(|shard| roles.apply(shard, &before));
    roles.become_role("run");
    let refused = roles.pond().command(&["init"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = refused.stderr;
    assert!(
        said.contains("permission denied for schema public") && said.contains("a grant is missing"),
        "{said}"
    );
    roles.become_role("owner");
    roles.pond().good(&["init"]);
    roles.pond().good(&["config", "check", "--connect"]);
    (0..2).for_each(|shard| roles.apply(shard, &after));

    roles.become_role("run");
    let pond = roles.pond();
    pond.load(&["--messages", "5000", "--rows", "500"]);
    let special = produce(pond, 1);
    assert_eq!(pond.catch_up()["messages"], 5000 + special);
    // Everything once more: fences are asked for, and what was refused is found.
    pond.good(&["rewind", "--to", "1970-01-01T00:00:00Z", "--apply"]);
    let again = pond.catch_up();
    assert_eq!(
        (&again["messages"], &again["rows_written"]),
        (&(5000 + special).into(), &0.into()),
        "{again}"
    );
    let reasons: Vec<String> = pond
        .dead_letters()
        .iter()
        .map(|letter| letter.header("__dlq.errors.reason").to_owned())
        .collect();
    for reason in ["overflow", "link-limit"] {
        assert!(reasons.iter().any(|one| one == reason), "{reasons:?}");
    }
    for sql in [
        "DELETE FROM subscription",
        "TRUNCATE parent",
        "DROP TABLE refused",
        "ALTER TABLE subscription ADD COLUMN x int",
        "CREATE TABLE x(y int)",
        "UPDATE millpond_source SET incarnation = 7",
        "DELETE FROM refused",
    ] {
        assert_refused(&mut roles.client(0, "run"), sql);
    }

    roles.become_role("read");
    let verdict = roles.pond().assert_exact();
    assert!(verdict["rows_checked"].as_u64() > Some(500), "{verdict}");
    roles.pond().good(&["dead", "replay"]);
    for sql in [
        "UPDATE subscription SET tags = '{}'",
        "INSERT INTO parent SELECT * FROM parent",
        "SELECT FROM refused",
    ] {
        assert_refused(&mut roles.client(0, "read"), sql);
    }
}

/// Waits until the consumer names what it may not, and lets it.
fn is_named_and_goes_on(roles: &Roles, process: &Process, privilege: &str, table: &str) {
    let pond = roles.pond();
    let denied = format!("permission denied for table {table}");
    pond.wait_for("it says what is missing", SOON, |pond| {
        let ready = pond.admin("/readyz");
        ready.is_some_and(|(status, why)| {
            status == 503
                && why.contains("shard s1")
                && why.contains(&denied)
                && !why.contains("s0")
        })
    });
    assert!(process.has_said(&denied), "{}", process.said());
    roles.change("GRANT", &format!("{privilege} ON {table}"), "TO");
    pond.wait_for("it goes on", SOON, |pond| {
        pond.admin("/readyz")
            .is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_missing_grant_is_named_and_holds_up_its_shard_until_it_is_there() {
    let mut roles = Roles::new("grants");
    let [before, after] = documented();
    (0..2).for_each(|shard| roles.apply(shard, &before));
    roles.become_role("owner");
    roles.pond().good(&["init"]);
    (0..2).for_each(|shard| roles.apply(shard, &after));
    roles.become_role("run");
    let pond = roles.pond();

    // At the start.
    roles.change("REVOKE", "SELECT ON millpond_source", "FROM");
    pond.load(&["--messages", "1000", "--rows", "500"]);
    let process = pond.start(&["run"], &[]);
    pond.wait_for("it says what is missing", SOON, |_| {
        process.has_said(
            "permission denied for table millpond_source (SQLSTATE 42501): a grant is missing",
        )
    });
    roles.change("GRANT", "SELECT ON millpond_source", "TO");
    let applied =
        |pond: &Pond, messages: f64| pond.metric("millpond_messages_total") == Some(messages);
    pond.wait_for("it goes on", SOON, |pond| applied(pond, 1000.0));

    // While it runs.
    roles.change("REVOKE", "UPDATE ON subscription", "FROM");
    pond.load(&["--messages", "1000", "--rows", "500"]);
    is_named_and_goes_on(&roles, &process, "UPDATE", "subscription");
    pond.wait_for("all is applied", SOON, |pond| applied(pond, 2000.0));
    assert!(process.terminate(SOON).status.success());
    roles.become_role("read");
    roles.pond().assert_exact();
}
