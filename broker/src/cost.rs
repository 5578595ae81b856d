//! What is asked of the object store, as metrics, and what that costs, as an estimate.
//!
//! Prices are configured. Requests since the start come from the counters of `storage::metered`; bytes stored are those
//! that the partitions' runs have, so that what waits to be deleted is not in them. In a folder or in memory nothing is
//! billed, and no dollars are shown.
//!
//! A topic's part of the bill is its part of the bytes that were made durable since the start: with a log that all
//! partitions share no request belongs to one topic alone. Topics are many, so that they are no labels of metrics: they
//! are shown on demand, the costliest first, as many as are asked for (`/cost`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;

use serde::Serialize;
use storage::metered::{Kind, Purpose, StoreCounters};

use crate::config::Prices;
use crate::metrics::Metrics;

mod shown;
#[cfg(test)]
mod tests;

pub use shown::show_store;

const GIB: f64 = (1u64 << 30) as f64;

/// Kinds of request that are billed like a PUT, and like a GET. Deletes are not billed.
const PUT_CLASS: [Kind; 4] = [Kind::Put, Kind::Part, Kind::Copy, Kind::List];
const GET_CLASS: [Kind; 2] = [Kind::Get, Kind::Head];

/// What one topic has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicUsage {
    pub name: String,
    /// Made durable since the start.
    pub produced_bytes: u64,
    pub stored_bytes: u64,
}

/// What all topics have used.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Made durable since the start, topics that were deleted meanwhile included.
    pub produced_bytes: u64,
    pub topics: Vec<TopicUsage>,
}

type UsageSource = Box<dyn Fn() -> Usage + Send + Sync>;

/// The bill so far, for whoever asks.
pub struct Costs {
    counters: Arc<StoreCounters>,
    prices: Prices,
    metrics: Arc<Metrics>,
    /// Set once the broker has recovered.
    usage: OnceLock<UsageSource>,
}

/// `/cost`.
#[derive(Debug, Serialize)]
pub struct Bill {
    prices_usd: ShownPrices,
    since_start: SinceStart,
    stored: Stored,
    topics: Vec<TopicBill>,
    /// Topics that are not listed.
    other_topics: usize,
}

#[derive(Debug, Serialize)]
struct ShownPrices {
    thousand_puts: f64,
    thousand_gets: f64,
    gib_month: f64,
}

#[derive(Debug, Serialize)]
struct SinceStart {
    /// By purpose, then kind.
    requests: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    written_bytes: u64,
    read_bytes: u64,
    /// Bytes of record batches made durable.
    produced_bytes: u64,
    dollars: f64,
    /// By purpose.
    dollars_by_purpose: BTreeMap<&'static str, f64>,
    /// None before anything was produced.
    dollars_per_produced_gib: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Stored {
    bytes: u64,
    dollars_per_month: f64,
}

#[derive(Debug, Serialize)]
struct TopicBill {
    topic: String,
    produced_bytes: u64,
    /// Of all produced bytes, from 0 to 1.
    share: f64,
    dollars: f64,
    stored_bytes: u64,
    stored_dollars_per_month: f64,
}

/// Dollars that requests have cost: those billed like a PUT, and those billed like a GET.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Dollars {
    puts: f64,
    gets: f64,
}

impl Dollars {
    fn of(prices: &Prices, requests: impl Fn(Kind) -> u64) -> Self {
        let sum = |kinds: &[Kind]| kinds.iter().map(|kind| requests(*kind)).sum::<u64>() as f64;
        Self {
            puts: sum(&PUT_CLASS) / 1000.0 * prices.thousand_puts,
            gets: sum(&GET_CLASS) / 1000.0 * prices.thousand_gets,
        }
    }

    fn total(self) -> f64 {
        self.puts + self.gets
    }
}

impl Costs {
    pub fn new(counters: Arc<StoreCounters>, prices: Prices, metrics: Arc<Metrics>) -> Self {
        Self { counters, prices, metrics, usage: OnceLock::new() }
    }

    /// Where to ask what topics have used, from now on. The first one counts.
    pub fn set_usage(&self, usage: impl Fn() -> Usage + Send + Sync + 'static) {
        let _already_set = self.usage.set(Box::new(usage));
    }

    fn dollars(&self) -> Dollars {
        Dollars::of(&self.prices, |kind| self.counters.requests(kind))
    }

    /// Of requests, so far, by GiB of record batches that clients produced.
    fn dollars_per_produced_gib(&self) -> Option<f64> {
        let produced = self.metrics.produced_bytes.get() as f64 / GIB;
        (produced > 0.0).then(|| self.dollars().total() / produced)
    }

    /// The bill so far, with so many topics at most: those that produced most, then those that store most.
    pub fn bill(&self, topics: usize) -> Bill {
        let mut usage = self.usage.get().map(|usage| usage()).unwrap_or_default();
        let dollars = self.dollars().total();
        let monthly = |bytes: u64| bytes as f64 / GIB * self.prices.gib_month;
        let stored_bytes = usage.topics.iter().map(|topic| topic.stored_bytes).sum();
        usage.topics.sort_by(|a, b| {
            let key = |topic: &TopicUsage| (topic.produced_bytes, topic.stored_bytes);
            key(b).cmp(&key(a)).then_with(|| a.name.cmp(&b.name))
        });
        let other_topics = usage.topics.len().saturating_sub(topics);
        let of_all = usage.produced_bytes;
        let topics = usage.topics.into_iter().take(topics).map(|topic| {
            let share = if of_all == 0 { 0.0 } else { topic.produced_bytes as f64 / of_all as f64 };
            TopicBill {
                topic: topic.name,
                produced_bytes: topic.produced_bytes,
                share,
                dollars: share * dollars,
                stored_bytes: topic.stored_bytes,
                stored_dollars_per_month: monthly(topic.stored_bytes),
            }
        });
        let Prices { thousand_puts, thousand_gets, gib_month } = self.prices;
        Bill {
            prices_usd: ShownPrices { thousand_puts, thousand_gets, gib_month },
            topics: topics.collect(),
            other_topics,
            since_start: self.since_start(of_all),
            stored: Stored { bytes: stored_bytes, dollars_per_month: monthly(stored_bytes) },
        }
    }

    fn since_start(&self, produced_bytes: u64) -> SinceStart {
        let purposes = || Purpose::ALL.into_iter().map(|purpose| (purpose.name(), self.counters.of(purpose)));
        let requests = purposes().map(|(name, counts)| {
            (name, Kind::ALL.into_iter().map(|kind| (kind.name(), counts.requests(kind))).collect())
        });
        let dollars =
            purposes().map(|(name, counts)| (name, Dollars::of(&self.prices, |kind| counts.requests(kind)).total()));
        SinceStart {
            requests: requests.collect(),
            written_bytes: purposes().map(|(_, counts)| counts.written_bytes()).sum(),
            read_bytes: purposes().map(|(_, counts)| counts.read_bytes()).sum(),
            produced_bytes,
            dollars: self.dollars().total(),
            dollars_by_purpose: dollars.collect(),
            dollars_per_produced_gib: self.dollars_per_produced_gib(),
        }
    }
}
