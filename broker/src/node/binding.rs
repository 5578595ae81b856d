//! Which metadata a storage belongs to, when that is kept elsewhere.
//!
//! Logs are numbered by their metadata. A broker on somebody else's metadata, or on none although its storage has data,
//! would seal logs that it cannot see, or give numbers again. So storage and shared metadata carry the same random id,
//! and a broker refuses to start on a pair that does not match:
//!
//! | the storage's object | the metadata's key | |
//! |---|---|---|
//! | none | none | both are made, the object first, if the storage holds no data |
//! | an id | none | the key is made if the storage holds no data (a first start ended half-way), else refused |
//! | none | an id | refused: it is another storage's metadata |
//! | an id | an id | must be the same |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use meta::error::{Error as MetaError, Result as MetaResult};
use meta::keys::{object, store as keys};
use meta::records::{self, StorageRecord};
use meta::seams::Random;
use meta::settled::{Identity, Patience, Settled, Settler};
use meta::store::{MetaStore, Txn, TxnOutcome};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::time::{sleep, timeout};

use super::StartError;

const ATTEMPTS: u32 = 5;
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF: Duration = Duration::from_millis(50);

/// An id, as both sides hold it; in the object its checksum follows, in 8 digits.
const ID_DIGITS: usize = 32;

/// With embedded metadata: fails if the storage's is kept elsewhere.
pub async fn refuse_bound(store: &Arc<dyn ObjectStore>) -> Result<(), StartError> {
    match object_id(store).await? {
        None => Ok(()),
        Some(_) => Err(StartError::Mismatch(
            "the metadata of this storage is in etcd: start it with --metadata etcd://... as before".to_owned(),
        )),
    }
}

/// With shared metadata: makes sure that it is this storage's.
pub async fn bind(store: &Arc<dyn ObjectStore>, meta: &dyn MetaStore, random: &Random) -> Result<(), StartError> {
    let mut before = None;
    loop {
        let seen = (object_id(store).await?, key_id(meta).await?);
        let why = match &seen {
            (Some(object), Some(key)) if object == key => return Ok(()),
            (_, Some(_)) => "this metadata belongs to another storage: choose another prefix in --metadata",
            (Some(id), None) if !holds(store, object::logs_prefix()).await? => {
                create_key(meta, id).await?;
                continue;
            }
            (Some(_), None) => "this storage has data that this metadata knows nothing of: is --metadata as it was?",
            (None, None) => {
                let embedded = holds(store, object::journal_prefix()).await?;
                if !embedded && !holds(store, object::logs_prefix()).await? {
                    create_object(store, random).await?;
                    continue;
                }
                "this storage has data whose metadata is embedded in it: start it without --metadata"
            }
        };
        // Another broker's first start may have been seen half-done: what is looked at one after the other is only
        // believed when it is still so.
        if before.as_ref() == Some(&seen) {
            return Err(StartError::Mismatch(why.to_owned()));
        }
        before = Some(seen);
    }
}

/// With shared metadata, for one who only looks: fails if it is not this storage's. Makes nothing.
pub async fn check(store: &Arc<dyn ObjectStore>, meta: &dyn MetaStore) -> Result<(), StartError> {
    match (object_id(store).await?, key_id(meta).await?) {
        (Some(object), Some(key)) if object == key => Ok(()),
        (None, None) => Err(StartError::Mismatch("neither this storage nor this metadata was ever used".to_owned())),
        _ => {
            Err(StartError::Mismatch("this metadata is not that of this storage: is --metadata as it was?".to_owned()))
        }
    }
}

async fn key_id(meta: &dyn MetaStore) -> MetaResult<Option<String>> {
    let found = meta.get(keys::STORAGE).await?;
    found.map(|found| Ok(records::decode::<StorageRecord>(keys::STORAGE, &found.value)?.id)).transpose()
}

async fn create_key(meta: &dyn MetaStore, id: &str) -> MetaResult<()> {
    let record = records::encode(&StorageRecord { id: id.to_owned() });
    match meta.commit(Txn::new().if_absent(keys::STORAGE).put(keys::STORAGE, record)).await {
        // Whoever was first, and if nobody knows: the next look tells.
        Ok(TxnOutcome::Committed { .. } | TxnOutcome::Conflict { .. }) | Err(MetaError::Unknown { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn create_object(store: &Arc<dyn ObjectStore>, random: &Random) -> Result<(), StartError> {
    let content = Bytes::from(with_checksum(&format!("{:0ID_DIGITS$x}", random.next_u128())));
    let identity = Identity { range: 0..ID_DIGITS as u64, bytes: content.slice(..ID_DIGITS) };
    let settler = Settler::new(store.clone());
    match settler.create(&object::binding(), PutPayload::from(content), &identity, &Patience::default()).await {
        Settled::Ours | Settled::Theirs { .. } => Ok(()),
        Settled::Unknown { why } => Err(MetaError::Unknown { what: why }.into()),
    }
}

fn with_checksum(id: &str) -> String {
    format!("{id}{:08x}", crc32c::crc32c(id.as_bytes()))
}

const DAMAGED: &str = "it does not hold the id of a metadata store";

/// What the storage says, if it says anything. `Corrupt` if that makes no sense, or a newer program wrote it.
async fn object_id(store: &Arc<dyn ObjectStore>) -> MetaResult<Option<String>> {
    let path = object::binding();
    let read = || {
        let (store, path) = (store.clone(), path.clone());
        async move {
            match store.get(&path).await {
                Ok(found) => found.bytes().await.map(Some),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
    };
    // A reply may be damaged on its way: it is believed when it is the same again.
    let mut before = None;
    for _ in 0..ATTEMPTS {
        let Some(bytes) = repeated(&path, read).await? else { return Ok(None) };
        let id = std::str::from_utf8(&bytes).ok().and_then(|content| content.get(..ID_DIGITS));
        if let Some(id) = id.filter(|id| with_checksum(id).as_bytes() == bytes) {
            return Ok(Some(id.to_owned()));
        }
        if before.as_ref() == Some(&bytes) {
            return Err(MetaError::Corrupt { key: path.to_string(), why: DAMAGED.to_owned() });
        }
        before = Some(bytes);
    }
    Err(MetaError::Unavailable { what: path.to_string(), source: DAMAGED.into() })
}

async fn holds(store: &Arc<dyn ObjectStore>, prefix: Path) -> MetaResult<bool> {
    let list = || {
        let (store, prefix) = (store.clone(), prefix.clone());
        async move { store.list(Some(&prefix)).next().await.transpose().map(|first| first.is_some()) }
    };
    repeated(&prefix, list).await
}

async fn repeated<T, Answer>(path: &Path, call: impl Fn() -> Answer) -> MetaResult<T>
where
    Answer: Future<Output = Result<T, object_store::Error>>,
{
    let mut failed: Box<dyn std::error::Error + Send + Sync> = "no answer in time".into();
    for attempt in 0..ATTEMPTS {
        match timeout(CALL_TIMEOUT, call()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => failed = Box::new(error),
            Err(_) => {}
        }
        sleep(BACKOFF * 2_u32.pow(attempt)).await;
    }
    Err(MetaError::Unavailable { what: path.to_string(), source: failed })
}

#[cfg(test)]
mod tests;
