//! From folds to a statement's parameters: the changes of a row's messages are merged and written straight into Postgres'
//! binary arrays.

use super::amount::Amount;
use super::fold::{Fold, Folds, Message};
use crate::ids::Position;
use crate::sink::params::ArrayParam;
use crate::sink::shape::{Kind, SetType, Shape};
use crate::sink::shard::WriteBatch;
use crate::sink::statement::Touched;
use crate::table::{Asked, Number};
use crate::update::{Change, Decoded, SetValue};
use hashbrown::HashMap;
use std::io::Write;

/// A fold whose sums leave 64 bits on the way: its updates must be written one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumOverflow {
    /// Which of the folds that were to be encoded.
    pub index: usize,
}

/// What a fold's messages do together to one column. One for a batch, so that its memory serves all rows.
#[derive(Debug, Default)]
struct Merged<'m> {
    /// Names of a merged column: the last value wins; `None` removes.
    values: Vec<(&'m str, Option<&'m str>)>,
    /// Names of an added column.
    sums: Vec<(&'m str, Sum)>,
    /// A set column: the last value.
    set: Option<Option<&'m SetValue<'m>>>,
    /// A column of numbers.
    amount: Option<Amount>,
    places: Places<'m>,
}

/// A sum with the extremes on its way, which decide whether one of the updates alone would leave 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    total: i64,
    lowest: i64,
    highest: i64,
}

impl Sum {
    fn add(&mut self, delta: i64) -> Option<()> {
        self.total = self.total.checked_add(delta)?;
        self.lowest = self.lowest.min(self.total);
        self.highest = self.highest.max(self.total);
        Some(())
    }

    /// Whether the way went beyond its ends, so that the end alone doesn't tell.
    fn needs_guard(&self) -> bool {
        self.lowest < self.total.min(0) || self.highest > self.total.max(0)
    }
}

/// Writes batches of folds into parameters, using their memory again.
#[derive(Debug)]
pub struct Encoder {
    shape: &'static Shape,
    batch: WriteBatch,
}

impl Encoder {
    /// For rows of this shape.
    pub fn new(shape: &'static Shape) -> Self {
        Self {
            shape,
            batch: WriteBatch::default(),
        }
    }

    /// Whether Postgres may refuse a row that an INSERT proposes although an UPDATE of the one that is there is good: it checks
    /// constraints before it looks for that one, and a table that is somebody's own may have any.
    pub fn may_be_refused_when_made(&self) -> bool {
        !self.shape.is_preset()
    }

    /// The parameters that write these folds.
    pub fn encode(
        &mut self,
        folds: &Folds<'_>,
        which: &[Fold],
    ) -> Result<&WriteBatch, SumOverflow> {
        let touched = touched(self.shape, folds, which)?;
        if self.batch.params.is_empty() || self.batch.touched != touched {
            self.batch.touched = touched;
            self.batch.params = self
                .shape
                .param_types(touched)
                .into_iter()
                .map(ArrayParam::of)
                .collect();
        }
        for param in &mut self.batch.params {
            param.clear();
        }
        self.batch.rows = which.len();
        let mut merged = Merged::default();
        for fold in which {
            self.encode_row(folds, fold, &mut merged);
        }
        if self.shape.is_own {
            self.batch.own = which.iter().map(|fold| own_updates(folds, fold)).collect();
        }
        Ok(&self.batch)
    }

    fn encode_row<'m>(&mut self, folds: &'m Folds<'_>, fold: &Fold, merged: &mut Merged<'m>) {
        let touched = self.batch.touched;
        let (keys, others) = self.batch.params.split_at_mut(self.shape.keys.len());
        push_key(keys, &folds.asked(fold));
        let (fixed, varying) = others.split_at_mut(FIXED);
        let [
            first_epoch,
            first_offset,
            last_epoch,
            last_offset,
            at,
            flags,
        ] = fixed
        else {
            unreachable!("a write has {FIXED} fixed parameters");
        };
        let last = folds.top(fold);
        push_position(first_epoch, first_offset, folds.first_position(fold));
        push_position(last_epoch, last_offset, last.position);
        at.push_timestamp_ms(last.timestamp_ms.max(0));
        let mut row_flags = 0i32;
        let mut params = varying.iter_mut();
        for (index, column) in self
            .shape
            .columns
            .iter()
            .enumerate()
            .filter(|(index, _)| touched.has(*index))
        {
            let number = u8::try_from(index).expect("a table has few columns");
            let is_link = self.shape.link == Some(number);
            let messages = folds
                .encoded(fold)
                .filter(|message| !(is_link && message.link_refused));
            merged
                .merge(messages, number, column.kind)
                .expect("`touched` has checked the sums");
            let param = params.next().expect("a parameter for each touched column");
            if encode_column(param, column.kind, merged) {
                row_flags |= 1 << index;
            }
            if touched.has_guard(index) {
                let guard = params.next().expect("a parameter for each guard");
                match column.kind {
                    Kind::Sum(_) => encode_sum_guard(guard, merged),
                    _ => encode_guard(guard, merged),
                }
            }
        }
        flags.push_i32(row_flags);
    }
}

