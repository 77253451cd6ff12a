//! A statement's array parameters, encoded straight into Postgres' binary form: no value is boxed, no tree is built. One
//! buffer per column is used again for each batch.
//!
//! The form (`array_send` in Postgres' arrayfuncs.c): dimensions, has-nulls, element type, length, lower bound, then each
//! element as a length and its bytes, -1 for NULL.

use super::shape::{Key, Shape};
use crate::ids::RowKey;
use crate::table::Asked;
use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use std::error::Error;

/// Microseconds between 1970 and 2000, from where Postgres counts.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// Kafka timestamps beyond these can't be a `timestamptz`; they are brought to the nearer end. Year 0 to 9999.
const TIMESTAMP_MS_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_000;

/// A uuid, as a parameter and as a result.
#[derive(Debug)]
pub struct Uuid(pub [u8; 16]);

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

impl FromSql<'_> for Uuid {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

/// One array parameter under construction.
#[derive(Debug)]
pub struct ArrayParam {
    element: Type,
    array: Type,
    length: i32,
    has_nulls: bool,
    elements: Vec<u8>,
}

impl ArrayParam {
    /// An empty array of this element type.
    pub fn of(element: Type) -> Self {
        let array = match element {
            Type::UUID => Type::UUID_ARRAY,
            Type::INT4 => Type::INT4_ARRAY,
            Type::INT8 => Type::INT8_ARRAY,
            Type::JSONB => Type::JSONB_ARRAY,
            Type::TEXT => Type::TEXT_ARRAY,
            Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
            other => panic!("no array of {other} is needed"),
        };
        Self {
            element,
            array,
            length: 0,
            has_nulls: false,
            elements: Vec::new(),
        }
    }

    /// The array's type, for preparing statements.
    pub fn array_type(&self) -> Type {
        self.array.clone()
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.length = 0;
        self.has_nulls = false;
        self.elements.clear();
    }

    /// Reads the elements back; `None` for NULL.
    #[cfg(all(test, not(feature = "loom")))]
    pub fn elements(&self) -> Vec<Option<&[u8]>> {
        let mut rest = self.elements.as_slice();
        let mut elements = Vec::new();
        while let Some((length, bytes)) = rest.split_first_chunk() {
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let (element, others) = bytes.split_at(length.unwrap_or(0));
            elements.push(length.map(|_| element));
            rest = others;
        }
        elements
    }

    /// Bytes encoded so far.
    pub fn bytes(&self) -> usize {
        self.elements.len()
    }

    /// Appends a uuid.
    pub fn push_uuid(&mut self, uuid: [u8; 16]) {
        self.push_bytes(&uuid);
    }

    /// Appends an int4.
    pub fn push_i32(&mut self, value: i32) {
        self.push_bytes(&value.to_be_bytes());
    }

    /// Appends an int8.
    pub fn push_i64(&mut self, value: i64) {
        self.push_bytes(&value.to_be_bytes());
    }

    /// Appends a timestamptz, given in milliseconds since 1970.
    pub fn push_timestamp_ms(&mut self, milliseconds: i64) {
        let within = milliseconds.clamp(*TIMESTAMP_MS_RANGE.start(), *TIMESTAMP_MS_RANGE.end());
        self.push_bytes(&(within * 1000 - POSTGRES_EPOCH_US).to_be_bytes());
    }

    /// Appends a timestamptz, given in microseconds since 1970. One that Postgres can't have stays one that it refuses.
    pub fn push_timestamp_us(&mut self, microseconds: i64) {
        let since_2000 = microseconds.saturating_sub(POSTGRES_EPOCH_US);
        self.push_bytes(&since_2000.to_be_bytes());
    }

    /// Appends a value in its binary form.
    pub fn push_binary(&mut self, bytes: &[u8]) {
        self.push_bytes(bytes);
    }

