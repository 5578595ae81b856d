//! Metadata that all brokers of a simulation share, as they would an etcd: in memory, at the other end of a network that
//! takes its time, loses answers, and is down at times. Whatever else an etcd does is `meta::conformance`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use meta::error::{Error, Result};
use meta::memory::MemoryStore;
use meta::store::{KeyValue, LeaseId, Listing, MetaStore, Revision, Txn, TxnOutcome, Watch};
use tokio::time::sleep;

use super::dice::Dice;
use super::stores::Life;

/// Percent of transactions whose answer is lost; half of them were applied.
const LOST_PERCENT: u64 = 4;

#[derive(Debug, Clone, Default)]
pub struct SharedMeta {
    store: MemoryStore,
    down: Arc<AtomicBool>,
    /// Nothing gets lost any more.
    sound: Arc<AtomicBool>,
}

impl SharedMeta {
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.set_down(false);
        self.sound.store(true, Ordering::SeqCst);
    }
}

/// One incarnation's access to it.
pub struct HostMeta {
    pub shared: SharedMeta,
    pub life: Arc<Life>,
    pub dice: Dice,
}

fn unknown() -> Error {
    Error::Unknown { what: "a transaction whose answer was lost".to_owned() }
}

impl HostMeta {
    /// One way through the network. Fails at once if nobody is there.
    async fn way(&self) -> Result<()> {
        sleep(self.dice.ms(0..=15)).await;
        match self.shared.down.load(Ordering::SeqCst) {
            true => Err(Error::Unavailable { what: "the metadata".to_owned(), source: "nobody is there".into() }),
            false => Ok(()),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let there_and_back = async {
            self.way().await?;
            let answer = call.await;
            self.way().await?;
            answer
        };
        self.life.answer(there_and_back).await
    }
}

#[async_trait]
impl MetaStore for HostMeta {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        self.call(self.shared.store.get(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.call(self.shared.store.list(prefix)).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome> {
        let lost = !self.shared.sound.load(Ordering::SeqCst) && self.dice.chance(LOST_PERCENT);
        let there_and_back = async {
            self.way().await?;
            if lost && self.dice.chance(50) {
                return Err(unknown());
            }
            let answer = self.shared.store.commit(txn).await;
            match self.way().await {
                Ok(()) if !lost => answer,
                _ => Err(unknown()),
            }
        };
        self.life.answer(there_and_back).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.call(self.shared.store.watch(prefix, from)).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.call(self.shared.store.grant_lease(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.call(self.shared.store.keep_alive(lease)).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.call(self.shared.store.revoke_lease(lease)).await
    }

    /// Others go on with it.
    async fn close(&self) {}
}
