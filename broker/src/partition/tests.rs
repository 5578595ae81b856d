//! Offsets, durability, retries, replay and waiting readers of one partition, with a log whose fate the tests decide.

use std::pin::pin;

use bytes::Bytes;
use futures::FutureExt;
use proptest::prelude::*;
use storage::log::Outcome;
use uuid::Uuid;

use super::testing::{FakeLog, InFlight, permit, valid};
use super::*;
use crate::batch::BatchHeader;
use crate::batch::testing::BatchSpec;

const EPOCH: i32 = 4;

fn opening() -> Partition {
    Partition::new(TopicPartition { topic: Uuid::from_u128(1), partition: 0 }, 100)
}

fn leading() -> Partition {
    let partition = opening();
    assert!(partition.become_leader(EPOCH));
    partition
}

fn append(partition: &Partition, log: &FakeLog, spec: &BatchSpec) -> AppendResult {
    partition.append(log, valid(spec), permit())
}

fn appended(partition: &Partition, log: &FakeLog, spec: &BatchSpec) -> (i64, Durability) {
    match append(partition, log, spec) {
        AppendResult::Appended { base_offset, durability, .. } => (base_offset, durability),
        other => panic!("{other:?}"),
    }
}

fn advance(partition: &Partition, fragment: &InFlight) {
    fragment.runs().iter().for_each(|run| partition.advance(run.run).unwrap());
}

fn finish(partition: &Partition, fragment: InFlight) {
    advance(partition, &fragment);
    fragment.end(Outcome::Durable);
}

fn high_watermark(partition: &Partition) -> i64 {
    partition.bounds(-1).unwrap().high_watermark
}

#[test]
fn offsets_are_given_in_the_order_of_the_log_and_stamped() {
    let (partition, log) = (leading(), FakeLog::new(4));
    for (count, expected) in [(3, 0), (1, 3), (5, 4)] {
        assert_eq!(appended(&partition, &log, &BatchSpec::records(count)).0, expected);
    }
    let fragment = log.cut();
    let mut next = 0;
    for entry in &fragment.fragment.entries {
        let header = BatchHeader::parse_parts(&entry.head, &entry.body).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (next, EPOCH));
        assert_eq!((entry.meta.base_offset, entry.meta.leader_epoch), (next, EPOCH));
        next = entry.meta.last_offset + 1;
    }
    assert_eq!(next, 9);
}

// Catches the planted bug hw-before-durable.
#[test]
fn the_high_watermark_moves_only_with_durability() {
    let (partition, log) = (leading(), FakeLog::new(4));
    let (_, first) = appended(&partition, &log, &BatchSpec::records(2));
    let one = log.cut();
    appended(&partition, &log, &BatchSpec::records(3));
    assert_eq!(high_watermark(&partition), 0);
    assert!(first.resolved().now_or_never().is_none());
    finish(&partition, one);
    assert_eq!(high_watermark(&partition), 2);
    assert_eq!(first.resolved().now_or_never(), Some(Outcome::Durable));
    finish(&partition, log.cut());
    assert_eq!(high_watermark(&partition), 5);
}

// Catches the planted bug reply-from-producer-state-alone.
#[test]
fn a_retry_of_a_pending_batch_waits_for_that_batch() {
    let (partition, log) = (leading(), FakeLog::new(4));
    let spec = BatchSpec::idempotent(7, 0, 0, 2);
    appended(&partition, &log, &BatchSpec::records(3));
    appended(&partition, &log, &spec);
    let fragment = log.cut();
    let AppendResult::Duplicate { base_offset: 3, durability: Some(durability), .. } = append(&partition, &log, &spec)
    else {
        panic!("the retry must wait")
    };
    assert!(durability.resolved().now_or_never().is_none());
    finish(&partition, fragment);
    assert_eq!(durability.resolved().now_or_never(), Some(Outcome::Durable));
    assert!(log.cut().fragment.entries.is_empty(), "nothing was appended twice");
    assert!(matches!(
        append(&partition, &log, &spec),
        AppendResult::Duplicate { base_offset: 3, durability: None, .. }
    ));
}

#[test]
fn a_retry_shares_the_fate_of_its_batch() {
    let (partition, log) = (leading(), FakeLog::new(4));
    let spec = BatchSpec::idempotent(7, 0, 0, 2);
    appended(&partition, &log, &spec);
    let AppendResult::Duplicate { durability: Some(durability), .. } = append(&partition, &log, &spec) else {
        panic!("the retry must wait")
    };
    log.cut().end(Outcome::Unknown);
    assert_eq!(durability.resolved().now_or_never(), Some(Outcome::Unknown));
}

