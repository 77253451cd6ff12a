//! Makes values as long as is wanted, by a tag of text at the front of those that are there. It stays in the row, so rows are
//! that long too. No two texts are alike and none can be compressed: the worst of that length for all who keep it.

use super::clothesly::random;
use rand::Rng;
use std::iter;

/// Where `"tags":{` of an update has its members, of which there is at least one.
const FIRST_TAG: &[u8] = br#""tags":{"#;
const BEFORE: &[u8] = br#""about":""#;
const AFTER: &[u8] = br#"","#;
/// A random number is that many of them.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LETTERS_OF_A_NUMBER: usize = 10;

/// Makes an update's value that many bytes long, with the text of that seed and number. Leaves one that is as long already, or
/// that lacks too few bytes for a tag.
pub fn pad(value: &mut Vec<u8>, bytes: usize, seed: u64, number: u64) {
    let missing = bytes.saturating_sub(value.len() + BEFORE.len() + AFTER.len());
    if missing == 0 {
        return;
    }
    let tags = value.windows(FIRST_TAG.len());
    let tags = tags.clone().position(|window| window == FIRST_TAG);
    let at = tags.expect("an update has tags") + FIRST_TAG.len();
    // The text must not follow from what decided the rest.
    let mut random = random(!seed, number);
    let numbers = iter::repeat_with(|| random.random::<u64>());
    let text = numbers.flat_map(letters).take(missing);
    let tag = BEFORE
        .iter()
        .copied()
        .chain(text)
        .chain(AFTER.iter().copied());
    value.splice(at..at, tag);
}

fn letters(number: u64) -> impl Iterator<Item = u8> {
    (0..LETTERS_OF_A_NUMBER).map(move |place| {
        let index = (number >> (6 * place)) & 63;
        LETTERS[usize::try_from(index).expect("below 64")]
    })
}
