//! Rule 11: what is acknowledged survives a power cut; what failed is never retried on the same file.

use meta::error::ErrorKind;

use super::*;
use crate::conformance::{Opened, all_durable, bytes_of_run, enqueue_all, indexes, some_entries};
use crate::entry::{EntryMeta, TopicPartition};
use crate::partition_index::PartitionIndex;
use crate::samples::{TxnFault, UncertainMeta};

/// Every entry of a sealed log, in order, after reading and checking all of its data.
async fn content(store: &dyn LogStore, number: u64, record: &LogRecord) -> Vec<(TopicPartition, EntryMeta)> {
    let mut entries = Vec::new();
    let mut chains: BTreeMap<TopicPartition, PartitionIndex> = BTreeMap::new();
    for run in indexes(store, number, record).await.into_iter().flat_map(|index| index.runs) {
        let chain = chains.entry(run.partition).or_insert_with(|| PartitionIndex::new(run.partition, 0));
        chain.append(run.run).unwrap();
        let bytes = bytes_of_run(store, &run).await;
        for entry in &run.entries {
            let begin = (entry.position - run.run.position) as usize;
            let found = crate::fragment::entry_checksum(&bytes[begin..begin + entry.length as usize]);
            assert_eq!(found, Some(entry.checksum), "torn data was taken for content");
            entries.push((run.partition, entry.meta));
        }
    }
    entries
}

fn metas(entries: &[Entry]) -> Vec<(TopicPartition, EntryMeta)> {
    entries.iter().map(|entry| (entry.partition, entry.meta)).collect()
}

/// Power cut, restart, recovery: everything that became durable is there, first and in order.
async fn survives_power_cut(disk: &FaultyDisk, backend: &Backend, opened: &Opened) -> LogRecord {
    disk.cut_power();
    // Before the cut, or not at all: whatever was told by now must survive.
    let acknowledged = opened.sink.entries();
    let store = (backend.open)();
    let record = registry::begin_sealing(&*backend.meta, opened.number).await.unwrap();
    let end = store.fence(opened.number, &record, Incarnation(2)).await.unwrap();
    disk.cut_power();
    let store = (backend.open)();
    assert_eq!(store.fence(opened.number, &record, Incarnation(3)).await.unwrap(), end, "what was found is durable");
    let sealed = registry::seal(&*backend.meta, opened.number, end).await.unwrap();
    let mut found = content(&*store, opened.number, &sealed).await;
    let mut expected = metas(&acknowledged);
    assert!(found.len() >= expected.len(), "{} of {} acknowledged entries are left", found.len(), expected.len());
    found.truncate(expected.len());
    // The order of partitions within a fragment is the index's.
    found.sort_by_key(|(partition, meta)| (*partition, meta.base_offset));
    expected.sort_by_key(|(partition, meta)| (*partition, meta.base_offset));
    assert_eq!(found, expected);
    sealed
}

#[tokio::test]
async fn acknowledged_entries_survive_a_power_cut() {
    let mut torn = 0;
    for seed in 0..60 {
        let disk = FaultyDisk::new(seed);
        let backend = disk_backend(disk.clone(), small());
        let opened = backend.open_log(&*(backend.open)(), Incarnation(1)).await;
        let rounds = 1 + seed as i64 % 4;
        for round in 0..rounds {
            all_durable(&enqueue_all(&*opened.log, &some_entries(round, 8, 3))).await;
        }
        let acknowledged = opened.sink.indexes().len() as u64;
        // Bytes of one more fragment, written but not synced when the power goes.
        let path = path(opened.number, 0);
        let length = disk.content(&path).unwrap().len() as u64;
        let next = FragmentId { log: opened.number, segment: 0, fragment: acknowledged };
        let encoded = some_entries(rounds, 8, 3).into_iter().collect::<crate::fragment::FragmentBuilder>().finish(
            next,
            Incarnation(1),
            acknowledged.checked_sub(1),
        );
        let file = disk.files().open(&path).unwrap();
        crate::files::write_all_at(&*file, &encoded.parts, length).unwrap();
        let sealed = survives_power_cut(&disk, &backend, &opened).await;
        torn += u64::from(sealed.segments[0].end == Some(acknowledged));
    }
    assert!(torn > 30, "{torn} of 60 tails were torn");
}

#[tokio::test]
async fn a_failed_sync_or_write_goes_on_in_a_new_file() {
    for step in 0..8 {
        for of_sync in [true, false] {
            let disk = FaultyDisk::new(step.into());
            let backend = disk_backend(disk.clone(), small());
            let opened = backend.open_log(&*(backend.open)(), Incarnation(1)).await;
            disk.set_faults(match of_sync {
                true => Faults { syncs_before_failure: Some(step), ..Faults::default() },
                false => Faults { writes_before_failure: Some(step), ..Faults::default() },
            });
            let mut entries = Vec::new();
            for round in 0..10 {
                let more = some_entries(round, 4, 3);
                all_durable(&enqueue_all(&*opened.log, &more)).await;
                entries.extend(more);
            }
            assert_eq!(opened.sink.ended(), None);
            assert!(disk.faults().syncs_before_failure.is_none() && disk.faults().writes_before_failure.is_none());
            assert_eq!(opened.log.durable_end().segment, 1, "sealed and rolled");
            let sealed = survives_power_cut(&disk, &backend, &opened).await;
            assert_eq!(sealed.segments.len(), 2);
            assert_eq!(sealed.segments[0].end, Some(u64::from(step)), "ends at what was durable");
            let store = (backend.open)();
            assert_eq!(content(&*store, opened.number, &sealed).await.len(), entries.len(), "once each");
        }
    }
}