#[test]
fn a_duplicate_from_before_the_window_waits_too() {
    let (partition, log) = (leading(), FakeLog::new(4));
    for n in 0..7 {
        appended(&partition, &log, &BatchSpec::idempotent(7, 0, n, 1));
    }
    let AppendResult::OldDuplicate { durability: Some(durability) } =
        append(&partition, &log, &BatchSpec::idempotent(7, 0, 0, 1))
    else {
        panic!("what is not durable is not acknowledged, whatever the error")
    };
    assert!(durability.resolved().now_or_never().is_none());
    finish(&partition, log.cut());
    assert_eq!(durability.resolved().now_or_never(), Some(Outcome::Durable));
}

#[test]
fn refused_batches_leave_no_trace() {
    let (partition, log) = (leading(), FakeLog::new(4));
    appended(&partition, &log, &BatchSpec::idempotent(7, 1, 0, 2));
    for (spec, code) in [
        (BatchSpec::idempotent(7, 1, 3, 1), ResponseError::OutOfOrderSequenceNumber),
        (BatchSpec::idempotent(7, 0, 2, 1), ResponseError::InvalidProducerEpoch),
    ] {
        assert!(matches!(append(&partition, &log, &spec), AppendResult::Rejected(refused) if refused == code));
    }
    assert_eq!(appended(&partition, &log, &BatchSpec::idempotent(7, 1, 2, 1)).0, 2);
}

// Catches the planted bug offsets-reused-after-failure.
#[test]
fn after_the_log_has_failed_nothing_is_appended_and_no_offset_given_again() {
    let (partition, log) = (leading(), FakeLog::new(4));
    appended(&partition, &log, &BatchSpec::records(3));
    log.cut().end(Outcome::Unknown);
    partition.resign(Status::Fenced);
    let AppendResult::Rejected(code) = append(&partition, &log, &BatchSpec::records(1)) else {
        panic!("offset 0 may be in the log already")
    };
    assert_eq!(code, ResponseError::NotLeaderOrFollower);
    assert_eq!(partition.bounds(-1), Err(ResponseError::NotLeaderOrFollower));
    assert!(!partition.become_leader(EPOCH + 1), "only a new incarnation can");
}

#[test]
fn states_have_their_codes() {
    let partition = opening();
    let log = FakeLog::new(4);
    let code = |partition: &Partition| match append(partition, &log, &BatchSpec::default()) {
        AppendResult::Rejected(code) => Some(code),
        _ => None,
    };
    assert_eq!(code(&partition), Some(ResponseError::NotLeaderOrFollower));
    assert!(partition.become_leader(EPOCH));
    assert!(!partition.become_leader(EPOCH), "an event happens once");
    assert_eq!(code(&partition), None);
    assert!(partition.resign(Status::Released));
    assert!(!partition.resign(Status::Released));
    assert_eq!(code(&partition), Some(ResponseError::NotLeaderOrFollower));
    assert!(!partition.become_leader(EPOCH - 1), "epochs do not fall");
    assert!(partition.become_leader(EPOCH + 1));
    assert!(partition.resign(Status::Deleted));
    assert_eq!(code(&partition), Some(ResponseError::UnknownTopicOrPartition));
    assert!(!partition.resign(Status::Fenced), "deleted is deleted");
    assert!(!partition.become_leader(EPOCH + 2));
}

#[test]
fn an_append_that_was_pending_at_deletion_ends_in_peace() {
    let (partition, log) = (leading(), FakeLog::new(4));
    let (_, durability) = appended(&partition, &log, &BatchSpec::records(1));
    partition.resign(Status::Deleted);
    finish(&partition, log.cut());
    assert_eq!(durability.resolved().now_or_never(), Some(Outcome::Durable));
}

