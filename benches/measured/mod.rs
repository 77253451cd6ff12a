//! What the benches with a `main` of their own share: where the configuration comes from, and the line that they print.

use millpond::config::{self, Config, File, Sources};
use millpond::observe::process;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Reads a configuration as `millpond` does: variables of the environment beat the file.
pub fn load_config(path: PathBuf) -> anyhow::Result<Config> {
    let sources = Sources {
        file: File::At(path),
        environment: std::env::vars().collect(),
        flags: vec![],
        librdkafka: vec![],
    };
    Ok(config::load(&sources)?.config)
}

/// When the measured work began, and the processor time that the process had used by then.
pub struct Began {
    at: Instant,
    cpu: Duration,
}

impl Began {
    /// Now.
    pub fn now() -> Self {
        Self {
            at: millpond::clock::now(),
            cpu: process::cpu(),
        }
    }

    /// One JSON line for the work that has just ended: `messages seconds messages_per_s cpu_us_per_message`, of the whole
    /// process, and `rows` where they are counted.
    pub fn ended(&self, messages: u64, rows: Option<u64>) -> String {
        let (elapsed, cpu) = (self.at.elapsed(), process::cpu() - self.cpu);
        let mut line = serde_json::json!({
            "messages": messages,
            "seconds": elapsed.as_secs_f64(),
            "messages_per_s": Duration::from_secs(messages).div_duration_f64(elapsed),
            "cpu_us_per_message": cpu.div_duration_f64(Duration::from_micros(messages)),
        });
        if let Some(rows) = rows {
            line["rows"] = rows.into();
        }
        line.to_string()
    }
}
