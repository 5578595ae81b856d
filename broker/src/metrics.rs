//! What can be seen from outside as numbers: counters and histograms, rendered for Prometheus.
//!
//! Nothing here is per record. Counters of an API are found by indexing, so that counting a request costs a few atomic
//! additions. Numbers that live elsewhere (budgets, requests to the object store) are sampled when somebody asks.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::wire::shapes;

mod reads;
mod recompression;

pub use self::recompression::Recompression;

/// Upper bounds of the latency buckets, in seconds.
const LATENCY_BUCKETS: [f64; 13] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

type Labels = Vec<(&'static str, String)>;

/// Counters are `U64` under a plain integer type here: what `prometheus-client` picks by default is 64 bits anyway.
type Total = Counter<u64, AtomicU64>;

pub struct Metrics {
    registry: Mutex<Registry>,
    by_api: Vec<ApiMetrics>,
    errors: Family<Labels, Total>,
    closed: Family<Labels, Total>,
    pub connections: Gauge,
    pub connections_accepted: Total,
    pub received_bytes: Total,
    pub sent_bytes: Total,
    pub produced_batches: Total,
    pub produced_bytes: Total,
    pub fetched_bytes: Total,
    pub recompression: Recompression,
}

struct ApiMetrics {
    requests: Total,
    latency: Histogram,
}

/// Whether a sampled number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleKind {
    Counter,
    Gauge,
}

/// One number at one time, with its labels (may be empty).
pub struct Sample<N = u64> {
    pub labels: Labels,
    pub value: N,
}

/// A histogram of times that is kept elsewhere.
pub struct Timing {
    pub labels: Labels,
    pub sum_s: f64,
    /// How many there were in each bucket, by its upper bound in seconds, the last of which is `f64::INFINITY`.
    pub buckets: Vec<(f64, u64)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("woodpecker");
        let requests = Family::<Labels, Total>::default();
        let latency = Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS));
        registry.register("requests", "Requests answered (acks=0: taken)", requests.clone());
        registry.register(
            "request_latency_seconds",
            "From the last byte of a request to its response being ready to send",
            latency.clone(),
        );
        let by_api = shapes::ALL.iter().map(|shape| {
            let labels = vec![("api", shape.name.to_owned())];
            ApiMetrics {
                requests: requests.get_or_create(&labels).clone(),
                latency: latency.get_or_create(&labels).clone(),
            }
        });
        let by_api = by_api.collect();
        let total = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Total::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let errors = Family::<Labels, Total>::default();
        registry.register(
            "request_errors",
            "Errors told to clients, by API and Kafka's name of the error",
            errors.clone(),
        );
        let closed = Family::<Labels, Total>::default();
        registry.register("connections_closed", "Connections that have ended, by reason", closed.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        Self {
            by_api,
            errors,
            closed,
            connections,
            connections_accepted: total(&mut registry, "connections_accepted", "Connections accepted"),
            received_bytes: total(&mut registry, "received_bytes", "Bytes read from clients"),
            sent_bytes: total(&mut registry, "sent_bytes", "Bytes written to clients"),
            produced_batches: total(&mut registry, "produced_batches", "Record batches appended"),
            produced_bytes: total(&mut registry, "produced_bytes", "Bytes of record batches appended, as stored"),
            fetched_bytes: total(&mut registry, "fetched_bytes", "Bytes of record batches sent to consumers"),
            recompression: Recompression::registered(&mut registry),
            registry: Mutex::new(registry),
        }
    }

    /// A request was answered, or taken without an answer.
    pub fn answered(&self, api_key: i16, latency: Duration) {
        let index = shapes::ALL.iter().position(|shape| shape.api_key == api_key);
        if let Some(api) = index.and_then(|index| self.by_api.get(index)) {
            api.requests.inc();
            api.latency.observe(latency.as_secs_f64());
        }
    }

    /// A client was told of an error. `error` is Kafka's name for it.
    pub fn error(&self, api_key: i16, error: &str) {
        let api = shapes::by_key(api_key).map_or("unknown", |shape| shape.name);
        self.errors.get_or_create(&vec![("api", api.to_owned()), ("error", error.to_owned())]).inc();
    }

    /// A connection has ended. The reasons are a fixed set of words.
    pub fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&vec![("reason", reason.to_owned())]).inc();
    }

    /// Adds numbers that live elsewhere: `sample` is called whenever somebody asks. A counter's name gets `_total`
    /// appended when it is rendered.
    pub fn sampled(
        &self,
        name: &'static str,
        help: &'static str,
        kind: SampleKind,
        sample: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) {
        self.collect(name, help, kind, sample, encode_whole);
    }

    /// The same for numbers that are not whole.
    pub fn measured(
        &self,
        name: &'static str,
        help: &'static str,
        kind: SampleKind,
        sample: impl Fn() -> Vec<Sample<f64>> + Send + Sync + 'static,
    ) {
        self.collect(name, help, kind, sample, encode_real);
    }

    fn collect<N: 'static>(
        &self,
        name: &'static str,
        help: &'static str,
        kind: SampleKind,
        sample: impl Fn() -> Vec<Sample<N>> + Send + Sync + 'static,
        encode: Encode<N>,
    ) {
        let sampled = Sampled { name, help, kind, sample: Box::new(sample), encode };
        self.registry.lock().register_collector(Box::new(sampled));
    }

    /// Adds histograms that are kept elsewhere.
    pub fn timed(
        &self,
        name: &'static str,
        help: &'static str,
        timings: impl Fn() -> Vec<Timing> + Send + Sync + 'static,
    ) {
        self.registry.lock().register_collector(Box::new(Timed { name, help, timings: Box::new(timings) }));
    }

    /// Everything, as Prometheus (OpenMetrics text) wants it.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

type Encode<N> = fn(SampleKind, N, &mut MetricEncoder<'_>) -> fmt::Result;

struct Sampled<N> {
    name: &'static str,
    help: &'static str,
    kind: SampleKind,
    sample: Box<dyn Fn() -> Vec<Sample<N>> + Send + Sync>,
    encode: Encode<N>,
}

impl<N> fmt::Debug for Sampled<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampled").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<N: 'static> Collector for Sampled<N> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            SampleKind::Counter => MetricType::Counter,
            SampleKind::Gauge => MetricType::Gauge,
        };
        let samples = (self.sample)();
        if samples.is_empty() {
            return Ok(());
        }
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for sample in samples {
            match sample.labels.is_empty() {
                true => (self.encode)(self.kind, sample.value, &mut metric)?,
                false => (self.encode)(self.kind, sample.value, &mut metric.encode_family(&sample.labels)?)?,
            }
        }
        Ok(())
    }
}

fn encode_whole(kind: SampleKind, value: u64, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        SampleKind::Counter => encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        SampleKind::Gauge => encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

fn encode_real(kind: SampleKind, value: f64, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        SampleKind::Counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        SampleKind::Gauge => encoder.encode_gauge(&value),
    }
}

struct Timed {
    name: &'static str,
    help: &'static str,
    timings: Box<dyn Fn() -> Vec<Timing> + Send + Sync>,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Timed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        for Timing { labels, sum_s, buckets } in (self.timings)() {
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
