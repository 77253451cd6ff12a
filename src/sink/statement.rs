//! The SQL texts, made from the table's shape. Everything that varies comes as a parameter; no text holds a value.
//!
//! A batch is written by one UPDATE over arrays. It reads the row once, and what the fence holds back is neither locked nor
//! logged (an upsert would lock and log it). Rows that are not there are inserted with ON CONFLICT DO NOTHING; a row
//! that was neither updated nor inserted is asked for its fence, and what lies above the fence is sent again. So each
//! ending is right against another connection that inserts or moves a row meanwhile: the UPDATE waits for it and checks
//! the fence on the newest version of the row, and the INSERT leaves the row to the next round.

use super::params::ArrayParam;
use super::shape::{Kind, SetType, Shape};
use crate::fault;
use postgres::types::Type;
use std::fmt::Write;

/// Which columns a batch touches, as bits by the column's number: a statement has parameters for these only. Most batches
/// touch few columns, and each array costs Postgres time for every row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Touched {
    /// Bit c: column c.
    pub columns: u32,
    /// Bit c: the added column c has sums that must be checked at their extremes (see [`Shape::update`]).
    pub guards: u32,
}

/// Parameters that every write has, in this order: keys, first and last position, time, flags.
pub const FIXED_PARAMS: [Type; 8] = [
    Type::UUID,
    Type::UUID,
    Type::INT4,
    Type::INT8,
    Type::INT4,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::INT4,
];
const FIXED_NAMES: [&str; 8] = [
    "key_0",
    "key_1",
    "first_epoch",
    "first_offset",
    "last_epoch",
    "last_offset",
    "at",
    "flags",
];

impl Touched {
    /// Whether a column is touched.
    pub fn has(self, column: usize) -> bool {
        self.columns >> column & 1 == 1
    }

    /// Whether an added column has guards.
    pub fn has_guard(self, column: usize) -> bool {
        self.guards >> column & 1 == 1
    }
}

impl Shape {
    /// The element types of the parameters of a write that touches these columns, without the incarnation, which comes last
    /// as a plain int4.
    pub fn param_types(&self, touched: Touched) -> Vec<Type> {
        let mut types = FIXED_PARAMS.to_vec();
        for (index, column) in self.columns.iter().enumerate() {
            if touched.has(index) {
                types.push(match column.kind {
                    Kind::Merge | Kind::Add => Type::JSONB,
                    Kind::Set(SetType::Uuid) => Type::UUID,
                    Kind::Set(SetType::Text) => Type::TEXT,
                });
            }
            if touched.has_guard(index) {
                types.push(Type::JSONB);
            }
        }
        types
    }

    /// The types to prepare a write with.
    pub fn prepared_types(&self, touched: Touched) -> Vec<Type> {
        let arrays = self
            .param_types(touched)
            .into_iter()
            .map(|element| ArrayParam::of(element).array_type());
        arrays.chain([Type::INT4]).collect()
    }

    /// `unnest($1, …) AS e(…)`, and the number of the parameter after the arrays.
    fn source(&self, touched: Touched) -> (String, usize) {
        let mut names: Vec<String> = FIXED_NAMES.map(str::to_owned).to_vec();
        for (index, column) in self.columns.iter().enumerate() {
            if touched.has(index) {
                names.push(column.name.to_owned());
            }
            if touched.has_guard(index) {
                names.push(format!("{}_guard", column.name));
            }
        }
        let params: Vec<String> = (1..=names.len())
            .map(|number| format!("${number}"))
            .collect();
        (
            format!("unnest({}) AS e({})", params.join(", "), names.join(", ")),
            names.len() + 1,
        )
    }

    /// Writes rows that exist and whose fence is below the first position of their fold.
    ///
    /// Flags of a row: bit c for a merged column: it holds nulls, which remove; bit c for a set column: set it.
    /// A guard holds, for each added name whose updates have both signs, the lowest and the highest sum on the way;
    /// adding them to what is stored raises 22003 where one of the updates alone would have.
    pub fn update(&self, touched: Touched) -> String {
        let (source, incarnation) = self.source(touched);
        let mut sql = format!("UPDATE {} AS t SET ", self.table);
        for (index, column) in self
            .columns
            .iter()
            .enumerate()
            .filter(|(index, _)| touched.has(*index))
        {
            let name = column.name;
            let bit = 1u32 << index;
            let expression = match column.kind {
                Kind::Merge => format!(
                    "CASE WHEN e.{name} IS NULL THEN t.{name} \
                     WHEN e.flags & {bit} = 0 THEN t.{name} || e.{name} \
                     ELSE jsonb_strip_nulls(t.{name} || e.{name}) END"
                ),
                Kind::Add => {
                    let guard = if touched.has_guard(index) {
                        guard(name)
                    } else {
                        String::new()
                    };
                    format!(
                        "CASE WHEN e.{name} IS NULL {guard}THEN t.{name} ELSE t.{name} || {} END",
                        sums(name)
                    )
                }
                Kind::Set(_) => {
                    format!("CASE WHEN e.flags & {bit} = 0 THEN t.{name} ELSE e.{name} END")
                }
            };
            write!(sql, "{name} = {expression}, ").expect("writing to a string");
        }
        let [key_0, key_1] = self.keys;
        write!(
            sql,
            "source_incarnation = ${incarnation}, source_leader_epoch = e.last_epoch, source_offset = e.last_offset, \
             updated_at = e.at FROM {source} WHERE t.{key_0} = e.key_0 AND t.{key_1} = e.key_1"
        )
        .expect("writing to a string");
        if !fault::mutant("fence-off") {
            let fence = "(t.source_incarnation, t.source_leader_epoch, t.source_offset)";
            write!(
                sql,
                " AND {fence} < (${incarnation}, e.first_epoch, e.first_offset)"
            )
            .expect("writing to a string");
        }
        sql
    }

