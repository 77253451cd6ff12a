//! The transaction that links rows to parents, as a connection does it. `worker/links/README.md` has its steps and why they are
//! right; here are their statements. Rows and parents come in the order of their keys, and are locked in that order.

use super::params::{ArrayParam, Uuid, key_params, typed_keys};
use super::shape::{Kind, Shape};
use super::shard::{Linked, Refusal, ShardConnection, SinkError, number};
use crate::ids::{Position, RowKey, SubscriptionId};
use postgres::types::Type;

/// The rows that are asked for, in their order.
const ASKED: &str = "unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS e(key_0, key_1, number)";
/// Number (from 1) and children of those parents that exist.
const PARENTS: &str = "SELECT e.number::int4, p.children FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY \
     AS e(key_0, key_1, number) JOIN parent AS p ON p.app_id = e.key_0 AND p.parent_id = e.key_1";

impl Shape {
    /// Makes rows that don't exist, with a fence below all others, and locks all, in the order of the arrays: a row of a conflict
    /// is locked even where the condition leaves it alone. Parameters: keys, incarnation.
    fn make_and_lock(&self) -> String {
        let keys = self.key_columns();
        let objects = self
            .columns
            .iter()
            .filter(|column| !matches!(column.kind, Kind::Set(_)));
        let (names, values): (String, String) = objects
            .map(|column| (format!(", {}", column.name), ", '{}'::jsonb"))
            .unzip();
        format!(
            "INSERT INTO {} AS t ({keys}, source_incarnation, source_leader_epoch, source_offset, updated_at{names}) \
             SELECT e.key_0, e.key_1, $3, -1, -1, 'epoch'::timestamptz{values} FROM {ASKED} ORDER BY e.number \
             ON CONFLICT ({keys}) DO UPDATE SET updated_at = t.updated_at WHERE false",
            self.table
        )
    }

    /// Locks rows in the order of the arrays: number (from 1), fence, parent of each that exists.
    fn lock(&self) -> String {
        let link = self
            .link
            .expect("only rows that may be linked are locked so");
        format!(
            "SELECT e.number::int4, t.source_incarnation, t.source_leader_epoch, t.source_offset, t.{} FROM {ASKED} \
             JOIN {} AS t ON {} ORDER BY e.number FOR NO KEY UPDATE OF t",
            self.columns[usize::from(link)].sql,
            self.table,
            self.is_the_row()
        )
    }
}

pub(super) fn lock_rows(
    connection: &mut ShardConnection,
    keys: &[RowKey],
    makes_missing: bool,
) -> Result<Vec<Option<Linked>>, SinkError> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    connection.run(BEGIN, |client| client.batch_execute(BEGIN))?;
    connection.in_transaction = true;
    let (apps, subscriptions) = key_params(keys);
    let (shape, incarnation) = (connection.shape, connection.incarnation);
    if makes_missing {
        let sql = shape.make_and_lock();
        let [app, subscription] = typed_keys(&apps, &subscriptions);
        connection.run(&sql, |client| {
            client.query_typed(&sql, &[app, subscription, (&incarnation, Type::INT4)])
        })?;
    }
    let sql = shape.lock();
    let rows = connection.run(&sql, |client| {
        client.query_typed(&sql, &typed_keys(&apps, &subscriptions))
    })?;
    let mut found = vec![None; keys.len()];
    for row in rows {
        let at = number(&row);
        let parent = row.get::<_, Option<Uuid>>(4);
        found[at] = Some(Linked {
            fence: Position {
                incarnation: row.get(1),
                leader_epoch: row.get(2),
                offset: row.get(3),
            },
            parent: parent.map(|Uuid(parent)| RowKey {
                app: keys[at].app,
                subscription: SubscriptionId(parent),
            }),
        });
    }
    Ok(found)
}

pub(super) fn lock_parents(
    connection: &mut ShardConnection,
    parents: &[RowKey],
) -> Result<Vec<i32>, SinkError> {
    if parents.is_empty() {
        return Ok(Vec::new());
    }
    let lock = format!(
        "INSERT INTO parent AS p (app_id, parent_id, children) SELECT e.key_0, e.key_1, 0 FROM {ASKED} ORDER BY e.number \
         ON CONFLICT (app_id, parent_id) DO UPDATE SET children = p.children WHERE false"
    );
    let (apps, subscriptions) = key_params(parents);
    connection.run(&lock, |client| {
        client.query_typed(&lock, &typed_keys(&apps, &subscriptions))
    })?;
    let rows = connection.run(PARENTS, |client| {
        client.query_typed(PARENTS, &typed_keys(&apps, &subscriptions))
    })?;
    let mut children = vec![0; parents.len()];
    for row in rows {
        children[number(&row)] = row.get(1);
    }
    Ok(children)
}

