//! What readers of old data share, by lane.

use storage::chunks::{ChunkCache, ChunkCounters};

use super::{Metrics, Sample, SampleKind};

type Lanes = [(&'static str, ChunkCache); 2];
type Read = fn(&ChunkCounters) -> u64;

impl Metrics {
    /// Shows what these lanes, by name, hold and have done.
    pub fn show_reads(&self, lanes: Lanes) {
        let held = lanes.clone();
        self.sampled(
            "read_cache_bytes",
            "Bytes of old data in memory: kept for readers, being read, or being sent",
            SampleKind::Gauge,
            move || held.iter().map(|(lane, chunks)| sample(lane, &[], chunks.bytes() as u64)).collect(),
        );
        self.count_reads("read_cache_hits", "Chunks of old data that were in memory or on their way", &lanes, |c| {
            c.hits.get()
        });
        self.count_reads("read_cache_misses", "Chunks of old data that readers had to wait for", &lanes, |c| {
            c.misses.get()
        });
        self.count_reads("read_ahead_bytes", "Bytes of old data asked for before anybody wanted them", &lanes, |c| {
            c.ahead_bytes.get()
        });
        let requests: [(&str, Read); 2] = [("wanted", |c| c.gets.get()), ("ahead", |c| c.ahead_gets.get())];
        self.sampled(
            "read_requests",
            "Requests to the object store that old data in memory came with, by why they were made",
            SampleKind::Counter,
            move || {
                let each = lanes.iter().flat_map(|(lane, chunks)| {
                    requests.map(|(why, read)| sample(lane, &[("why", why)], read(chunks.counters())))
                });
                each.collect()
            },
        );
    }

    fn count_reads(&self, name: &'static str, help: &'static str, lanes: &Lanes, read: Read) {
        let lanes = lanes.clone();
        self.sampled(name, help, SampleKind::Counter, move || {
            lanes.iter().map(|(lane, chunks)| sample(lane, &[], read(chunks.counters()))).collect()
        });
    }
}

fn sample(lane: &'static str, more: &[(&'static str, &str)], value: u64) -> Sample {
    let more = more.iter().map(|(label, value)| (*label, (*value).to_owned()));
    Sample { labels: std::iter::once(("lane", lane.to_owned())).chain(more).collect(), value }
}
