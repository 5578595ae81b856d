//! How a writer in object storage behaves.

use std::time::Duration;

use meta::settled::Patience;

#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// At most one flush begins in this time, unless `flush_bytes` wait: bounds the rate of PUTs. The first entry after
    /// a quiet time is flushed at once.
    pub flush_interval: Duration,
    /// Fragments begun per second, averaged over ten seconds, above which the interval is widened until they are no more;
    /// 0 for no such budget. What wins over what is in `pace`.
    pub puts_per_s: u32,
    /// As soon as so many bytes wait they are cut off as a fragment and flushed.
    pub flush_bytes: usize,
    /// Fragments that were begun and are not acknowledged yet.
    pub max_in_flight: usize,
    /// After so long without an answer about a fragment the writer fences it itself and goes on in a new segment.
    pub unknown_after: Duration,
    /// Limit of a single request to the store.
    pub call_timeout: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_millis(50),
            puts_per_s: 0,
            flush_bytes: 8 << 20,
            max_in_flight: 8,
            unknown_after: Duration::from_secs(15),
            call_timeout: Duration::from_secs(5),
        }
    }
}

impl WriterOptions {
    pub(super) fn patience(&self) -> Patience {
        Patience { deadline: self.unknown_after, call_timeout: self.call_timeout, ..Patience::default() }
    }

    pub(super) fn check(&self) {
        assert!(self.max_in_flight > 0, "a writer without a fragment in flight writes nothing");
        assert!((1..=1 << 30).contains(&self.flush_bytes), "a fragment's lengths must fit their fields");
        assert!(!self.unknown_after.is_zero() && !self.call_timeout.is_zero(), "an answer takes time");
    }
}