pub(super) fn change_children(
    connection: &mut ShardConnection,
    changes: &[(RowKey, i32)],
    most: i32,
) -> Result<u64, SinkError> {
    const SQL: &str = "INSERT INTO parent AS p (app_id, parent_id, children) SELECT e.key_0, e.key_1, e.change \
         FROM unnest($1::uuid[], $2::uuid[], $3::int4[]) WITH ORDINALITY AS e(key_0, key_1, change, number) \
         WHERE e.change <= $4 ORDER BY e.number \
         ON CONFLICT (app_id, parent_id) DO UPDATE SET children = p.children + excluded.children \
         WHERE excluded.children <= 0 OR p.children + excluded.children <= $4";
    let parents: Vec<RowKey> = changes.iter().map(|(parent, _)| *parent).collect();
    let (apps, subscriptions) = key_params(&parents);
    let mut by = ArrayParam::of(Type::INT4);
    changes.iter().for_each(|(_, change)| by.push_i32(*change));
    let [app, subscription] = typed_keys(&apps, &subscriptions);
    let params = [
        app,
        subscription,
        (&by, Type::INT4_ARRAY),
        (&most, Type::INT4),
    ];
    connection.run(SQL, |client| client.execute_typed(SQL, &params))
}

pub(super) fn commit(
    connection: &mut ShardConnection,
    refused: &[Refusal],
) -> Result<(), SinkError> {
    const COMMIT: &str = "COMMIT";
    if !refused.is_empty() {
        remember(connection, refused)?;
    }
    connection.run(COMMIT, |client| client.batch_execute(COMMIT))?;
    connection.in_transaction = false;
    Ok(())
}

fn remember(connection: &mut ShardConnection, refused: &[Refusal]) -> Result<(), SinkError> {
    const SQL: &str = "INSERT INTO refused (incarnation, partition, source_leader_epoch, source_offset, reason, sqlstate, message) \
         SELECT $1, e.partition, e.epoch, e.at, e.reason, NULL, e.message \
         FROM unnest($2::int4[], $3::int4[], $4::int8[], $5::text[], $6::text[]) AS e(partition, epoch, at, reason, message) \
         ON CONFLICT DO NOTHING";
    let mut partitions = ArrayParam::of(Type::INT4);
    let (mut epochs, mut offsets) = (ArrayParam::of(Type::INT4), ArrayParam::of(Type::INT8));
    let (mut reasons, mut messages) = (ArrayParam::of(Type::TEXT), ArrayParam::of(Type::TEXT));
    for refusal in refused {
        partitions.push_i32(refusal.partition.0);
        epochs.push_i32(refusal.position.leader_epoch);
        offsets.push_i64(refusal.position.offset);
        reasons.push_text(refusal.reason.as_str());
        messages.push_text(&refusal.message);
    }
    let incarnation = connection.incarnation;
    connection.run(SQL, |client| {
        client.query_typed(
            SQL,
            &[
                (&incarnation, Type::INT4),
                (&partitions, Type::INT4_ARRAY),
                (&epochs, Type::INT4_ARRAY),
                (&offsets, Type::INT8_ARRAY),
                (&reasons, Type::TEXT_ARRAY),
                (&messages, Type::TEXT_ARRAY),
            ],
        )
    })?;
    Ok(())
}

pub(super) fn roll_back(connection: &mut ShardConnection) {
    const ROLLBACK: &str = "ROLLBACK";
    // A connection that is gone has ended its transaction, and one that can't say so is dropped.
    if std::mem::take(&mut connection.in_transaction) && connection.has_connection() {
        let _ = connection.run(ROLLBACK, |client| client.batch_execute(ROLLBACK));
    }
}

pub(super) fn unlocked_parents(
    connection: &mut ShardConnection,
    parents: &[RowKey],
) -> Result<Vec<bool>, SinkError> {
    let (apps, subscriptions) = key_params(parents);
    let mut asked = |sql: &str| {
        connection.run(sql, |client| {
            client.query_typed(sql, &typed_keys(&apps, &subscriptions))
        })
    };
    let mut unlocked = vec![true; parents.len()];
    for row in asked(PARENTS)? {
        unlocked[number(&row)] = false;
    }
    for row in asked(&format!("{PARENTS} FOR NO KEY UPDATE OF p SKIP LOCKED"))? {
        unlocked[number(&row)] = true;
    }
    Ok(unlocked)
}
