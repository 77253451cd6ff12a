//! Electricity meters: readings in a binary form of ours, added to each meter, and a record of each large one.
//!
//! `meters CONFIG` runs until it is told to stop, `meters CONFIG --until-caught-up` until it has caught up.

use millpond::config::{self, File, Sources};
use millpond::library::{
    Consumer, KeyPart, Kind, Message, Program, Reason, Rejection, Row, Sql, SqlError, Until,
};
use std::borrow::Cow;
use std::error::Error;

#[cfg(target_os = "linux")]
#[path = "../../../src/kafka/guard.rs"]
mod guard;

/// Kafka's key is the meter's name; the value has 12 bytes: the hour and the watt hours, big endian.
struct Meters;

struct Reading {
    meter: String,
    hour: i32,
    watt_hours: i64,
}

const LARGE: i64 = 90_000;

impl Program for Meters {
    type Update = Reading;

    const TABLE: &'static str = "meter_fence";
    const KEY: &'static [(&'static str, Kind)] = &[("meter", Kind::Text)];

    fn row<'m>(&self, key: &'m [u8], _value: &'m [u8]) -> Result<Vec<KeyPart<'m>>, Rejection> {
        match std::str::from_utf8(key) {
            Ok(meter) if !meter.is_empty() => Ok(vec![KeyPart::Text(Cow::Borrowed(meter))]),
            _ => Err(Rejection::new(Reason::MissingId, "the key names no meter")),
        }
    }

    fn decode(&self, message: &Message<'_>) -> Result<Reading, Rejection> {
        let bad = || Rejection::new(Reason::BadValue, "a reading has 12 bytes");
        let (hour, rest) = message.value().split_first_chunk().ok_or_else(bad)?;
        Ok(Reading {
            meter: String::from_utf8_lossy(message.key()).into_owned(),
            hour: i32::from_be_bytes(*hour),
            watt_hours: i64::from_be_bytes(rest.try_into().map_err(|_| bad())?),
        })
    }

    // What is added and appended here would be twice in a table, if it were written twice.
    fn write(&self, rows: &[Row<'_, Reading>], sql: &mut Sql<'_, '_>) -> Result<(), SqlError> {
        let (mut meters, mut counts, mut sums, mut hours) = (vec![], vec![], vec![], vec![]);
        let mut large = (vec![], vec![], vec![]);
        for row in rows {
            meters.push(row.updates[0].meter.as_str());
            counts.push(i64::try_from(row.updates.len()).unwrap_or(i64::MAX));
            sums.push(
                row.updates
                    .iter()
                    .map(|reading| reading.watt_hours)
                    .sum::<i64>(),
            );
            hours.push(row.updates.iter().map(|reading| reading.hour).max());
            for reading in row.updates.iter().filter(|of| of.watt_hours >= LARGE) {
                large.0.push(reading.meter.as_str());
                large.1.push(reading.hour);
                large.2.push(reading.watt_hours);
            }
        }
        sql.execute(
            "INSERT INTO meter AS m SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::integer[])
             ON CONFLICT (name) DO UPDATE SET readings = m.readings + excluded.readings,
                 watt_hours = m.watt_hours + excluded.watt_hours, last_hour = greatest(m.last_hour, excluded.last_hour)",
            &[&meters, &counts, &sums, &hours],
        )?;
        if !large.0.is_empty() {
            sql.execute(
                "INSERT INTO large_reading SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[])",
                &[&large.0, &large.1, &large.2],
            )?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .ok_or("meters CONFIG [--until-caught-up]")?;
    let until = match arguments.next() {
        Some(_) => Until::CaughtUp,
        None => Until::Stopped,
    };
    let loaded = config::load(&Sources {
        file: File::At(file.into()),
        environment: Vec::new(),
        flags: Vec::new(),
        librdkafka: Vec::new(),
    })?;
    let consumer = Consumer::new(loaded, Meters)?;
    consumer.log()?;
    consumer.init()?;
    consumer.stop_at_signals()?;
    let summary = consumer.run(until)?;
    serde_json::to_writer(std::io::stdout(), &summary)?;
    Ok(())
}
