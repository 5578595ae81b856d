//! Metadata kept in the storage URL itself, for one broker at a time: a journal of numbered objects, and snapshots.
//!
//! - One transaction is one object, `meta/journal/{number}`, made by the settled create-if-absent. One write is in
//!   flight at a time. Its bytes are fixed before the first attempt, and while its outcome is unknown nothing else is
//!   written and nothing is read: the next call first settles it, with the same bytes at the same number.
//! - Taking over is creating a takeover record at the next number. From then on every write of the owner before fails,
//!   since all its numbers up to there exist. It learns of it then, or at its next read: a read asks the store whether
//!   the next number exists. (Not with `exclusive`: a locked folder cannot be taken over.) Fenced is for good.
//! - Every `snapshot_every` records the state is written to `meta/snapshot/{number}`. Then journal records up to the
//!   snapshot before it are deleted, and after those the snapshots before that one. A snapshot that fails fails nothing.
//! - Takeover records are never deleted. An owner that was fenced, however long ago, has as its next number either one
//!   that it has itself written, or that of a takeover record: of all others' records only takeovers are created at a
//!   number that somebody else may still believe to be the next. So it always finds its number taken. `open` tells why
//!   one who is about to take over cannot be misled by a deleted number either.
//! - Leases belong to the process: the takeover record deletes all leased keys of the owner before.
//!
//! Nothing polls: without calls there are no requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ObjectStore;

use crate::error::{Error, Result};
use crate::kv;
use crate::seams::{Incarnation, Random};
use crate::settled::{Patience, Settler};
use crate::store::{KeyValue, LeaseId, Listing, MetaStore, Revision, Txn, TxnOutcome, Watch};

mod codec;

mod reader;

mod prepared;

mod open;

mod snapshots;

mod owner;

mod view;

use owner::Owner;
use reader::Reader;
pub use view::{Audit, EmbeddedView, Look};

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy)]
pub struct EmbeddedOptions {
    /// The caller holds the lock of the folder: nobody can take over while this process lives.
    pub exclusive: bool,
    /// Journal records between two snapshots.
    pub snapshot_every: u64,
    pub patience: Patience,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { exclusive: false, snapshot_every: 1000, patience: Patience::default() }
    }
}

/// Cheap to clone; clones are the same owner.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    owner: Arc<Owner>,
}

impl EmbeddedStore {
    /// Reads what is there and takes it over from whoever has it. A folder's `store` must sync (`with_fsync`).
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        incarnation: Incarnation,
        random: &Random,
        options: EmbeddedOptions,
    ) -> Result<Self> {
        let reader = Reader { store: store.clone(), patience: options.patience };
        let settler = Settler::new(store);
        let loaded = open::open(&reader, &settler, incarnation, random).await?;
        tracing::info!(%incarnation, number = loaded.next - 1, revision = loaded.kv.revision(), "took over the metadata");
        Ok(Self { owner: Arc::new(Owner::new(reader, settler, incarnation, random.clone(), options, loaded)) })
    }

    /// Becomes true, once and for all, when this process has learnt that somebody has taken over.
    pub fn fenced(&self) -> tokio::sync::watch::Receiver<bool> {
        self.owner.fenced()
    }
}

#[async_trait]
impl MetaStore for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.owner.confirm().await?;
        self.owner.with(|state| Ok(state.kv.get(key)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.owner.confirm().await?;
        self.owner.with(|state| Ok(state.kv.list(prefix)))
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome> {
        kv::validate(&txn)?;
        self.owner.commit(txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.owner.with(|state| Ok(state.watchers.watch(prefix, from)))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        let lease = self.owner.with(|state| state.leases.grant(ttl))?;
        self.owner.expire_leases();
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.owner.with(|state| state.leases.keep_alive(lease))
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.owner.with(|state| {
            state.leases.check(lease)?;
            // If its keys cannot be deleted now, expiry will.
            state.leases.end(lease);
            Ok(())
        })?;
        let dropped = self.owner.drop_lease(lease).await;
        self.owner.expire_leases();
        dropped
    }

    async fn close(&self) {
        self.owner.close(|| Error::Closed { what: "the metadata store" }).await;
    }
}
