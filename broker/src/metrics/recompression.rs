//! What compressing batches anew brings.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Total = Counter<u64, AtomicU64>;

/// Of record batches that came with another codec than their topic's `compression.type`.
pub struct Recompression {
    pub batches: Total,
    pub received_bytes: Total,
    pub inflated_bytes: Total,
    pub stored_bytes: Total,
    pub saved_bytes: Gauge,
}

impl Recompression {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let mut total = |name: &str, help: &str| {
            let counter = Total::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let batches = total("recompressed_batches", "Record batches compressed anew as compression.type wants it");
        let received_bytes = total("recompressed_received_bytes", "Bytes of batches compressed anew, as they came");
        let inflated_bytes = total("recompressed_inflated_bytes", "Bytes of their records, uncompressed");
        let stored_bytes = total("recompressed_stored_bytes", "Bytes of batches compressed anew, as stored");
        let saved_bytes = Gauge::default();
        let help = "By how much batches compressed anew have become smaller; below zero if they have become larger";
        registry.register("recompressed_saved_bytes", help, saved_bytes.clone());
        Self { batches, received_bytes, inflated_bytes, stored_bytes, saved_bytes }
    }

    /// A batch was compressed anew.
    pub fn count(&self, received_bytes: usize, inflated_bytes: u64, stored_bytes: usize) {
        self.batches.inc();
        self.received_bytes.inc_by(received_bytes as u64);
        self.inflated_bytes.inc_by(inflated_bytes);
        self.stored_bytes.inc_by(stored_bytes as u64);
        self.saved_bytes.inc_by(received_bytes as i64 - stored_bytes as i64);
    }
}
