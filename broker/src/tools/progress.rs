//! How far long work has come, on standard error: one line that is written over on a terminal, else a line now and then.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(2);

/// Says nothing unless it was asked to, or standard error is a terminal.
pub struct Progress {
    style: Style,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Silent,
    Terminal,
    Lines,
}

#[derive(Debug, Default)]
struct State {
    what: String,
    done: (u64, u64),
    total: (u64, u64),
    shown: Option<Instant>,
}

impl Progress {
    pub fn new(wanted: bool) -> Self {
        let style = match (std::io::stderr().is_terminal(), wanted) {
            (true, _) => Style::Terminal,
            (false, true) => Style::Lines,
            (false, false) => Style::Silent,
        };
        Self { style, state: Mutex::default() }
    }

    /// Something begins, of so many objects and bytes; 0 if that is not known.
    pub fn begin(&self, what: &str, objects: u64, bytes: u64) {
        let mut state = self.state.lock();
        *state = State { what: what.to_owned(), total: (objects, bytes), ..State::default() };
        self.show(&mut state);
    }

    pub fn add(&self, objects: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.done = (state.done.0 + objects, state.done.1 + bytes);
        self.show(&mut state);
    }

    /// The line is left alone from here on.
    pub fn end(&self) {
        if self.style == Style::Terminal {
            eprint!("\r\x1b[K");
        }
    }

    fn show(&self, state: &mut State) {
        let pause = if self.style == Style::Terminal { ON_TERMINAL } else { ELSEWHERE };
        let now = Instant::now();
        if self.style == Style::Silent || state.shown.is_some_and(|shown| now < shown + pause) {
            return;
        }
        state.shown = Some(now);
        let line = line(&state.what, state.done, state.total);
        // Whoever reads it may be gone: that is no reason to stop.
        let _ = match self.style {
            Style::Terminal => write!(std::io::stderr(), "\r\x1b[K{line}"),
            _ => writeln!(std::io::stderr(), "{line}"),
        };
    }
}

fn line(what: &str, done: (u64, u64), total: (u64, u64)) -> String {
    match total {
        (0, _) if done.0 == 0 => what.to_owned(),
        (0, _) => format!("{what}: {} objects", done.0),
        (objects, bytes) => {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            format!("{what}: {} of {objects} objects, {:.1} of {:.1} MiB", done.0, mib(done.1), mib(bytes))
        }
    }
}

#[cfg(test)]
mod tests;
