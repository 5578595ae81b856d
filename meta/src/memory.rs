//! Metadata in memory, gone with the process: for tests, and the reference that the other backends are compared with.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use crate::error::{Error, Result};
use crate::kv::{self, Kv};
use crate::leases::Leases;
use crate::store::{KeyValue, LeaseId, Listing, MetaStore, Op, Revision, Txn, TxnOutcome, Watch};
use crate::watchers::Watchers;

#[cfg(test)]
mod tests;

#[derive(Debug)]
struct State {
    kv: Kv,
    watchers: Watchers,
    leases: Leases,
    /// The task that expires leases runs; it is started by the first lease.
    expiring: bool,
    closed: bool,
}

/// Cheap to clone; clones share the data.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    /// The earliest expiry may have changed, or the store was closed.
    changed: Arc<Notify>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        let state = State {
            kv: Kv::default(),
            watchers: Watchers::after(0),
            leases: Leases::default(),
            expiring: false,
            closed: false,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the history up to and including `revision`, as an etcd operator may at any time.
    pub fn compact(&self, revision: Revision) {
        self.state.lock().watchers.compact(revision);
    }

    fn open<T>(&self, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed { what: "the metadata store" });
        }
        state.drop_expired();
        call(&mut state)
    }
}

impl State {
    fn apply(&mut self, ops: &[Op]) {
        let batch = self.kv.apply(ops);
        self.watchers.publish(batch);
    }

    fn drop_expired(&mut self) {
        for lease in self.leases.expired() {
            tracing::info!(lease = lease.0, "a lease expired");
            self.drop_lease(lease);
        }
    }

    fn drop_lease(&mut self, lease: LeaseId) {
        let ops: Vec<Op> = self.kv.leased(lease).into_iter().map(|key| Op::Delete { key }).collect();
        self.apply(&ops);
        self.leases.forget(lease);
    }
}

#[async_trait]
impl MetaStore for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.open(|state| Ok(state.kv.get(key)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.open(|state| Ok(state.kv.list(prefix)))
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome> {
        kv::validate(&txn)?;
        self.open(|state| {
            if !state.kv.holds(&txn.compares) {
                return Ok(TxnOutcome::Conflict { revision: state.kv.revision() });
            }
            kv::leases_of(&txn).try_for_each(|lease| state.leases.check(lease))?;
            state.apply(&txn.ops);
            Ok(TxnOutcome::Committed { revision: state.kv.revision() })
        })
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.open(|state| Ok(state.watchers.watch(prefix, from)))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        let (lease, start) = self.open(|state| {
            let lease = state.leases.grant(ttl)?;
            Ok((lease, !std::mem::replace(&mut state.expiring, true)))
        })?;
        if start {
            tokio::spawn(expire(Arc::downgrade(&self.state), self.changed.clone()));
        }
        self.changed.notify_one();
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.open(|state| state.leases.keep_alive(lease))
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.open(|state| {
            state.leases.check(lease)?;
            state.drop_lease(lease);
            Ok(())
        })
    }

    async fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.watchers.end(|| Error::Closed { what: "the metadata store" });
        self.changed.notify_one();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.watchers.end(|| Error::Closed { what: "the metadata store" });
    }
}

/// Deletes the keys of leases when they expire, for as long as the store exists.
async fn expire(state: Weak<Mutex<State>>, changed: Arc<Notify>) {
    // How soon the task notices that the store was dropped without `close`.
    const IDLE: Duration = Duration::from_secs(60);
    loop {
        let next = {
            let Some(state) = state.upgrade() else { return };
            let mut state = state.lock();
            if state.closed {
                return;
            }
            state.drop_expired();
            let idle = tokio::time::Instant::now() + IDLE;
            state.leases.next_expiry().map_or(idle, |next| next.min(idle))
        };
        tokio::select! {
            biased;
            () = changed.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}
