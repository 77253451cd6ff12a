//! The incident's traffic. One customer's site called `setEmail` with its own address: 4.8 of its 5 million subscriptions had
//! the email's row as parent, and the SDK sent each update of a child once more for the parent's row, until nearly half of all
//! messages were for one row.
//!
//! Messages come in pairs, and a pair is one of:
//!
//! | pair | share | first message | second message |
//! |---|---|---|---|
//! | others | [`OTHERS_SHARE`] | an update of another app's row | the same, of another row |
//! | link | 1 of [`LINK_EVERY`] of the rest | the email's row: what device it is | the caller: who its parent is |
//! | mirrored | [`LINKED_SHARE`] of the rest | location, color and level of a linked child | the same for the parent |
//! | unlinked | what is left | location, color and level of a child without parent | the same, of another child |
//!
//! So the parent's row gets 0.95 · (0.01 + 0.99 · 0.96) / 2 = 45.6 % of the messages. Links are few, as they are in real life:
//! they link one child after the other, so a run of N messages links N · 0.95 · 0.01 / 2 children, beginning anew at the
//! last.
//!
//! The app shares its partition with at least one of the others; the other apps are wherever they belong.

use super::traffic::{id, push_id, push_member};
use crate::ids::{AppId, RowKey, SubscriptionId};
use crate::partitioner::Partitioner;
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// The address that one customer's site said of every visitor.
pub const EMAIL: &str = "admin@clothes.ly";
/// The share of the pairs that are for other apps. Few: it was the one app's traffic that was too much, not theirs.
pub const OTHERS_SHARE: f64 = 0.05;
/// The share of the app's subscriptions that are linked to one parent, in percent: 4.8 of 5 million.
pub const LINKED_PERCENT: u32 = 96;
/// Of so many pairs of the app, one links. Linking is a second, slower path of the consumer, and rare.
pub const LINK_EVERY: u64 = 100;
/// The other apps have together a row for each so many of the app's.
const ROWS_PER_OTHER_ROW: u32 = 5;

const LOCATIONS: [&str; 6] = ["Berlin", "Zürich", "São Paulo", "東京", "New York", "Oslo"];
const COLORS: [&str; 5] = ["black", "teal", "navy", "sand", "red"];

/// The one app, and who shares the topic with it.
#[derive(Debug)]
pub(super) struct Clothesly {
    seed: u64,
    app: AppId,
    parent: SubscriptionId,
    rows: u32,
    linked: u32,
}

/// What a pair of messages is; the number is a child's.
enum Pair {
    Others,
    Link(u32),
    Mirrored(u32),
    Unlinked,
}

/// What brings a message through the edge.
pub(super) enum Asked {
    /// A request for another app, whose row has this number among theirs.
    Other(u32),
    /// `setEmail` of this row; it brings both messages of its pair.
    SetEmail(RowKey),
    /// An update of this row; a mirrored one brings both messages of its pair.
    Update { row: RowKey, mirrored: bool },
    /// The request for the message before.
    Nothing,
}

/// What a message of the scenario is.
pub(super) enum Part {
    /// An update of another app, whose row has this number among theirs.
    Other(u32),
    /// A message for this row of the app; its value was written.
    Own(RowKey),
}

impl Clothesly {
    /// An app with that many rows, of which so many have the one parent (if not 96 %), on a partition that is not only its own: `beside` is another app.
    pub fn new(
        seed: u64,
        (rows, linked): (u32, Option<u32>),
        beside: AppId,
        partitioner: &Partitioner,
    ) -> Self {
        let shared = partitioner.partition_of(beside);
        let app = (0..)
            .map(|attempt| AppId(id(seed, "clothesly", attempt)))
            .find(|app| partitioner.partition_of(*app) == shared)
            .expect("random ids reach every partition");
        let usual = (u64::from(rows) * u64::from(LINKED_PERCENT)).div_ceil(100);
        let usual = u32::try_from(usual).expect("at most all");
        Self {
            seed,
            app,
            parent: SubscriptionId::of_email(app, EMAIL),
            rows,
            linked: linked.map_or(usual, |linked| linked.clamp(1, rows)),
        }
    }

    /// Rows of all other apps together.
    pub fn other_rows(&self, apps: u32) -> u32 {
        (self.rows / ROWS_PER_OTHER_ROW).max(apps)
    }

    /// The row of a child, or of the parent behind the last one.
    pub fn row(&self, index: u32) -> RowKey {
        let subscription = match index < self.rows {
            true => SubscriptionId(id(self.seed, "child", index)),
            false => self.parent,
        };
        RowKey {
            app: self.app,
            subscription,
        }
    }