#[test]
fn a_new_log_does_not_overtake_the_old_one() {
    let partition = leading();
    let (old, new) = (FakeLog::new(4), FakeLog::new(5));
    let (_, first) = appended(&partition, &old, &BatchSpec::records(2));
    let (_, second) = appended(&partition, &new, &BatchSpec::records(3));
    let (_, third) = appended(&partition, &new, &BatchSpec::records(1));
    finish(&partition, new.cut());
    assert_eq!(high_watermark(&partition), 0, "the head of the queue is not durable");
    for later in [&second, &third] {
        assert!(later.resolved().now_or_never().is_none());
    }
    finish(&partition, old.cut());
    assert_eq!(high_watermark(&partition), 6);
    for append in [&first, &second, &third] {
        assert_eq!(append.resolved().now_or_never(), Some(Outcome::Durable));
    }
    let (_, lost) = appended(&partition, &old, &BatchSpec::records(1));
    let (_, behind) = appended(&partition, &new, &BatchSpec::records(1));
    old.cut().end(Outcome::Fenced);
    new.cut().end(Outcome::Durable);
    assert_eq!(lost.resolved().now_or_never(), Some(Outcome::Fenced));
    assert_eq!(behind.resolved().now_or_never(), Some(Outcome::Unknown), "never acknowledged behind a gap");
}

#[test]
fn a_run_that_nobody_waits_for_damages_the_partition() {
    let (partition, log) = (leading(), FakeLog::new(4));
    appended(&partition, &log, &BatchSpec::records(2));
    let fragment = log.cut();
    advance(&partition, &fragment);
    let error = partition.advance(fragment.runs()[0].run).unwrap_err();
    assert!(error.to_string().contains(&partition.id().to_string()), "{error}");
    assert_eq!(partition.status(), Status::Damaged);
}

/// What three appends leave in a log, the second of an idempotent producer.
fn history() -> InFlight {
    let (partition, log) = (leading(), FakeLog::new(4));
    appended(&partition, &log, &BatchSpec::records(2));
    appended(&partition, &log, &BatchSpec::idempotent(7, 3, 10, 4));
    appended(&partition, &log, &BatchSpec::records(1));
    log.cut()
}

// Catches the planted bug dedup-not-rebuilt.
#[test]
fn replay_rebuilds_offsets_and_producers() {
    let partition = opening();
    history().runs().iter().for_each(|run| partition.replay(run).unwrap());
    assert!(partition.become_leader(EPOCH + 1));
    assert!(partition.replay(&history().runs()[0]).is_err(), "only while opening");
    assert_eq!(high_watermark(&partition), 7);
    let log = FakeLog::new(5);
    assert!(matches!(
        append(&partition, &log, &BatchSpec::idempotent(7, 3, 10, 4)),
        AppendResult::Duplicate { base_offset: 2, durability: None, .. }
    ));
    assert_eq!(appended(&partition, &log, &BatchSpec::idempotent(7, 3, 14, 1)).0, 7);
}

#[test]
fn what_does_not_join_is_refused_by_name() {
    let mut gap = history().runs()[0].clone();
    gap.run.base_offset += 1;
    gap.run.next_offset += 1;
    gap.entries.iter_mut().for_each(|entry| {
        entry.meta.base_offset += 1;
        entry.meta.last_offset += 1;
    });
    let mut hole = history().runs()[0].clone();
    hole.entries.remove(1);
    let mut short = history().runs()[0].clone();
    short.entries.pop();
    for (what, run) in [("gap", gap), ("hole", hole), ("short", short)] {
        let partition = opening();
        let error = partition.replay(&run).unwrap_err();
        assert!(error.to_string().contains(&partition.id().to_string()), "{what}: {error}");
        partition.replay(&history().runs()[0]).unwrap();
        assert!(!partition.become_leader(EPOCH), "{what}: damaged stays damaged");
        assert_eq!(partition.bounds(-1), Err(ResponseError::KafkaStorageError), "{what}");
    }
}

// Catches the planted bug fetch-above-hw.
#[test]
fn plans_end_at_the_high_watermark() {
    let (partition, log) = (leading(), FakeLog::new(4));
    for _ in 0..3 {
        appended(&partition, &log, &BatchSpec::records(2));
        finish(&partition, log.cut());
    }
    appended(&partition, &log, &BatchSpec::records(2));
    let plan = |offset| partition.plan_fetch(offset, -1, 1 << 20);
    assert_eq!(plan(0).unwrap().runs.len(), 3);
    assert_eq!(plan(3).unwrap().runs[0].base_offset, 2);
    let at_end = plan(6).unwrap();
    assert_eq!((at_end.runs.len(), at_end.available_bytes), (0, 0));
    for offset in [-1, 7, 8, 9, i64::MAX] {
        assert_eq!(plan(offset), Err(ResponseError::OffsetOutOfRange), "{offset}");
    }
    assert_eq!(partition.plan_fetch(0, -1, 1).unwrap().runs.len(), 2, "the offset may be the last of the first run");
    assert_eq!(partition.plan_fetch(0, -1, 0).unwrap().runs.len(), 2, "or lie behind all that is left of it");
}

