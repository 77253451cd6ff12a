//! A view as lines of text: for a screen of so many columns and lines, or all of it.

use super::readings::HotItem;
use super::terminal::Tone;
use super::view::{PartitionView, Rates, ShardView, Trend, View};

/// Room on the screen. `None`: as much as there is to say.
pub type Size = Option<(usize, usize)>;

/// A line, and how it stands out.
pub type Line = (String, Tone);

/// Lines above the tables, and of their headers and the gaps between them.
const LINES_FIXED: usize = 6 + 8;

/// Rows of the tables where there is room for all that one may want.
const ROWS_AMPLE: Rows = Rows {
    shards: usize::MAX,
    partitions: 10,
    apps: 5,
    rows: 10,
};

/// Below this width a row is named by its subscription alone; its app stands above, or in /api/hot.
const WIDE: usize = 110;

/// How many moments the small picture of the lag has, where there is room.
const PICTURE_CHARS: usize = 24;

/// Rows of each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows {
    shards: usize,
    partitions: usize,
    apps: usize,
    rows: usize,
}

impl Rows {
    /// Shares out what the screen has. Shards come first, as there are few.
    fn within(lines: usize, shards: usize) -> Self {
        let free = lines.saturating_sub(LINES_FIXED);
        let shards = shards.min((free / 3).max(1));
        let left = free.saturating_sub(shards);
        let partitions = left.div_ceil(3).min(10);
        let rows = (left - partitions).div_ceil(2).min(10);
        Self {
            shards,
            partitions,
            rows,
            apps: (left - partitions - rows).min(10),
        }
    }
}

/// The view; `title` is the first line.
pub fn lines(title: &str, view: &View, size: Size) -> Vec<Line> {
    let rows = size.map_or(ROWS_AMPLE, |(_, lines)| {
        Rows::within(lines, view.shards.len())
    });
    let is_wide = size.is_none_or(|(columns, _)| columns >= WIDE);
    let mut lines = vec![(title.to_owned(), Tone::Strong)];
    lines.extend(head(view));
    lines.push((lag(view, size.map(|(columns, _)| columns)), Tone::Plain));
    lines.push(blank());
    lines.extend(shards(view, rows.shards));
    lines.push(blank());
    lines.extend(partitions(view, rows.partitions));
    if !view.apps.is_empty() {
        lines.push(blank());
        lines.extend(hot("HOTTEST APPS", &view.apps, rows.apps, is_wide));
        lines.push(blank());
        lines.extend(hot("HOTTEST ROWS", &view.rows, rows.rows, is_wide));
    }
    if let Some((columns, height)) = size {
        lines.truncate(height);
        for (line, _) in &mut lines {
            *line = line.chars().take(columns).collect();
        }
    }
    lines
}

fn blank() -> Line {
    (String::new(), Tone::Plain)
}

fn head(view: &View) -> Vec<Line> {
    let Rates {
        received,
        finished,
        rows,
        folded,
        skipped,
        dead,
        batches,
        retries,
    } = view.rates;
    let cores = view
        .cores_used
        .map_or("-".to_owned(), |cores| format!("{:.0}%", cores * 100.0));
    let share = finished.zip(folded).filter(|(finished, _)| *finished > 0.0);
    let share = share.map_or("-".to_owned(), |(all, folded)| {
        format!("{:.0}%", folded / all * 100.0)
    });
    let of_batch = rows.zip(batches).filter(|(_, batches)| *batches > 0.0);
    let of_batch = of_batch.map_or("-".to_owned(), |(rows, batches)| {
        format!("{:.0}", rows / batches)
    });
    let process = format!(
        "process   up {}, cpu {cores}, memory {}, threads {}, partitions {}",
        view.up_seconds.map_or("-".to_owned(), duration),
        view.memory_bytes.map_or("-".to_owned(), bytes),
        count(view.threads),
        count(Some(view.partitions)),
    );
    let messages = format!(
        "messages  received {}/s, finished {}/s, skipped {}/s, dead letters {}/s",
        count(received),
        count(finished),
        count(skipped),
        count(dead),
    );
    let writes = format!(
        "writes    rows {}/s, folded {share}, batches {}/s of {of_batch} rows, retries {}/s",
        count(rows),
        count(batches),
        count(retries),
    );
    let state = match &view.not_ready {
        Some(why) => (format!("NOT READY {why}"), Tone::Alarming),
        None if view.rules_active > 0 => (
            format!(
                "ready     {} skip rules active, {} messages skipped by them",
                view.rules_active, view.rules_skipped
            ),
            Tone::Plain,
        ),
        None => ("ready     no skip rule is active".to_owned(), Tone::Plain),
    };
    vec![
        state,
        (process, Tone::Plain),
        (messages, Tone::Plain),
        (writes, Tone::Plain),
    ]
}

