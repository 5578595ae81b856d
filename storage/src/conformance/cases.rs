//! What a writer and its readers promise while nothing goes wrong.

use meta::error::ErrorKind;
use meta::records::LogState;
use meta::seams::Incarnation;

use super::{Backend, all_durable, enqueue_all, indexes, some_entries};
use crate::entry::FragmentId;
use crate::log::Outcome;
use crate::registry;
use crate::samples::{entry, partition};

pub async fn order_and_exact_contents(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    for round in 0..8 {
        let pending = enqueue_all(&*opened.log, &some_entries(round, 10, 7));
        all_durable(&pending).await;
    }
    assert_eq!(opened.log.pending_bytes(), 0);
    let mut entries = opened.sink.entries();
    assert_eq!(entries.len(), 8 * 10 * 7);
    entries.sort_by_key(|entry| entry.partition);
    let of_one = entries.chunk_by(|a, b| a.partition == b.partition);
    for entries in of_one {
        assert!(entries.windows(2).all(|pair| pair[1].meta.base_offset == pair[0].meta.last_offset + 1));
    }
    let last = opened.sink.indexes().last().unwrap().fragment;
    let end = FragmentId { fragment: last.fragment + 1, ..last };
    assert_eq!(opened.log.durable_end(), end);
    opened.sink.matches(&*store).await;
    opened.log.close().await.unwrap();
}

pub async fn durable_in_the_order_of_enqueueing(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    let entries = some_entries(0, 200, 3);
    let mut pending = Vec::new();
    for part in entries.chunks(10) {
        pending.extend(enqueue_all(&*opened.log, part));
        tokio::task::yield_now().await;
    }
    let mut order: Vec<usize> = (0..pending.len()).collect();
    order.sort_by_key(|n| n * 7919 % pending.len());
    let waits = order.into_iter().map(|n| {
        let (pending, sink) = (&pending, &opened.sink);
        let entry = &entries[n];
        async move {
            assert_eq!(pending[n].resolved().await, Outcome::Durable);
            let earlier = pending[..n].iter().find(|earlier| earlier.outcome() != Some(Outcome::Durable));
            // Fates of different fragments are decided one after another: an earlier one is at most a moment late.
            if let Some(earlier) = earlier {
                assert_eq!(earlier.resolved().await, Outcome::Durable);
            }
            let told = |found: &crate::entry::Entry| (found.partition, found.meta) == (entry.partition, entry.meta);
            assert!(sink.entries().iter().any(told), "the sink is told before the append resolves");
        }
    });
    futures::future::join_all(waits).await;
    opened.log.close().await.unwrap();
}

pub async fn closing_makes_durable_and_seals(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    let pending = enqueue_all(&*opened.log, &some_entries(0, 20, 2));
    opened.log.close().await.unwrap();
    assert!(pending.iter().all(|pending| pending.outcome() == Some(Outcome::Durable)));
    let late = opened.log.enqueue(entry(partition(9, 0), 60, 1, 10));
    assert_eq!(late.resolved().await, Outcome::Unknown);
    assert!(opened.log.roll().await.is_err());
    let (record, _) = registry::load(&*backend.meta, opened.number).await.unwrap();
    assert_eq!(record.state, LogState::Sealed);
    let found = opened.sink.indexes();
    drop((opened.log, store));
    let store = (backend.open)();
    assert_eq!(indexes(&*store, opened.number, &record).await, found);
    opened.sink.matches(&*store).await;
}

pub async fn rolling_goes_on_in_a_new_segment(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    opened.log.roll().await.unwrap();
    for round in 0..3 {
        let pending = enqueue_all(&*opened.log, &some_entries(round, 5, 2));
        opened.log.roll().await.unwrap();
        all_durable(&pending).await;
    }
    let end = opened.log.durable_end();
    assert!(end.segment >= 4, "{end}");
    opened.log.close().await.unwrap();
    let (record, _) = registry::load(&*backend.meta, opened.number).await.unwrap();
    assert_eq!(record.segments.len(), end.segment as usize + 1);
    assert_eq!(record.segments[0].end, Some(0), "rolled while it was empty");
    assert_eq!(indexes(&*store, opened.number, &record).await, opened.sink.indexes());
    opened.sink.matches(&*store).await;
}

pub async fn many_partitions_share_fragments(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    let entries: Vec<_> = (0..1500u128)
        .flat_map(|n| {
            [entry(partition(n % 50, (n / 50) as i32), 0, 1, 30), entry(partition(n % 50, (n / 50) as i32), 1, 1, 30)]
        })
        .collect();
    let pending = enqueue_all(&*opened.log, &entries);
    all_durable(&pending).await;
    let indexes = opened.sink.indexes();
    // Far fewer than partitions: how many exactly depends on how fast this backend is.
    assert!(indexes.len() <= 150, "{} fragments for 3,000 entries at once", indexes.len());
    assert!(indexes.iter().all(|index| index.runs.is_sorted_by_key(|run| run.partition)));
    let runs: usize = indexes.iter().map(|index| index.runs.len()).sum();
    assert!((1500..=3000).contains(&runs), "{runs}");
    opened.log.close().await.unwrap();
    let (record, _) = registry::load(&*backend.meta, opened.number).await.unwrap();
    assert_eq!(super::indexes(&*store, opened.number, &record).await, indexes);
}

pub async fn a_large_entry(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    let entries = [
        entry(partition(9, 0), 0, 1, 100),
        entry(partition(9, 0), 1, 1, 10 << 20),
        entry(partition(9, 1), 0, 1, 9 << 20),
        entry(partition(9, 0), 2, 1, 100),
    ];
    all_durable(&enqueue_all(&*opened.log, &entries)).await;
    opened.sink.matches(&*store).await;
    opened.log.close().await.unwrap();
}

pub async fn only_the_registered_writer_opens(backend: &Backend) {
    let store = (backend.open)();
    let number = registry::register(&*backend.meta, Incarnation(1), &[]).await.unwrap();
    let open = async |number, writer| {
        let sink = std::sync::Arc::new(super::Recorder::default());
        store.open(number, writer, sink).await.map(drop).map_err(|error| error.kind())
    };
    assert_eq!(open(number, Incarnation(2)).await, Err(ErrorKind::Fenced));
    assert_eq!(open(number + 1, Incarnation(1)).await, Err(ErrorKind::Invalid));
    registry::begin_sealing(&*backend.meta, number).await.unwrap();
    assert_eq!(open(number, Incarnation(1)).await, Err(ErrorKind::Fenced), "a log that is being sealed");
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    opened.log.close().await.unwrap();
    assert_eq!(open(opened.number, Incarnation(1)).await, Err(ErrorKind::Fenced), "a sealed log");
}

pub async fn reads_stay_within_their_run(backend: &Backend) {
    let store = (backend.open)();
    let opened = backend.open_log(&*store, Incarnation(1)).await;
    all_durable(&enqueue_all(&*opened.log, &some_entries(0, 5, 3))).await;
    let run = opened.sink.indexes()[0].runs[0].run;
    assert!(store.read(&run, run.position, 0).await.unwrap().is_empty());
    for (position, length) in [(run.position - 1, 1), (run.position, run.length + 1), (u64::MAX, 1)] {
        let error = store.read(&run, position, length).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let elsewhere = FragmentId { segment: 77, ..run.fragment };
    let missing = crate::entry::Run { fragment: elsewhere, ..run };
    let error = store.read(&missing, run.position, run.length).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retriable);
    assert!(error.to_string().contains(&store.key(elsewhere)), "{error}");
    opened.log.close().await.unwrap();
}