#[test]
fn leader_epochs_are_compared() {
    let partition = leading();
    for (epoch, expected) in [
        (-1, None),
        (EPOCH, None),
        (EPOCH - 1, Some(ResponseError::FencedLeaderEpoch)),
        (EPOCH + 1, Some(ResponseError::UnknownLeaderEpoch)),
    ] {
        assert_eq!(partition.bounds(epoch).err(), expected, "{epoch}");
        assert_eq!(partition.plan_fetch(0, epoch, 1).err(), expected, "{epoch}");
        assert_eq!(partition.epoch_end(epoch, 0).err(), expected, "{epoch}");
    }
}

#[test]
fn leader_epochs_end_where_the_next_begins() {
    let partition = opening();
    history().runs().iter().for_each(|run| partition.replay(run).unwrap());
    assert!(partition.become_leader(EPOCH + 3));
    let end = |epoch| partition.epoch_end(-1, epoch).unwrap().map(|end| (end.epoch, end.end_offset));
    assert_eq!(end(EPOCH), Some((EPOCH, 7)));
    assert_eq!(end(EPOCH + 1), Some((EPOCH, 7)), "an epoch without data ended where the one before did");
    assert_eq!(end(EPOCH + 3), Some((EPOCH + 3, 7)));
    assert_eq!(end(EPOCH + 4), None);
    assert_eq!(end(-1), None);
    let log = FakeLog::new(7);
    appended(&partition, &log, &BatchSpec::records(2));
    assert_eq!(end(EPOCH + 3), Some((EPOCH + 3, 7)), "what is pending does not count");
    finish(&partition, log.cut());
    assert_eq!(end(EPOCH + 3), Some((EPOCH + 3, 9)));
    assert_eq!(end(EPOCH + 2), Some((EPOCH, 7)));
    assert_eq!((partition.epoch_at(0), partition.epoch_at(8), partition.epoch_at(9)), (EPOCH, EPOCH + 3, EPOCH + 3));
}

/// A consumer that waits at offset 0 of an empty partition has nothing to lose in a restart.
#[test]
fn an_epoch_without_data_is_never_told_and_ends_where_nothing_is() {
    let partition = opening();
    assert!(partition.become_leader(EPOCH));
    assert_eq!(partition.epoch_at(0), -1);
    let partition = opening();
    assert!(partition.become_leader(EPOCH + 1));
    assert_eq!(partition.epoch_end(-1, EPOCH), Ok(Some(EpochEnd { epoch: EPOCH, end_offset: 0 })));
}

#[test]
fn a_watch_wakes_when_enough_has_become_readable() {
    let partition = Arc::new(leading());
    let log = FakeLog::new(4);
    let watching = Watching::start(vec![partition.clone()]);
    let bytes = valid(&BatchSpec::default()).len();
    watching.watch().expect(bytes + 1);
    let mut enough = Box::pin(watching.watch().enough());
    for woken in [false, true] {
        appended(&partition, &log, &BatchSpec::default());
        assert!(enough.as_mut().now_or_never().is_none(), "nothing is readable before it is durable");
        finish(&partition, log.cut());
        assert_eq!(enough.as_mut().now_or_never().is_some(), woken);
    }
    drop(enough);
    watching.watch().expect(1 << 30);
    partition.resign(Status::Fenced);
    assert!(pin!(watching.watch().enough()).now_or_never().is_some(), "the end of leadership wakes everybody");
    drop(watching);
    assert!(partition.state.lock().watches.is_empty());
}

