//! Which commit is shown, and which offsets age.

use super::*;

fn commit(offset: i64) -> Committed {
    Committed {
        offset,
        leader_epoch: 7,
        metadata: "m".to_owned(),
        commit_timestamp_ms: 1_000,
        expire_timestamp_ms: None,
    }
}

fn offset_of(offsets: &Offsets, partition: i32) -> Option<i64> {
    offsets.get("t", partition).map(|committed| committed.offset)
}

#[test]
fn a_commit_is_replaced_only_by_that_of_a_later_record() {
    let mut offsets = Offsets::default();
    assert!(offsets.apply("t", 0, commit(100), 5));
    assert!(!offsets.apply("t", 0, commit(90), 4), "an older record");
    assert!(!offsets.apply("t", 0, commit(91), 5), "the same record");
    assert_eq!(offset_of(&offsets, 0), Some(100));
    assert!(offsets.apply("t", 0, commit(40), 6), "a group may go back in its topic, but not in its records");
    assert_eq!(offset_of(&offsets, 0), Some(40));
    assert_eq!(offset_of(&offsets, 1), None);
}

#[test]
fn outcomes_in_any_order_give_the_last_record() {
    // Two commits, a tombstone, a commit: each order of their outcomes, each choice of failures.
    let orders = permutations(&[0_usize, 1, 2, 3]);
    assert_eq!(orders.len(), 24);
    for order in orders {
        for failed in 0..16_u32 {
            let mut offsets = Offsets::default();
            (0..4).for_each(|_| offsets.begin("t", 0));
            for record in &order {
                match *record {
                    _ if failed & (1 << record) != 0 => {}
                    2 => _ = offsets.remove("t", 0, 12),
                    record => _ = offsets.apply("t", 0, commit(record as i64), 10 + record as i64),
                }
                offsets.end("t", 0);
            }
            let last = [3, 2, 1, 0].into_iter().find(|record| failed & (1 << record) == 0);
            let expected = last.filter(|record| *record != 2).map(|record| record as i64);
            assert_eq!(offset_of(&offsets, 0), expected, "{order:?}, failed {failed:04b}");
            assert_eq!(offsets.is_empty(), expected.is_none(), "{order:?}, failed {failed:04b}");
        }
    }
}

fn permutations(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in of {
        let rest: Vec<usize> = of.iter().copied().filter(|other| other != first).collect();
        all.extend(permutations(&rest).into_iter().map(|mut tail| {
            tail.insert(0, *first);
            tail
        }));
    }
    all
}

#[test]
fn what_is_under_way_is_not_shown_but_counted() {
    let mut offsets = Offsets::default();
    assert!(offsets.is_empty());
    offsets.begin("t", 3);
    assert!(!offsets.is_empty());
    assert_eq!(offset_of(&offsets, 3), None);
    assert_eq!(offsets.all().count(), 0);
    assert_eq!(offsets.of_topic("t"), [3]);
    offsets.end("t", 3);
    assert!(offsets.is_empty());
    offsets.end("t", 3);
    assert!(offsets.is_empty(), "an end too many changes nothing");
}

#[test]
fn loading_needs_no_announcement() {
    let mut offsets = Offsets::default();
    offsets.apply("t", 1, commit(1), 0);
    offsets.apply("t", 0, commit(2), 1);
    offsets.apply("s", 9, commit(3), 2);
    let all: Vec<_> = offsets.all().map(|(topic, partition, committed)| (topic, partition, committed.offset)).collect();
    assert_eq!(all, [("s", 9, 3), ("t", 0, 2), ("t", 1, 1)]);
    assert!(offsets.remove("s", 9, 3));
    assert!(offsets.remove("u", 9, 4), "a tombstone without a commit");
    assert_eq!(offsets.of_topic("s"), [0; 0]);
    assert_eq!(offsets.of_topic("t"), [0, 1]);
    assert!(offsets.remove("t", 0, 5) && offsets.remove("t", 1, 6));
    assert!(offsets.is_empty());
}

#[test]
fn offsets_age_by_the_state_of_their_group() {
    let mut offsets = Offsets::default();
    offsets.apply("old", 0, commit(1), 0);
    offsets.apply("new", 0, Committed { commit_timestamp_ms: 5_000, ..commit(2) }, 1);
    offsets.apply("own", 0, Committed { expire_timestamp_ms: Some(3_000), ..commit(3) }, 2);
    let expired = |expiry: &Expiry, now_ms| -> Vec<String> {
        offsets.expired(expiry, now_ms, 2_000, 10).into_iter().map(|(topic, _)| topic).collect()
    };
    assert!(expired(&Expiry::Never, i64::MAX).is_empty());
    assert!(expired(&Expiry::SinceCommit, 2_999).is_empty());
    assert_eq!(expired(&Expiry::SinceCommit, 3_000), ["old", "own"]);
    assert_eq!(expired(&Expiry::SinceCommit, 7_000), ["new", "old", "own"]);
    let empty = Expiry::SinceEmpty { empty_since_ms: 6_000 };
    assert_eq!(expired(&empty, 7_999), ["own"]);
    assert_eq!(expired(&empty, 8_000), ["new", "old", "own"]);
    let subscribed = Expiry::Unsubscribed { subscribed: ["old".to_owned(), "own".to_owned()].into() };
    assert_eq!(expired(&subscribed, 100_000), ["new"]);
    assert!(expired(&subscribed, i64::MIN).is_empty());
    assert_eq!(offsets.expired(&Expiry::SinceCommit, 7_000, 2_000, 2).len(), 2, "no more than asked for");
}

#[test]
fn an_offset_with_a_record_under_way_does_not_expire() {
    let mut offsets = Offsets::default();
    offsets.apply("t", 0, commit(1), 0);
    offsets.begin("t", 0);
    assert!(offsets.expired(&Expiry::SinceCommit, i64::MAX, 0, 10).is_empty());
    offsets.end("t", 0);
    assert_eq!(offsets.expired(&Expiry::SinceCommit, i64::MAX, 0, 10), [("t".to_owned(), 0)]);
}

#[test]
fn metadata_is_measured_as_kafka_does() {
    assert_eq!(check_metadata(&"x".repeat(4096), MAX_METADATA_BYTES), Ok(()));
    assert_eq!(check_metadata(&"x".repeat(4097), MAX_METADATA_BYTES), Err(ResponseError::OffsetMetadataTooLarge));
    assert_eq!(check_metadata(&"ä".repeat(4096), MAX_METADATA_BYTES), Ok(()));
    assert_eq!(check_metadata("𝄞𝄞", 3), Err(ResponseError::OffsetMetadataTooLarge));
}
