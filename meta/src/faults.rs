//! A fault-injecting object store, for tests and simulations: the real trait over any inner store.
//!
//! What a client may see of a real object store, and what this one can do on request, by chance or by script:
//! - an error, with nothing landed; an error, or `AlreadyExists`, although the write landed; the 409 of a lost race where
//!   nothing landed; no answer at all; a write that lands long after its caller was told that it failed;
//! - unavailability for a while (503), or until switched back; for everybody, or for one handle (a cut-off host);
//! - a GET that ends early or carries a flipped bit; latency before and after the effect.
//!
//! What it never does, because the stores we rely on never do: lose or change what has landed, apply half a PUT, show a
//! stale read, or let a second create of one key win.
//!
//! Deterministic: everything that is random comes from one seeded source, time is tokio's, nothing is spawned. A late
//! landing is applied at the start of the first later operation, of any handle, that finds it due.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::{ObjectStore, PutMode, PutOptions, PutPayload, path::Path};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::seams::Random;

mod ops;
#[cfg(test)]
mod tests;

/// The kinds of operation that are counted and can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Put,
    Get,
    Head,
    List,
    Delete,
    /// One part of an upload.
    Part,
    /// The completion of an upload: where it becomes an object.
    Complete,
    /// Copies, and the beginnings and ends without an object of uploads.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error; nothing landed.
    FailBefore,
    /// An error, although it landed.
    LandThenError,
    /// `AlreadyExists`, although this very write is what landed.
    LandThenAlreadyExists,
    /// `AlreadyExists`, with nothing landed.
    AlreadyExistsNothingLanded,
    /// No answer, ever; nothing landed.
    Hang,
    /// No answer, ever, although it landed.
    LandThenHang,
    /// An error at once; it lands after this long.
    LandLate(Duration),
    /// No answer, ever; it lands after this long.
    HangThenLandLate(Duration),
    /// Every operation of everybody fails for this long, beginning with this one.
    Unavailable(Duration),
    /// The caller may not do this. Nothing landed.
    PermissionDenied,
    /// The answer ends half-way, without an error.
    TruncatedGet,
    /// One bit of the answer is wrong.
    BitFlip,
}

/// A fault that strikes once: at the nth (from 0) operation of this kind on a key that contains this text.
#[derive(Debug, Clone)]
struct Script {
    operation: Operation,
    key_contains: String,
    skip: u64,
    fault: Fault,
}

/// What goes wrong by chance. Probabilities are per operation, from 0 to 1; those of one kind of operation add up.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    pub put: Vec<(f64, Fault)>,
    pub get: Vec<(f64, Fault)>,
    /// HEAD, LIST, DELETE and the rest.
    pub other: Vec<(f64, Fault)>,
    /// Of every operation; its effect takes place at a random point within.
    pub latency: RangeInclusive<Duration>,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self { put: Vec::new(), get: Vec::new(), other: Vec::new(), latency: Duration::ZERO..=Duration::ZERO }
    }
}

impl FaultPlan {
    /// Nothing goes wrong, but everything takes time.
    pub fn slow(latency: RangeInclusive<Duration>) -> Self {
        Self { latency, ..Self::default() }
    }

    /// Every ambiguity of a conditional write with probability `p` in all, some transient errors, damaged reads.
    pub fn ambiguous(p: f64) -> Self {
        let late = Duration::from_millis(300);
        let put = [
            Fault::FailBefore,
            Fault::LandThenError,
            Fault::LandThenAlreadyExists,
            Fault::AlreadyExistsNothingLanded,
            Fault::LandThenHang,
            Fault::LandLate(late),
            Fault::HangThenLandLate(late),
        ];
        let get = [Fault::FailBefore, Fault::TruncatedGet, Fault::BitFlip];
        let share = |faults: &[Fault]| faults.iter().map(|fault| (p / faults.len() as f64, *fault)).collect();
        Self { put: share(&put), get: share(&get), other: vec![(p, Fault::FailBefore)], ..Self::default() }
    }

    fn chances(&self, operation: Operation) -> &[(f64, Fault)] {
        match operation {
            // What lands late there, or is there already, has no meaning: it counts as not arrived.
            Operation::Put | Operation::Complete => &self.put,
            Operation::Get => &self.get,
            _ => &self.other,
        }
    }
}

/// How often each kind of operation was asked for, failed ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub puts: u64,
    pub gets: u64,
    pub heads: u64,
    pub lists: u64,
    pub deletes: u64,
    pub parts: u64,
    pub others: u64,
    /// Operations that something was done to.
    pub faults: u64,
    pub put_bytes: u64,
    /// Bytes of the ranges answered to GETs.
    pub get_bytes: u64,
}

#[derive(Debug)]
struct State {
    plan: FaultPlan,
    scripts: Vec<Script>,
    /// Writes that will land later, by time, then in the order in which they were made.
    due: BTreeMap<(Instant, u64), (Path, PutPayload, PutMode)>,
    due_count: u64,
    unavailable_until: Option<Instant>,
    down: bool,
    refuses_suffixes: bool,
    open_uploads: usize,
    counts: Counts,
}

/// A handle of the store. Clones are the same handle; `handle` makes another one onto the same store.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
    random: Random,
    cut: Arc<AtomicBool>,
}

impl std::fmt::Display for FaultStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

