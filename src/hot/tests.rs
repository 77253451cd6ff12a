//! From batches to the picture and to warnings.

use super::counts::{HALF_LIFE, window_seconds_max};
use super::picture::{Picture, top};
use super::warnings::{MESSAGES_PER_S_MIN, PAUSE, Subject, Warnings};
use super::{By, Counting, Counts, LOOK_INTERVAL, ShardPicture, Shelf};
use crate::clock;
use crate::ids::{AppId, RowKey, ShardIndex, SubscriptionId};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn row(app: u8, number: u32) -> RowKey {
    let mut id = [app; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    RowKey {
        app: AppId([app; 16]),
        subscription: SubscriptionId(id),
    }
}

/// One batch with these counts of messages by row, written in that time.
fn batch(counting: &mut Counting, rows: &[(RowKey, usize)], time: Duration, now: Instant) {
    let messages = rows.iter().map(|(_, messages)| messages).sum();
    counting.sample(messages, rows.iter().copied());
    counting.count(time, now);
}

/// 1,000 messages, 300 of them for one row of app 1, the others for one row each of nine apps. `first` tells batches apart.
fn hot_batch(first: u32) -> Vec<(RowKey, usize)> {
    let others = (0..700).map(|number| {
        let app = u8::try_from(number % 9 + 2).expect("below 12");
        (row(app, first + number), 1)
    });
    std::iter::once((row(1, 0), 300)).chain(others).collect()
}

fn close(found: f64, expected: f64, by: f64) {
    assert!((found - expected).abs() <= by, "{found}, not {expected}");
}

#[test]
fn a_small_batch_is_counted_whole() {
    let begin = clock::now();
    let mut counting = Counting::new(begin);
    let rows = [(row(1, 1), 3), (row(1, 2), 1), (row(2, 3), 60)];
    batch(&mut counting, &rows, Duration::from_micros(640), begin);
    let counts = counting.counts();
    for (key, messages) in rows {
        let weights = counts.rows.each_ref().map(|sketch| sketch.weight(&key));
        let [of_messages, of_writes, of_time] = weights;
        assert_eq!((of_messages, of_writes), (messages as f64, 1.0));
        close(of_time, messages as f64 * 10_000.0, 1e-6);
    }
    let apps = counts.apps.each_ref();
    assert_eq!(apps[By::Messages as usize].weight(&AppId([1; 16])), 4.0);
    assert_eq!(apps[By::Writes as usize].weight(&AppId([1; 16])), 2.0);
}

#[test]
fn a_hot_row_and_its_app_come_out_with_their_shares_of_all_three() {
    let begin = clock::now();
    let mut counting = Counting::new(begin);
    for number in 0..200 {
        let now = begin + Duration::from_millis(10) * number;
        let rows = hot_batch(number * 1000);
        batch(&mut counting, &rows, Duration::from_millis(7), now);
    }
    let mut counts = counting.counts().clone();
    counts.fade_to(begin + Duration::from_secs(2));
    let picture = ShardPicture::of(&counts);
    let hottest = picture.hottest_row().expect("there is one");
    assert_eq!(hottest.key, row(1, 0));
    close(hottest.by(By::Messages).share, 0.3, 0.015);
    close(hottest.by(By::DatabaseTime).share, 0.3, 0.015);
    // One write of the batch's 701: below what the sketch sees.
    assert!(hottest.by(By::Writes).share < 0.01);
    let app = picture.hottest_app().expect("there is one");
    assert_eq!(app.key, AppId([1; 16]));
    close(app.by(By::Messages).share, 0.3, 0.015);
    // The other nine have a ninth of the other writes each.
    let others = picture.apps.iter().skip(1);
    others.for_each(|app| close(app.by(By::Writes).share, 1.0 / 9.0, 0.03));
    // 100 batches a second of 1,000 messages and 701 writes, at 7 ms each.
    let [messages, writes, seconds] = picture.per_s;
    close(messages, 100_000.0, 5_000.0);
    close(writes, 70_100.0, 5_000.0);
    close(seconds, 0.7, 0.05);
}

#[test]
fn a_row_of_every_batch_is_met_as_often_as_it_should_though_batches_are_alike() {
    // 1,024 rows in the same order each time: a fixed start would always meet the same 64.
    let begin = clock::now();
    let mut counting = Counting::new(begin);
    let rows: Vec<_> = (0..1024).map(|number| (row(1, number), 1)).collect();
    let twenty_first = row(1, 20);
    let met = (0..3200).filter(|_| {
        counting.sample(1024, rows.iter().copied());
        let before = counting.counts().clone();
        counting.count(Duration::ZERO, begin);
        let weight = |counts: &Counts| counts.rows[0].weight(&twenty_first);
        weight(counting.counts()) > weight(&before)
    });
    let met = met.count();
    assert!((140..=260).contains(&met), "{met} times of 3,200, not 200");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What samples stand for adds up to the batch, and a row with many messages is off by one step at most.
    #[test]
    fn samples_stand_for_the_whole_batch(
        sizes in prop::collection::vec(row_sizes(), 1..800),
        batches in 1..20_u64,
    ) {
        let begin = clock::now();
        let rows: Vec<_> = (0..).zip(&sizes).map(|(number, size)| (row(1, number), *size)).collect();
        let messages: usize = sizes.iter().sum();
        let step = messages.div_ceil(super::counts::SAMPLES) as f64;
        for _ in 0..batches {
            let mut counting = Counting::new(begin);
            batch(&mut counting, &rows, Duration::ZERO, begin);
            let counts = counting.counts();
            prop_assert!((counts.rows[0].total() - messages as f64).abs() < step);
            prop_assert!(counts.rows[0].counters().count() <= super::counts::SAMPLES);
            for (key, size) in &rows {
                let weight = counts.rows[0].weight(key);
                prop_assert!((weight - *size as f64).abs() < step);
            }
        }
    }
}

fn row_sizes() -> impl Strategy<Value = usize> {
    prop_oneof![8 => Just(1_usize), 2 => 2..6_usize, 1 => 50..300_usize]
}

#[test]
fn what_is_a_half_life_old_counts_half() {
    let begin = clock::now();
    let mut counting = Counting::new(begin);
    batch(
        &mut counting,
        &[(row(1, 1), 40)],
        Duration::from_nanos(40),
        begin,
    );
    let later = begin + HALF_LIFE;
    batch(&mut counting, &[(row(1, 2), 40)], Duration::ZERO, later);
    let rows = &counting.counts().rows;
    close(rows[0].weight(&row(1, 1)), 20.0, 1e-9);
    close(rows[1].weight(&row(1, 1)), 0.5, 1e-9);
    close(rows[2].weight(&row(1, 1)), 20.0, 1e-9);
    close(rows[0].weight(&row(1, 2)), 40.0, 1e-9);
    close(rows[0].total(), 60.0, 1e-9);
}

#[test]
fn rates_are_right_from_the_first_seconds_on_and_a_long_silence_forgets_all() {
    let begin = clock::now();
    let mut counting = Counting::new(begin);
    // 500 messages a second, for two seconds and for a minute.
    for (seconds, tolerance) in [(2, 15.0), (60, 15.0)] {
        for tenth in 0..seconds * 10 {
            let now = begin + Duration::from_millis(100) * tenth;
            batch(&mut counting, &[(row(1, 1), 50)], Duration::ZERO, now);
        }
        let mut counts = counting.counts().clone();
        counts.fade_to(begin + Duration::from_secs(seconds.into()));
        close(ShardPicture::of(&counts).per_s[0], 500.0, tolerance);
        counting = Counting::new(begin);
    }
    batch(&mut counting, &[(row(1, 1), 50)], Duration::ZERO, begin);
    let mut counts = counting.counts().clone();
    counts.fade_to(begin + Duration::from_secs(3600));
    let picture = ShardPicture::of(&counts);
    assert!(picture.rows.is_empty() && picture.per_s == [0.0; 3]);
    assert_eq!(counts.rows[0].total(), 0.0);
}

#[test]
fn lanes_are_merged_by_shard_and_a_copy_that_is_old_has_faded() {
    let begin = clock::now();
    let shelves: Vec<(ShardIndex, Shelf)> = [0, 0, 1]
        .map(|shard| (ShardIndex(shard), Shelf::default()))
        .into();
    let lanes = [(1, 80), (2, 40), (3, 10)];
    for ((_, shelf), (number, messages)) in shelves.iter().zip(lanes) {
        let mut counting = Counting::new(begin);
        // A row of its own in each lane, of one app.
        batch(
            &mut counting,
            &[(row(1, number), messages)],
            Duration::ZERO,
            begin,
        );
        counting.hand_over(shelf, begin + LOOK_INTERVAL / 2);
        assert!(shelf.lock().is_none(), "too early");
        counting.hand_over(shelf, begin + LOOK_INTERVAL);
    }
    let shelves = || shelves.iter().map(|(shard, shelf)| (*shard, shelf));
    let picture = Picture::of(2, shelves(), begin + HALF_LIFE);
    let [first, second] = &picture.shards[..] else {
        panic!("two shards");
    };
    close(first.window_messages, 60.0, 1e-9);
    close(second.window_messages, 5.0, 1e-9);
    let keys: Vec<_> = first.rows.iter().map(|row| row.key).collect();
    assert_eq!(keys, [row(1, 1), row(1, 2)]);
    close(first.rows[0].by(By::Messages).share, 2.0 / 3.0, 1e-9);
    close(first.apps[0].by(By::Messages).share, 1.0, 1e-9);
}

#[test]
fn a_reader_at_the_shelf_is_not_waited_for() {
    let begin = clock::now();
    let mut counting = Counting::new(begin);
    let shelf = Shelf::default();
    let reading = shelf.lock();
    counting.hand_over(&shelf, begin + LOOK_INTERVAL);
    assert!(reading.is_none());
    drop(reading);
    counting.hand_over(&shelf, begin + LOOK_INTERVAL);
    assert!(shelf.lock().is_some(), "with the next batch");
}

#[test]
fn the_top_has_the_first_by_each_weight() {
    let begin = clock::now();
    let mut counting = Counting::new(begin);
    // Row 1 has the messages; row 2 the writes and, in slow batches, the time.
    batch(&mut counting, &[(row(1, 1), 60)], Duration::ZERO, begin);
    for _ in 0..20 {
        batch(
            &mut counting,
            &[(row(1, 2), 2)],
            Duration::from_secs(1),
            begin,
        );
    }
    batch(&mut counting, &[(row(1, 3), 1)], Duration::ZERO, begin);
    let mut counts = counting.counts().clone();
    counts.fade_to(begin + Duration::from_secs(1));
    let picture = ShardPicture::of(&counts);
    let keys = |count| top(&picture.rows, count).into_iter().map(|row| row.key);
    assert_eq!(keys(1).collect::<Vec<_>>(), [row(1, 1), row(1, 2)]);
    assert_eq!(
        keys(9).collect::<Vec<_>>(),
        [row(1, 1), row(1, 2), row(1, 3)]
    );
}

/// A busy shard's picture: row 1 of app 1 has 30 %.
fn busy(messages_per_s: f64, now: Instant) -> Picture {
    let begin = now - Duration::from_secs(600);
    let mut counting = Counting::new(begin);
    let window = messages_per_s * window_seconds_max();
    for number in 0..40_u32 {
        batch(
            &mut counting,
            &hot_batch(number * 1000),
            Duration::ZERO,
            now,
        );
    }
    // 40,000 messages were given; let them be as many as wanted.
    let mut counts = counting.counts().clone();
    let all = counts.rows.iter_mut();
    all.for_each(|sketch| sketch.fade(window / 40_000.0));
    let all = counts.apps.iter_mut();
    all.for_each(|sketch| sketch.fade(window / 40_000.0));
    Picture {
        shards: vec![ShardPicture::of(&counts)],
    }
}

#[test]
fn a_row_above_the_share_is_warned_of_once_a_minute_with_how_often_it_was_not() {
    let begin = clock::now();
    let mut warnings = Warnings::new(0.25, 0.5);
    let picture = busy(MESSAGES_PER_S_MIN * 2.0, begin);
    let due = warnings.due(&picture, begin);
    let [only] = &due[..] else {
        panic!("the row, and not its app: {due:?}");
    };
    assert_eq!(only.subject, Subject::Row(row(1, 0)));
    assert_eq!((only.shard, only.suppressed), (ShardIndex(0), 0));
    close(only.messages.share, 0.3, 0.02);
    for second in 1..60 {
        let now = begin + Duration::from_secs(second);
        assert_eq!(warnings.due(&picture, now), []);
    }
    assert_eq!(warnings.due(&picture, begin + PAUSE)[0].suppressed, 59);
}

#[test]
fn nobody_is_warned_of_on_an_idle_shard_below_the_share_or_with_a_share_of_0() {
    let now = clock::now();
    let idle = busy(MESSAGES_PER_S_MIN * 0.9, now);
    let busy = busy(MESSAGES_PER_S_MIN * 1.1, now);
    for (row_share, app_share, picture, expected) in [
        (0.25, 0.25, &busy, 2),
        (0.25, 0.25, &idle, 0),
        (0.35, 0.35, &busy, 0),
        (0.0, 0.25, &busy, 1),
        (0.0, 0.0, &busy, 0),
    ] {
        let due = Warnings::new(row_share, app_share).due(picture, now);
        assert_eq!(due.len(), expected, "{row_share} {app_share} {due:?}");
    }
    assert_eq!(Warnings::new(0.1, 0.1).due(&Picture::default(), now), []);
}