#[tokio::test]
async fn a_second_failure_ends_the_log_with_unknown() {
    let disk = FaultyDisk::new(1);
    let backend = disk_backend(disk.clone(), small());
    let opened = backend.open_log(&*(backend.open)(), Incarnation(1)).await;
    all_durable(&enqueue_all(&*opened.log, &some_entries(0, 4, 3))).await;
    disk.set_faults(Faults { dead: true, ..Faults::default() });
    let lost = enqueue_all(&*opened.log, &some_entries(1, 4, 3));
    for pending in &lost {
        assert_eq!(pending.resolved().await, Outcome::Unknown);
    }
    assert_eq!(opened.sink.ended(), Some(Outcome::Unknown));
    let later = enqueue_all(&*opened.log, &some_entries(2, 1, 1));
    assert_eq!(later[0].resolved().await, Outcome::Unknown);
    assert_eq!(opened.log.close().await.unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(opened.log.pending_bytes(), 0);
    survives_power_cut(&disk, &backend, &opened).await;
}

#[tokio::test]
async fn without_a_durable_folder_nothing_is_acknowledged() {
    for step in 0..3 {
        let disk = FaultyDisk::new(1);
        disk.set_faults(Faults { dir_syncs_before_failure: Some(step), ..Faults::default() });
        let backend = disk_backend(disk.clone(), small());
        let number = registry::register(&*backend.meta, Incarnation(1), &[]).await.unwrap();
        let sink = Arc::new(conformance::Recorder::default());
        let error = (backend.open)().open(number, Incarnation(1), sink).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retriable);
    }
    let disk = FaultyDisk::new(1);
    let backend = disk_backend(disk.clone(), small());
    let opened = backend.open_log(&*(backend.open)(), Incarnation(1)).await;
    disk.set_faults(Faults { dir_syncs_before_failure: Some(2), ..Faults::default() });
    assert!(opened.log.roll().await.is_err(), "the new file's entry could not be made durable");
    let pending = enqueue_all(&*opened.log, &some_entries(0, 1, 1));
    assert_eq!(pending[0].resolved().await, Outcome::Unknown);
}

#[tokio::test]
async fn segments_follow_each_other_by_length() {
    let disk = FaultyDisk::new(1);
    let backend = disk_backend(disk.clone(), FileLogOptions { segment_bytes: 20_000, ..small() });
    let opened = backend.open_log(&*(backend.open)(), Incarnation(1)).await;
    for round in 0..30 {
        all_durable(&enqueue_all(&*opened.log, &some_entries(round, 4, 3))).await;
    }
    let segments = opened.log.durable_end().segment;
    assert!((3..12).contains(&segments), "{segments}");
    assert!(disk.paths().iter().all(|path| disk.content(path).unwrap().len() < 30_000));
    let sealed = survives_power_cut(&disk, &backend, &opened).await;
    assert_eq!(sealed.segments.len(), segments as usize + 1);
}

/// A segment that is long enough is not worth a stop: while the metadata cannot be reached it grows.
#[tokio::test]
async fn without_metadata_a_segment_just_grows() {
    let disk = FaultyDisk::new(1);
    let meta = UncertainMeta::new();
    let (files, of_stores) = (disk.clone(), meta.clone());
    let options = FileLogOptions { segment_bytes: 20_000, ..small() };
    let open = move || -> Arc<dyn LogStore> {
        Arc::new(FileLogStore::new(files.files(), Arc::new(of_stores.clone()), tiered(), options).unwrap())
    };
    let backend = Backend { meta: Arc::new(meta.clone()), open: Box::new(open), shared: false };
    let opened = backend.open_log(&*(backend.open)(), Incarnation(1)).await;
    meta.script([TxnFault::Unavailable]);
    for round in 0..30 {
        all_durable(&enqueue_all(&*opened.log, &some_entries(round, 4, 3))).await;
    }
    assert_eq!(opened.log.durable_end().segment, 0, "one attempt, and none since");
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    // Applied, and nobody can tell: that has to be found out before anything else is written.
    meta.script([TxnFault::AppliedUnknown]);
    // Little enough for the new segment, in however many fragments it comes.
    for round in 30..32 {
        all_durable(&enqueue_all(&*opened.log, &some_entries(round, 4, 3))).await;
    }
    assert_eq!(opened.log.durable_end().segment, 1);
    survives_power_cut(&disk, &backend, &opened).await;
}

#[tokio::test]
async fn what_waits_during_a_sync_shares_the_next_fragment() {
    let disk = FaultyDisk::new(1);
    let backend = disk_backend(disk.clone(), small());
    let opened = backend.open_log(&*(backend.open)(), Incarnation(1)).await;
    let entries = some_entries(0, 100, 1); // about 20 kB
    all_durable(&enqueue_all(&*opened.log, &entries)).await;
    assert!(opened.sink.indexes().len() <= 2, "{} fragments", opened.sink.indexes().len());
    let many = some_entries(1, 100, 20); // about 400 kB, in fragments of at most 64 KiB
    all_durable(&enqueue_all(&*opened.log, &many)).await;
    let lengths: Vec<u64> = opened
        .sink
        .indexes()
        .iter()
        .map(|index| index.runs.iter().map(|run| u64::from(run.run.length)).sum())
        .collect();
    assert!(lengths.iter().all(|length| *length <= 64 << 10), "{lengths:?}");
    opened.log.close().await.unwrap();
}
