//! What sealing and recovery promise.

use std::collections::BTreeMap;

use meta::error::ErrorKind;
use meta::records::LogState;
use meta::seams::Incarnation;

use super::{Backend, all_durable, bytes_of_run, enqueue_all, indexes, some_entries};
use crate::entry::TopicPartition;
use crate::log::Outcome;
use crate::partition_index::PartitionIndex;
use crate::registry;
use crate::samples::{bytes_of, entry, partition};

pub async fn acknowledged_entries_survive_a_crash(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    for round in 0..5 {
        all_durable(&enqueue_all(&*opened.log, &some_entries(round, 6, 4))).await;
        if round == 2 {
            opened.log.roll().await.unwrap();
        }
    }
    let unfinished = enqueue_all(&*opened.log, &some_entries(5, 6, 4));
    drop((opened.log, store));
    for pending in &unfinished {
        assert_ne!(pending.resolved().await, Outcome::Fenced, "nobody has fenced it");
    }
    let store = (backend.open)();
    let record = backend.recover(&*store, opened.number, Incarnation(2)).await;
    assert_eq!(record.state, LogState::Sealed);
    let found = indexes(&*store, opened.number, &record).await;
    let acknowledged = opened.sink.indexes();
    assert_eq!(found[..acknowledged.len()], acknowledged);
    opened.sink.matches(&*store).await;
    for index in &found[acknowledged.len()..] {
        for run in &index.runs {
            assert_eq!(bytes_of_run(&*store, run).await.len(), run.run.length as usize, "content is readable");
        }
    }
}

pub async fn fencing_is_idempotent(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    for round in 0..4 {
        all_durable(&enqueue_all(&*opened.log, &some_entries(round, 3, 2))).await;
    }
    enqueue_all(&*opened.log, &some_entries(4, 3, 2));
    drop((opened.log, store));
    let store = (backend.open)();
    let record = registry::begin_sealing(&*backend.meta, opened.number).await.unwrap();
    let end = store.fence(opened.number, &record, Incarnation(2)).await.unwrap();
    assert!(end >= opened.sink.indexes().len() as u64);
    assert_eq!(store.fence(opened.number, &record, Incarnation(2)).await.unwrap(), end, "again");
    drop(store);
    let store = (backend.open)();
    assert_eq!(store.fence(opened.number, &record, Incarnation(3)).await.unwrap(), end, "by another");
    let sealed = registry::seal(&*backend.meta, opened.number, end).await.unwrap();
    assert_eq!(indexes(&*store, opened.number, &sealed).await.len() as u64, end);
    opened.sink.matches(&*store).await;
}

pub async fn an_empty_log_is_sealed_at_zero(backend: &Backend) {
    let store = (backend.open)();
    let never_opened = registry::register(&*backend.meta, Incarnation(1), &[]).await.unwrap();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    drop((opened.log, store));
    let store = (backend.open)();
    for number in [never_opened, opened.number] {
        for sealer in [2, 2, 3] {
            let record = backend.recover(&*store, number, Incarnation(sealer)).await;
            assert_eq!(record.segments.last().unwrap().end, Some(0));
        }
    }
}

pub async fn a_fenced_writer_acknowledges_nothing_more(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    all_durable(&enqueue_all(&*opened.log, &some_entries(0, 5, 2))).await;
    opened.log.confirm_unfenced().await.unwrap();
    let other = if backend.shared { (backend.open)() } else { store.clone() };
    let record = backend.recover(&*other, opened.number, Incarnation(2)).await;
    let confirmed = opened.log.confirm_unfenced().await;
    assert!(confirmed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced), "{confirmed:?}");
    let late = enqueue_all(&*opened.log, &some_entries(1, 5, 2));
    for pending in &late {
        assert_eq!(pending.resolved().await, Outcome::Fenced);
    }
    assert_eq!(opened.sink.ended(), Some(Outcome::Fenced));
    let later = opened.log.enqueue(entry(partition(9, 0), 99, 1, 10));
    assert_eq!(later.resolved().await, Outcome::Fenced);
    assert!(opened.log.roll().await.is_err());
    assert!(opened.log.close().await.is_err());
    assert_eq!(indexes(&*other, opened.number, &record).await, opened.sink.indexes());
    opened.sink.matches(&*other).await;
    let (sealed, _) = registry::load(&*backend.meta, opened.number).await.unwrap();
    assert_eq!(sealed, record, "the fenced writer changes nothing in the metadata");
}

/// Incarnations one after another append to the same partitions; replay joins their logs by offset.
pub async fn logs_merge_by_offset(backend: &Backend) {
    let mut expected: BTreeMap<TopicPartition, Vec<u8>> = BTreeMap::new();
    let mut next_offset = 0;
    for incarnation in 1..=4 {
        let store = (backend.open)();
        for (number, record) in registry::logs(&*backend.meta).await.unwrap() {
            if record.state != LogState::Sealed {
                backend.recover(&*store, number, Incarnation(incarnation)).await;
            }
        }
        let opened = backend.open_log(&*store, Incarnation(incarnation)).await;
        for n in 0..6 {
            let entries: Vec<_> = (0..3).map(|p| entry(partition(9, p), next_offset, 2, 50 + n)).collect();
            all_durable(&enqueue_all(&*opened.log, &entries)).await;
            for entry in &entries {
                expected.entry(entry.partition).or_default().extend(bytes_of(entry));
            }
            next_offset += 2;
        }
        if incarnation % 2 == 0 {
            opened.log.close().await.unwrap();
        }
    }
    let store = (backend.open)();
    let mut found: BTreeMap<TopicPartition, (PartitionIndex, Vec<u8>)> = BTreeMap::new();
    for (number, record) in registry::logs(&*backend.meta).await.unwrap() {
        let record = match record.state {
            LogState::Sealed => record,
            LogState::Open | LogState::Sealing => backend.recover(&*store, number, Incarnation(9)).await,
        };
        for run in indexes(&*store, number, &record).await.into_iter().flat_map(|index| index.runs) {
            let new = || (PartitionIndex::new(run.partition, 0), Vec::new());
            let (index, bytes) = found.entry(run.partition).or_insert_with(new);
            index.append(run.run).unwrap();
            bytes.extend(bytes_of_run(&*store, &run).await);
        }
    }
    assert!(found.values().all(|(index, _)| index.next_offset() == next_offset));
    let found: BTreeMap<_, _> = found.into_iter().map(|(partition, (_, bytes))| (partition, bytes)).collect();
    assert_eq!(found, expected);
}

pub async fn indexes_from_the_middle(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    for round in 0..12 {
        all_durable(&enqueue_all(&*opened.log, &some_entries(round, 2, 3))).await;
    }
    opened.log.close().await.unwrap();
    let all = opened.sink.indexes();
    let count = all.len() as u64;
    for (from, end) in [(0, count), (count / 2, count), (count - 1, count), (1, 3), (count, count)] {
        let mut found = Vec::new();
        let mut each = |index| {
            found.push(index);
            Ok(())
        };
        store.read_indexes(opened.number, 0, from, end, &mut each).await.unwrap();
        assert_eq!(found, all[from as usize..end as usize], "{from}..{end}");
    }
    let mut calls = 0;
    let mut refuse = |_| {
        calls += 1;
        Err(crate::error::Error::Closed { what: "the caller" })
    };
    assert!(store.read_indexes(opened.number, 0, 0, count, &mut refuse).await.is_err());
    assert_eq!(calls, 1, "stops when it is told to");
}