    /// Makes the rows that are not there, and leaves those that are.
    pub fn insert(&self, touched: Touched) -> String {
        let (source, incarnation) = self.source(touched);
        let [key_0, key_1] = self.keys;
        let (mut names, mut values) = (format!("{key_0}, {key_1}"), "e.key_0, e.key_1".to_owned());
        for (index, column) in self.columns.iter().enumerate() {
            let name = column.name;
            let value = match (column.kind, touched.has(index)) {
                (Kind::Merge, true) => format!("COALESCE(jsonb_strip_nulls(e.{name}), '{{}}')"),
                (Kind::Add, true) => format!("COALESCE(e.{name}, '{{}}')"),
                (Kind::Merge | Kind::Add, false) => "'{}'".to_owned(),
                (Kind::Set(_), true) => format!("e.{name}"),
                (Kind::Set(_), false) => continue,
            };
            write!(names, ", {name}").expect("writing to a string");
            write!(values, ", {value}").expect("writing to a string");
        }
        format!(
            "INSERT INTO {} ({names}, source_incarnation, source_leader_epoch, source_offset, updated_at) \
             SELECT {values}, ${incarnation}, e.last_epoch, e.last_offset, e.at FROM {source} \
             ON CONFLICT ({key_0}, {key_1}) DO NOTHING",
            self.table
        )
    }

    /// The fences of those rows that exist: number within the arrays (from 1), incarnation, leader epoch, offset.
    pub fn ask(&self) -> String {
        let [key_0, key_1] = self.keys;
        format!(
            "SELECT e.number::int4, t.source_incarnation, t.source_leader_epoch, t.source_offset \
             FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS e(key_0, key_1, number) \
             JOIN {} AS t ON t.{key_0} = e.key_0 AND t.{key_1} = e.key_1",
            self.table
        )
    }

    /// Numbers (from 1) of those rows that nobody else holds locked.
    pub fn unlocked(&self) -> String {
        let [key_0, key_1] = self.keys;
        format!(
            "SELECT e.number::int4 FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS e(key_0, key_1, number) \
             JOIN {} AS t ON t.{key_0} = e.key_0 AND t.{key_1} = e.key_1 FOR NO KEY UPDATE OF t SKIP LOCKED",
            self.table
        )
    }

    /// Moves a row's fence without any other change, or makes the row, and remembers a refused update; both or neither. One
    /// row if the fence was below, else none. Parameters: keys, incarnation, leader epoch, offset, time, partition, reason,
    /// sqlstate, message.
    pub fn refuse(&self) -> String {
        let [key_0, key_1] = self.keys;
        let (mut names, mut values) = (String::new(), String::new());
        for column in self
            .columns
            .iter()
            .filter(|column| !matches!(column.kind, Kind::Set(_)))
        {
            write!(names, ", {}", column.name).expect("writing to a string");
            values.push_str(", '{}'");
        }
        format!(
            "WITH moved AS (INSERT INTO {} AS t ({key_0}, {key_1}, source_incarnation, source_leader_epoch, \
             source_offset, updated_at{names}) VALUES ($1, $2, $3, $4, $5, $6{values}) \
             ON CONFLICT ({key_0}, {key_1}) DO UPDATE SET source_incarnation = $3, source_leader_epoch = $4, \
             source_offset = $5, updated_at = $6 \
             WHERE (t.source_incarnation, t.source_leader_epoch, t.source_offset) < ($3, $4, $5) RETURNING 1), \
             remembered AS (INSERT INTO refused (incarnation, partition, source_leader_epoch, source_offset, reason, \
             sqlstate, message) SELECT $3, $7, $4, $5, $8, $9, $10 FROM moved ON CONFLICT DO NOTHING) SELECT 1 FROM moved",
            self.table
        )
    }
}

/// The added names with their new sums, as an object.
fn sums(name: &str) -> String {
    format!(
        "(SELECT jsonb_object_agg(d.key, COALESCE((t.{name} ->> d.key)::int8, 0) + d.value::int8) \
         FROM jsonb_each_text(e.{name}) AS d)"
    )
}

/// A condition that is never true, but raises 22003 where a sum leaves 64 bits on the way.
fn guard(name: &str) -> String {
    let stored = format!("COALESCE((t.{name} ->> g.key)::int8, 0)");
    format!(
        "OR e.{name}_guard IS NOT NULL AND (SELECT bool_or({stored} + (g.value ->> 0)::int8 IS NULL \
         OR {stored} + (g.value ->> 1)::int8 IS NULL) FROM jsonb_each(e.{name}_guard) AS g) "
    )
}
