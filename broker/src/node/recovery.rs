//! Taking over: from a storage that somebody may still be writing to, to an open log of our own and all partitions.

use std::sync::Arc;

use meta::embedded::{EmbeddedOptions, EmbeddedStore};
use meta::error::{Error as MetaError, Result as MetaResult};
use meta::keys::store as keys;
use meta::owned::OwnedStore;
use meta::records::{self, ClusterRecord, LogRecord, LogState};
use meta::seams::{Incarnation, Random};
use meta::settled::Settler;
use meta::store::{MetaStore, Txn, TxnOutcome};
use storage::entry::TopicPartition;
use storage::file_log::{FileLogOptions, FileLogStore};
use storage::files::FolderFiles;
use storage::log::LogStore;
use storage::manifest::{self, Manifest};
use storage::object_log::{ObjectLogStore, WriterOptions};
use storage::registry;
use storage::tiered::TieredObjects;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::partitions::Partitions;
use crate::topics::Topics;
use crate::upkeep::{Committed, Found};

use super::binding;
use super::{Metadata, NodeParts, StartError};

/// What taking over leaves in our hands.
pub struct TakenOver {
    pub incarnation: Incarnation,
    /// What may be changed only while this broker owns the newest log.
    pub meta: Arc<dyn MetaStore>,
    /// Becomes true when the metadata refuses us because it does not. (Whoever took the metadata over may have died before
    /// it fenced our log: the log alone would never tell.)
    pub meta_fenced: watch::Receiver<bool>,
    pub logs: Arc<dyn LogStore>,
    pub cluster_id: String,
    /// The number of our own log, whose record is durable; nothing has been appended yet.
    pub log: u64,
    /// All logs before ours, sealed, in order.
    pub history: Vec<(u64, LogRecord)>,
}

/// Takes over the metadata, fences and seals every log that is not sealed yet, and registers our own.
pub async fn take_over(parts: &NodeParts) -> Result<TakenOver, StartError> {
    let incarnation = parts.incarnation;
    let (meta, taken_from_us) = metadata(parts).await?;
    fail::fail_point!("node::metadata_taken_over");
    let cluster_id = cluster_id(&*meta, &parts.random).await?;
    let logs = log_store(parts, meta.clone()).map_err(StartError::from_storage)?;
    let (log, history) = own_log(&*meta, &*logs, incarnation).await?;
    fail::fail_point!("node::log_registered");
    let (meta, meta_fenced): (Arc<dyn MetaStore>, _) = match taken_from_us {
        Some(fenced) => (meta, fenced),
        None => {
            let owned = OwnedStore::new(meta, log);
            let fenced = owned.fenced();
            (Arc::new(owned), fenced)
        }
    };
    Ok(TakenOver { incarnation, meta, meta_fenced, logs, cluster_id, log, history })
}

/// The metadata store, once it is certain that it is this storage's; and, if it has one owner at a time, what becomes
/// true when we are not that any more.
async fn metadata(parts: &NodeParts) -> Result<(Arc<dyn MetaStore>, Option<watch::Receiver<bool>>), StartError> {
    match &parts.metadata {
        Metadata::Embedded => {
            binding::refuse_bound(&parts.store).await?;
            let options = EmbeddedOptions { exclusive: parts.folder.is_some(), ..EmbeddedOptions::default() };
            let embedded = EmbeddedStore::open(parts.store.clone(), parts.incarnation, &parts.random, options).await?;
            let fenced = embedded.fenced();
            Ok((Arc::new(embedded), Some(fenced)))
        }
        Metadata::Shared(meta) => {
            binding::bind(&parts.store, &**meta, &parts.random).await?;
            Ok((meta.clone(), None))
        }
    }
}

/// Fences and seals all logs that are not, and registers our own. If another broker registers one meanwhile (only a
/// shared store lets it) that one has to be fenced as well: its writer may be serving already.
async fn own_log(
    meta: &dyn MetaStore,
    logs: &dyn LogStore,
    incarnation: Incarnation,
) -> Result<(u64, Vec<(u64, LogRecord)>), StartError> {
    loop {
        // Before the list: whatever the list does not show, this does not count.
        let newest = registry::newest(meta).await.map_err(StartError::from_storage)?;
        let mut history = registry::logs(meta).await.map_err(StartError::from_storage)?;
        let mut sealed = Vec::new();
        for (number, record) in &mut history {
            if record.state != LogState::Sealed {
                *record = fence(meta, logs, *number, incarnation).await?;
                sealed.push((*number, record.clone()));
            }
        }
        fail::fail_point!("node::logs_fenced");
        let registered = match meta::planted::bug("register-after-stale-listing") {
            true => registry::register(meta, incarnation, &sealed).await.map(Some),
            false => registry::register_after(meta, newest, incarnation, &sealed).await,
        };
        if let Some(log) = registered.map_err(StartError::from_storage)? {
            return Ok((log, history));
        }
        tracing::info!("another log was registered meanwhile, looking again");
    }
}

fn log_store(parts: &NodeParts, meta: Arc<dyn MetaStore>) -> storage::error::Result<Arc<dyn LogStore>> {
    if let Some(folder) = &parts.folder {
        let files = Arc::new(FolderFiles::new(folder.clone()));
        return Ok(Arc::new(FileLogStore::new(files, meta, parts.tiered(), FileLogOptions::default())?));
    }
    let options = WriterOptions {
        flush_interval: parts.config.flush_interval,
        flush_bytes: parts.config.flush_bytes,
        puts_per_s: parts.config.put_budget_per_s,
        ..WriterOptions::default()
    };
    Ok(Arc::new(ObjectLogStore::new(Settler::new(parts.store.clone()), meta, options)))
}