fn lag(view: &View, columns: Option<usize>) -> String {
    let by_time =
        |one: &&PartitionView, other: &&PartitionView| one.time_lag.total_cmp(&other.time_lag);
    let worst = view.partitions_behind.iter().max_by(by_time);
    let at = worst.filter(|worst| worst.time_lag > 0.0);
    let at = at.map_or(String::new(), |worst| {
        format!(" (partition {})", worst.partition)
    });
    let trend = view
        .trend
        .map_or(String::new(), |trend| going(view.lag, trend));
    let (lag, time_lag) = (count(Some(view.lag)), duration(view.time_lag));
    let words = format!("lag       {lag}, {time_lag}{at}{trend}  ");
    let room = columns.map_or(PICTURE_CHARS, |columns| {
        columns.saturating_sub(words.chars().count() + 1)
    });
    let picture = picture(&view.lag_history, room.min(PICTURE_CHARS));
    format!("{words}{picture}").trim_end().to_owned()
}

/// Where the lag goes, and when it will be gone.
fn going(lag: f64, trend: Trend) -> String {
    let Trend { lag_per_s, .. } = trend;
    // Less than that is the noise of a stream that is kept up with.
    let noise = (lag / 10_000.0).max(1.0);
    if lag_per_s > noise {
        format!(", growing {}/s", count(Some(lag_per_s)))
    } else if lag_per_s < -noise {
        let left = duration(lag / -lag_per_s);
        format!(", falling {}/s, gone in {left}", count(Some(-lag_per_s)))
    } else if trend.time_lag_per_s > 0.5 && lag >= 1.0 {
        ", standing still".to_owned()
    } else {
        ", steady".to_owned()
    }
}

/// The newest values, so many at most, the largest as a full block.
fn picture(history: &[f64], most: usize) -> String {
    let newest = &history[history.len().saturating_sub(most)..];
    let largest = newest.iter().copied().fold(0.0, f64::max);
    if newest.len() < 2 || largest == 0.0 {
        return String::new();
    }
    let blocks = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let block = |value: &f64| {
        let part = value / largest;
        let found = (1..blocks.len()).rev().find(|at| part > *at as f64 / 8.0);
        blocks[found.unwrap_or(0)]
    };
    newest.iter().map(block).collect()
}

fn shards(view: &View, most: usize) -> Vec<Line> {
    let mut shown: Vec<&ShardView> = view.shards.iter().collect();
    if shown.len() > most {
        shown.sort_by(|one, other| {
            let by_state = one.is_up.cmp(&other.is_up);
            by_state.then_with(|| other.time_lag.total_cmp(&one.time_lag))
        });
    }
    let left_out = shown.len().saturating_sub(most);
    shown.truncate(most);
    let rows = shown.iter().map(|shard| {
        let apps = shard
            .apps
            .map(|(first, last)| format!("{first:02x}-{last:02x}"));
        let connections = format!("{}/{}/{}", shard.idle, shard.busy, shard.down);
        let cells = vec![
            shard.name.clone(),
            apps.unwrap_or_else(|| "-".to_owned()),
            if shard.is_up { "yes" } else { "NO" }.to_owned(),
            count(Some(shard.lag)),
            duration(shard.time_lag),
            count(shard.rows_per_s),
            shard
                .bound
                .map_or("-".to_owned(), |bound| count(Some(bound.into()))),
            count(shard.messages_per_s),
            count(Some(shard.queued)),
            connections,
        ];
        (cells, shard.is_up && shard.down == 0.0)
    });
    let first = match left_out {
        0 => "SHARD".to_owned(),
        left_out => format!("SHARD+{left_out}"),
    };
    let header = "APPS UP LAG TIME-LAG ROWS/S BOUND MSGS/S QUEUED IDLE/BUSY/DOWN";
    columns(&format!("{first} {header}"), 3, rows.collect())
}

