//! Waiting for conditions instead of for time, and for one's turn.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Waits until `condition` holds; panics with `what` when it does not within `limit`.
pub async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Holds the turn of a test that measures, or that starts many processes: the tests of one binary take turns.
pub async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// A number from the environment that makes a suite longer; `make test-long` sets them.
pub fn scale(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

/// Random enough moments for kills, and repeatable: the seed is printed, and `WOODPECKER_TEST_SEED` sets it.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(context: &str) -> Self {
        let seed = scale("WOODPECKER_TEST_SEED", u64::from(std::process::id()));
        println!("{context}: WOODPECKER_TEST_SEED={seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + Duration::from_micros(self.below((high - low).as_micros() as u64 + 1))
    }
}
