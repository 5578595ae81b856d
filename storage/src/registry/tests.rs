//! Tests of the logs' records: who may change what, and what an unknown outcome comes to.

use meta::memory::MemoryStore;

use super::*;
use crate::samples::{TxnFault, UncertainMeta};

const A: Incarnation = Incarnation(0xa);
const B: Incarnation = Incarnation(0xb);

async fn record(meta: &dyn MetaStore, number: u64) -> LogRecord {
    load(meta, number).await.unwrap().0
}

fn ends(record: &LogRecord) -> Vec<Option<u64>> {
    record.segments.iter().map(|segment| segment.end).collect()
}

#[tokio::test]
async fn a_log_is_registered_open_with_one_empty_segment() {
    let meta = MemoryStore::new();
    assert_eq!(register(&meta, A, &[]).await.unwrap(), 1);
    assert_eq!(register(&meta, B, &[]).await.unwrap(), 2);
    let first = record(&meta, 1).await;
    assert_eq!((first.state, first.writer, ends(&first)), (LogState::Open, A, vec![None]));
    let all = logs(&meta).await.unwrap();
    assert_eq!(all.iter().map(|(number, record)| (*number, record.writer)).collect::<Vec<_>>(), [(1, A), (2, B)]);
    assert_eq!(load(&meta, 3).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_ends_of_recovered_logs_are_recorded_with_the_next_log_or_not_at_all() {
    let meta = UncertainMeta::new();
    let one = register(&meta, A, &[]).await.unwrap();
    let two = register(&meta, A, &[]).await.unwrap();
    let one_sealed = sealed(&begin_sealing(&meta, one).await.unwrap(), 5);
    let two_sealed = sealed(&record(&meta, two).await, 0);
    // The second one was never marked as sealing: its writer could still be registering segments.
    let both = [(one, one_sealed.clone()), (two, two_sealed)];
    assert_eq!(register(&meta, B, &both).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(record(&meta, one).await.state, LogState::Sealing);
    begin_sealing(&meta, two).await.unwrap();
    assert_eq!(register(&meta, B, &both).await.unwrap(), 3);
    assert_eq!(record(&meta, one).await, one_sealed);
    assert_eq!(ends(&record(&meta, two).await), [Some(0)]);
    // Already recorded, with the same ends: nothing against it.
    assert_eq!(register(&meta, B, &both).await.unwrap(), 4);
}

#[tokio::test]
async fn a_sealed_end_never_moves() {
    let meta = MemoryStore::new();
    let log = register(&meta, A, &[]).await.unwrap();
    assert_eq!(seal(&meta, log, 7).await.unwrap_err().kind(), ErrorKind::Invalid, "not yet marked as sealing");
    let sealing = begin_sealing(&meta, log).await.unwrap();
    assert_eq!(sealing.state, LogState::Sealing);
    seal(&meta, log, 7).await.unwrap();
    seal(&meta, log, 7).await.unwrap();
    assert_eq!(seal(&meta, log, 8).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(seal_own(&meta, log, A, 0, 6).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(register(&meta, B, &[(log, sealed(&sealing, 9))]).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let after = begin_sealing(&meta, log).await.unwrap();
    assert_eq!((after.state, ends(&after)), (LogState::Sealed, vec![Some(7)]));
}

#[tokio::test]
async fn only_the_writer_of_an_open_log_gets_a_new_segment() {
    let meta = MemoryStore::new();
    let log = register(&meta, A, &[]).await.unwrap();
    assert_eq!(next_segment(&meta, log, B, 0, 3).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(next_segment(&meta, log, A, 0, 3).await.unwrap(), 1);
    assert_eq!(ends(&record(&meta, log).await), [Some(3), None]);
    // Asked again, as after a lost answer: the same segment; with another end: never.
    assert_eq!(next_segment(&meta, log, A, 0, 3).await.unwrap(), 1);
    assert_eq!(next_segment(&meta, log, A, 0, 4).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(next_segment(&meta, log, A, 1, 0).await.unwrap(), 2);
    begin_sealing(&meta, log).await.unwrap();
    let error = next_segment(&meta, log, A, 2, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(ends(&record(&meta, log).await), [Some(3), Some(0), None]);
    seal(&meta, log, 2).await.unwrap();
    assert_eq!(next_segment(&meta, log, A, 2, 2).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_writer_seals_its_own_log_and_no_other() {
    let meta = MemoryStore::new();
    let log = register(&meta, A, &[]).await.unwrap();
    assert_eq!(seal_own(&meta, log, B, 0, 3).await.unwrap_err().kind(), ErrorKind::Fenced);
    let record = seal_own(&meta, log, A, 0, 3).await.unwrap();
    assert_eq!((record.state, ends(&record)), (LogState::Sealed, vec![Some(3)]));
    seal_own(&meta, log, A, 0, 3).await.unwrap();
}

#[tokio::test]
async fn unknown_outcomes_are_read_back() {
    use TxnFault::*;
    for faults in [vec![AppliedUnknown], vec![LostUnknown], vec![LostUnknown, AppliedUnknown], vec![None]] {
        let meta = UncertainMeta::new();
        let log = register(&meta, A, &[]).await.unwrap();
        meta.script(faults.clone());
        assert_eq!(next_segment(&meta, log, A, 0, 3).await.unwrap(), 1, "{faults:?}");
        assert_eq!(ends(&record(&meta, log).await), [Some(3), Option::None], "{faults:?}");
        meta.script(faults.clone());
        begin_sealing(&meta, log).await.unwrap();
        meta.script(faults.clone());
        seal(&meta, log, 4).await.unwrap();
        meta.script(faults.clone());
        let next = register(&meta, B, &[(log, record(&meta, log).await)]).await.unwrap();
        assert_eq!(ends(&record(&meta, log).await), [Some(3), Some(4)], "{faults:?}");
        // Its number is nobody else's: a registration that may have landed is not taken for this one.
        let own: Vec<_> = logs(&meta).await.unwrap().into_iter().filter(|(number, _)| *number >= next).collect();
        assert_eq!(own.len(), 1, "{faults:?}");
    }
}

#[tokio::test]
async fn an_unavailable_store_changes_nothing_and_says_so() {
    let meta = UncertainMeta::new();
    let log = register(&meta, A, &[]).await.unwrap();
    meta.script([TxnFault::Unavailable]);
    assert_eq!(begin_sealing(&meta, log).await.unwrap_err().kind(), ErrorKind::Retriable);
    assert_eq!(record(&meta, log).await.state, LogState::Open);
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_corrupt_by_name() {
    let meta = MemoryStore::new();
    let log = register(&meta, A, &[]).await.unwrap();
    for (state, segments) in [
        (LogState::Open, vec![]),
        (LogState::Open, vec![None, None]),
        (LogState::Open, vec![Some(4)]),
        (LogState::Sealed, vec![None]),
    ] {
        let segments = segments.into_iter().map(|end| SegmentRecord { end }).collect();
        let bad = LogRecord { writer: A, state, segments, recover_from: 0 };
        meta.commit(Txn::new().put(keys::log(log), encode(&bad))).await.unwrap();
        let error = begin_sealing(&meta, log).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("logs/0000000001"), "{error}");
    }
}

#[tokio::test]
async fn a_log_is_not_registered_past_one_that_was_not_seen() {
    let meta = UncertainMeta::new();
    let before = newest(&meta).await.unwrap();
    assert_eq!(register_after(&meta, before, A, &[]).await.unwrap(), Some(1));
    // B looked before A registered: A may be serving by now.
    assert_eq!(register_after(&meta, before, B, &[]).await.unwrap(), None);
    let recovered = sealed(&begin_sealing(&meta, 1).await.unwrap(), 0);
    assert_eq!(register_after(&meta, before, B, &[(1, recovered.clone())]).await.unwrap(), None, "listed later");
    let seen = newest(&meta).await.unwrap();
    meta.script([TxnFault::AppliedUnknown]);
    assert_eq!(register_after(&meta, seen, B, &[(1, recovered)]).await.unwrap(), None, "nobody can tell");
    // Looking again it finds a log of its own, which it recovers like any other.
    let all = logs(&meta).await.unwrap();
    assert_eq!(
        all.iter().map(|(number, log)| (*number, log.writer, log.state)).collect::<Vec<_>>(),
        [(1, A, LogState::Sealed), (2, B, LogState::Open)]
    );
    let own = sealed(&begin_sealing(&meta, 2).await.unwrap(), 0);
    assert_eq!(register_after(&meta, newest(&meta).await.unwrap(), B, &[(2, own)]).await.unwrap(), Some(3));
}
