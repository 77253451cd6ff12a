//! Decimal numbers, exactly: a whole number and how many of its digits are behind the point.

use std::cmp::Ordering;
use std::fmt;

/// Digits of one number in a message. What is added up and compared has fewer: all of them fit 64 bits.
const DIGITS_MAX: usize = 36;

/// whole / 10^scale. Equal numbers may have different scales.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// All digits.
    pub whole: i128,
    /// How many of them are behind the point.
    pub scale: u32,
}

impl Number {
    /// A number without a fraction.
    pub fn of_whole(whole: i64) -> Self {
        Self {
            whole: i128::from(whole),
            scale: 0,
        }
    }

    /// Reads digits with a point, without an exponent: at most 36 digits. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let is_complete = !whole.is_empty() && (!unsigned.contains('.') || !fraction.is_empty());
        let all = [whole, fraction].concat();
        if !is_complete
            || all.len() > DIGITS_MAX
            || !all.bytes().all(|digit| digit.is_ascii_digit())
        {
            return None;
        }
        Some(Self {
            whole: sign * all.parse::<i128>().ok()?,
            scale: u32::try_from(fraction.len()).ok()?,
        })
    }

    /// The sum, with as many digits behind the point as the longer of the two, as Postgres has it. `None` beyond 128 bits.
    pub fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let whole = self.at(scale)?.checked_add(other.at(scale)?)?;
        Some(Self { whole, scale })
    }

    /// Whether it has at most so many digits in front of the point.
    pub fn fits(self, digits: u32) -> bool {
        let end = 10u128.checked_pow(digits + self.scale);
        end.is_none_or(|end| self.whole.unsigned_abs() < end)
    }

    fn at(self, scale: u32) -> Option<i128> {
        10i128
            .checked_pow(scale - self.scale)?
            .checked_mul(self.whole)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let scale = self.scale.max(other.scale);
        Some(match (self.at(scale), other.at(scale)) {
            (Some(own), Some(other)) => own.cmp(&other),
            // Beyond 128 bits, and so larger than the other, in whichever direction.
            (None, _) => self.whole.cmp(&0),
            (_, None) => 0.cmp(&other.whole),
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::try_from(self.scale).expect("few digits");
        let digits = format!("{:0>width$}", self.whole.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if self.whole < 0 { "-" } else { "" };
        let point = if scale == 0 { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).expect("a number")
    }

    #[test]
    fn numbers_are_shown_as_they_are_written() {
        for text in ["0", "-1", "0.05", "-0.50", "12.30", "999999999999999999"] {
            assert_eq!(number(text).to_string(), text);
        }
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "1e3",
            "+1",
            "1.2.3",
            &"1".repeat(37),
            "0x1",
        ] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sums_keep_every_digit_and_order_is_by_value() {
        let sum = number("0.1").plus(number("-12.25"));
        assert_eq!(sum.map(|sum| sum.to_string()).as_deref(), Some("-12.15"));
        assert!(number("0.10") == number("0.1") && number("-2") < number("-1.99"));
        let tiny = number(&format!("0.{}1", "0".repeat(34)));
        assert!(tiny < number("5000") && number("-5000") < tiny);
    }

    #[test]
    fn digits_in_front_of_the_point_are_counted() {
        assert!(number("99.99").fits(2) && !number("100.00").fits(2));
        assert!(number("-0.01").fits(0) && !number("1").fits(0));
    }
}
