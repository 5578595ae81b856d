//! Time, as a stopwatch reads it: what is measured here are real processes on a real clock.

use std::time::{Duration, Instant};

#[allow(clippy::disallowed_methods)] // nothing here is ever simulated
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)] // threads of a client, not tasks of a runtime
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Milliseconds since the Unix epoch, for the timestamps of records.
#[allow(clippy::disallowed_methods)] // a producer stamps its records
pub fn epoch_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
