//! The MetaStore seam: a small, strongly consistent, revisioned key-value store, shaped so that etcd fits it exactly.
//!
//! Contract, for every backend (`conformance` tests it):
//! - Every committed transaction that changes anything gets the next revision, greater than all before; its operations
//!   share that revision. One that changes nothing is acknowledged at the revision as it is.
//! - `get` and `list` are linearizable: they see every transaction that was acknowledged, to anybody, before they began,
//!   or fail with `Fenced` or `Retriable`. (So a `get` is also how a process learns that it was fenced.)
//! - `commit` applies all operations or none. `Unknown` is only returned after the backend has failed to settle the
//!   outcome by reading back.
//! - A watch delivers every event from its revision on, once, in order, or ends with `Compacted` or `Closed`.
//! - A lease that is not kept alive expires, and its keys are deleted as one transaction. Leases detect failure; nothing
//!   decides by them who may write.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::Result;

/// Grows by one with every committed transaction that changes anything. 0 is before the first.
pub type Revision = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct LeaseId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub lease: Option<LeaseId>,
}

/// The keys under a prefix, in key order, all as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub revision: Revision,
    pub entries: Vec<KeyValue>,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was last changed at exactly this revision; 0 means that it does not exist.
    ModRevision { key: String, revision: Revision },
    /// The key exists and holds exactly this value.
    Value { key: String, value: Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Put { key: String, value: Bytes, lease: Option<LeaseId> },
    Delete { key: String },
}

/// All operations are applied iff all comparisons hold. A key may occur in at most one operation (as in etcd).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Txn {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn if_absent(self, key: impl Into<String>) -> Self {
        self.if_revision(key, 0)
    }

    #[must_use]
    pub fn if_revision(mut self, key: impl Into<String>, revision: Revision) -> Self {
        self.compares.push(Compare::ModRevision { key: key.into(), revision });
        self
    }

    #[must_use]
    pub fn if_value(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.compares.push(Compare::Value { key: key.into(), value: value.into() });
        self
    }

    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    #[must_use]
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnOutcome {
    Committed {
        revision: Revision,
    },
    /// A comparison did not hold; nothing was applied.
    Conflict {
        revision: Revision,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Put(KeyValue),
    Delete { key: String, mod_revision: Revision },
}

/// The events of one transaction that concern the watched prefix, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// Ends after its first error. A slow receiver gets `Compacted` rather than growing a queue without bound.
pub type Watch = mpsc::Receiver<Result<WatchBatch>>;

#[async_trait]
pub trait MetaStore: Send + Sync {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>>;

    async fn list(&self, prefix: &str) -> Result<Listing>;

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome>;

    /// Events of keys under `prefix`, of transactions with revision >= `from`.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch>;

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId>;

    /// Fails with `Invalid` once the lease has expired.
    async fn keep_alive(&self, lease: LeaseId) -> Result<()>;

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()>;

    /// Stops background work. Later calls answer `Closed`.
    async fn close(&self);
}
