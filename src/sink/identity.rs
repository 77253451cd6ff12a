//! Who rows of a shard are: identifier and parent. For the few hot rows that somebody looks at; never on a worker's
//! connection, and never kept open.

use super::connect::connect;
use super::params::Uuid;
use super::shape::Shape;
use super::standing::{StandingError, look};
use crate::config::checked::PostgresAddress;
use crate::hot::Identity;
use crate::ids::{RowKey, SubscriptionId};
use crate::update::column;

/// A look-up by primary key takes milliseconds; one that waits behind a locked table is given up.
const SESSION: &str = "SET statement_timeout = '2s'";

/// Who each of these rows is, in their order; `None` for one that doesn't exist. Locks nothing.
pub fn identities(
    address: &PostgresAddress,
    shape: &Shape,
    keys: &[RowKey],
) -> Result<Vec<Option<Identity>>, StandingError> {
    // Only subscriptions have the two columns.
    if !shape.is_preset() {
        return Ok(vec![None; keys.len()]);
    }
    let mut client = connect(address, "millpond hot")?;
    let name = |of: u8| shape.columns[usize::from(of)].name;
    let columns = format!(
        "t.{} IS NOT NULL, t.{}, t.{}",
        shape.keys[0].sql,
        name(column::IDENTIFIER),
        name(column::PARENT)
    );
    let asked = client.batch_execute(SESSION);
    let asked = asked.and_then(|()| look(&mut client, shape, keys, &columns));
    let rows = asked.map_err(|source| StandingError::Read {
        table: shape.name,
        address: address.shown.clone(),
        source,
    })?;
    Ok(rows.iter().map(identity).collect())
}

fn identity(row: &postgres::Row) -> Option<Identity> {
    row.get::<_, bool>(0).then(|| Identity {
        identifier: row.get(1),
        parent: row
            .get::<_, Option<Uuid>>(2)
            .map(|Uuid(id)| SubscriptionId(id)),
    })
}
