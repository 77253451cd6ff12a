//! The metrics of the build, the process, and what it tells otherwise.

use super::catalogue as names;
use super::page::Page;
use crate::observe::{log, process, trace};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Process {
    /// Since 1970.
    started: Option<Duration>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            started: process::started().ok(),
        }
    }
}

impl Collector for Process {
    /// What the kernel doesn't tell is left out.
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        page.info(names::BUILD, [("version", env!("CARGO_PKG_VERSION"))])?;
        page.counter(names::LOG_LINES_DROPPED, log::dropped())?;
        page.counter(names::SPANS_EXPORTED, trace::exported())?;
        page.counter(names::SPANS_DROPPED, trace::dropped())?;
        page.counter(names::PROCESS_CPU_SECONDS, process::cpu().as_secs_f64())?;
        if let Some(started) = self.started {
            page.gauge(names::PROCESS_START_TIME_SECONDS, started.as_secs_f64())?;
        }
        if let Ok(status) = process::status() {
            page.gauge(names::PROCESS_RESIDENT_MEMORY_BYTES, status.resident_bytes)?;
            page.gauge(names::PROCESS_VIRTUAL_MEMORY_BYTES, status.virtual_bytes)?;
            page.gauge(
                names::PROCESS_RESIDENT_MEMORY_PEAK_BYTES,
                status.resident_bytes_peak,
            )?;
            page.gauge(names::PROCESS_THREADS, status.threads)?;
        }
        if let Ok(files) = process::open_files() {
            page.gauge(names::PROCESS_OPEN_FDS, files)?;
        }
        if let Some(files_max) = process::open_files_max() {
            page.gauge(names::PROCESS_MAX_FDS, files_max)?;
        }
        let threads = process::cpu_by_thread().unwrap_or_default();
        let threads = threads
            .iter()
            .map(|(name, cpu)| ([("thread", name.as_str())], cpu.as_secs_f64()));
        page.counters(names::THREAD_CPU_SECONDS, threads)
    }
}
