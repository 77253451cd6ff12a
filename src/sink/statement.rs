//! The SQL texts, made from the table's shape. Everything that varies comes as a parameter; no text holds a value.
//!
//! A batch is written by one UPDATE over arrays. It reads the row once, and what the fence holds back is neither locked nor
//! logged (an upsert would lock and log it). Rows that are not there are inserted with ON CONFLICT DO NOTHING; a row
//! that was neither updated nor inserted is asked for its fence, and what lies above the fence is sent again. So each
//! ending is right against another connection that inserts or moves a row meanwhile: the UPDATE waits for it and checks
//! the fence on the newest version of the row, and the INSERT leaves the row to the next round.

use super::params::ArrayParam;
use super::shape::{Column, Key, Kind, SetType, Shape};
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
    /// The batch deletes its rows; it touches no column.
    pub deletes: bool,
}

/// Parameters that every write has behind its keys, in this order: first and last position, time, flags.
pub const FIXED_PARAMS: [Type; 6] = [
    Type::INT4,
    Type::INT8,
    Type::INT4,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::INT4,
];
const FIXED_NAMES: [&str; 6] = [
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

/// The fence of a row.
const FENCE: &str = "(t.source_incarnation, t.source_leader_epoch, t.source_offset)";

impl SetType {
    /// The element type of its parameters, and what they are cast to.
    fn param(self) -> (Type, &'static str) {
        match self {
            Self::Uuid => (Type::UUID, ""),
            Self::Text => (Type::TEXT, ""),
            Self::Bigint => (Type::INT8, ""),
            Self::Integer => (Type::INT8, "::integer"),
            Self::Timestamptz => (Type::TIMESTAMPTZ, ""),
            Self::Jsonb => (Type::JSONB, ""),
            Self::Boolean => (Type::TEXT, "::boolean"),
            Self::Double => (Type::TEXT, "::double precision"),
            Self::Numeric(_) => (Type::TEXT, "::numeric"),
            Self::Date => (Type::TEXT, "::date"),
        }
    }
}

impl Kind {
    fn param(self) -> (Type, &'static str) {
        match self {
            Self::Merge | Self::Add => (Type::JSONB, ""),
            Self::Set(of) | Self::Max(of) | Self::Min(of) => of.param(),
            // Of the sum only the end is within the column's own type.
            Self::Sum(SetType::Integer) => (Type::INT8, ""),
            Self::Sum(of) => of.param(),
        }
    }

    /// What a row has there before its first update; `None` for what the column says itself.
    fn beginning(self) -> Option<&'static str> {
        match self {
            Self::Merge | Self::Add => Some("'{}'"),
            Self::Sum(_) => Some("0"),
            Self::Set(_) | Self::Max(_) | Self::Min(_) => None,
        }
    }
}

impl Key {
    /// The element type of its parameters.
    pub fn param_type(&self) -> Type {
        match self.kind {
            SetType::Integer => Type::INT4,
            other => other.param().0,
        }
    }
}

/// How names that an update removes are told from those that stay.
#[derive(Clone, Copy)]
enum Removed {
    /// The column holds no other null, at no depth.
    AreAllNulls,
    /// They are null in the update; the column of a table that is somebody's own may hold nulls that stay.
    AreNulls,
}

impl Column {
    /// The parameter, as its column's type.
    fn value(&self) -> String {
        format!("e.{}{}", self.alias, self.kind.param().1)
    }

