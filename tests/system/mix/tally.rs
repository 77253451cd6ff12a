//! What came of the faults: a table.

use crate::checker::Findings;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What came of one fault.
pub struct Outcome {
    pub kind: &'static str,
    pub is_observed: bool,
}

/// Of all; by kind: how many were injected, and how many of them were seen to bite.
#[derive(Default)]
pub struct Tally(BTreeMap<&'static str, (usize, usize)>);

impl Tally {
    pub fn add(&mut self, outcome: Outcome) {
        let (injected, observed) = self.0.entry(outcome.kind).or_default();
        *injected += 1;
        *observed += usize::from(outcome.is_observed);
    }

    pub fn observed(&self) -> usize {
        self.0.values().map(|(_, observed)| observed).sum()
    }

    /// The table, and a line of totals.
    pub fn report(&self, seed: u64, sent: u64, findings: &Findings, verdict: &Value) -> String {
        let mut report = "| fault | injected | observed | longest pause, s | longest recovery, s |\n|---|---|---|---|---|\n".to_owned();
        for (kind, (injected, observed)) in &self.0 {
            let (pause, recovery) = findings.recoveries.get(kind).copied().unwrap_or_default();
            let (pause, recovery) = (pause.as_secs_f64(), recovery.as_secs_f64());
            writeln!(
                report,
                "| {kind} | {injected} | {observed} | {pause:.1} | {recovery:.1} |"
            )
            .unwrap();
        }
        let injected: usize = self.0.values().map(|(injected, _)| injected).sum();
        writeln!(
            report,
            "\nseed {seed}: {sent} messages sent, {} read back; {injected} faults injected, {} observed; lost {}, twice {}; dead \
             letters {}, skipped by rules {}; {} comparisons while it ran, {} of them wrong; memory at most {:.0} % of the formula",
            verdict["messages_read"],
            self.observed(),
            verdict["missing"],
            verdict["mismatched"].as_u64().unwrap() + verdict["extra"].as_u64().unwrap(),
            verdict["dead_letters"],
            verdict["skipped"],
            findings.compared,
            findings.wrong.len(),
            findings.memory_share_max * 100.0,
        )
        .unwrap();
        report
    }
}
