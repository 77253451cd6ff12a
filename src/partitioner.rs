//! App → shard → partition. Pure: a producer in another language reaches the same partition from the rule in the README
//! and the test vectors below.
//!
//! Shards are numbered by the start of their range of first bytes. With P partitions and S shards, shard i owns the
//! partitions i·P/S up to (i+1)·P/S, and an app's partition is the shard's first one plus
//! `xxh3_64(the 16 bytes of app_id) mod (P/S)`. So one app is always on one partition, and a partition has one shard.

use crate::ids::{AppId, Partition, ShardIndex};
use xxhash_rust::xxh3::xxh3_64;

/// The map from apps to shards and partitions. Made by `config` from checked ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitioner {
    partitions: u32,
    shards: u32,
    /// The shard of each first byte of an app id.
    shard_of_byte: Box<[u16; 256]>,
}

impl Partitioner {
    /// `shard_of_byte[b]` is the number of the shard whose range holds the first byte `b`.
    ///
    /// Panics unless `partitions` divides evenly by `shards`; `config` refuses such a file with a message before.
    pub fn new(partitions: u32, shards: u32, shard_of_byte: [u16; 256]) -> Self {
        assert!(
            shards > 0 && partitions > 0,
            "at least one shard and one partition"
        );
        assert_eq!(partitions % shards, 0, "partitions divide evenly by shards");
        assert!(
            shard_of_byte.iter().all(|shard| u32::from(*shard) < shards),
            "each byte names a shard"
        );
        Self {
            partitions,
            shards,
            shard_of_byte: Box::new(shard_of_byte),
        }
    }

    /// The shard that holds the app's rows.
    pub fn shard_of(&self, app: AppId) -> ShardIndex {
        ShardIndex(usize::from(self.shard_of_byte[usize::from(app.0[0])]))
    }

    /// The partition that all messages of the app go to.
    pub fn partition_of(&self, app: AppId) -> Partition {
        let per_shard = self.partitions / self.shards;
        let shard = u32::from(self.shard_of_byte[usize::from(app.0[0])]);
        let within = u32::try_from(xxh3_64(&app.0) % u64::from(per_shard)).expect("below a u32");
        Partition(i32::try_from(shard * per_shard + within).expect("partitions fit Kafka's i32"))
    }

    /// The one shard that the partition's apps belong to.
    pub fn shard_of_partition(&self, partition: Partition) -> ShardIndex {
        ShardIndex(partition.index() / (self.partitions / self.shards) as usize)
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// How many of them each shard owns.
    pub fn partitions_per_shard(&self) -> u32 {
        self.partitions / self.shards
    }

    /// A fingerprint of everything that decides an app's partition; `millpond_source` remembers it.
    pub fn shard_map_hash(&self) -> i64 {
        let mut bytes = Vec::with_capacity(520);
        bytes.extend(self.partitions.to_le_bytes());
        bytes.extend(self.shards.to_le_bytes());
        bytes.extend(
            self.shard_of_byte
                .iter()
                .flat_map(|shard| shard.to_le_bytes()),
        );
        xxh3_64(&bytes).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_halves(partitions: u32) -> Partitioner {
        Partitioner::new(
            partitions,
            2,
            std::array::from_fn(|byte| u16::from(byte >= 0x80)),
        )
    }

    /// (app_id, partition of 720 over the shards 00-7f and 80-ff). The README publishes them.
    const VECTORS: [(&str, i32); 4] = [
        ("00000000-0000-0000-0000-000000000000", 248),
        ("5eb5a37e-b458-11e3-ac11-000c2940e62c", 309),
        ("7fffffff-ffff-ffff-ffff-ffffffffffff", 321),
        ("f47ac10b-58cc-4372-a567-0e02b2c3d479", 540),
    ];

    #[test]
    fn an_app_reaches_the_published_partition() {
        let partitioner = two_halves(720);
        let found: Vec<(&str, i32)> = VECTORS
            .iter()
            .map(|(text, _)| {
                (
                    *text,
                    partitioner
                        .partition_of(AppId::parse(text.as_bytes()).expect("a uuid"))
                        .0,
                )
            })
            .collect();
        assert_eq!(found, VECTORS);
    }

    #[test]
    fn every_app_lands_on_a_partition_of_its_own_shard() {
        let partitioner = two_halves(24);
        for seed in 0..10_000u64 {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&xxh3_64(&seed.to_le_bytes()).to_le_bytes());
            let app = AppId(bytes);
            let partition = partitioner.partition_of(app);
            assert!(partition.index() < 24);
            assert_eq!(
                partitioner.shard_of_partition(partition),
                partitioner.shard_of(app)
            );
        }
    }

    #[test]
    fn the_fingerprint_changes_with_the_map() {
        assert_ne!(
            two_halves(24).shard_map_hash(),
            two_halves(48).shard_map_hash()
        );
        let moved = Partitioner::new(24, 2, std::array::from_fn(|byte| u16::from(byte >= 0x81)));
        assert_ne!(two_halves(24).shard_map_hash(), moved.shard_map_hash());
    }
}