    /// Appends a text.
    pub fn push_text(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    /// Appends a jsonb, whose text `write` appends to the buffer that it is given.
    pub fn push_jsonb(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.elements.len();
        self.elements.extend([0, 0, 0, 0, JSONB_VERSION]);
        write(&mut self.elements);
        let length =
            i32::try_from(self.elements.len() - start - 4).expect("a message is far below 2 GiB");
        self.elements[start..start + 4].copy_from_slice(&length.to_be_bytes());
        self.length += 1;
    }

    /// Appends NULL.
    pub fn push_null(&mut self) {
        self.elements.extend((-1i32).to_be_bytes());
        self.has_nulls = true;
        self.length += 1;
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        let length = i32::try_from(bytes.len()).expect("a message is far below 2 GiB");
        self.elements.extend(length.to_be_bytes());
        self.elements.extend(bytes);
        self.length += 1;
    }
}

/// The first byte of jsonb's binary form.
const JSONB_VERSION: u8 = 1;

impl ToSql for ArrayParam {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.reserve(20 + self.elements.len());
        for word in [1, i32::from(self.has_nulls)] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.element.oid().to_be_bytes());
        for word in [self.length, 1] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.elements);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        // Statements are prepared with `array_type`; Postgres checks the element type again.
        true
    }

    to_sql_checked!();
}

/// A value in its binary form, as a parameter.
#[derive(Debug)]
pub(super) struct Binary<'a>(pub &'a [u8]);

impl ToSql for Binary<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        // Whoever has the bytes says of which type they are.
        true
    }

    to_sql_checked!();
}

/// The columns of these rows' keys.
pub(super) fn asked_params(shape: &Shape, rows: &[Asked<'_>]) -> Vec<ArrayParam> {
    let of = |key: &Key| ArrayParam::of(key.param_type());
    let mut params: Vec<ArrayParam> = shape.keys.iter().map(of).collect();
    for row in rows {
        for (param, part) in params.iter_mut().zip(row.parts()) {
            param.push_binary(part);
        }
    }
    params
}

/// The same as a statement's first parameters.
pub(super) fn typed(params: &[ArrayParam]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    let mut typed: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(params.len());
    for param in params {
        typed.push((param, param.array_type()));
    }
    typed
}

/// The two columns of these rows' keys.
pub(super) fn key_params(keys: &[RowKey]) -> (ArrayParam, ArrayParam) {
    let (mut apps, mut subscriptions) = (ArrayParam::of(Type::UUID), ArrayParam::of(Type::UUID));
    for key in keys {
        apps.push_uuid(key.app.0);
        subscriptions.push_uuid(key.subscription.0);
    }
    (apps, subscriptions)
}

/// The same as a statement's first parameters.
pub(super) fn typed_keys<'a>(
    apps: &'a ArrayParam,
    subscriptions: &'a ArrayParam,
) -> [(&'a (dyn ToSql + Sync), Type); 2] {
    [(apps, Type::UUID_ARRAY), (subscriptions, Type::UUID_ARRAY)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres::types::FromSql;

    fn sent(param: &ArrayParam) -> BytesMut {
        let mut out = BytesMut::new();
        param
            .to_sql(&param.array_type(), &mut out)
            .expect("encodes");
        out
    }

    #[test]
    fn arrays_are_read_back_by_the_driver() {
        let mut numbers = ArrayParam::of(Type::INT8);
        numbers.push_i64(-5);
        numbers.push_null();
        numbers.push_i64(i64::MAX);
        let read =
            Vec::<Option<i64>>::from_sql(&Type::INT8_ARRAY, &sent(&numbers)).expect("an array");
        assert_eq!(read, [Some(-5), None, Some(i64::MAX)]);
        numbers.clear();
        numbers.push_i64(1);
        let read = Vec::<i64>::from_sql(&Type::INT8_ARRAY, &sent(&numbers)).expect("an array");
        assert_eq!(read, [1]);
    }

    #[test]
    fn jsonb_elements_carry_their_version_and_length() {
        let mut json = ArrayParam::of(Type::JSONB);
        json.push_jsonb(|out| out.extend(b"{}"));
        let bytes = sent(&json);
        assert_eq!(bytes[20..], [0, 0, 0, 3, 1, b'{', b'}']);
    }

    #[test]
    fn timestamps_are_microseconds_since_2000_within_years_that_postgres_has() {
        let mut times = ArrayParam::of(Type::TIMESTAMPTZ);
        times.push_timestamp_ms(946_684_800_001);
        times.push_timestamp_ms(i64::MAX);
        let bytes = sent(&times);
        assert_eq!(bytes[24..32], 1000i64.to_be_bytes());
        assert!(i64::from_be_bytes(bytes[36..44].try_into().expect("8 bytes")) > 0);
    }
}
