//! Between the callers of `enqueue` and the writer's thread: what waits to be written.
//!
//! While the writer syncs one fragment, new entries gather here and become the next one: group commit, without a timer.
//! A writer with nothing to do is parked, and the first entry wakes it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::entry::{Entry, FragmentId};
use crate::error::{Error, Result};
use crate::fragment::FragmentBuilder;
use crate::log::{Fate, Outcome, Pending};

/// Entries that become one fragment and share its fate.
pub(super) struct Batch {
    pub entries: FragmentBuilder,
    pub fate: Arc<Fate>,
}

/// Why a writer stopped before its time.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub outcome: Outcome,
    pub why: String,
}

impl End {
    pub fn unknown(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, why: why.into() }
    }

    pub fn error(&self, log: u64) -> Error {
        match self.outcome {
            Outcome::Fenced => Error::Fenced { what: format!("log {log}"), owner: self.why.clone() },
            Outcome::Durable | Outcome::Unknown => Error::Unknown { what: format!("log {log}: {}", self.why) },
        }
    }
}

pub(super) enum Work {
    Write(Batch),
    Roll(oneshot::Sender<Result<()>>),
    /// Everything enqueued before `close` is written.
    Close,
    End(End),
}

enum Stop {
    WhenDrained,
    Now(End),
}

pub(super) struct Queue {
    max_fragment_bytes: usize,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    /// All but the last are full. Bounded by the callers' budget.
    batches: VecDeque<Batch>,
    rolls: VecDeque<oneshot::Sender<Result<()>>>,
    stop: Option<Stop>,
    /// The fate of everything enqueued from now on, once nothing is taken any more.
    later: Option<Arc<Fate>>,
    pending_bytes: usize,
    durable_end: FragmentId,
    parked: bool,
}

impl Queue {
    pub fn new(log: u64, max_fragment_bytes: usize) -> Self {
        let state = State {
            batches: VecDeque::new(),
            rolls: VecDeque::new(),
            stop: None,
            later: None,
            pending_bytes: 0,
            durable_end: FragmentId { log, segment: 0, fragment: 0 },
            parked: false,
        };
        Self { max_fragment_bytes, state: Mutex::new(state), work: Condvar::new() }
    }

    pub fn enqueue(&self, entry: Entry) -> Pending {
        let mut state = self.state.lock();
        if let Some(later) = &state.later {
            return Pending::new(later.clone());
        }
        let bytes = entry.len();
        state.pending_bytes += bytes;
        match state.batches.back_mut() {
            Some(open) if open.entries.bytes() + bytes <= self.max_fragment_bytes => open.entries.push(entry),
            _ => {
                let mut entries = FragmentBuilder::new();
                entries.push(entry);
                state.batches.push_back(Batch { entries, fate: Fate::new() });
            }
        }
        let pending = Pending::new(state.batches.back().expect("one was just pushed").fate.clone());
        self.wake(state);
        pending
    }

    pub fn roll(&self) -> Result<oneshot::Receiver<Result<()>>> {
        let mut state = self.state.lock();
        if state.later.is_some() {
            return Err(Error::Closed { what: "the log's writer" });
        }
        let (answer, answered) = oneshot::channel();
        state.rolls.push_back(answer);
        self.wake(state);
        Ok(answered)
    }

    /// Takes nothing more; the writer stops when all is written.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.later.get_or_insert_with(|| {
            let fate = Fate::new();
            fate.decide(Outcome::Unknown);
            fate
        });
        state.stop.get_or_insert(Stop::WhenDrained);
        self.wake(state);
    }

    /// The writer stops as soon as what it is just writing is written.
    pub fn stop_now(&self, end: End) {
        let mut state = self.state.lock();
        if !matches!(state.stop, Some(Stop::Now(_))) {
            state.stop = Some(Stop::Now(end));
        }
        self.wake(state);
    }

    fn wake(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        if parked {
            self.work.notify_one();
        }
    }

    /// What the writer does next. Blocks until there is something.
    pub fn next(&self) -> Work {
        let mut state = self.state.lock();
        loop {
            if let Some(Stop::Now(end)) = &state.stop {
                return Work::End(end.clone());
            }
            if let Some(answer) = state.rolls.pop_front() {
                return Work::Roll(answer);
            }
            if let Some(batch) = state.batches.pop_front() {
                return Work::Write(batch);
            }
            if state.stop.is_some() {
                return Work::Close;
            }
            state.parked = true;
            self.work.wait(&mut state);
        }
    }

    pub fn durable(&self, end: FragmentId, bytes: usize) {
        let mut state = self.state.lock();
        state.durable_end = end;
        state.pending_bytes -= bytes;
    }

    /// Takes nothing more and gives up what waits. Returns the fates that the caller has to decide.
    pub fn give_up(&self, end: &End, log: u64) -> Vec<Arc<Fate>> {
        let mut state = self.state.lock();
        state.pending_bytes = 0;
        let mut fates: Vec<_> = state.batches.drain(..).map(|batch| batch.fate).collect();
        fates.push(state.later.get_or_insert_with(Fate::new).clone());
        let rolls = std::mem::take(&mut state.rolls);
        drop(state);
        for answer in rolls {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(Err(end.error(log)));
        }
        fates
    }

    pub fn pending_bytes(&self) -> usize {
        self.state.lock().pending_bytes
    }

    pub fn durable_end(&self) -> FragmentId {
        self.state.lock().durable_end
    }
}
