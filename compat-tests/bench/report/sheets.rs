//! Figures of Woodpecker alone, beside an aim rather than beside Kafka: one table a sheet, a row for each way to run it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{figures::readable, finite, median, medians, push};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sheet {
    /// Produce on S3 beside plain PUTs.
    Throughput,
    /// Produce on S3 whose PUTs take long.
    Latency,
    /// The same load on few partitions and on many.
    Flat,
    /// PUTs by what they are for, at full load.
    Load,
    /// What producers wait while everything is tiered.
    Tiering,
    /// Start after kill -9.
    Recovery,
    /// Old data read from S3 while new data is produced and followed.
    Replay,
}

impl Sheet {
    const ALL: [Self; 7] =
        [Self::Throughput, Self::Latency, Self::Flat, Self::Load, Self::Tiering, Self::Recovery, Self::Replay];

    fn name(self) -> &'static str {
        match self {
            Self::Throughput => "s3-throughput",
            Self::Latency => "s3-latency",
            Self::Flat => "flat",
            Self::Load => "s3-load",
            Self::Tiering => "tiering",
            Self::Recovery => "recovery",
            Self::Replay => "replay",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Throughput => "produce on S3, as fast as it goes",
            Self::Latency => "produce on S3, each PUT 100 ms longer",
            Self::Flat => "the same load on S3",
            Self::Load => "PUTs per flush_bytes produced, at full load",
            Self::Tiering => "a fixed load on S3, each PUT 100 ms and each GET 30 ms longer",
            Self::Recovery => "kill -9 and start",
            Self::Replay => "replay of old data from S3, each PUT 100 ms and each GET 30 ms longer",
        }
    }
}

/// One value of one row, measured once.
#[derive(Debug, Clone)]
pub struct Entry {
    pub sheet: Sheet,
    pub row: String,
    /// What it is, with its unit.
    pub column: &'static str,
    pub round: usize,
    pub value: f64,
}

#[derive(Debug, Default)]
pub struct Sheets {
    pub entries: Vec<Entry>,
    /// Under what circumstances, and what is aimed at.
    pub captions: BTreeMap<Sheet, String>,
}

impl Sheets {
    /// Rows and columns stand in the order in which they were first measured.
    pub fn tables(&self, text: &mut String) {
        for sheet in Sheet::ALL {
            let entries: Vec<&Entry> = self.entries.iter().filter(|entry| entry.sheet == sheet).collect();
            let rows = first_seen(entries.iter().map(|entry| entry.row.as_str()));
            let columns = first_seen(entries.iter().map(|entry| entry.column));
            if rows.is_empty() {
                continue;
            }
            push(text, format_args!("\n| {} | {} |", sheet.title(), columns.join(" | ")));
            push(text, format_args!("|---|{}", "--:|".repeat(columns.len())));
            for row in rows {
                let of = |column: &&str| {
                    let values = entries.iter().filter(|entry| entry.row == row && entry.column == *column);
                    readable(median(values.map(|entry| entry.value)))
                };
                let cells: Vec<String> = columns.iter().map(of).collect();
                push(text, format_args!("| {row} | {} |", cells.join(" | ")));
            }
            let rounds = entries.iter().map(|entry| entry.round + 1).max().unwrap_or(0);
            let caption = self.captions.get(&sheet).map_or("", String::as_str);
            push(text, format_args!("\n{} {caption}", medians(rounds, rounds)));
        }
    }

    pub fn json(&self) -> impl Iterator<Item = Value> {
        self.entries.iter().map(|entry| {
            json!({
                "kind": entry.sheet.name(), "row": entry.row, "column": entry.column, "round": entry.round,
                "value": finite(entry.value),
            })
        })
    }
}

fn first_seen<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}