    /// What the pair is, and what its random choices go on with: both of its messages see the same.
    fn pair(&self, pair: u64) -> (Pair, SmallRng) {
        let mut random = random(self.seed ^ 1, pair);
        let kind = if random.random_bool(OTHERS_SHARE) {
            Pair::Others
        } else if pair.is_multiple_of(LINK_EVERY) {
            let child = u32::try_from((pair / LINK_EVERY) % u64::from(self.linked));
            Pair::Link(child.expect("below a u32"))
        } else {
            match random.random_range(0..self.rows) {
                child if child < self.linked => Pair::Mirrored(child),
                _ => Pair::Unlinked,
            }
        };
        (kind, random)
    }

    /// Writes the message with that number, unless it is another app's.
    pub fn write(&self, number: u64, others: u32, json: &mut Vec<u8>) -> Part {
        let is_second = number % 2 == 1;
        let (kind, mut random) = self.pair(number / 2);
        let row = match (kind, is_second) {
            (Pair::Others, _) => return Part::Other(random_of(self.seed, number, 0..others)),
            (Pair::Link(child), _) => return self.link(child, is_second, json),
            (Pair::Mirrored(child), false) => self.row(child),
            (Pair::Mirrored(_), true) => self.row(self.rows),
            (Pair::Unlinked, _) => self.unlinked(number),
        };
        open(row, json);
        write_tags(&mut random, json);
        json.push(b'}');
        Part::Own(row)
    }

    /// Writes the body of the request that brings the message with that number, unless it is another app's.
    pub fn write_body(&self, number: u64, others: u32, json: &mut Vec<u8>) -> Asked {
        let is_second = number % 2 == 1;
        let (kind, mut random) = self.pair(number / 2);
        let (row, mirrored) = match (kind, is_second) {
            (Pair::Others, _) => return Asked::Other(random_of(self.seed, number, 0..others)),
            (Pair::Link(_) | Pair::Mirrored(_), true) => return Asked::Nothing,
            (Pair::Link(child), false) => {
                open_body(self.app, json);
                json.extend_from_slice(format!(r#","email":"{EMAIL}"}}"#).as_bytes());
                return Asked::SetEmail(self.row(child));
            }
            (Pair::Mirrored(child), false) => (self.row(child), true),
            (Pair::Unlinked, _) => (self.unlinked(number), false),
        };
        open_body(self.app, json);
        write_tags(&mut random, json);
        if mirrored {
            json.extend_from_slice(br#","mirror_to":""#);
            push_id(json, self.parent.0);
            json.push(b'"');
        }
        json.push(b'}');
        Asked::Update { row, mirrored }
    }

    fn unlinked(&self, number: u64) -> RowKey {
        self.row(random_of(self.seed, number, self.linked..self.rows))
    }

    /// What the edge makes of `setEmail`.
    fn link(&self, child: u32, is_second: bool, json: &mut Vec<u8>) -> Part {
        let row = self.row(if is_second { child } else { self.rows });
        open(row, json);
        if is_second {
            json.extend_from_slice(br#","parent_id":""#);
            push_id(json, self.parent.0);
            json.extend_from_slice(br#""}"#);
        } else {
            let email = format!(r#","device_type":"email","identifier":"{EMAIL}"}}"#);
            json.extend_from_slice(email.as_bytes());
        }
        Part::Own(row)
    }
}

/// An odd factor keeps the seeds of all numbers apart.
pub(super) fn random(seed: u64, number: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A choice that the other message of the pair doesn't share.
fn random_of(seed: u64, number: u64, range: std::ops::Range<u32>) -> u32 {
    random(seed ^ 2, number).random_range(range)
}

fn open(row: RowKey, json: &mut Vec<u8>) {
    open_body(row.app, json);
    json.extend_from_slice(br#","subscription_id":""#);
    push_id(json, row.subscription.0);
    json.push(b'"');
}

pub(super) fn open_body(app: AppId, json: &mut Vec<u8>) {
    json.extend_from_slice(br#"{"app_id":""#);
    push_id(json, app.0);
    json.push(b'"');
}

fn write_tags(random: &mut SmallRng, json: &mut Vec<u8>) {
    json.extend_from_slice(br#","tags":{"#);
    let mut quoted = |of: &[&str]| format!("\"{}\"", of[random.random_range(0..of.len())]);
    push_member(json, true, "location", &quoted(&LOCATIONS));
    push_member(json, false, "color", &quoted(&COLORS));
    let level = random.random_range(1..100).to_string();
    push_member(json, false, "level", &level);
    json.push(b'}');
}

#[cfg(test)]
#[path = "clothesly_tests.rs"]
mod tests;
