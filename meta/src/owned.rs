//! Metadata that only the owner of the newest log may change.
//!
//! The embedded journal has one owner: taking it over fences the one before. In etcd everybody may write. So what a broker
//! commits while it serves goes through this wrapper, which adds to every transaction the comparison that the number of
//! the newest log is still that of the broker's own. Whoever takes over registers a log of its own, in the transaction in
//! which it becomes the owner: what was committed before that it sees when it reads afterwards, and after it nothing is.
//! (A log's own record needs no such comparison: changes of it compare the record itself.)

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::keys::store as keys;
use crate::planted;
use crate::records::{self, LogCounterRecord};
use crate::store::{KeyValue, LeaseId, Listing, MetaStore, Revision, Txn, TxnOutcome, Watch};

/// Cheap to clone; clones are the same owner.
#[derive(Clone)]
pub struct OwnedStore {
    inner: Arc<dyn MetaStore>,
    log: u64,
    fenced: Arc<watch::Sender<bool>>,
}

impl OwnedStore {
    /// For the writer of this log, which is the newest.
    pub fn new(inner: Arc<dyn MetaStore>, log: u64) -> Self {
        Self { inner, log, fenced: Arc::new(watch::Sender::new(false)) }
    }

    /// Becomes true, once and for all, when a transaction was refused because a newer log exists.
    pub fn fenced(&self) -> watch::Receiver<bool> {
        self.fenced.subscribe()
    }

    /// Fails if a newer log exists.
    async fn confirm(&self) -> Result<()> {
        let found = self.inner.get(keys::LOG_COUNTER).await?;
        let newest = match &found {
            Some(entry) => records::decode::<LogCounterRecord>(keys::LOG_COUNTER, &entry.value)?.newest,
            None => 0,
        };
        if newest == self.log {
            return Ok(());
        }
        self.fenced.send_replace(true);
        let owner = format!("the writer of log {newest}");
        Err(Error::Fenced { what: format!("the metadata, for the writer of log {}", self.log), owner })
    }
}

#[async_trait]
impl MetaStore for OwnedStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome> {
        let own = records::encode(&LogCounterRecord { newest: self.log });
        let txn = if planted::bug("commit-by-a-former-owner") { txn } else { txn.if_value(keys::LOG_COUNTER, own) };
        let outcome = self.inner.commit(txn).await?;
        if let TxnOutcome::Conflict { .. } = outcome {
            // Which comparison failed? Ownership is lost for good, so a look afterwards tells.
            self.confirm().await?;
        }
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.inner.watch(prefix, from).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.inner.revoke_lease(lease).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests;
