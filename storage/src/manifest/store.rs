//! Reads the manifest, and commits changes to it.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use meta::error::ErrorKind;
use meta::keys::{object, store as keys};
use meta::planted;
use meta::records::{self, ManifestObject, ManifestRecord, PositionRecord};
use meta::seams::Incarnation;
use meta::store::{MetaStore, Revision, Txn, TxnOutcome};
use tokio::time::sleep;

use super::{Change, Manifest, codec};
use crate::entry::FragmentId;
use crate::error::{Error, Result};
use crate::registry;
use crate::tiered::TieredObjects;

/// Parts read at once.
const READS: usize = 8;
/// Changes that are kept before the next commit is a base.
const MAX_CHANGES: usize = 64;
/// The same in bytes, however small the base is.
const MIN_CHANGES_BYTES: u64 = 1 << 20;
/// Pause after the first failure of the metadata store; doubles up to the other.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Commits changes, as the writer of one log.
pub struct ManifestStore {
    objects: TieredObjects,
    meta: Arc<dyn MetaStore>,
    log: u64,
    writer: Incarnation,
    next_number: u64,
    current: Current,
}

/// What the metadata store says.
#[derive(Debug, Clone)]
struct Current {
    record: Option<ManifestRecord>,
    /// 0 if there is no record.
    revision: Revision,
}

/// What a commit is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Everything anew.
    Base,
    Change,
}

/// The manifest as it is now.
pub async fn load(meta: &dyn MetaStore, objects: &TieredObjects) -> Result<Manifest> {
    let Some(record) = current(meta).await?.record else { return Ok(Manifest::empty()) };
    let mut manifest = Manifest::empty();
    let mut parts = stream::iter(record.objects.into_iter().enumerate())
        .map(|(place, part)| async move {
            let key = object::manifest(part.log, part.number);
            let decode = |bytes: &[u8]| codec::decode(bytes, part.log, part.number);
            let (change, base) = objects.read_whole(&key, part.bytes, decode).await.map_err(lost)?;
            if base != (place == 0) {
                let why = "it is not of the kind that its place in the manifest asks for".to_owned();
                return Err(Error::Corrupt { key: key.to_string(), why });
            }
            Ok(change)
        })
        .buffered(READS);
    while let Some(change) = parts.try_next().await? {
        manifest.apply(change)?;
    }
    if PositionRecord::from(manifest.position) != record.position {
        let why = "its parts end at another position than its record".to_owned();
        return Err(Error::Corrupt { key: keys::MANIFEST.to_owned(), why });
    }
    Ok(manifest)
}

/// What is named is there: a part that is missing was lost.
fn lost(error: Error) -> Error {
    match error {
        Error::Missing { key } => Error::Corrupt { key, why: "the manifest names it, and it is missing".to_owned() },
        error => error,
    }
}

async fn current(meta: &dyn MetaStore) -> Result<Current> {
    Ok(match meta.get(keys::MANIFEST).await? {
        None => Current { record: None, revision: 0 },
        Some(found) => {
            Current { record: Some(records::decode(keys::MANIFEST, &found.value)?), revision: found.mod_revision }
        }
    })
}

impl ManifestStore {
    /// For the writer of this log, which owns the newest one: `meta` refuses everybody else.
    pub async fn open(meta: Arc<dyn MetaStore>, objects: TieredObjects, log: u64, writer: Incarnation) -> Result<Self> {
        let current = current(&*meta).await?;
        Ok(Self { objects, meta, log, writer, next_number: 0, current })
    }

    /// Objects of the manifest that count now.
    pub fn named(&self) -> &[ManifestObject] {
        self.current.record.as_ref().map_or(&[], |record| &record.objects)
    }

    /// What the next commit should be, so that neither the number of parts nor their bytes grow without bound.
    pub fn advice(&self) -> Commit {
        match self.named() {
            [] => Commit::Base,
            [base, changes @ ..] => {
                let bytes: u64 = changes.iter().map(|change| change.bytes).sum();
                let many = changes.len() >= MAX_CHANGES || bytes > base.bytes.max(MIN_CHANGES_BYTES);
                if many { Commit::Base } else { Commit::Change }
            }
        }
    }

    /// Makes a change durable, then current. Returns the parts that are not named any more. After an error nothing has
    /// changed.
    pub async fn commit(&mut self, change: &Change, kind: Commit) -> Result<Vec<ManifestObject>> {
        let number = self.next_number;
        self.next_number += 1;
        let encoded = codec::encode(change, kind == Commit::Base, self.log, number, self.writer);
        let part = ManifestObject { log: self.log, number, bytes: encoded.bytes.len() as u64 };
        if !planted::bug("manifest-before-its-data") {
            self.objects
                .create(&object::manifest(self.log, number), vec![encoded.bytes.clone()], &encoded.identity)
                .await?;
        }
        fail::fail_point!("manifest::written");
        let mut objects = if kind == Commit::Base { Vec::new() } else { self.named().to_vec() };
        objects.push(part);
        let record = ManifestRecord { position: change.position.into(), objects };
        let dropped = if kind == Commit::Base { self.named().to_vec() } else { Vec::new() };
        self.record(record, change.position).await?;
        fail::fail_point!("manifest::committed");
        if planted::bug("manifest-before-its-data") {
            self.objects.create(&object::manifest(self.log, number), vec![encoded.bytes], &encoded.identity).await?;
        }
        Ok(dropped)
    }

    /// Returns only when it is known what became of it: nobody waits for this, and a change whose fate is unknown must
    /// not be followed by another.
    async fn record(&mut self, record: ManifestRecord, position: FragmentId) -> Result<()> {
        let mut pause = PAUSE;
        loop {
            let failed = match self.try_record(&record, position).await {
                Ok(Some(revision)) => {
                    self.current = Current { record: Some(record), revision };
                    return Ok(());
                }
                Ok(None) => None,
                Err(error) if matches!(error.kind(), ErrorKind::Retriable | ErrorKind::Unknown) => Some(error),
                Err(error) => return Err(error),
            };
            if let Some(error) = failed {
                tracing::warn!(%error, "the manifest is not changed yet, or not known to be");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            match current(&*self.meta).await {
                Ok(found) if found.record.as_ref() == Some(&record) => {
                    self.current = found;
                    return Ok(());
                }
                Ok(found) if found.revision != self.current.revision => {
                    let owner = "whoever changed the manifest".to_owned();
                    return Err(Error::Fenced { what: keys::MANIFEST.to_owned(), owner });
                }
                // An attempt may still land: then the next one does not, and finds it.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Retriable | ErrorKind::Unknown) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// None if some comparison did not hold.
    async fn try_record(&self, record: &ManifestRecord, position: FragmentId) -> Result<Option<Revision>> {
        let txn =
            Txn::new().if_revision(keys::MANIFEST, self.current.revision).put(keys::MANIFEST, records::encode(record));
        let txn = registry::raise_recover_from(&*self.meta, txn, self.log, position).await?;
        match self.meta.commit(txn).await? {
            TxnOutcome::Committed { revision } => Ok(Some(revision)),
            TxnOutcome::Conflict { .. } => Ok(None),
        }
    }
}

impl From<FragmentId> for PositionRecord {
    fn from(id: FragmentId) -> Self {
        Self { log: id.log, segment: id.segment, fragment: id.fragment }
    }
}
