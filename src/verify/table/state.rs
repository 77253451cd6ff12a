//! What a row of such a table is after its updates, by the model; and whether the stored one is that.

use super::meaning::{Effect, Said, canonical};
use crate::table::{Column, Kind, Rule, Table};
use crate::verify::json::{decimal, last_members};
use std::collections::BTreeMap;

/// A row by the model.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Whether it was deleted, or never there.
    pub deleted: bool,
    columns: Vec<Holds>,
}

/// What a column holds.
#[derive(Clone, Debug)]
enum Holds {
    /// Nothing was said of it, so it is at its default.
    Nothing,
    Text(Option<String>),
    Names(BTreeMap<String, String>),
    /// Whole digits, and how many are behind the point.
    Sum(i128, u32),
    Kept(i128, u32),
}

impl State {
    /// A row before its first update.
    pub fn new(table: &Table, deleted: bool) -> Self {
        Self {
            deleted,
            columns: table.columns.iter().map(beginning).collect(),
        }
    }

    /// `None`: a sum that this model can't hold.
    pub fn apply(&mut self, table: &Table, effect: Effect) -> Option<()> {
        let changes = match effect {
            Effect::Delete => {
                *self = Self::new(table, true);
                return Some(());
            }
            Effect::Change(changes) => changes,
        };
        self.deleted = false;
        for ((holds, column), said) in self.columns.iter_mut().zip(&table.columns).zip(changes) {
            if let Some(said) = said {
                holds.take(column.rule, said)?;
            }
        }
        Some(())
    }

    /// What differs between the model and the stored texts; the first column that does. `has_default` says of each column whether
    /// it is something by itself where nothing was said of it.
    pub fn differs(
        &self,
        table: &Table,
        stored: &[Option<String>],
        has_default: &[bool],
    ) -> Option<String> {
        let columns = self.columns.iter().zip(&table.columns);
        let mut stored = columns.zip(stored.iter().zip(has_default));
        stored.find_map(|((holds, column), (stored, has_default))| {
            let is_right = holds.is(column.kind, stored.as_deref(), *has_default);
            (!is_right).then(|| {
                let found = stored.as_deref().unwrap_or("NULL");
                format!("{} holds {found}, not {holds:?}", column.name)
            })
        })
    }
}

fn beginning(column: &Column) -> Holds {
    match column.rule {
        Rule::Merge => Holds::Names(BTreeMap::new()),
        Rule::Add => Holds::Sum(0, 0),
        Rule::Set | Rule::KeepMax | Rule::KeepMin => Holds::Nothing,
    }
}

fn same_scale((a, a_scale): (i128, u32), (b, b_scale): (i128, u32)) -> Option<(i128, i128, u32)> {
    let scale = a_scale.max(b_scale);
    let at = |whole: i128, own: u32| whole.checked_mul(10i128.checked_pow(scale - own)?);
    Some((at(a, a_scale)?, at(b, b_scale)?, scale))
}

impl Holds {
    fn take(&mut self, rule: Rule, said: Said) -> Option<()> {
        match (rule, &mut *self, said) {
            (_, _, Said::Is(text)) => *self = Self::Text(text),
            (_, Self::Names(names), Said::Names(said)) => {
                for (name, value) in said {
                    match value {
                        Some(value) => names.insert(name, value),
                        None => names.remove(&name),
                    };
                }
            }
            (Rule::Add, Self::Sum(whole, scale), Said::Number(more, more_scale)) => {
                let (a, b, at) = same_scale((*whole, *scale), (more, more_scale))?;
                (*whole, *scale) = (a.checked_add(b)?, at);
            }
            (_, Self::Kept(whole, scale), Said::Number(other, other_scale)) => {
                let (old, new, _) = same_scale((*whole, *scale), (other, other_scale))?;
                if (rule == Rule::KeepMax && new > old) || (rule == Rule::KeepMin && new < old) {
                    (*whole, *scale) = (other, other_scale);
                }
            }
            (_, Self::Nothing, Said::Number(whole, scale)) => *self = Self::Kept(whole, scale),
            _ => return None,
        }
        Some(())
    }

