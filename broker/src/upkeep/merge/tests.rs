//! What was changed while it was being merged stays as it is.

use storage::entry::TopicPartition;
use uuid::Uuid;

use super::*;

fn run(number: u64, from: i64, to: i64) -> Run {
    Run {
        fragment: FragmentId::tiered(1, number),
        base_offset: from,
        next_offset: to,
        max_timestamp: 5,
        leader_epoch: 1,
        file_position: 0,
        position: 80,
        length: 100,
        index_position: 180,
        index_length: 64,
    }
}

/// Four runs of ten offsets.
fn index() -> PartitionIndex {
    let mut index = PartitionIndex::new(TopicPartition { topic: Uuid::nil(), partition: 0 }, 0);
    (0..4).for_each(|number| index.append(run(number, number as i64 * 10, number as i64 * 10 + 10)).unwrap());
    index
}

#[test]
fn runs_that_are_still_there_are_merged() {
    let mut index = index();
    let (read, merged) = ([run(1, 10, 20), run(2, 20, 30)], vec![run(9, 10, 30)]);
    let found = stretch(&index, &read, merged.clone());
    assert_eq!(found, Some(Stretch { from: 10, to: 30, runs: merged.clone() }));
    index.advance_log_start(15);
    assert!(stretch(&index, &read, merged.clone()).is_some(), "some of the first is left");
    index.advance_log_start(25);
    let found = stretch(&index, &read, merged.clone()).unwrap();
    index.replace(found.from, found.to, &found.runs).unwrap();
    assert_eq!(index.runs().map(|run| run.fragment.fragment).collect::<Vec<_>>(), [9, 3]);
    index.advance_log_start(30);
    assert_eq!(stretch(&index, &read, merged), None, "nothing of them is left");
}

#[test]
fn runs_that_were_changed_stay() {
    let (read, merged) = ([run(1, 10, 20), run(2, 20, 30)], vec![run(9, 10, 30)]);
    for (from, to) in [(0, 20), (10, 20), (10, 30), (20, 40), (0, 40)] {
        let mut compacted = index();
        compacted.replace(from, to, &[run(7, from, to)]).unwrap();
        assert_eq!(stretch(&compacted, &read, merged.clone()), None, "{from}..{to} was compacted meanwhile");
    }
    let mut compacted = index();
    compacted.replace(0, 10, &[run(7, 0, 10)]).unwrap();
    assert!(stretch(&compacted, &read, merged).is_some(), "only what lies elsewhere was");
}
