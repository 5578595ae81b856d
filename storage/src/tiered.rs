//! Tiered objects and parts of the manifest: whole objects written by the settled write, and what else upkeep does in the
//! store that holds them.
//!
//! Invariants: a key is written at most once, by the incarnation that owns the log in it; nothing is overwritten.

mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use meta::keys::object::{self, LogObject};
use meta::settled::{Identity, Patience, Settled, Settler};
use object_store::path::Path;
use object_store::{GetRange, ObjectStore, PutPayload};

use crate::entry::{FragmentId, IndexedEntry, Run};
use crate::error::{Error, Result};
use crate::fragment::{DecodeError, EncodedTiered, HEADER_BYTES, decode_run_index};
use crate::object_log::gets::Gets;

pub use upload::{Parts, Upload};

/// Objects are large and nobody waits for them: one attempt may take long, and the store may be away for long.
const PATIENCE: Patience = Patience {
    deadline: Duration::from_secs(600),
    call_timeout: Duration::from_secs(60),
    backoff: Duration::from_millis(100),
    backoff_max: Duration::from_secs(10),
};

/// Limit of a single read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads and writes whole objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TieredObjects {
    settler: Settler,
    gets: Gets,
}

/// What stands below `logs/`.
#[derive(Debug, Default)]
pub struct Listed {
    /// Fragments, fences and tiered objects that are objects of their own, with their lengths.
    pub fragments: BTreeMap<FragmentId, u64>,
    /// Segments that are files: log and segment, with their lengths.
    pub segment_files: BTreeMap<(u64, u32), u64>,
    /// What has no business there.
    pub strange: Vec<Path>,
}

impl TieredObjects {
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        let gets = Gets::new(store.clone(), READ_TIMEOUT);
        Self { settler: Settler::new(store), gets }
    }

    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        self.settler.store()
    }

    /// Makes an object durable. After any error it may be there or not, now or later: its key is not to be used again.
    pub async fn create(&self, key: &Path, parts: Vec<Bytes>, identity: &Identity) -> Result<()> {
        let payload = PutPayload::from_iter(parts);
        match self.settler.create(key, payload, identity, &PATIENCE).await {
            Settled::Ours => Ok(()),
            Settled::Theirs { .. } => {
                Err(Error::Corrupt { key: key.to_string(), why: "somebody else wrote it under our name".to_owned() })
            }
            Settled::Unknown { why } => Err(Error::Unknown { what: why }),
        }
    }

    /// Makes a tiered object durable.
    pub async fn write(&self, object: EncodedTiered) -> Result<()> {
        self.create(&object.index.fragment.key(), object.parts, &object.identity).await
    }

    pub async fn read_run_index(&self, run: &Run) -> Result<Vec<IndexedEntry>> {
        let length = u64::from(run.index_length);
        self.gets.exactly(&run.fragment.key(), run.index_position, length, |part| decode_run_index(run, &part)).await
    }

    /// Bytes of an object. Never fewer than asked for.
    pub async fn read(&self, id: FragmentId, position: u64, length: u32) -> Result<Bytes> {
        self.gets.exactly(&id.key(), position, u64::from(length), Ok).await
    }

    /// The same, decoded. Damage on the way is not there a second time; what is, is `Corrupt`.
    pub async fn read_decoded<T>(
        &self,
        id: FragmentId,
        position: u64,
        length: u32,
        decode: impl Fn(Bytes) -> Result<T, DecodeError> + Send,
    ) -> Result<T> {
        self.gets.exactly(&id.key(), position, u64::from(length), decode).await
    }

    /// A whole object that is known to be `bytes` long.
    pub async fn read_whole<T>(
        &self,
        key: &Path,
        bytes: u64,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError> + Send,
    ) -> Result<T> {
        let whole = GetRange::Bounded(0..bytes);
        self.gets
            .get(key, whole, move |got| {
                if got.size != bytes || got.bytes.len() as u64 != bytes {
                    return Err(DecodeError::Damaged("the object is not as long as it should be"));
                }
                decode(&got.bytes)
            })
            .await
    }

    /// Deletes objects, in any order. What is not there counts as deleted.
    pub async fn delete(&self, keys: Vec<Path>) -> Result<()> {
        fail::fail_point!("tiered::delete");
        let keys = stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut answers = self.store().delete_stream(keys);
        let mut failed = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => Err(Error::Unavailable { what: "deleting objects".to_owned(), source: Box::new(error) }),
        }
    }

    /// Everything below `logs/`. What it does not show may be there all the same.
    pub async fn list(&self) -> Result<Listed> {
        let mut listed = Listed::default();
        let mut objects = self.store().list(Some(&object::logs_prefix()));
        while let Some(found) = objects.try_next().await.map_err(unlisted)? {
            match object::parse_log_object(&found.location) {
                Some(LogObject::Fragment { log, segment, fragment }) => {
                    listed.fragments.insert(FragmentId { log, segment, fragment }, found.size);
                }
                Some(LogObject::SegmentFile { log, segment }) => {
                    listed.segment_files.insert((log, segment), found.size);
                }
                None => listed.strange.push(found.location),
            }
        }
        Ok(listed)
    }

    /// The parts of manifests, current or not: log and number, with their lengths.
    pub async fn list_manifests(&self) -> Result<BTreeMap<(u64, u64), u64>> {
        let mut listed = BTreeMap::new();
        let mut objects = self.store().list(Some(&object::manifests_prefix()));
        while let Some(found) = objects.try_next().await.map_err(unlisted)? {
            if let Some(place) = object::parse_manifest(&found.location) {
                listed.insert(place, found.size);
            }
        }
        Ok(listed)
    }
}

impl Listed {
    /// Is this listed object a fence? (It is as long as a header, and no fragment is.)
    pub fn is_fence(bytes: u64) -> bool {
        bytes == HEADER_BYTES as u64
    }
}

fn unlisted(error: object_store::Error) -> Error {
    Error::Unavailable { what: "listing objects".to_owned(), source: Box::new(error) }
}

#[cfg(test)]
mod tests;
