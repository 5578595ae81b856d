//! Writes a long tiered object while its bytes are still being read: in parts of one length, whatever the object's own.
//!
//! Invariants:
//! - The object is there as a whole once `finish` has returned Ok, or not at all, or nobody knows: then it is never
//!   referred to, and its key is not used again.
//! - There is no create-if-absent of an upload in parts, and none is needed: the key has a number that the only writer of
//!   the log in it has never used before.
//! - In memory are `Parts::at_once` parts that are being sent at most, and one that is being filled.
//!
//! What is neither finished nor aborted (after a crash) is no object: nothing lists it, and the store keeps its parts until
//! a rule of the bucket ends it (S3: `AbortIncompleteMultipartUpload`), or, in a folder, until the next start.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use meta::planted;
use meta::settled::Identity;
use object_store::path::Path;
use object_store::{GetRange, MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::TieredObjects;
use crate::error::{Error, Result};
use crate::fragment::{DecodeError, TieredLayout};

/// Parts at most: no store takes more than 10,000.
const MAX_PARTS: u64 = 9_000;
/// Limit of a single call: a part is long, and the client tries again by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(180);

/// How a long object is cut.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    pub bytes: usize,
    /// Parts on their way: a store that is far away takes no more than so much of one of them in a second.
    pub at_once: usize,
    /// No: however long it is, it is sent in one piece.
    pub allowed: bool,
    /// What can be read after an error is durable. Not in a folder, where it may be lost with the power.
    pub reads_back: bool,
}

/// An object on its way.
pub struct Upload {
    objects: TieredObjects,
    key: Path,
    identity: Identity,
    part_bytes: usize,
    reads_back: bool,
    /// None: it is sent in one piece in the end.
    parts: Option<Box<dyn MultipartUpload>>,
    filling: BytesMut,
    /// If nobody waits for them any more, they are given up.
    sending: JoinSet<Result<()>>,
    at_once: usize,
}

impl TieredObjects {
    /// Begins to write an object that is laid out.
    pub async fn begin(&self, layout: &TieredLayout, parts: Parts) -> Result<Upload> {
        let key = layout.index.fragment.key();
        let least_bytes = usize::try_from(layout.total_bytes / MAX_PARTS).unwrap_or(usize::MAX);
        let part_bytes = parts.bytes.max(least_bytes).max(1);
        let upload = match parts.allowed && layout.total_bytes > part_bytes as u64 {
            true => Some(called("beginning to write", &key, self.store().put_multipart(&key)).await?),
            false => None,
        };
        let room = if upload.is_some() { part_bytes } else { usize::try_from(layout.total_bytes).unwrap_or(0) };
        let mut upload = Upload {
            objects: self.clone(),
            key,
            identity: layout.identity.clone(),
            part_bytes,
            reads_back: parts.reads_back,
            parts: upload,
            filling: BytesMut::with_capacity(room),
            sending: JoinSet::new(),
            at_once: parts.at_once.max(1),
        };
        match upload.push(&layout.head).await {
            Ok(()) => Ok(upload),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }
}

impl Upload {
    /// The next bytes. Waits while as many parts as may be are on their way.
    pub async fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.parts.is_some() && self.filling.len() + bytes.len() >= self.part_bytes {
            let (now, later) = bytes.split_at(self.part_bytes - self.filling.len());
            self.filling.extend_from_slice(now);
            bytes = later;
            self.sent(self.at_once - 1).await?;
            let full = std::mem::replace(&mut self.filling, BytesMut::with_capacity(self.part_bytes));
            self.send(full.freeze());
        }
        self.filling.extend_from_slice(bytes);
        Ok(())
    }

    /// The last bytes. Ok as soon as the object is durable.
    pub async fn finish(&mut self, layout: &TieredLayout) -> Result<()> {
        self.push(&layout.tail).await?;
        let last = std::mem::take(&mut self.filling).freeze();
        if self.parts.is_none() {
            return self.objects.create(&self.key, vec![last], &self.identity).await;
        }
        if !last.is_empty() {
            self.send(last);
        }
        self.sent(0).await?;
        fail::fail_point!("tiered::parts_written");
        if planted::bug("upload-not-completed") {
            return Ok(());
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        match called("completing", &self.key, parts.complete()).await {
            Ok(_) => Ok(()),
            Err(error) if self.reads_back => settle(&self.objects, &self.key, &self.identity, error).await,
            Err(error) => Err(Error::Unknown { what: error.to_string() }),
        }
    }

    /// Gives up: nothing of it is kept, if the store can be told. Also after a completion that failed, or may have.
    pub async fn abort(mut self) {
        // The store must not hear of them afterwards.
        self.sending.shutdown().await;
        if let Some(mut parts) = self.parts.take()
            && let Err(error) = called("giving up", &self.key, parts.abort()).await
        {
            tracing::debug!(key = %self.key, %error, "parts of an upload that was given up stay behind");
        }
    }

    fn send(&mut self, part: Bytes) {
        let Some(parts) = &mut self.parts else { return };
        let (part, key) = (parts.put_part(PutPayload::from(part)), self.key.clone());
        self.sending.spawn(async move { called("writing", &key, part).await });
    }

    /// Waits until no more than so many parts are on their way.
    async fn sent(&mut self, left: usize) -> Result<()> {
        while self.sending.len() > left {
            let lost = |_| Err(Error::Unknown { what: format!("a part of {}", self.key) });
            self.sending.join_next().await.map_or(Ok(()), |sent| sent.unwrap_or_else(lost))?;
        }
        Ok(())
    }
}

/// The completion was not answered, or with an error: is the object there? If it is not, it may still come.
async fn settle(objects: &TieredObjects, key: &Path, identity: &Identity, error: Error) -> Result<()> {
    fail::fail_point!("tiered::upload_unclear");
    let same = |found: &[u8]| match found == identity.bytes {
        true => Ok(()),
        false => Err(DecodeError::Damaged("somebody else wrote it under our name")),
    };
    let range = GetRange::Bounded(identity.range.clone());
    match objects.gets.get(key, range, |got| same(&got.bytes)).await {
        Ok(()) => Ok(()),
        Err(found @ Error::Corrupt { .. }) => Err(found),
        Err(_) => Err(Error::Unknown { what: error.to_string() }),
    }
}

/// One call to the store, within its time.
async fn called<T>(what: &str, key: &Path, call: impl Future<Output = object_store::Result<T>>) -> Result<T> {
    let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| {
        let what = format!("{what} {key} in parts");
        Error::Unavailable { what, source }
    };
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unavailable(Box::new(error))),
        Err(late) => Err(unavailable(Box::new(late))),
    }
}
