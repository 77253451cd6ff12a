//! What a watch saw, as bars over time for a terminal of 100 columns. Pure.

use crate::load::schedule::Phase;
use crate::load::watch::Second;

/// From nothing to the line's highest value.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// What nobody knows.
const UNKNOWN: char = '·';
/// Stands where the spike begins and where it ends.
const MARK: char = '|';
/// Of 100: labels and the highest values have the others.
const COLUMNS_MAX: usize = 50;
const LABEL_WIDTH: usize = 25;

/// How the seconds of one column become one value.
#[derive(Clone, Copy)]
enum Of {
    Mean,
    Highest,
}

/// A line for each thing that was watched, and one that explains them; nothing before the first second.
pub(super) fn picture(seconds: &[Second]) -> String {
    let Some(first) = seconds.first() else {
        return String::new();
    };
    let mut lines = vec![line("sent, messages/s", seconds, Of::Mean, |second| {
        Some(second.sent_per_s)
    })];
    if first.delay_us.is_some() {
        lines.push(line("answers, p99 in ms", seconds, Of::Highest, |second| {
            let delay_us = second.delay_us.filter(|delay_us| delay_us.count > 0)?;
            Some(delay_us.p99 as f64 / 1_000.0)
        }));
    }
    lines.push(line("queue, messages", seconds, Of::Highest, |second| {
        Some(second.queue_messages? as f64)
    }));
    lines.push(line("time lag, s", seconds, Of::Highest, |second| {
        second.time_lag_seconds
    }));
    for (at, shard) in first.shards.iter().enumerate() {
        let label = format!("rows/s in {}", shard.shard);
        lines.push(line(&label, seconds, Of::Mean, |second| {
            second.shards.get(at)?.rows_per_s
        }));
    }
    lines.push(explanation(seconds));
    lines.join("\n")
}

fn seconds_per_column(seconds: &[Second]) -> usize {
    seconds.len().div_ceil(COLUMNS_MAX).max(1)
}

fn line(label: &str, seconds: &[Second], of: Of, value: impl Fn(&Second) -> Option<f64>) -> String {
    let columns = seconds.chunks(seconds_per_column(seconds));
    let values: Vec<Option<f64>> = columns
        .clone()
        .map(|column| together(column.iter().filter_map(&value), of))
        .collect();
    let highest = values.iter().flatten().copied().fold(0.0, f64::max);
    let mut bars = String::new();
    let mut was_spike = false;
    for (column, value) in columns.zip(values) {
        let is_spike = column[0].phase == Phase::Spike;
        if is_spike != was_spike {
            bars.push(MARK);
        }
        was_spike = is_spike;
        bars.push(value.map_or(UNKNOWN, |value| bar(value, highest)));
    }
    let label: String = label.chars().take(LABEL_WIDTH).collect();
    format!("  {label:LABEL_WIDTH$} {bars}  highest {}", number(highest))
}

/// `None` without a value.
fn together(values: impl Iterator<Item = f64>, of: Of) -> Option<f64> {
    let (mut count, mut sum, mut highest) = (0_u32, 0.0, 0.0);
    for value in values {
        count += 1;
        sum += value;
        highest = f64::max(highest, value);
    }
    match of {
        _ if count == 0 => None,
        Of::Mean => Some(sum / f64::from(count)),
        Of::Highest => Some(highest),
    }
}

/// Only nothing has the lowest bar.
fn bar(value: f64, highest: f64) -> char {
    let steps = (2..8_u8).filter(|step| value * 8.0 > highest * f64::from(*step));
    BARS[if value > 0.0 { 1 + steps.count() } else { 0 }]
}

/// With a decimal below 100, else with commas.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn explanation(seconds: &[Second]) -> String {
    let column = match seconds_per_column(seconds) {
        1 => "a second".to_owned(),
        several => format!("{several} seconds, with their mean (rates) or highest value"),
    };
    let marks = seconds.iter().any(|second| second.phase == Phase::Spike);
    let marks = if marks {
        "; the bars mark the spike"
    } else {
        ""
    };
    format!("  a column is {column}{marks}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::watch::ShardSecond;

    fn second(phase: Phase, sent_per_s: f64, queue: Option<i64>, rows: Option<f64>) -> Second {
        let shard = |shard: &str, rows_per_s| ShardSecond {
            shard: shard.to_owned(),
            lag_messages: queue,
            lag_messages_max: queue,
            time_lag_seconds: None,
            rows_per_s,
        };
        Second {
            seconds: 1.0,
            phase,
            sent_per_s,
            accepted_per_s: None,
            delay_us: None,
            queue_messages: queue,
            time_lag_seconds: queue.map(|queue| queue as f64 / 1_000.0),
            shards: vec![shard("eu", rows), shard(&"long".repeat(20), None)],
            trouble: None,
        }
    }

    fn spike(calm: usize, spike: usize, draining: usize) -> Vec<Second> {
        let of = |phase, count, sent, queue, rows| {
            std::iter::repeat_with(move || second(phase, sent, queue, rows)).take(count)
        };
        of(Phase::Calm, calm, 200.0, Some(0), Some(190.0))
            .chain(of(Phase::Spike, spike, 2_000.0, Some(14_200), Some(600.0)))
            .chain(of(Phase::Calm, calm, 200.0, Some(7_100), Some(600.0)))
            .chain(of(Phase::Draining, draining, 0.0, None, Some(600.0)))
            .collect()
    }

    #[test]
    fn each_thing_has_its_line_and_the_spike_its_marks() {
        let text = picture(&spike(3, 4, 2));
        let expected = "  \
            sent, messages/s          ▂▂▂|████|▂▂▂▁▁  highest 2,000\n  \
            queue, messages           ▁▁▁|████|▄▄▄··  highest 14,200\n  \
            time lag, s               ▁▁▁|████|▄▄▄··  highest 14.2\n  \
            rows/s in eu              ▃▃▃|████|█████  highest 600\n  \
            rows/s in longlonglonglon ···|····|·····  highest 0.0\n  \
            a column is a second; the bars mark the spike";
        assert_eq!(text, expected);
    }

    #[test]
    fn however_long_it_is_it_fits_100_columns() {
        for (calm, spike_seconds, draining) in [(0, 1, 0), (30, 60, 80), (3_000, 6_000, 1_234)] {
            let text = picture(&spike(calm, spike_seconds, draining));
            let width = text.lines().map(|line| line.chars().count()).max();
            assert!(width.is_some_and(|width| width <= 100), "{text}");
        }
        assert_eq!(picture(&[]), "");
    }

    #[test]
    fn a_column_of_several_seconds_has_the_mean_of_rates_and_the_highest_queue() {
        let mut seconds = spike(0, 100, 0);
        seconds[1] = second(Phase::Spike, 0.0, Some(99_000), None);
        let text = picture(&seconds);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("|▄███"), "{text}");
        assert!(lines[1].ends_with("highest 99,000"), "{text}");
        assert!(lines[3].contains("|████"), "{text}");
        assert!(lines[5].contains("a column is 2 seconds"), "{text}");
    }

    #[test]
    fn numbers_are_short_or_have_commas() {
        let written = [0.0, 14.25, 99.96, 100.0, 1_234_567.0].map(number);
        assert_eq!(written, ["0.0", "14.2", "100.0", "100", "1,234,567"]);
    }
}
