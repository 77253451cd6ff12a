//! Types of columns, as the configuration spells them and as Postgres gives them back.

use std::fmt;

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// uuid
    Uuid,
    /// text
    Text,
    /// boolean
    Boolean,
    /// 32 bits
    Integer,
    /// 64 bits
    Bigint,
    /// double precision
    Double,
    /// numeric; with digits in all and behind the point where they are given.
    Numeric(Option<(u32, u32)>),
    /// timestamp with time zone
    Timestamptz,
    /// date
    Date,
    /// jsonb
    Jsonb,
}

/// A text that is no type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindError;

/// Spelled as in the configuration and in SQL; as `format_type` gives it back.
const NAMES: [(Kind, &str, &str); 10] = [
    (Kind::Uuid, "uuid", "uuid"),
    (Kind::Text, "text", "text"),
    (Kind::Boolean, "boolean", "boolean"),
    (Kind::Integer, "integer", "integer"),
    (Kind::Bigint, "bigint", "bigint"),
    (Kind::Double, "double precision", "double precision"),
    (Kind::Numeric(None), "numeric", "numeric"),
    (Kind::Timestamptz, "timestamptz", "timestamp with time zone"),
    (Kind::Date, "date", "date"),
    (Kind::Jsonb, "jsonb", "jsonb"),
];
/// Digits of a numeric with a precision. More than 18 can't be in an amount.
const PRECISION_MAX: u32 = 36;

impl Kind {
    /// The spellings of all types.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name, _)| *name)
    }

    /// Reads a type.
    pub fn parse(text: &str) -> Result<Self, KindError> {
        if let Some((kind, ..)) = NAMES.iter().find(|(_, name, _)| *name == text) {
            return Ok(*kind);
        }
        let digits = text
            .strip_prefix("numeric(")
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or(KindError)?;
        let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| KindError);
        let (precision, scale) = (number(precision)?, number(scale)?);
        let legal = (1..=PRECISION_MAX).contains(&precision) && scale <= precision.min(18);
        legal
            .then_some(Self::Numeric(Some((precision, scale))))
            .ok_or(KindError)
    }

    /// As Postgres' `format_type` spells it.
    pub fn in_catalogue(self) -> String {
        match NAMES.iter().find(|(kind, ..)| *kind == self) {
            Some((_, _, name)) => (*name).to_owned(),
            None => self.to_string(),
        }
    }

    /// Whether a key may be of it: whether equal values have one binary form.
    pub fn is_for_keys(self) -> bool {
        matches!(self, Self::Uuid | Self::Text | Self::Bigint | Self::Integer)
    }

    /// Whether the larger of two values is the same here and in Postgres.
    pub fn is_ordered(self) -> bool {
        matches!(
            self,
            Self::Bigint | Self::Integer | Self::Numeric(_) | Self::Timestamptz
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Numeric(Some((precision, scale))) = self {
            return write!(f, "numeric({precision},{scale})");
        }
        let named = NAMES.iter().find(|(kind, ..)| kind == self);
        f.write_str(named.expect("all others are listed").1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_shown_as_they_are_written() {
        for text in Kind::names().chain(["numeric(14,2)", "numeric(5,0)"]) {
            let kind = Kind::parse(text).map(|kind| kind.to_string());
            assert_eq!(kind.as_deref(), Ok(text));
        }
        assert_eq!(
            Kind::parse("numeric(14, 2)"),
            Ok(Kind::Numeric(Some((14, 2))))
        );
        assert_eq!(Kind::parse("numeric(5)"), Ok(Kind::Numeric(Some((5, 0)))));
        for text in [
            "",
            "int",
            "numeric()",
            "numeric(0,0)",
            "numeric(2,3)",
            "numeric(37,2)",
            "numeric(30,19)",
        ] {
            assert_eq!(Kind::parse(text), Err(KindError), "{text}");
        }
    }
}