    /// What the column is set to where the row is there.
    fn updated(&self, bit: u32, has_guard: bool, removed: Removed) -> String {
        let Self {
            sql: name, alias, ..
        } = self;
        match self.kind {
            Kind::Merge => {
                let merged = format!("t.{name} || e.{alias}");
                let without_removed = match removed {
                    Removed::AreAllNulls => format!("jsonb_strip_nulls({merged})"),
                    Removed::AreNulls => format!(
                        "({merged}) - ARRAY(SELECT r.key FROM jsonb_each(e.{alias}) AS r WHERE r.value = 'null')"
                    ),
                };
                format!(
                    "CASE WHEN e.{alias} IS NULL THEN t.{name} WHEN e.flags & {bit} = 0 THEN {merged} ELSE {without_removed} END"
                )
            }
            Kind::Add => {
                let guard = match has_guard {
                    true => guard(name),
                    false => String::new(),
                };
                format!(
                    "CASE WHEN e.{alias} IS NULL {guard}THEN t.{name} ELSE t.{name} || {} END",
                    sums(name)
                )
            }
            Kind::Set(_) => {
                let value = self.value();
                format!("CASE WHEN e.flags & {bit} = 0 THEN t.{name} ELSE {value} END")
            }
            Kind::Sum(of) => {
                let guard = match has_guard {
                    true => self.sum_guard(of),
                    false => String::new(),
                };
                format!(
                    "CASE WHEN e.{alias} IS NULL {guard}THEN t.{name} ELSE (COALESCE(t.{name}, 0) + {})::{of} END",
                    self.value()
                )
            }
            // Both leave NULL out.
            Kind::Max(_) => format!("GREATEST(t.{name}, {})", self.value()),
            Kind::Min(_) => format!("LEAST(t.{name}, {})", self.value()),
        }
    }

    /// What the column is set to where the row is made; `None` for what the column says itself.
    fn made(&self, is_touched: bool) -> Option<String> {
        let alias = self.alias;
        match (self.kind, is_touched) {
            (Kind::Merge, true) => Some(format!("COALESCE(jsonb_strip_nulls(e.{alias}), '{{}}')")),
            (Kind::Add, true) => Some(format!("COALESCE(e.{alias}, '{{}}')")),
            (Kind::Sum(_), true) => Some(format!("COALESCE({}, 0)", self.value())),
            (_, true) => Some(self.value()),
            (kind, false) => kind.beginning().map(str::to_owned),
        }
    }

    /// A condition that is never true, but raises 22003 where a sum leaves the column's type on the way.
    fn sum_guard(&self, of: SetType) -> String {
        let Self { sql, guard, .. } = self;
        let number = match of {
            SetType::Numeric(_) => "numeric",
            _ => "int8",
        };
        let within = |end: u8| {
            format!("(COALESCE(t.{sql}, 0) + (e.{guard} ->> {end})::{number})::{of} IS NULL")
        };
        format!(
            "OR e.{guard} IS NOT NULL AND ({} OR {}) ",
            within(0),
            within(1)
        )
    }
}

