//! Producer ids for idempotent producers (KIP-98): unique for ever, handed out from blocks that are durable first.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use meta::error::{Error, Result};
use meta::keys::store as keys;
use meta::records::{self, ProducerIdRecord};
use meta::store::{MetaStore, Txn, TxnOutcome};

/// Ids taken from the metadata store at a time, as in Kafka. What is left of a block at exit is never used.
const BLOCK: i64 = 1000;

/// Hands out producer ids. Cheap to clone.
#[derive(Clone)]
pub struct ProducerIds {
    store: Arc<dyn MetaStore>,
    block: Arc<tokio::sync::Mutex<std::ops::Range<i64>>>,
}

impl ProducerIds {
    pub fn new(store: Arc<dyn MetaStore>) -> Self {
        Self { store, block: Arc::new(tokio::sync::Mutex::new(0..0)) }
    }

    /// The next id. Makes one metadata write for every thousand.
    pub async fn next(&self) -> Result<i64> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            *block = self.take_block().await?;
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }

    async fn take_block(&self) -> Result<std::ops::Range<i64>> {
        loop {
            let found = self.store.get(keys::PRODUCER_IDS).await?;
            let (next, revision) = match &found {
                Some(entry) => {
                    let record: ProducerIdRecord = records::decode(keys::PRODUCER_IDS, &entry.value)?;
                    (record.next, entry.mod_revision)
                }
                None => (0, 0),
            };
            let end =
                next.checked_add(BLOCK).ok_or_else(|| Error::Invalid { what: "out of producer ids".to_owned() })?;
            let txn = Txn::new()
                .if_revision(keys::PRODUCER_IDS, revision)
                .put(keys::PRODUCER_IDS, records::encode(&ProducerIdRecord { next: end }));
            match self.store.commit(txn).await {
                Ok(TxnOutcome::Committed { .. }) => return Ok(next..end),
                Ok(TxnOutcome::Conflict { .. }) => {}
                // Perhaps taken, perhaps not: the next block after whatever the store now says is free either way.
                Err(Error::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
