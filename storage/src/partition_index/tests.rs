//! Tests of the chain of runs: refusals by name (rule 5), and every lookup against a plain scan.

use meta::error::ErrorKind;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::entry::FragmentId;

fn partition() -> TopicPartition {
    TopicPartition { topic: Uuid::from_u128(7), partition: 3 }
}

fn run(fragment: u64, base_offset: i64, next_offset: i64, max_timestamp: i64, leader_epoch: i32) -> Run {
    Run {
        fragment: FragmentId { log: 1, segment: 0, fragment },
        base_offset,
        next_offset,
        max_timestamp,
        leader_epoch,
        file_position: 0,
        position: 64,
        length: 100,
        index_position: 200,
        index_length: 80,
    }
}

#[test]
fn a_gap_is_refused_by_name_and_changes_nothing() {
    let mut index = PartitionIndex::new(partition(), 0);
    index.append(run(0, 0, 10, 5, 1)).unwrap();
    let before = index.clone();
    let error = index.append(run(1, 11, 20, 5, 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    assert!(text.contains(&partition().to_string()), "{text}");
    assert!(text.contains("a gap") && text.contains("1/0/1") && text.contains("11") && text.contains("10"), "{text}");
    assert_eq!(index, before);
}

#[test]
fn an_overlap_is_refused() {
    let mut index = PartitionIndex::new(partition(), 0);
    index.append(run(0, 0, 10, 5, 1)).unwrap();
    for wrong in [run(1, 9, 20, 5, 1), run(1, 0, 10, 5, 1), run(1, 10, 10, 5, 1), run(1, 10, 9, 5, 1)] {
        assert_eq!(index.append(wrong).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert_eq!((index.len(), index.next_offset()), (1, 10));
}

#[test]
fn the_first_run_begins_at_the_log_start() {
    let mut index = PartitionIndex::new(partition(), 100);
    assert!(index.append(run(0, 0, 10, 5, 1)).is_err());
    index.append(run(0, 100, 110, 5, 1)).unwrap();
    assert_eq!(index.find(99), None);
    assert_eq!(index.find(100).unwrap().base_offset, 100);
}

#[test]
fn leader_epochs_never_fall() {
    let mut index = PartitionIndex::new(partition(), 0);
    index.append(run(0, 0, 10, 5, 4)).unwrap();
    let text = index.append(run(1, 10, 20, 5, 3)).unwrap_err().to_string();
    assert!(text.contains("leader epoch 3") && text.contains("after epoch 4"), "{text}");
}

#[test]
fn an_epoch_ends_where_the_next_begins() {
    let mut index = PartitionIndex::new(partition(), 0);
    assert_eq!(index.epoch_end(0), None);
    for (n, epoch) in [(0, 2), (1, 2), (2, 5), (3, 9)] {
        index.append(run(n as u64, n * 10, n * 10 + 10, 0, epoch)).unwrap();
    }
    let end = |epoch| index.epoch_end(epoch).map(|end| (end.epoch, end.end_offset));
    assert_eq!(end(1), Some((1, 0)), "older than all data");
    assert_eq!(end(2), Some((2, 20)));
    assert_eq!(end(3), Some((2, 20)), "no data of its own: the epoch below");
    assert_eq!(end(5), Some((5, 30)));
    assert_eq!(end(8), Some((5, 30)));
    assert_eq!(end(9), Some((9, 40)), "the latest epoch ends at the end");
    assert_eq!(end(10), None, "newer than all data");
    assert_eq!(index.latest_epoch(), Some(9));
}

#[test]
fn timestamps_need_not_rise() {
    let mut index = PartitionIndex::new(partition(), 0);
    for (n, timestamp) in [(0, 50), (1, 10), (2, 70), (3, 70), (4, -1)] {
        index.append(run(n as u64, n * 10, n * 10 + 10, timestamp, 0)).unwrap();
    }
    let found = |timestamp, from| index.find_timestamp(timestamp, from).map(|run| run.base_offset);
    assert_eq!(found(5, 0), Some(0));
    assert_eq!(found(51, 0), Some(20));
    assert_eq!(found(5, 10), Some(10), "from the given offset on");
    assert_eq!(found(71, 0), None);
    assert_eq!(index.max_timestamp_run(0).unwrap().base_offset, 20, "the earliest of equals");
}

#[test]
fn the_log_start_only_rises() {
    let mut index = PartitionIndex::new(partition(), 0);
    for n in 0..200 {
        index.append(run(n as u64, n * 10, n * 10 + 10, 1000 - n, (n / 50) as i32)).unwrap();
    }
    index.advance_log_start(705);
    assert_eq!((index.log_start(), index.len()), (705, 130));
    assert_eq!(index.find(704), None);
    assert_eq!(index.find(705).unwrap().base_offset, 700, "the run that holds it stays");
    assert_eq!(index.max_timestamp_run(0).unwrap().base_offset, 700);
    assert_eq!(index.epoch_end(0), Some(EpochEnd { epoch: 0, end_offset: 705 }));
    index.advance_log_start(3);
    assert_eq!(index.log_start(), 705);
    index.advance_log_start(9999);
    assert_eq!((index.log_start(), index.next_offset(), index.len()), (2000, 2000, 0));
    assert_eq!(index.max_timestamp_run(0), None);
    index.append(run(200, 2000, 2010, 5, 3)).unwrap();
    assert_eq!(index.max_timestamp_run(0).unwrap().base_offset, 2000);
}

#[test]
fn a_run_costs_about_a_hundred_bytes() {
    let mut index = PartitionIndex::new(partition(), 0);
    for n in 0..10_000 {
        index.append(run(n as u64, n, n + 1, n, 0)).unwrap();
    }
    let bytes = index.runs.capacity() * size_of::<Run>() + index.group_max_timestamps.capacity() * 8;
    assert!(bytes / 10_000 <= 104, "{} bytes a run", bytes / 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The index answers as a scan over all runs does, however far the log start has moved.
    #[test]
    fn answers_like_a_scan(
        steps in prop::collection::vec((1i64..20, 0i64..50), 1..300),
        start in 0i64..6000,
        timestamp in 0i64..55,
        offset in 0i64..6000,
    ) {
        let mut index = PartitionIndex::new(partition(), 0);
        let mut runs = Vec::new();
        let mut next = 0;
        for (n, (count, timestamp)) in steps.into_iter().enumerate() {
            let added = run(n as u64, next, next + count, timestamp, 0);
            next += count;
            index.append(added).unwrap();
            runs.push(added);
            if n == 150 {
                index.advance_log_start(start);
            }
        }
        index.advance_log_start(start);
        let start = index.log_start();
        runs.retain(|run| run.next_offset > start);
        let holds = |run: &&Run| run.next_offset > offset;
        prop_assert_eq!(index.find(offset), runs.iter().find(|run| offset >= start && holds(run)));
        prop_assert_eq!(
            index.runs_from(offset).copied().collect::<Vec<_>>(),
            runs.iter().filter(holds).copied().collect::<Vec<_>>()
        );
        prop_assert_eq!(
            index.find_timestamp(timestamp, offset),
            runs.iter().filter(holds).find(|run| run.max_timestamp >= timestamp)
        );
        let max = runs.iter().map(|run| run.max_timestamp).max();
        prop_assert_eq!(index.max_timestamp_run(0), runs.iter().find(|run| Some(run.max_timestamp) == max));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        count: i64,
        timestamp: i64,
        new_epoch: bool,
    },
    Advance {
        by: i64,
    },
    /// The runs from one place to another, those of each epoch, become one.
    Merge {
        from: prop::sample::Index,
        to: prop::sample::Index,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20_i64, 0..50_i64, prop::bool::weighted(0.1))
            .prop_map(|(count, timestamp, new_epoch)| Step::Append { count, timestamp, new_epoch }),
        1 => (1..80_i64).prop_map(|by| Step::Advance { by }),
        2 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(from, to)| Step::Merge { from, to }),
    ];
    prop::collection::vec(step, 1..300)
}

/// Neighbours of one epoch as one run.
fn merged(runs: &[Run], fragment: u64) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::new();
    for one in runs {
        match merged.last_mut().filter(|last| last.leader_epoch == one.leader_epoch) {
            Some(last) => {
                last.next_offset = one.next_offset;
                last.max_timestamp = last.max_timestamp.max(one.max_timestamp);
            }
            None => merged.push(Run { fragment: FragmentId::tiered(1, fragment), ..*one }),
        }
    }
    merged
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However runs come, are merged and go: the index answers as a plain list of runs does.
    #[test]
    fn merging_changes_nothing_else(steps in steps(), timestamp in 0..55_i64, epoch in 0..8_i32) {
        let mut index = PartitionIndex::new(partition(), 0);
        let (mut runs, mut end, mut start, mut newest): (Vec<Run>, i64, i64, i32) = (Vec::new(), 0, 0, 0);
        // Where each epoch began, whether or not that is left.
        let mut epochs = std::collections::BTreeMap::new();
        for (number, step) in (0_u64..).zip(steps) {
            match step {
                Step::Append { count, timestamp, new_epoch } => {
                    newest += i32::from(new_epoch);
                    let added = run(number, end, end + count, timestamp, newest);
                    epochs.entry(newest).or_insert(end);
                    end += count;
                    index.append(added).unwrap();
                    runs.push(added);
                }
                Step::Advance { by } => {
                    start = (start + by).min(end);
                    index.advance_log_start(start);
                    runs.retain(|run| run.next_offset > start);
                }
                Step::Merge { from, to } if !runs.is_empty() => {
                    let (from, to) = (from.index(runs.len()), to.index(runs.len()));
                    let (from, to) = (from.min(to), from.max(to));
                    let joined = merged(&runs[from..=to], number);
                    index.replace(runs[from].base_offset, runs[to].next_offset, &joined).unwrap();
                    runs.splice(from..=to, joined);
                }
                Step::Merge { .. } => {}
            }
        }
        prop_assert!(index.runs().eq(&runs));
        prop_assert_eq!((index.log_start(), index.next_offset()), (start, end));
        for offset in (start - 5).max(0)..end + 5 {
            let found = runs.iter().find(|run| offset >= start && run.next_offset > offset);
            prop_assert_eq!(index.find(offset), found);
        }
        prop_assert_eq!(index.find_timestamp(timestamp, 0), runs.iter().find(|run| run.max_timestamp >= timestamp));
        let max = runs.iter().map(|run| run.max_timestamp).max();
        prop_assert_eq!(index.max_timestamp_run(0), runs.iter().find(|run| Some(run.max_timestamp) == max));
        let next = epochs.range(epoch + 1..).next();
        if let (Some((_, next)), true) = (next, epochs.contains_key(&epoch)) {
            let told = index.epoch_end(epoch).unwrap().end_offset;
            prop_assert_eq!(told, (*next).max(start), "the epoch ends where the next begins, or where data does");
        }
    }
}