impl Shape {
    /// The element types of the parameters of a write that touches these columns, without the incarnation, which comes last
    /// as a plain int4.
    pub fn param_types(&self, touched: Touched) -> Vec<Type> {
        let mut types: Vec<Type> = self.keys.iter().map(Key::param_type).collect();
        types.extend(FIXED_PARAMS);
        for (index, column) in self.columns.iter().enumerate() {
            if touched.has(index) {
                types.push(column.kind.param().0);
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
        let (params, names, incarnation) = self.parameters(touched);
        (format!("unnest({params}) AS e({names})"), incarnation)
    }

    /// The arrays as `$1, …`, what they are called, and the number of the parameter after them.
    fn parameters(&self, touched: Touched) -> (String, String, usize) {
        let mut names: Vec<String> = self.aliases();
        names.extend(FIXED_NAMES.map(str::to_owned));
        for (index, column) in self.columns.iter().enumerate() {
            if touched.has(index) {
                names.push(column.alias.to_owned());
            }
            if touched.has_guard(index) {
                names.push(column.guard.to_owned());
            }
        }
        let params: Vec<String> = (1..=names.len())
            .map(|number| format!("${number}"))
            .collect();
        (params.join(", "), names.join(", "), names.len() + 1)
    }

    /// What statements call the parameters of the key: `key_0`, and so on.
    fn aliases(&self) -> Vec<String> {
        (0..self.keys.len()).map(|at| format!("key_{at}")).collect()
    }

    /// The columns of the key.
    pub(super) fn key_columns(&self) -> String {
        let names: Vec<&str> = self.keys.iter().map(|key| key.sql).collect();
        names.join(", ")
    }

    fn key_values(&self) -> String {
        let values = self.aliases().into_iter().map(|alias| format!("e.{alias}"));
        values.collect::<Vec<_>>().join(", ")
    }

    /// That a row is the one of the parameters.
    pub(super) fn is_the_row(&self) -> String {
        let same = |(key, alias): (&Key, String)| format!("t.{} = e.{alias}", key.sql);
        let same: Vec<String> = self.keys.iter().zip(self.aliases()).map(same).collect();
        same.join(" AND ")
    }

    /// The rows that are asked for, in their order: arrays of the key's columns.
    pub(super) fn asked(&self) -> String {
        let params = self.keys.iter().enumerate().map(|(at, key)| {
            let of = key.param_type();
            format!("${}::{}[]", at + 1, of.name())
        });
        let params: Vec<String> = params.collect();
        format!(
            "unnest({}) WITH ORDINALITY AS e({}, number)",
            params.join(", "),
            self.aliases().join(", ")
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
        let removed = match self.is_preset() {
            true => Removed::AreAllNulls,
            false => Removed::AreNulls,
        };
        for (index, column) in self.columns.iter().enumerate() {
            let expression = match (touched.deletes, touched.has(index)) {
                (true, _) => column.kind.beginning().unwrap_or("DEFAULT").to_owned(),
                (false, true) => column.updated(1 << index, touched.has_guard(index), removed),
                (false, false) => continue,
            };
            write!(sql, "{} = {expression}, ", column.sql).expect("writing to a string");
        }
        if self.deletes {
            write!(sql, "source_deleted = {}, ", touched.deletes).expect("writing to a string");
        }
        write!(
            sql,
            "source_incarnation = ${incarnation}, source_leader_epoch = e.last_epoch, source_offset = e.last_offset, \
             updated_at = e.at FROM {source} WHERE {}",
            self.is_the_row()
        )
        .expect("writing to a string");
        if !fault::mutant("fence-off") {
            write!(
                sql,
                " AND {FENCE} < (${incarnation}, e.first_epoch, e.first_offset)"
            )
            .expect("writing to a string");
        }
        sql
    }

    /// Makes the rows that are not there, and leaves those that are.
    pub fn insert(&self, touched: Touched) -> String {
        let (source, incarnation) = self.source(touched);
        let keys = self.key_columns();
        let (mut names, mut values) = (keys.clone(), self.key_values());
        for (index, column) in self.columns.iter().enumerate() {
            let Some(value) = column.made(touched.has(index)) else {
                continue;
            };
            write!(names, ", {}", column.sql).expect("writing to a string");
            write!(values, ", {value}").expect("writing to a string");
        }
        if touched.deletes {
            names.push_str(", source_deleted");
            values.push_str(", true");
        }
        format!(
            "INSERT INTO {} ({names}, source_incarnation, source_leader_epoch, source_offset, updated_at) \
             SELECT {values}, ${incarnation}, e.last_epoch, e.last_offset, e.at FROM {source} \
             ON CONFLICT ({keys}) DO NOTHING",
            self.table
        )
    }

    /// Moves the fences of rows that exist and whose fence is below the first position of their fold: numbers (from 1) of the
    /// rows whose fence was moved. What belongs to them is then written by others, in the same transaction.
    pub(super) fn move_fences(&self) -> String {
        let (source, incarnation) = self.numbered();
        let is_below = match fault::mutant("fence-off") {
            true => "true".to_owned(),
            false => format!("{FENCE} < (${incarnation}, e.first_epoch, e.first_offset)"),
        };
        format!(
            "UPDATE {} AS t SET source_incarnation = ${incarnation}, source_leader_epoch = e.last_epoch, \
             source_offset = e.last_offset, updated_at = e.at FROM {source} WHERE {} AND {is_below} \
             RETURNING e.number::int4",
            self.table,
            self.is_the_row()
        )
    }

    /// The same for rows that are not there: makes them, and leaves those that are.
    pub(super) fn make_fences(&self) -> String {
        let (source, incarnation) = self.numbered();
        let keys = self.key_columns();
        format!(
            "WITH made AS (INSERT INTO {} ({keys}, source_incarnation, source_leader_epoch, source_offset, updated_at) \
             SELECT {}, ${incarnation}, e.last_epoch, e.last_offset, e.at FROM {source} \
             ON CONFLICT ({keys}) DO NOTHING RETURNING {keys}) \
             SELECT e.number::int4 FROM {source} JOIN made AS t ON {}",
            self.table,
            self.key_values(),
            self.is_the_row()
        )
    }

    /// As [`source`](Self::source) of a write that touches no column, with the row's number.
    fn numbered(&self) -> (String, usize) {
        let (params, names, incarnation) = self.parameters(Touched::default());
        (
            format!("unnest({params}) WITH ORDINALITY AS e({names}, number)"),
            incarnation,
        )
    }

    /// The fences of those rows that exist: number within the arrays (from 1), incarnation, leader epoch, offset.
    pub fn ask(&self) -> String {
        format!(
            "SELECT e.number::int4, t.source_incarnation, t.source_leader_epoch, t.source_offset \
             FROM {} JOIN {} AS t ON {}",
            self.asked(),
            self.table,
            self.is_the_row()
        )
    }

    /// Numbers (from 1) of those rows that nobody else holds locked.
    pub fn unlocked(&self) -> String {
        format!(
            "SELECT e.number::int4 FROM {} JOIN {} AS t ON {} FOR NO KEY UPDATE OF t SKIP LOCKED",
            self.asked(),
            self.table,
            self.is_the_row()
        )
    }

    /// Moves a row's fence without any other change, or makes the row, and remembers a refused update; both or neither. One
    /// row if the fence was below, else none. Where rows are deleted, the row is made as a deleted one. Parameters: keys,
    /// incarnation, leader epoch, offset, time, partition, reason, sqlstate, message.
    pub fn refuse(&self) -> String {
        let keys = self.key_columns();
        let (mut names, mut values) = (String::new(), String::new());
        for column in self.columns {
            if let Some(beginning) = column.kind.beginning() {
                write!(names, ", {}", column.sql).expect("writing to a string");
                write!(values, ", {beginning}").expect("writing to a string");
            }
        }
        if self.deletes {
            names.push_str(", source_deleted");
            values.push_str(", true");
        }
        let count = self.keys.len();
        let param = |at: usize| format!("${}", count + at);
        let own: Vec<String> = (1..=count).map(|number| format!("${number}")).collect();
        let [
            incarnation,
            epoch,
            offset,
            at,
            partition,
            reason,
            sqlstate,
            message,
        ] = [1, 2, 3, 4, 5, 6, 7, 8].map(param);
        format!(
            "WITH moved AS (INSERT INTO {} AS t ({keys}, source_incarnation, source_leader_epoch, \
             source_offset, updated_at{names}) VALUES ({}, {incarnation}, {epoch}, {offset}, {at}{values}) \
             ON CONFLICT ({keys}) DO UPDATE SET source_incarnation = {incarnation}, source_leader_epoch = {epoch}, \
             source_offset = {offset}, updated_at = {at} \
             WHERE {FENCE} < ({incarnation}, {epoch}, {offset}) RETURNING 1), \
             remembered AS (INSERT INTO refused (incarnation, partition, source_leader_epoch, source_offset, reason, \
             sqlstate, message) SELECT {incarnation}, {partition}, {epoch}, {offset}, {reason}, {sqlstate}, {message} \
             FROM moved ON CONFLICT DO NOTHING) SELECT 1 FROM moved",
            self.table,
            own.join(", ")
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
