//! Who rows of a shard are: identifier and parent. For the few hot rows that somebody looks at; never on a worker's
//! connection, and never kept open.

use super::connect::connect;
use super::params::ArrayParam;
use super::shape::Shape;
use super::standing::StandingError;
use crate::config::checked::PostgresAddress;
use crate::hot::Identity;
use crate::ids::{RowKey, SubscriptionId};
use crate::update::column;
use postgres::types::Type;

/// A look-up by primary key takes milliseconds; one that waits behind a locked table is given up.
const SESSION: &str = "SET statement_timeout = '2s'";

/// Who each of these rows is, in their order; `None` for one that doesn't exist. Locks nothing.
pub fn identities(
    address: &PostgresAddress,
    shape: &Shape,
    keys: &[RowKey],
) -> Result<Vec<Option<Identity>>, StandingError> {
    let mut client = connect(address, "millpond hot")?;
    let [key_0, key_1] = shape.keys;
    let name = |of: u8| shape.columns[usize::from(of)].name;
    let (identifier, parent) = (name(column::IDENTIFIER), name(column::PARENT));
    let sql = format!(
        "SELECT t.{key_0} IS NOT NULL, t.{identifier}, uuid_send(t.{parent}) \
         FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS e(key_0, key_1, number) \
         LEFT JOIN {} AS t ON t.{key_0} = e.key_0 AND t.{key_1} = e.key_1 ORDER BY e.number",
        shape.table
    );
    let (mut apps, mut subscriptions) = (ArrayParam::of(Type::UUID), ArrayParam::of(Type::UUID));
    for key in keys {
        apps.push_uuid(key.app.0);
        subscriptions.push_uuid(key.subscription.0);
    }
    let asked = client.batch_execute(SESSION).and_then(|()| {
        client.query_typed(
            &sql,
            &[
                (&apps, Type::UUID_ARRAY),
                (&subscriptions, Type::UUID_ARRAY),
            ],
        )
    });
    let rows = asked.map_err(|source| StandingError::Read {
        table: shape.table,
        address: address.shown.clone(),
        source,
    })?;
    Ok(rows.iter().map(identity).collect())
}

fn identity(row: &postgres::Row) -> Option<Identity> {
    let parent: Option<Vec<u8>> = row.get(2);
    row.get::<_, bool>(0).then(|| Identity {
        identifier: row.get(1),
        parent: parent.and_then(|id| id.try_into().ok()).map(SubscriptionId),
    })
}
