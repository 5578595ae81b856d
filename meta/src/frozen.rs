//! All metadata as of one revision, which nobody can change: what is looked at without owning anything.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::store::{KeyValue, LeaseId, Listing, MetaStore, Revision, Txn, TxnOutcome, Watch};

#[cfg(test)]
mod tests;

/// A metadata store that answers from memory and refuses every change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frozen {
    revision: Revision,
    entries: BTreeMap<String, KeyValue>,
}

/// Metadata that can be looked at as of now, again and again.
#[async_trait]
pub trait Freeze: Send + Sync {
    /// As of a revision that is not older than any transaction acknowledged before the call.
    async fn freeze(&self) -> Result<Frozen>;
}

#[async_trait]
impl<T: MetaStore> Freeze for T {
    async fn freeze(&self) -> Result<Frozen> {
        Ok(Frozen::new(self.list("").await?))
    }
}

impl Frozen {
    /// `listing` is of all keys.
    pub fn new(listing: Listing) -> Self {
        let entries = listing.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Self { revision: listing.revision, entries }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = &KeyValue> {
        self.entries.values()
    }

    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|entry| &entry.value[..])
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::Invalid { what: "the metadata was opened to be read only".to_owned() })
}

#[async_trait]
impl MetaStore for Frozen {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        Ok(self.entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        let from = self.entries.range(prefix.to_owned()..);
        let entries = from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry.clone()).collect();
        Ok(Listing { revision: self.revision, entries })
    }

    async fn commit(&self, _txn: Txn) -> Result<TxnOutcome> {
        refused()
    }

    async fn watch(&self, _prefix: &str, _from: Revision) -> Result<Watch> {
        refused()
    }

    async fn grant_lease(&self, _ttl: Duration) -> Result<LeaseId> {
        refused()
    }

    async fn keep_alive(&self, _lease: LeaseId) -> Result<()> {
        refused()
    }

    async fn revoke_lease(&self, _lease: LeaseId) -> Result<()> {
        refused()
    }

    async fn close(&self) {}
}