fn partitions(view: &View, most: usize) -> Vec<Line> {
    let behind = |of: &&PartitionView| of.lag > 0.0 || of.alarm > 0.0;
    let shown: Vec<&PartitionView> = view
        .partitions_behind
        .iter()
        .filter(behind)
        .take(most)
        .collect();
    if shown.is_empty() {
        return vec![("WORST PARTITIONS  none is behind".to_owned(), Tone::Strong)];
    }
    let rows = shown.iter().map(|of| {
        let alarm = match of.alarm {
            0.0 => "",
            1.0 => "records are lost",
            2.0 => "a batch is unreadable",
            _ => "stands still",
        };
        let cells = vec![
            of.partition.clone(),
            of.shard.clone(),
            count(Some(of.lag)),
            duration(of.time_lag),
            count(Some(of.in_memory)),
            duration(of.oldest),
            alarm.to_owned(),
        ];
        (cells, alarm.is_empty())
    });
    let header = "PARTITION SHARD LAG TIME-LAG IN-MEMORY OLDEST ALARM";
    columns(header, 2, rows.collect())
}

fn hot(title: &str, items: &[(String, HotItem)], most: usize, is_wide: bool) -> Vec<Line> {
    let rows = items.iter().take(most).map(|(shard, item)| {
        let id = match &item.subscription_id {
            None => item.app_id.clone(),
            Some(row) if is_wide => format!("{row}  of app {}", item.app_id),
            Some(row) => row.clone(),
        };
        let cells = vec![
            id,
            shard.clone(),
            format!("{:.1}%", item.by_messages.share * 100.0),
            count(Some(item.by_messages.per_s)),
            format!("{:.1}%", item.by_database_time.share * 100.0),
        ];
        (cells, true)
    });
    let title = title.replace(' ', "_");
    let header = format!("{title} SHARD SHARE MSGS/S DB-TIME");
    let mut lines = columns(&header, 2, rows.collect());
    lines[0].0 = lines[0].0.replace('_', " ");
    lines
}

