//! `[table]`: what is right, and each thing that can be wrong with its place and its mending.

use super::{load_with, problem_of};
use crate::table::{Deletes, Rule, Table};

/// These lines of `[table]`, and these columns.
fn lines(table: &str, columns: &str) -> String {
    format!("[table]\nname = \"account\"\n{table}\n[table.columns]\n{columns}\n")
}

fn table(text: &str) -> Table {
    let loaded = load_with(text).expect("a good table");
    Table::clone(loaded.config.table.as_ref().expect("a table"))
}

const KEY: &str = "id = { key = \"uuid\", from = \"@key\" }";

#[test]
fn without_a_table_updates_are_for_the_subscriptions() {
    assert_eq!(load_with("").expect("good").config.table, None);
}

#[test]
fn columns_have_rules_types_and_paths() {
    let table = table(&lines(
        "shard_by = \"tenant\"\ndelete = \"field\"\ndelete_field = \"op\"\ndelete_values = [\"d\"]",
        "number = { key = \"bigint\" }\ntenant = { key = \"uuid\", from = \"@key.tenant\" }\n\
         owner = { set = \"text\", from = \"owner.name\" }\nbalance = { add = \"numeric(14,2)\" }\n\
         seen = { keep_max = \"timestamptz\" }\nfirst = { keep_min = \"bigint\" }\nlabels = { merge = \"jsonb\" }",
    ));
    let keys: Vec<_> = table
        .keys
        .iter()
        .map(|key| {
            (
                key.name.as_str(),
                key.kind.to_string(),
                key.from.to_string(),
            )
        })
        .collect();
    let owned = |name, kind: &str, from: &str| (name, kind.to_owned(), from.to_owned());
    assert_eq!(
        keys,
        [
            owned("number", "bigint", "number"),
            owned("tenant", "uuid", "@key.tenant")
        ]
    );
    assert_eq!(table.shard_by, 1);
    let rules: Vec<Rule> = table.columns.iter().map(|column| column.rule).collect();
    assert_eq!(
        rules,
        [
            Rule::Set,
            Rule::Add,
            Rule::KeepMax,
            Rule::KeepMin,
            Rule::Merge
        ]
    );
    assert_eq!(table.columns[0].from.to_string(), "owner.name");
    assert_eq!(table.columns[1].from.to_string(), "balance");
    assert!(matches!(table.deletes, Deletes::Marks { .. }));
}

#[test]
fn what_is_wrong_with_a_column_is_said_with_its_line() {
    let problem = |column: &str| problem_of(&lines("", &format!("{KEY}\n{column}")));
    for (column, expected) in [
        (
            "balance = { ad = \"bigint\" }",
            "(text):6: `table.columns.balance.ad` is no setting; did you mean `add`?",
        ),
        (
            "balance = { add = \"bigin\" }",
            "(text):6: table.columns.balance.add: found bigin, allowed is integer, bigint, numeric, \
             numeric(digits,digits behind the point); did you mean bigint?",
        ),
        (
            "balance = { add = \"double precision\" }",
            "(text):6: table.columns.balance.add: found double precision, allowed is integer, bigint, numeric, \
             numeric(digits,digits behind the point)",
        ),
        (
            "balance = { add = \"bigint\", set = \"text\" }",
            "(text):6: table.columns.balance.set: the column has a rule already; keep one of them",
        ),
        (
            "balance = { from = \"a.b\" }",
            "(text):6: table.columns.balance: nothing says what an update does to it; add one of key, set, add, keep_max, \
             keep_min, merge",
        ),
        (
            "balance = { add = \"bigint\", from = \"a..b\" }",
            "(text):6: table.columns.balance.from: found a..b, allowed is a path of names with dots between them",
        ),
        (
            "balance = { add = \"bigint\", from = \"@key.a\" }",
            "(text):6: table.columns.balance.from: found @key.a, allowed for a column that is not of the key is a path in the value",
        ),
        (
            "source_offset = { set = \"bigint\" }",
            "(text):6: table.columns.source_offset: this column is millpond's own; leave it out",
        ),
        (
            "Balance = { add = \"bigint\" }",
            "(text):6: table.columns.Balance: found Balance, allowed are 1 to 55 of a-z, 0-9 and _, not a digit first",
        ),
        (
            "\"x\\\"; DROP TABLE y; --\" = { add = \"bigint\" }",
            "(text):6: table.columns.x\"; DROP TABLE y; --: found x\"; DROP TABLE y; --, allowed are",
        ),
        (
            "balance = 5",
            "(text):6: `table.columns.balance`: columns are given in the file, as NAME = {",
        ),
        (
            "balance = { add = 5 }",
            "(text):6: table.columns.balance.add: found 5, allowed is text in quotes",
        ),
    ] {
        let found = problem(column);
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn what_is_wrong_with_the_table_is_said_with_its_mending() {
    for (table, columns, expected) in [
        (
            "",
            "a = { set = \"text\" }",
            "table.name: no column is the key; add to [table.columns] at least one like",
        ),
        (
            "shard_by = \"idd\"",
            KEY,
            "table.shard_by: found idd, which is no column of the key: all updates of a row must be on one partition; did you \
             mean id?",
        ),
        (
            "delete = \"always\"",
            KEY,
            "table.delete: found always, allowed is \"never\", \"tombstone\" or \"field\"",
        ),
        (
            "delete = \"tombstone\"",
            "id = { key = \"text\" }",
            "table.delete: found tombstone, but the key column id is at id in the value, and a tombstone has none",
        ),
        (
            "delete = \"field\"\ndelete_values = [\"d\"]",
            KEY,
            "table.delete_field: found \"\", allowed is a path in the value, as op or meta.deleted",
        ),
        (
            "delete = \"field\"\ndelete_field = \"op\"",
            KEY,
            "table.delete_values: found none; say at which values a row is deleted",
        ),
        (
            "delete_field = \"op\"",
            KEY,
            "table.delete_field: table.delete is never; say \"field\" there, or leave this out",
        ),
    ] {
        let found = problem_of(&lines(table, columns));
        assert!(found.contains(expected), "{found}\n{expected}");
    }
    let named = |name: &str| {
        let text = lines("", KEY).replace("\"account\"", &format!("\"{name}\""));
        problem_of(&text)
    };
    assert!(named("a b").contains("table.name: found a b, allowed are 1 to 55 of a-z"));
    assert!(named("refused").contains("found refused, which is a table of millpond's own"));
    let nameless = problem_of(&lines("", KEY).replace("name = \"account\"", ""));
    let expected = "table.columns.id: there is no table.name";
    assert!(nameless.contains(expected), "{nameless}");
    let skips = lines("delete = \"tombstone\"", KEY) + "[consumer]\non_missing_row = \"skip\"\n";
    let found = problem_of(&skips);
    assert!(found.contains("consumer.on_missing_row: found skip, but table.delete deletes rows"));
}
