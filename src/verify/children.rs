//! Whether the table `parent` counts what is there: for every parent of every shard as many children as rows name it. Postgres
//! compares the two; that each row names the right parent is compared with the log, like all it holds.

use super::report::{Difference, Example, Report};
use super::stored::StoredError;
use crate::config::Config;
use crate::ids::{AppId, RowKey, ShardIndex, SubscriptionId};
use crate::sink::connect::connect;
use std::error::Error;

const COUNT: &str = "SELECT count(*) FROM parent";
const DIFFERENT: &str = "SELECT app_id::text, parent_id::text, COALESCE(p.children, 0)::int8, COALESCE(c.children, 0) \
     FROM parent AS p FULL JOIN (SELECT app_id, parent_id, count(*) AS children FROM subscription \
     WHERE parent_id IS NOT NULL GROUP BY app_id, parent_id) AS c USING (app_id, parent_id) \
     WHERE COALESCE(p.children, 0) <> COALESCE(c.children, 0)";

/// Compares the counts of all shards, while nobody writes.
pub(super) fn compare(config: &Config, report: &mut Report) -> Result<(), StoredError> {
    for (index, shard) in config.shards.iter().enumerate() {
        let failed = |source: Box<dyn Error + Send + Sync>| StoredError::Read {
            table: "parent",
            address: shard.postgres.shown.clone(),
            source,
        };
        let mut client = connect(&shard.postgres, "millpond verify")?;
        let counted = client.query_one(COUNT, &[]);
        let parents: i64 = counted.map_err(|error| failed(error.into()))?.get(0);
        report.parents_checked += parents.unsigned_abs();
        let different = client.query(DIFFERENT, &[]);
        for row in different.map_err(|error| failed(error.into()))? {
            let (counted, children): (i64, i64) = (row.get(2), row.get(3));
            let id = |column| row.get::<_, &str>(column).as_bytes();
            let key = AppId::parse(id(0)).zip(SubscriptionId::parse(id(1)));
            report.differ(Example {
                difference: Difference::Children,
                row: key
                    .map(|(app, subscription)| (RowKey { app, subscription }, ShardIndex(index))),
                partition: None,
                offset: None,
                model: format!(
                    "{children} rows of shard {} have it as their parent",
                    shard.name
                ),
                found: format!("the table parent counts {counted}"),
            });
        }
    }
    Ok(())
}
