//! What can be told of a message before its value is decoded: size, null, empty, key.

use super::Rejection;
use crate::dead::Reason;
use crate::ids::SubscriptionId;

/// What is shown of a key that is no UUID.
const KEY_BYTES_SHOWN: usize = 80;

/// A message that may be worth decoding.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The subscription that its key names.
    pub subscription: SubscriptionId,
    /// Its key.
    pub key: &'a [u8],
    /// Its value, not empty.
    pub value: &'a [u8],
}

/// Judges all but the value's content. `bytes_max`: of key and value together.
pub fn judge<'a>(
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    bytes_max: usize,
) -> Result<Envelope<'a>, Rejection> {
    let refuse = |reason, explanation: &str| Err(Rejection::new(reason, explanation));
    check_size(key, value, bytes_max)?;
    let Some(value) = value else {
        return refuse(Reason::Tombstone, "the value is null; rows are not deleted");
    };
    if value.is_empty() {
        return refuse(Reason::Empty, "the value has no bytes");
    }
    let Some(key) = key else {
        return refuse(
            Reason::MissingId,
            "the message has no key; it should be the subscription's id",
        );
    };
    let Some(subscription) = SubscriptionId::parse(key) else {
        let shown = String::from_utf8_lossy(&key[..key.len().min(KEY_BYTES_SHOWN)]);
        return refuse(Reason::BadId, &format!("the key is no UUID: {shown}"));
    };
    Ok(Envelope {
        subscription,
        key,
        value,
    })
}

/// Before anything else of a message is looked at.
pub(super) fn check_size(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    bytes_max: usize,
) -> Result<(), Rejection> {
    let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
    if bytes > bytes_max {
        let explanation = format!("{bytes} bytes; consumer.message_max_bytes is {bytes_max}");
        return Err(Rejection::new(Reason::TooLarge, explanation));
    }
    Ok(())
}
