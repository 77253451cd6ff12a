//! Change events, as Debezium's JSON converter writes them.

use super::{ANY, produce};
use crate::pond::{Pond, Shape};

const CUSTOMER: &str = r#"
[table]
name = "customer"
delete = "field"
delete_field = "op"
delete_values = ["d"]
[table.columns]
id = { key = "bigint", from = "@key.id" }
name = { set = "text", from = "after.name" }
credit = { set = "numeric(10,2)", from = "after.credit" }
born = { set = "date", from = "after.born" }
active = { set = "boolean", from = "after.active" }
"#;

#[test]
fn change_events_make_the_table_that_they_tell_of() {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        kafka: ANY,
        consumer: CUSTOMER,
        ..Shape::default()
    };
    let pond = Pond::new("customer", &shape);
    let event = |op: &str, after: &str| {
        let source = r#""before":null,"source":{"connector":"postgresql","lsn":1},"ts_ms":1"#;
        Some(format!(r#"{{{source},"op":"{op}","after":{after}}}"#))
    };
    let after = |name: &str, credit: &str| {
        format!(r#"{{"id":1,"name":{name},"credit":{credit},"born":"1970-02-03","active":true}}"#)
    };
    let key = |id: i64| format!(r#"{{"id":{id}}}"#);
    let sent = [
        (0, key(1), event("r", &after(r#""Ann""#, r#""10.50""#))),
        (0, key(2), event("c", &after(r#""Bob""#, "null"))),
        (0, key(1), event("u", &after("null", r#""99999999.99""#))),
        (0, key(2), event("d", "null")),
        (0, key(2), None),
        (0, key(3), event("c", &after(r#""Eve""#, r#""0.00""#))),
    ];
    produce(&pond, &sent);
    let summary = pond.catch_up();
    assert_eq!(
        (&summary["messages"], &summary["dead_lettered"]),
        (&6.into(), &0.into())
    );
    let sql = "SELECT id, name, credit::text, born::text, active FROM customer WHERE NOT source_deleted ORDER BY id";
    type Row = (
        i64,
        Option<String>,
        Option<String>,
        Option<String>,
        Option<bool>,
    );
    let row = |row: &postgres::Row| -> Row {
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
    };
    let rows: Vec<Row> = pond
        .shard(0)
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(row)
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        rows,
        [
            (1, None, text("99999999.99"), text("1970-02-03"), Some(true)),
            (3, text("Eve"), text("0.00"), text("1970-02-03"), Some(true)),
        ]
    );
    pond.assert_exact();
}