#[test]
fn an_idle_partition_is_small() {
    assert!(size_of::<Partition>() < 1024, "{}", size_of::<Partition>());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_readers_see_exactly_what_is_durable(
        steps in proptest::collection::vec((0_u8..6, 1_usize..4), 1..80),
    ) {
        let (partition, log) = (leading(), FakeLog::new(4));
        let mut flying: std::collections::VecDeque<InFlight> = Default::default();
        let (mut next, mut durable, mut sequence) = (0_i64, 0_i64, 0);
        let mut last: Option<(BatchSpec, i64)> = None;
        for (kind, count) in steps {
            match kind {
                0 | 1 => {
                    let spec = BatchSpec::idempotent(7, 0, sequence, count);
                    prop_assert_eq!(appended(&partition, &log, &spec).0, next);
                    last = Some((spec, next));
                    sequence += count as i32;
                    next += count as i64;
                }
                2 => {
                    prop_assert_eq!(appended(&partition, &log, &BatchSpec::records(count)).0, next);
                    next += count as i64;
                }
                3 => {
                    if let Some((spec, offset)) = &last {
                        let AppendResult::Duplicate { base_offset, durability, .. } = append(&partition, &log, spec) else {
                            panic!("a retry is a duplicate")
                        };
                        prop_assert_eq!(base_offset, *offset);
                        prop_assert_eq!(durability.is_none(), *offset < durable);
                    }
                }
                4 => flying.push_back(log.cut()),
                _ => {
                    if let Some(fragment) = flying.pop_front() {
                        if let Some(run) = fragment.runs().last() {
                            durable = run.run.next_offset;
                        }
                        finish(&partition, fragment);
                    }
                }
            }
            prop_assert_eq!(high_watermark(&partition), durable);
            prop_assert!(partition.plan_fetch(durable, -1, 1).unwrap().runs.is_empty());
            prop_assert!(partition.plan_fetch(durable + 1, -1, 1).is_err());
            let plan = partition.plan_fetch(0, -1, usize::MAX).unwrap();
            prop_assert_eq!(plan.runs.last().map_or(0, |run| run.next_offset), durable);
        }
    }
}

#[test]
fn the_beginning_moves_up_only_and_what_is_below_cannot_be_read() {
    let (partition, log) = (leading(), FakeLog::new(4));
    appended(&partition, &log, &BatchSpec::records(4));
    finish(&partition, log.cut());
    appended(&partition, &log, &BatchSpec::records(4));
    finish(&partition, log.cut());
    for (asked, start) in [(0, 0), (2, 2), (6, 6), (3, 6), (8, 8)] {
        assert_eq!(partition.raise_log_start(asked), start);
        assert_eq!(partition.bounds(-1).unwrap().log_start_offset, start);
        if start > 0 {
            assert_eq!(partition.plan_fetch(start - 1, -1, 1).unwrap_err(), ResponseError::OffsetOutOfRange);
        }
        assert!(partition.plan_fetch(start, -1, 1).is_ok());
    }
    assert_eq!(appended(&partition, &log, &BatchSpec::records(1)).0, 8, "offsets go on");
}

// Catches the planted bug log-start-not-restored.
#[test]
fn the_beginning_is_restored_after_replay() {
    let (partition, log) = (leading(), FakeLog::new(4));
    appended(&partition, &log, &BatchSpec::records(4));
    let fragment = log.cut();
    let replayed = |start: i64| {
        let partition = opening();
        fragment.runs().iter().for_each(|run| partition.replay(run).unwrap());
        let restored = partition.restore_log_start(start);
        partition.become_leader(EPOCH + 1);
        (partition, restored)
    };
    for start in [0, 3, 4] {
        let (partition, restored) = replayed(start);
        restored.unwrap();
        let bounds = partition.bounds(-1).unwrap();
        assert_eq!((bounds.log_start_offset, bounds.high_watermark), (start, 4));
    }
    let (lost, restored) = replayed(5);
    assert!(restored.unwrap_err().to_string().contains(&lost.id().to_string()));
    assert_eq!(lost.status(), Status::Damaged, "acknowledged records are missing");
}

// The manifest may have a partition's beginning before it has the fragments of what was deleted.
#[test]
fn what_was_deleted_before_its_fragment_was_checkpointed_is_left_out_of_a_replay() {
    let checkpoint = |log_start: i64| Checkpoint {
        index: PartitionIndex::new(opening().id(), log_start),
        cleaned_to: 0,
        producers: Bytes::new(),
    };
    let (writer, log) = (leading(), FakeLog::new(4));
    appended(&writer, &log, &BatchSpec::records(4));
    let first = log.cut().runs().to_vec();
    appended(&writer, &log, &BatchSpec::records(3));
    let second = log.cut().runs().to_vec();
    let partition = opening();
    partition.restore(checkpoint(4)).unwrap();
    first.iter().chain(&second).for_each(|run| partition.replay(run).unwrap());
    assert!(partition.become_leader(EPOCH + 1));
    let bounds = partition.bounds(-1).unwrap();
    assert_eq!((bounds.log_start_offset, bounds.high_watermark), (4, 7));
    // But a run that reaches beyond the beginning has to join.
    let partition = opening();
    partition.restore(checkpoint(2)).unwrap();
    assert!(partition.replay(&first[0]).is_err());
}
