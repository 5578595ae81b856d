//! Medians, ratios and tables. Ratios are taken within a round, where both brokers met the same machine, and the
//! median is taken of the ratios.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};

use crate::servers::Who;

mod figures;

mod sheets;

pub use figures::{Figure, Figures, Table};
pub use sheets::{Entry, Sheet, Sheets};

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Produce,
    Java,
    Fetch,
    JavaFetch,
    Latency,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Java => "produce-java",
            Self::Fetch => "fetch",
            Self::JavaFetch => "fetch-java",
            Self::Latency => "latency",
        }
    }
}

/// One line of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub kind: Kind,
    pub partitions: usize,
    pub record_bytes: usize,
    pub batch_bytes: usize,
}

impl Case {
    fn title(self) -> String {
        let partitions = if self.partitions == 1 { "partition" } else { "partitions" };
        let (record, batch) = (size(self.record_bytes), size(self.batch_bytes));
        format!("{} {partitions}, {record} records, {batch} batches", self.partitions)
    }
}

/// One run of one case against one server. GB and MB are of record values, in powers of ten.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub case: Case,
    pub who: Who,
    pub round: usize,
    pub mb_per_s: f64,
    pub cpu_s_per_gb: f64,
    pub client_cpu_s_per_gb: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What the folder did in one round.
#[derive(Debug, Clone, Copy)]
pub struct FolderSample {
    pub round: usize,
    /// Bytes written and synced at a time.
    pub chunk_bytes: usize,
    pub mb_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Debug, Default)]