    fn is(&self, kind: Kind, stored: Option<&str>, has_default: bool) -> bool {
        match (self, stored) {
            (Self::Nothing, stored) => stored.is_none() || has_default,
            (Self::Text(None), stored) => stored.is_none(),
            (_, None) => false,
            (Self::Text(Some(text)), Some(stored)) => match kind {
                Kind::Integer | Kind::Bigint | Kind::Numeric(_) | Kind::Timestamptz => {
                    *text == decimal(stored)
                }
                Kind::Jsonb => *text == canonical(stored),
                Kind::Double => {
                    let number = |text: &str| text.parse::<f64>().ok();
                    number(text) == number(stored)
                }
                _ => text == stored,
            },
            (Self::Names(names), Some(stored)) => {
                let found = last_members(stored).unwrap_or_default();
                let found = found
                    .iter()
                    .map(|member| (member.name.as_ref(), canonical(member.value)));
                found.eq(names
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.clone())))
            }
            (Self::Sum(whole, scale) | Self::Kept(whole, scale), Some(stored)) => {
                decimal(&format!("{whole}e-{scale}")) == decimal(stored)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Deletes, KeyColumn, Path};

    fn table() -> Table {
        let path = Path::parse("x").expect("a path");
        let column = |rule, kind| Column {
            name: "c".to_owned(),
            rule,
            kind,
            from: path.clone(),
        };
        Table {
            name: "t".to_owned(),
            keys: vec![KeyColumn {
                name: "k".to_owned(),
                kind: Kind::Text,
                from: path.clone(),
            }],
            shard_by: 0,
            columns: vec![
                column(Rule::Set, Kind::Text),
                column(Rule::Add, Kind::Numeric(None)),
                column(Rule::KeepMin, Kind::Bigint),
                column(Rule::Merge, Kind::Jsonb),
            ],
            deletes: Deletes::Tombstones,
            own: None,
        }
    }

    fn change(amount: i128, scale: u32) -> Effect {
        Effect::Change(vec![
            Some(Said::Is(Some("a".to_owned()))),
            Some(Said::Number(amount, scale)),
            Some(Said::Number(amount, 0)),
            Some(Said::Names(vec![("n".to_owned(), Some("1e0".to_owned()))])),
        ])
    }

    fn texts(texts: [Option<&str>; 4]) -> Vec<Option<String>> {
        texts.map(|text| text.map(str::to_owned)).to_vec()
    }

    #[test]
    fn a_row_is_compared_by_value_and_each_difference_is_one() {
        let table = table();
        let mut state = State::new(&table, false);
        state.apply(&table, change(15, 1)).expect("small");
        state.apply(&table, change(-2, 0)).expect("small");
        let good = [Some("a"), Some("-0.50"), Some("-2"), Some(r#"{"n": 1.0}"#)];
        let differs = |stored| state.differs(&table, &texts(stored), &[false; 4]);
        assert_eq!(differs(good), None);
        for column in 0..4 {
            for wrong in [None, Some("7"), Some("{}")] {
                let mut stored = good;
                stored[column] = wrong;
                assert!(differs(stored).is_some(), "{column} {wrong:?}");
            }
        }
    }

    #[test]
    fn a_delete_leaves_the_beginning_and_defaults_are_the_tables_own() {
        let table = table();
        let mut state = State::new(&table, false);
        state.apply(&table, change(5, 0)).expect("small");
        state.apply(&table, Effect::Delete).expect("a delete");
        assert!(state.deleted);
        let stored = texts([None, Some("0"), None, Some("{}")]);
        assert_eq!(state.differs(&table, &stored, &[false; 4]), None);
        let stored = texts([Some("mine"), Some("0"), None, Some("{}")]);
        assert!(state.differs(&table, &stored, &[false; 4]).is_some());
        assert_eq!(state.differs(&table, &stored, &[true; 4]), None);
    }
}