/// Stops a log's writer for good. Returns its record with every end known; the caller makes that durable.
async fn fence(
    meta: &dyn MetaStore,
    logs: &dyn LogStore,
    number: u64,
    sealer: Incarnation,
) -> Result<LogRecord, StartError> {
    let record = registry::begin_sealing(meta, number).await.map_err(StartError::from_storage)?;
    fail::fail_point!("node::log_sealing");
    let end = logs.fence(number, &record, sealer).await.map_err(StartError::from_storage)?;
    tracing::info!(log = number, segments = record.segments.len(), end, "fenced the log of a previous start");
    Ok(registry::sealed(&record, end))
}

/// Reads the cluster's id, or writes it if this is the first start.
async fn cluster_id(meta: &dyn MetaStore, random: &Random) -> MetaResult<String> {
    loop {
        if let Some(entry) = meta.get(keys::CLUSTER).await? {
            return Ok(records::decode::<ClusterRecord>(keys::CLUSTER, &entry.value)?.id);
        }
        let record = ClusterRecord { id: url_safe_base64(random.next_u128()) };
        let txn = Txn::new().if_absent(keys::CLUSTER).put(keys::CLUSTER, records::encode(&record));
        match meta.commit(txn).await {
            Ok(TxnOutcome::Committed { .. }) => return Ok(record.id),
            // Somebody's is there, or ours may be: read it.
            Ok(TxnOutcome::Conflict { .. }) | Err(MetaError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The 22 characters that Kafka's `Uuid` prints.
fn url_safe_base64(id: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 128 bits, padded on the right to 22 digits of 6 bits.
    (0..22)
        .map(|digit| {
            let shift = 126 - 6 * i32::from(digit as u8);
            let bits = if shift >= 0 { id >> shift } else { id << -shift };
            char::from(DIGITS[(bits & 63) as usize])
        })
        .collect()
}

/// Rebuilds all partitions: from the manifest, then from what the sealed logs hold from its position on, in the order of
/// their numbers. Returns what the manifest has.
pub async fn replay(
    taken: &TakenOver,
    objects: &TieredObjects,
    topics: &Topics,
    partitions: &Partitions,
) -> Result<Found, StartError> {
    let began = Instant::now();
    let mut fragments = 0_u64;
    for topic in topics.all() {
        partitions.open_topic(topic.id, topic.partitions);
    }
    let manifest = manifest::load(&*taken.meta, objects).await.map_err(StartError::from_storage)?;
    let position = manifest.position;
    let mut found = restore(manifest, &*taken.logs, partitions);
    for (number, record) in &taken.history {
        for (segment, ends) in (0_u32..).zip(&record.segments) {
            if (*number, segment) < (position.log, position.segment) {
                continue;
            }
            let is_first = (*number, segment) == (position.log, position.segment);
            let from = if is_first { position.fragment } else { 0 };
            let Some(end) = ends.end else {
                return Err(StartError::Storage(storage::error::Error::Corrupt {
                    key: keys::log(*number),
                    why: format!("segment {segment} of a sealed log has no end"),
                }));
            };
            let mut each = |index: storage::entry::FragmentIndex| {
                fragments += 1;
                for run in &index.runs {
                    // A partition whose logs do not fit together is refused to clients; the others are none the worse.
                    if let Err(error) = partitions.replay(run) {
                        tracing::error!(partition = %run.partition, %error, "a partition is damaged");
                    }
                }
                let bytes = index.runs.iter().map(|run| u64::from(run.run.length)).sum();
                partitions.backlog().push(index.fragment, bytes, index.runs.len());
                Ok(())
            };
            taken.logs.read_indexes(*number, segment, from, end, &mut each).await.map_err(StartError::from_storage)?;
        }
    }
    for topic in topics.all() {
        for (partition, offset) in &topic.log_starts {
            let id = TopicPartition { topic: topic.id, partition: *partition };
            if let Err(error) = partitions.restore_log_start(id, *offset) {
                tracing::error!(topic = topic.name, partition = %id, %error, "a partition is damaged");
            }
        }
    }
    let took_ms = began.elapsed().as_millis();
    tracing::info!(logs = taken.history.len(), %position, fragments, took_ms, "rebuilt all partitions");
    found.history.clone_from(&taken.history);
    Ok(found)
}

/// Gives every partition what the manifest has of it.
fn restore(manifest: Manifest, logs: &dyn LogStore, partitions: &Partitions) -> Found {
    let mut found = Found { position: Some(manifest.position), ..Found::default() };
    for (id, checkpoint) in manifest.partitions {
        let index = &checkpoint.index;
        found.referenced.extend(index.runs().map(|run| logs.unit(run.fragment)));
        let (end, log_start, cleaned_to) = (index.next_offset(), index.log_start(), checkpoint.cleaned_to);
        found.committed.insert(id, Committed { end, log_start, cleaned_to });
        // Of one whose topic was deleted, nothing is left to be told.
        if let Some(partition) = partitions.get(id)
            && let Err(error) = partition.restore(checkpoint)
        {
            tracing::error!(partition = %id, %error, "a partition is damaged");
        }
    }
    found
}

#[cfg(test)]
mod tests;
