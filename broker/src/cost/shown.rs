//! The store's numbers for Prometheus.

use std::sync::Arc;

use storage::metered::{Counts, Kind, Purpose, StoreCounters};

use super::{Costs, Dollars};
use crate::metrics::{Metrics, Sample, SampleKind, Timing};

/// Requests to the store by kind and purpose, the bytes they moved, and how long they took; with what they cost, if
/// they are billed.
pub fn show_store(metrics: &Metrics, counters: &Arc<StoreCounters>, costs: Option<&Arc<Costs>>) {
    let by_kind = |read: fn(&Counts, Kind) -> u64| {
        let counters = Arc::clone(counters);
        move || each(&counters, &Kind::ALL.map(|kind| ("kind", kind.name(), kind)), read)
    };
    metrics.sampled(
        "store_requests",
        "Requests to the object store, by kind and by what they are for",
        SampleKind::Counter,
        by_kind(Counts::requests),
    );
    metrics.sampled(
        "store_failures",
        "Requests to the object store that failed: neither done, nor answered with what is there or is not",
        SampleKind::Counter,
        by_kind(Counts::failures),
    );
    let bytes = Arc::clone(counters);
    metrics.sampled("store_bytes", "Bytes moved to and from the object store", SampleKind::Counter, move || {
        type Read = fn(&Counts) -> u64;
        let directions: [(_, _, Read); 2] =
            [("direction", "written", Counts::written_bytes), ("direction", "read", Counts::read_bytes)];
        each(&bytes, &directions, |counts, read| read(counts))
    });
    let timed = Arc::clone(counters);
    metrics.timed(
        "store_latency_seconds",
        "How long the object store takes: put for a whole object, get until the answer begins",
        move || {
            [("put", &timed.put_latency), ("get", &timed.get_latency)]
                .map(|(kind, latency)| Timing {
                    labels: vec![("kind", kind.to_owned())],
                    sum_s: latency.sum_s(),
                    buckets: latency.buckets().to_vec(),
                })
                .into()
        },
    );
    if let Some(costs) = costs {
        show_costs(metrics, costs);
    }
}

/// One number for every purpose and every one of these.
fn each<T: Copy>(
    counters: &StoreCounters,
    of: &[(&'static str, &'static str, T)],
    read: impl Fn(&Counts, T) -> u64,
) -> Vec<Sample> {
    let purposes = Purpose::ALL.into_iter();
    let samples = purposes.flat_map(|purpose| {
        let read = &read;
        of.iter().map(move |(label, name, what)| Sample {
            labels: vec![(*label, (*name).to_owned()), ("purpose", purpose.name().to_owned())],
            value: read(counters.of(purpose), *what),
        })
    });
    samples.collect()
}

fn show_costs(metrics: &Metrics, costs: &Arc<Costs>) {
    let billed = Arc::downgrade(costs);
    metrics.measured(
        "storage_cost_dollars",
        "Estimate of what requests to the object store have cost, by what they are billed like",
        SampleKind::Counter,
        move || {
            let Some(costs) = billed.upgrade() else { return Vec::new() };
            let Dollars { puts, gets } = costs.dollars();
            let sample = |(class, value): (&str, f64)| Sample { labels: vec![("class", class.to_owned())], value };
            [("put", puts), ("get", gets)].map(sample).into()
        },
    );
    let billed = Arc::downgrade(costs);
    metrics.measured(
        "storage_cost_dollars_per_produced_gib",
        "Estimate of what requests have cost since the start, by GiB of record batches produced",
        SampleKind::Gauge,
        move || {
            let value = billed.upgrade().and_then(|costs| costs.dollars_per_produced_gib());
            value.map(|value| Sample { labels: Vec::new(), value }).into_iter().collect()
        },
    );
}