pub struct Report {
    pub samples: Vec<Sample>,
    pub folder: Vec<FolderSample>,
    pub figures: Figures,
    pub sheets: Sheets,
    /// What the machine was like when the run began.
    pub machine: String,
    /// Largest resident set, by server.
    pub peak_memory_bytes: BTreeMap<Who, u64>,
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

impl Report {
    fn of(&self, case: Case, who: Who) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.case == case && sample.who == who)
    }

    fn median_of(&self, case: Case, who: Who, figure: fn(&Sample) -> f64) -> f64 {
        median(self.of(case, who).map(figure))
    }

    /// How many times Kafka's figure Woodpecker's is.
    fn ratio(&self, case: Case, figure: fn(&Sample) -> f64) -> f64 {
        median(self.of(case, Who::Woodpecker).filter_map(|ours| {
            let theirs = self.of(case, Who::Kafka).find(|theirs| theirs.round == ours.round)?;
            Some(figure(ours) / figure(theirs))
        }))
    }

    fn cases(&self, kind: Kind) -> Vec<Case> {
        let mut cases: Vec<Case> = self.samples.iter().map(|sample| sample.case).filter(|c| c.kind == kind).collect();
        cases.sort_unstable();
        cases.dedup();
        cases
    }

    /// Markdown, so that it can go into a README as it is.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        push(&mut text, format_args!("{}", self.machine));
        self.throughput(&mut text, Kind::Produce, "produce, our own client");
        self.throughput(&mut text, Kind::Java, "produce, Kafka's ProducerPerformance");
        self.throughput(&mut text, Kind::Fetch, "fetch from start to end, our own client");
        self.throughput(&mut text, Kind::JavaFetch, "fetch from start to end, Kafka's ConsumerPerformance");
        self.latency(&mut text);
        self.figures.tables(&mut text);
        self.sheets.tables(&mut text);
        self.limits(&mut text);
        text
    }

    /// Latencies under full load tell how much was in flight; they are only in the JSON.
    fn throughput(&self, text: &mut String, kind: Kind, title: &str) {
        let cases = self.cases(kind);
        if cases.is_empty() {
            return;
        }
        let with_sink = cases.iter().any(|case| self.of(*case, Who::Sink).next().is_some());
        let shown: &[Who] =
            if with_sink { &[Who::Kafka, Who::Woodpecker, Who::Sink] } else { &[Who::Kafka, Who::Woodpecker] };
        let columns = |unit: &str| shown.iter().map(|who| format!("{} {unit} | ", who.title())).collect::<String>();
        let (rates, cpus) = (columns("MB/s"), columns("CPU-s/GB"));
        push(text, format_args!("\n| {title} | {rates}{cpus}times Kafka's |"));
        push(text, format_args!("|---|{}", "--:|".repeat(2 * shown.len() + 1)));
        for case in cases {
            let rates = shown.iter().map(|who| number(self.median_of(case, *who, |s| s.mb_per_s), 0));
            let cpus = shown.iter().map(|who| number(self.median_of(case, *who, |s| s.cpu_s_per_gb), 2));
            let ratio = number(self.ratio(case, |s| 1.0 / s.cpu_s_per_gb), 1);
            let cells: Vec<String> = rates.chain(cpus).chain([ratio]).collect();
            push(text, format_args!("| {} | {} |", case.title(), cells.join(" | ")));
        }
        push(text, format_args!("\n{}", self.rounds(kind)));
    }

    /// How many rounds the medians of a table are of: the last ones may have been left out of a run for want of time.
    fn rounds(&self, kind: Kind) -> String {
        let rounds = self.cases(kind).into_iter().map(|case| {
            [Who::Kafka, Who::Woodpecker].map(|who| self.of(case, who).count()).into_iter().max().unwrap_or(0)
        });
        let (fewest, most) = rounds.fold((usize::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
        medians(fewest, most)
    }

    fn latency(&self, text: &mut String) {
        for case in self.cases(Kind::Latency) {
            let record = size(case.record_bytes);
            push(text, format_args!("\n| one record of {record} at a time | p50 ms | p99 ms |\n|---|--:|--:|"));
            for who in [Who::Kafka, Who::Woodpecker] {
                let (p50, p99) = (self.median_of(case, who, |s| s.p50_ms), self.median_of(case, who, |s| s.p99_ms));
                push(text, format_args!("| {} | {} | {} |", who.title(), number(p50, 2), number(p99, 2)));
            }
            push(text, format_args!("\n{}", self.rounds(Kind::Latency)));
        }
    }

    fn limits(&self, text: &mut String) {
        if !self.folder.is_empty() {
            push(text, format_args!("\n| the folder itself: append, fdatasync, repeat | MB/s | p50 ms | p99 ms |"));
            push(text, format_args!("|---|--:|--:|--:|"));
        }
        let mut chunks: Vec<usize> = self.folder.iter().map(|sample| sample.chunk_bytes).collect();
        chunks.sort_unstable();
        chunks.dedup();
        for chunk in chunks {
            let of = |figure: fn(&FolderSample) -> f64| {
                median(self.folder.iter().filter(|sample| sample.chunk_bytes == chunk).map(figure))
            };
            let (rate, p50, p99) = (of(|s| s.mb_per_s), of(|s| s.p50_ms), of(|s| s.p99_ms));
            push(
                text,
                format_args!(
                    "| {} at a time | {} | {} | {} |",
                    size(chunk),
                    number(rate, 0),
                    number(p50, 2),
                    number(p99, 2)
                ),
            );
        }
        for (who, bytes) in &self.peak_memory_bytes {
            push(text, format_args!("\nLargest resident set of {}: {} MiB.", who.title(), bytes >> 20));
        }
    }

    /// One JSON object per line, every sample.
    pub fn json_lines(&self) -> String {
        let samples = self.samples.iter().map(|sample| {
            json!({
                "kind": sample.case.kind.name(), "server": sample.who.name(), "round": sample.round,
                "partitions": sample.case.partitions, "record_bytes": sample.case.record_bytes,
                "batch_bytes": sample.case.batch_bytes, "mb_per_s": finite(sample.mb_per_s),
                "cpu_s_per_gb": finite(sample.cpu_s_per_gb), "client_cpu_s_per_gb": finite(sample.client_cpu_s_per_gb),
                "p50_ms": finite(sample.p50_ms), "p99_ms": finite(sample.p99_ms),
            })
        });
        let folder = self.folder.iter().map(|sample| {
            json!({
                "kind": "folder", "round": sample.round, "chunk_bytes": sample.chunk_bytes,
                "mb_per_s": finite(sample.mb_per_s), "p50_ms": finite(sample.p50_ms), "p99_ms": finite(sample.p99_ms),
            })
        });
        samples
            .chain(folder)
            .chain(self.figures.json())
            .chain(self.sheets.json())
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

fn medians(fewest: usize, most: usize) -> String {
    match (fewest, most) {
        (1, 1) => "One round.".to_owned(),
        (fewest, most) if fewest == most => format!("Medians of {most} rounds."),
        (fewest, most) => format!("Medians of {fewest} to {most} rounds."),
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn finite(value: f64) -> Value {
    if value.is_finite() { json!((value * 1e4).round() / 1e4) } else { Value::Null }
}

fn number(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "-".to_owned() }
}

fn size(bytes: usize) -> String {
    match bytes {
        0 => "-".to_owned(),
        small if small < 1 << 10 => format!("{small} B"),
        medium if medium < 1 << 20 => format!("{} KiB", medium >> 10),
        large => format!("{} MiB", large >> 20),
    }
}

#[cfg(test)]
mod tests;
