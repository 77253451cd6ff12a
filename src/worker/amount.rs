//! A column of numbers: what comes of the numbers of one row's messages.

use crate::sink::shape::{Kind, SetType};
use crate::table::Number;

/// A sum with the extremes on its way, or the largest or smallest number so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    /// The sum, or the number that stays.
    pub total: Number,
    /// Of a sum, from nothing on.
    pub lowest: Number,
    /// The same.
    pub highest: Number,
}

impl Amount {
    const ZERO: Self = {
        const ZERO: Number = Number { whole: 0, scale: 0 };
        Self {
            total: ZERO,
            lowest: ZERO,
            highest: ZERO,
        }
    };

    /// What comes of the next number. `None` where a sum leaves the column's type.
    pub fn next(before: Option<Self>, number: Number, kind: Kind) -> Option<Self> {
        let kept = |number| Self {
            total: number,
            ..Self::ZERO
        };
        match (kind, before) {
            (Kind::Sum(of), before) => {
                let before = before.unwrap_or(Self::ZERO);
                let total = before.total.plus(number).filter(|sum| holds(of, *sum))?;
                let lower = |a: Number, b: Number| if b < a { b } else { a };
                let higher = |a: Number, b: Number| if b > a { b } else { a };
                Some(Self {
                    total,
                    lowest: lower(before.lowest, total),
                    highest: higher(before.highest, total),
                })
            }
            (Kind::Max(_), Some(before)) if before.total >= number => Some(before),
            (Kind::Min(_), Some(before)) if before.total <= number => Some(before),
            _ => Some(kept(number)),
        }
    }

    /// Whether the way went beyond its ends, so that the end alone doesn't tell.
    pub fn needs_guard(&self) -> bool {
        let (zero, total) = (Self::ZERO.total, self.total);
        (self.lowest < total && self.lowest < zero) || (self.highest > total && self.highest > zero)
    }
}

/// Whether a column of that type holds the number.
fn holds(kind: SetType, number: Number) -> bool {
    match kind {
        SetType::Integer => i32::try_from(number.whole).is_ok(),
        SetType::Bigint => i64::try_from(number.whole).is_ok(),
        SetType::Numeric(Some((precision, scale))) => number.fits(precision - scale),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, numbers: &[&str]) -> Option<Amount> {
        let mut amount = None;
        for number in numbers {
            let number = Number::parse(number).expect("a number");
            amount = Some(Amount::next(amount, number, kind)?);
        }
        amount
    }

    #[test]
    fn sums_remember_how_far_they_went_and_end_where_the_type_does() {
        let sum = |kind, numbers: &[&str]| of(Kind::Sum(kind), numbers);
        let shown = |amount: Option<Amount>| {
            amount.map(|amount| (amount.total.to_string(), amount.needs_guard()))
        };
        let expect = |text: &str, needs_guard| Some((text.to_owned(), needs_guard));
        let numeric = SetType::Numeric(Some((4, 2)));
        assert_eq!(shown(sum(numeric, &["1.5", "0.25"])), expect("1.75", false));
        assert_eq!(
            shown(sum(numeric, &["1.5", "-2.25"])),
            expect("-0.75", true)
        );
        assert_eq!(shown(sum(numeric, &["-1", "3"])), expect("2", true));
        assert_eq!(shown(sum(numeric, &["60", "60", "-60"])), None);
        let most = i32::MAX.to_string();
        assert_eq!(shown(sum(SetType::Integer, &[&most, "1", "-1"])), None);
        assert!(sum(SetType::Bigint, &[&most, "1", "-1"]).is_some());
    }

    #[test]
    fn the_larger_and_the_smaller_stay() {
        let kept = |kind: Kind| of(kind, &["2.5", "2.50", "-3", "2.4"]).map(|kept| kept.total);
        let number = SetType::Numeric(None);
        assert_eq!(kept(Kind::Max(number)), Number::parse("2.5"));
        assert_eq!(kept(Kind::Min(number)), Number::parse("-3"));
    }
}