/// What a program decoded of a row, in the order of its messages.
fn own_updates(folds: &Folds<'_>, fold: &Fold) -> Vec<Decoded> {
    let changes = folds
        .encoded(fold)
        .flat_map(|message| &message.update.changes);
    let own = |change: &Change<'_>| match change {
        Change::Own(decoded) => Some(decoded.clone()),
        _ => None,
    };
    changes.filter_map(own).collect()
}

const FIXED: usize = crate::sink::statement::FIXED_PARAMS.len();

fn push_key(params: &mut [ArrayParam], row: &Asked<'_>) {
    match (row.values, params) {
        (None, [app, subscription]) => {
            app.push_uuid(row.key.app.0);
            subscription.push_uuid(row.key.subscription.0);
        }
        (None, _) => unreachable!("the subscription's key has two columns"),
        (Some(values), params) => {
            for (param, part) in params.iter_mut().zip(values.parts()) {
                param.push_binary(part);
            }
        }
    }
}

fn push_position(epoch: &mut ArrayParam, offset: &mut ArrayParam, position: Position) {
    epoch.push_i32(position.leader_epoch);
    offset.push_i64(position.offset);
}

/// Which columns the folds touch, after checking that their sums stay within 64 bits, or within the column's type.
fn touched(shape: &Shape, folds: &Folds<'_>, which: &[Fold]) -> Result<Touched, SumOverflow> {
    let mut touched = Touched::default();
    let mut merged = Merged::default();
    if which.first().is_some_and(|fold| folds.is_deleting(fold)) {
        debug_assert!(
            which.iter().all(|fold| folds.is_deleting(fold)),
            "deletes are alone"
        );
        touched.deletes = true;
        return Ok(touched);
    }
    let kind = |column: u8| shape.columns[usize::from(column)].kind;
    for (index, fold) in which.iter().enumerate() {
        let mut added = 0u32;
        for change in folds
            .encoded(fold)
            .flat_map(|message| &message.update.changes)
        {
            match change {
                Change::Merge { column, .. } | Change::Set { column, .. } => {
                    touched.columns |= 1 << column;
                }
                Change::Add { column, .. } => added |= 1 << column,
                Change::Amount { column, .. } => match kind(*column) {
                    Kind::Sum(_) => added |= 1 << column,
                    _ => touched.columns |= 1 << column,
                },
                Change::Delete => unreachable!("deletes are alone"),
                // It touches what its program's statements say.
                Change::Own(_) => {}
            }
        }
        touched.columns |= added;
        // The sums of a single update are its own numbers: nothing to check.
        while added != 0 && !fold.is_single() {
            let column = u8::try_from(added.trailing_zeros()).expect("at most 31");
            merged
                .merge(folds.encoded(fold), column, kind(column))
                .ok_or(SumOverflow { index })?;
            let amount = merged.amount.is_some_and(|amount| amount.needs_guard());
            if amount || merged.sums.iter().any(|(_, sum)| sum.needs_guard()) {
                touched.guards |= 1 << column;
            }
            added &= added - 1;
        }
    }
    Ok(touched)
}

/// Looking through a few names beats hashing them.
const LINEAR_NAMES_MAX: usize = 8;

/// Finds a name's place among those seen, or makes one.
#[derive(Debug, Default)]
struct Places<'m> {
    by_name: HashMap<&'m str, usize>,
}