/// A table: the first `left` columns to the left, numbers to the right, as wide as they must be.
fn columns(header: &str, left: usize, rows: Vec<(Vec<String>, bool)>) -> Vec<Line> {
    let header: Vec<String> = header.split(' ').map(str::to_owned).collect();
    let length = |cell: &String| cell.chars().count();
    let width = |column: usize| {
        let cells = rows.iter().map(|(cells, _)| length(&cells[column]));
        cells.max().unwrap_or(0).max(length(&header[column]))
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).enumerate();
        let padded = padded.map(|(column, (cell, width))| match column < left {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    let mut lines = vec![(line(&header), Tone::Strong)];
    for (cells, is_well) in &rows {
        let tone = if *is_well {
            Tone::Plain
        } else {
            Tone::Alarming
        };
        lines.push((line(cells), tone));
    }
    lines
}

/// Whole, with separators up to a million, then shorter.
fn count(value: Option<f64>) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    if value >= 1e9 {
        return format!("{:.2}G", value / 1e9);
    }
    if value >= 1e6 {
        return format!("{:.2}M", value / 1e6);
    }
    let digits = format!("{value:.0}");
    match digits.len() {
        0..=3 => digits,
        length => format!("{},{}", &digits[..length - 3], &digits[length - 3..]),
    }
}

fn bytes(value: f64) -> String {
    match value {
        gib if gib >= f64::from(1 << 30) => format!("{:.1} GiB", gib / f64::from(1 << 30)),
        mib => format!("{:.0} MiB", mib / f64::from(1 << 20)),
    }
}

/// In its two largest units.
fn duration(seconds: f64) -> String {
    let whole = seconds.round();
    let (minutes, hours, days) = (whole / 60.0, whole / 3600.0, whole / 86_400.0);
    if seconds < 9.95 {
        format!("{seconds:.1}s")
    } else if whole < 60.0 {
        format!("{whole:.0}s")
    } else if whole < 3600.0 {
        format!("{}m{:02.0}s", minutes.floor(), whole % 60.0)
    } else if whole < 86_400.0 {
        format!("{}h{:02}m", hours.floor(), (minutes % 60.0).floor())
    } else {
        format!("{}d{:02}h", days.floor(), (hours % 24.0).floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::readings::HotPart;

    fn view(shards: usize) -> View {
        let shard = |at: usize| ShardView {
            name: format!("shard-{at}"),
            apps: Some((0, 0x7f)),
            is_up: at != 2,
            rows_per_s: Some(123_456.0),
            bound: Some(200_000),
            messages_per_s: Some(234_567.0),
            idle: 3.0,
            busy: 60.0,
            down: 1.0,
            queued: 8_192.0,
            lag: 12_345_678.0,
            time_lag: 4_000.0 + at as f64,
        };
        let partition = |at: usize| PartitionView {
            partition: at.to_string(),
            shard: "shard-0".to_owned(),
            lag: 123_456.0,
            time_lag: 4_000.0,
            in_memory: 8_192.0,
            oldest: 61.0,
            alarm: f64::from(u8::from(at == 0)),
        };
        let part = HotPart {
            share: 0.481,
            per_s: 54_321.0,
        };
        let item = |row: bool| HotItem {
            app_id: "a".repeat(36),
            subscription_id: row.then(|| "b".repeat(36)),
            by_messages: part,
            by_database_time: part,
        };
        View {
            lag: 24_000_000.0,
            time_lag: 4_000.0,
            trend: Some(Trend {
                lag_per_s: 5_200.0,
                time_lag_per_s: 1.0,
            }),
            lag_history: (0..100).map(f64::from).collect(),
            shards: (0..shards).map(shard).collect(),
            partitions_behind: (0..50).map(partition).collect(),
            apps: (0..20)
                .map(|_| ("shard-0".to_owned(), item(false)))
                .collect(),
            rows: (0..20)
                .map(|_| ("shard-0".to_owned(), item(true)))
                .collect(),
            ..View::default()
        }
    }

    #[test]
    fn a_screen_of_80_by_24_has_something_of_everything_and_nothing_is_cut() {
        for shards in [1, 2, 8, 64] {
            let all = lines("title", &view(shards), Some((10_000, 24)));
            assert!(all.len() <= 24, "{shards}: {}", all.len());
            let cut = lines("title", &view(shards), Some((80, 24)));
            let text: Vec<&str> = cut.iter().map(|(line, _)| line.as_str()).collect();
            for header in ["SHARD", "PARTITION", "HOTTEST APPS", "HOTTEST ROWS"] {
                let at = text.iter().position(|line| line.starts_with(header));
                let at = at.unwrap_or_else(|| panic!("{header} with {shards} shards"));
                assert!(
                    text.get(at + 1).is_some_and(|row| !row.is_empty()),
                    "{header}"
                );
            }
            // On a wider screen they are no longer, but for the picture of the lag.
            let wider = lines("title", &view(shards), Some((WIDE - 1, 24)));
            for (line, _) in wider.iter().filter(|(line, _)| !line.starts_with("lag")) {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn with_too_many_shards_those_in_trouble_are_shown() {
        let text = lines("title", &view(8), Some((80, 24)));
        let shards: Vec<&Line> = text
            .iter()
            .filter(|(line, _)| line.starts_with("shard-"))
            .collect();
        assert!(shards[0].0.starts_with("shard-2"), "{}", shards[0].0);
        assert!(text.iter().any(|(line, _)| line.starts_with("SHARD+")));
        assert_eq!(shards[0].1, Tone::Alarming);
    }

    #[test]
    fn where_the_lag_goes_is_said_in_words() {
        let trend = |lag_per_s, time_lag_per_s| Trend {
            lag_per_s,
            time_lag_per_s,
        };
        assert_eq!(
            going(60_000.0, trend(-1_000.0, -1.0)),
            ", falling 1,000/s, gone in 1m00s"
        );
        assert_eq!(going(60_000.0, trend(500.0, 1.0)), ", growing 500/s");
        assert_eq!(going(60_000.0, trend(3.0, 1.0)), ", standing still");
        assert_eq!(going(0.0, trend(0.0, 0.0)), ", steady");
    }

    #[test]
    fn numbers_are_short() {
        let counts = [0.4, 999.0, 1_000.0, 999_999.0, 1e6, 2.5e9].map(|value| count(Some(value)));
        assert_eq!(counts, ["0", "999", "1,000", "999,999", "1.00M", "2.50G"]);
        let durations = [0.04, 9.94, 9.96, 59.4, 59.6, 3_599.6, 90_000.0].map(duration);
        assert_eq!(
            durations,
            ["0.0s", "9.9s", "10s", "59s", "1m00s", "1h00m", "1d01h"]
        );
        assert_eq!(picture(&[0.0, 4.0, 8.0], 3), "▁▄█");
    }
}
