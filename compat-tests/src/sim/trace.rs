//! What happened in a simulation, as clients and the schedule saw it, with simulated times: hashed always, kept as text
//! when asked for. Two runs of one seed must have the same hash.

use std::fmt;

use parking_lot::Mutex;
use tokio::time::Instant;

#[derive(Debug)]
pub struct Trace {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
    violations: Vec<String>,
}

impl Trace {
    /// Starts at the current simulated time.
    pub fn new(keep_lines: bool) -> Self {
        let state = State { hash: 0xcbf2_9ce4_8422_2325, lines: keep_lines.then(Vec::new), ..State::default() };
        Self { start: Instant::now(), state: Mutex::new(state) }
    }

    pub fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub fn note(&self, event: fmt::Arguments<'_>) {
        let line = format!("{:>7} ms  {event}", self.elapsed_ms());
        let mut state = self.state.lock();
        for byte in line.bytes() {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        state.events += 1;
        if let Some(lines) = &mut state.lines {
            lines.push(line);
        }
    }

    /// An invariant of the system is broken. `invariant` is its name in the documentation.
    pub fn violation(&self, invariant: &str, how: fmt::Arguments<'_>) {
        self.note(format_args!("VIOLATION {invariant}: {how}"));
        self.state.lock().violations.push(format!("{invariant}: {how}"));
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// (hash, number of events)
    pub fn digest(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.hash, state.events)
    }

    pub fn take_lines(&self) -> Vec<String> {
        self.state.lock().lines.take().unwrap_or_default()
    }
}