impl<'m> Places<'m> {
    fn of<T>(&mut self, entries: &[(&'m str, T)], name: &'m str) -> Option<usize> {
        if entries.len() <= LINEAR_NAMES_MAX {
            return entries.iter().position(|(seen, _)| *seen == name);
        }
        if self.by_name.len() < entries.len() {
            self.by_name = entries
                .iter()
                .enumerate()
                .map(|(at, (seen, _))| (*seen, at))
                .collect();
        }
        self.by_name.get(name).copied()
    }

    fn added(&mut self, name: &'m str, at: usize) {
        if at > LINEAR_NAMES_MAX {
            self.by_name.insert(name, at);
        }
    }
}

impl<'m> Merged<'m> {
    /// What the messages do together to one column; `None` when a sum leaves 64 bits, or the column's type.
    fn merge(
        &mut self,
        messages: impl Iterator<Item = &'m Message<'m>>,
        wanted: u8,
        kind: Kind,
    ) -> Option<()> {
        self.values.clear();
        self.sums.clear();
        self.set = None;
        self.amount = None;
        self.places.by_name.clear();
        for message in messages {
            for change in &message.update.changes {
                match change {
                    Change::Merge {
                        column,
                        name,
                        value,
                    } if *column == wanted => match self.places.of(&self.values, name) {
                        Some(at) => self.values[at].1 = *value,
                        None => {
                            self.values.push((name, *value));
                            self.places.added(name, self.values.len() - 1);
                        }
                    },
                    Change::Add {
                        column,
                        name,
                        delta,
                    } if *column == wanted => {
                        let at = self.places.of(&self.sums, name).unwrap_or_else(|| {
                            self.sums.push((name, Sum::default()));
                            self.places.added(name, self.sums.len() - 1);
                            self.sums.len() - 1
                        });
                        self.sums[at].1.add(*delta)?;
                    }
                    Change::Set { column, value } if *column == wanted => {
                        self.set = Some(value.as_ref());
                    }
                    Change::Amount {
                        column,
                        digits,
                        scale,
                    } if *column == wanted => {
                        let number = Number {
                            whole: i128::from(*digits),
                            scale: u32::from(*scale),
                        };
                        self.amount = Some(Amount::next(self.amount, number, kind)?);
                    }
                    _ => {}
                }
            }
        }
        Some(())
    }
}

/// Appends a row's value; true when the row's flag of the column is to be set.
fn encode_column(param: &mut ArrayParam, kind: Kind, merged: &Merged<'_>) -> bool {
    match kind {
        Kind::Merge if merged.values.is_empty() => {
            param.push_null();
            false
        }
        Kind::Merge => {
            param.push_jsonb(|out| {
                object(out, &merged.values, |out, value| {
                    out.extend(value.unwrap_or("null").as_bytes())
                });
            });
            merged.values.iter().any(|(_, value)| value.is_none())
        }
        Kind::Add if merged.sums.is_empty() => {
            param.push_null();
            false
        }
        Kind::Add => {
            param.push_jsonb(|out| object(out, &merged.sums, |out, sum| integer(out, sum.total)));
            false
        }
        Kind::Set(_) => {
            match merged.set.flatten() {
                Some(SetValue::Uuid(uuid)) => param.push_uuid(*uuid),
                Some(SetValue::Text(text)) => param.push_text(text),
                Some(SetValue::Whole(digits)) if kind == Kind::Set(SetType::Timestamptz) => {
                    param.push_timestamp_us(*digits);
                }
                Some(SetValue::Whole(digits)) => param.push_i64(*digits),
                Some(SetValue::Json(text)) => param.push_jsonb(|out| out.extend(text.as_bytes())),
                None => param.push_null(),
            }
            merged.set.is_some()
        }
        Kind::Sum(of) | Kind::Max(of) | Kind::Min(of) => {
            match merged.amount.map(|amount| amount.total) {
                Some(number) => push_number(param, of, number),
                None => param.push_null(),
            }
            false
        }
    }
}

fn push_number(param: &mut ArrayParam, kind: SetType, number: Number) {
    let whole = i64::try_from(number.whole);
    match kind {
        SetType::Numeric(_) => param.push_text(&number.to_string()),
        SetType::Timestamptz => param.push_timestamp_us(whole.expect("a time is a whole number")),
        _ => param.push_i64(whole.expect("sums beyond the column's type were found before")),
    }
}

fn encode_sum_guard(param: &mut ArrayParam, merged: &Merged<'_>) {
    match merged.amount.filter(Amount::needs_guard) {
        Some(Amount {
            lowest, highest, ..
        }) => param.push_jsonb(|out| {
            write!(out, "[{lowest},{highest}]").expect("writing to memory");
        }),
        None => param.push_null(),
    }
}

fn encode_guard(param: &mut ArrayParam, merged: &Merged<'_>) {
    let guarded: Vec<_> = merged
        .sums
        .iter()
        .filter(|(_, sum)| sum.needs_guard())
        .copied()
        .collect();
    if guarded.is_empty() {
        return param.push_null();
    }
    param.push_jsonb(|out| {
        object(out, &guarded, |out, sum| {
            out.push(b'[');
            integer(out, sum.lowest);
            out.push(b',');
            integer(out, sum.highest);
            out.push(b']');
        });
    });
}

fn object<T>(out: &mut Vec<u8>, entries: &[(&str, T)], value: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'{');
    for (number, (name, of_name)) in entries.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        value(out, of_name);
    }
    out.push(b'}');
}

fn integer(out: &mut Vec<u8>, value: i64) {
    write!(out, "{value}").expect("writing to memory");
}

/// A JSON string. Most names hold nothing that must be escaped.
fn string(out: &mut Vec<u8>, text: &str) {
    if text
        .bytes()
        .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
    {
        out.push(b'"');
        out.extend(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("writing to memory");
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