impl FaultStore {
    pub fn new(inner: Arc<dyn ObjectStore>, random: Random, plan: FaultPlan) -> Self {
        let state = State {
            plan,
            scripts: Vec::new(),
            due: BTreeMap::new(),
            due_count: 0,
            unavailable_until: None,
            down: false,
            refuses_suffixes: false,
            open_uploads: 0,
            counts: Counts::default(),
        };
        Self { inner, state: Arc::new(Mutex::new(state)), random, cut: Arc::default() }
    }

    /// In memory, without faults: a counting store.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()), Random::from_seed(0), FaultPlan::default())
    }

    /// Another handle onto the same store, with a connection of its own that `set_cut` cuts.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self { cut: Arc::default(), ..self.clone() }
    }

    /// The store beneath, which nothing is done to.
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    pub fn set_plan(&self, plan: FaultPlan) {
        self.state.lock().plan = plan;
    }

    /// Scripts a fault for the `nth` operation from now on, counted from 0, of this kind on a key containing this text.
    pub fn script(&self, operation: Operation, key_contains: &str, nth: u64, fault: Fault) {
        let key_contains = key_contains.to_owned();
        self.state.lock().scripts.push(Script { operation, key_contains, skip: nth, fault });
    }

    /// Scripts that did not strike yet.
    pub fn scripts_left(&self) -> usize {
        self.state.lock().scripts.len()
    }

    /// An outage for everybody, until switched back.
    pub fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// Refuses to be asked for an object's end, from now on, as Azure does. What is refused is not counted: it is not sent.
    pub fn refuse_suffixes(&self) {
        self.state.lock().refuses_suffixes = true;
    }

    /// An outage for this handle and its clones, until switched back: nothing that it sends arrives.
    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Uploads that were begun, and neither completed nor given up: what a real store keeps, and no listing shows.
    pub fn open_uploads(&self) -> usize {
        self.state.lock().open_uploads
    }

    /// Writes that were reported as failed and have not landed yet.
    pub fn due(&self) -> usize {
        self.state.lock().due.len()
    }

    /// Applies the late landings that are due by now.
    pub async fn land_due(&self) {
        while let Some((path, payload, mode)) = self.pop_due() {
            // Like any late request it may find the key taken; nobody is told.
            let outcome = self.inner.put_opts(&path, payload, PutOptions::from(mode)).await;
            tracing::debug!(%path, landed = outcome.is_ok(), "a late write arrived");
        }
    }

    fn pop_due(&self) -> Option<(Path, PutPayload, PutMode)> {
        let mut state = self.state.lock();
        let first = state.due.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }

    fn land_later(&self, after: Duration, path: &Path, payload: PutPayload, mode: PutMode) {
        let mut state = self.state.lock();
        state.due_count += 1;
        let key = (Instant::now() + after, state.due_count);
        state.due.insert(key, (path.clone(), payload, mode));
    }

    /// Counts the operation and decides what happens to it.
    fn decide(&self, operation: Operation, path: &str) -> Option<Fault> {
        let mut state = self.state.lock();
        match operation {
            Operation::Put => state.counts.puts += 1,
            Operation::Get => state.counts.gets += 1,
            Operation::Head => state.counts.heads += 1,
            Operation::List => state.counts.lists += 1,
            Operation::Delete => state.counts.deletes += 1,
            Operation::Part => state.counts.parts += 1,
            Operation::Complete | Operation::Other => state.counts.others += 1,
        }
        let fault = state.outage(&self.cut).or_else(|| state.scripted(operation, path)).or_else(|| {
            let chances = state.plan.chances(operation);
            (!chances.is_empty()).then(|| pick(chances, self.fraction())).flatten()
        });
        if let Some(Fault::Unavailable(how_long)) = fault {
            state.unavailable_until = Some(Instant::now() + how_long);
        }
        state.counts.faults += u64::from(fault.is_some());
        fault
    }

    /// The time before and after an operation's effect.
    fn latency(&self) -> (Duration, Duration) {
        let (least, most) = self.state.lock().plan.latency.clone().into_inner();
        if most.is_zero() {
            return (Duration::ZERO, Duration::ZERO);
        }
        let whole = least + most.saturating_sub(least).mul_f64(self.fraction());
        let before = whole.mul_f64(self.fraction());
        (before, whole - before)
    }

    /// Uniform in [0, 1).
    fn fraction(&self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl State {
    fn outage(&mut self, cut: &AtomicBool) -> Option<Fault> {
        let unavailable = self.unavailable_until.is_some_and(|until| Instant::now() < until);
        (self.down || unavailable || cut.load(Ordering::SeqCst)).then_some(Fault::FailBefore)
    }

    fn scripted(&mut self, operation: Operation, path: &str) -> Option<Fault> {
        let mut struck = None;
        for (index, script) in self.scripts.iter_mut().enumerate() {
            if script.operation != operation || !path.contains(&script.key_contains) {
                continue;
            }
            if script.skip == 0 {
                struck = Some(index);
                break;
            }
            script.skip -= 1;
        }
        struck.map(|index| self.scripts.remove(index).fault)
    }
}

fn pick(chances: &[(f64, Fault)], mut at: f64) -> Option<Fault> {
    chances.iter().find_map(|(probability, fault)| {
        at -= probability;
        (at < 0.0).then_some(*fault)
    })
}
