//! The numbers of a metered store. Counting is a few atomic additions; nothing here grows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::Error;

/// Upper bounds of the latency buckets, in seconds; what took longer is in one more.
pub const LATENCY_BUCKETS_S: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A whole object, and the beginning and the completion of an upload in parts.
    Put,
    /// One part of an upload.
    Part,
    Copy,
    List,
    Get,
    Head,
    Delete,
}

impl Kind {
    pub const ALL: [Self; 7] = [Self::Put, Self::Part, Self::Copy, Self::List, Self::Get, Self::Head, Self::Delete];

    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Part => "part",
            Self::Copy => "copy",
            Self::List => "list",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
        }
    }
}

/// What it is asked for: the first part of the object's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Fragments and fences.
    Logs,
    /// What fragments are moved into.
    Tiered,
    Manifests,
    /// Metadata that is kept in the storage itself, and the probe.
    Meta,
    Other,
}

impl Purpose {
    pub const ALL: [Self; 5] = [Self::Logs, Self::Tiered, Self::Manifests, Self::Meta, Self::Other];

    /// Of the key of an object, or the beginning of keys.
    pub fn of(key: &str) -> Self {
        let mut parts = key.split('/');
        let first = parts.next().unwrap_or_default();
        if first == Self::Logs.name() && parts.nth(1) == Some(Self::Tiered.name()) {
            return Self::Tiered;
        }
        Self::ALL.into_iter().find(|purpose| purpose.name() == first).unwrap_or(Self::Other)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Tiered => "tiered",
            Self::Manifests => "manifests",
            Self::Meta => "meta",
            Self::Other => "other",
        }
    }
}

/// Everything since the start.
#[derive(Debug, Default)]
pub struct StoreCounters {
    purposes: [Counts; Purpose::ALL.len()],
    /// Of whole objects.
    pub put_latency: Latency,
    /// Until the answer begins.
    pub get_latency: Latency,
}

impl StoreCounters {
    pub fn of(&self, purpose: Purpose) -> &Counts {
        &self.purposes[purpose as usize]
    }

    /// Requests of one kind, for whatever purpose.
    pub fn requests(&self, kind: Kind) -> u64 {
        self.purposes.iter().map(|counts| counts.requests(kind)).sum()
    }
}

/// Requests of one purpose.
#[derive(Debug, Default)]
pub struct Counts {
    requests: [AtomicU64; Kind::ALL.len()],
    failures: [AtomicU64; Kind::ALL.len()],
    written_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

impl Counts {
    pub fn requests(&self, kind: Kind) -> u64 {
        self.requests[kind as usize].load(Ordering::Relaxed)
    }

    /// Requests that ended otherwise than in success, "it exists", or "it does not", which are answers.
    pub fn failures(&self, kind: Kind) -> u64 {
        self.failures[kind as usize].load(Ordering::Relaxed)
    }

    /// Sent, whether or not it arrived.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Promised by the answers.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn asked(&self, kind: Kind, requests: u64) {
        self.requests[kind as usize].fetch_add(requests, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, kind: Kind, error: Option<&Error>) {
        let is_answer = |error: &Error| {
            matches!(error, Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::Precondition { .. })
        };
        if error.is_some_and(|error| !is_answer(error)) {
            self.failures[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A histogram of times.
#[derive(Debug, Default)]
pub struct Latency {
    /// One more than there are bounds.
    buckets: [AtomicU64; LATENCY_BUCKETS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Latency {
    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(LATENCY_BUCKETS_S.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// How many there were in each bucket, by its upper bound in seconds; the last one has none.
    pub fn buckets(&self) -> [(f64, u64); LATENCY_BUCKETS_S.len() + 1] {
        std::array::from_fn(|index| {
            let bound = LATENCY_BUCKETS_S.get(index).copied().unwrap_or(f64::INFINITY);
            (bound, self.buckets[index].load(Ordering::Relaxed))
        })
    }

    pub fn sum_s(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }
}
