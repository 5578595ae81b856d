//! Every anomaly is planted once and found by its name; sound histories stay clean.

use super::*;

fn names(history: &History, rules: Rules) -> Vec<&'static str> {
    history.check(&rules).iter().map(Anomaly::name).collect()
}

/// Three acknowledged records of one producer at offsets 0, 1, 2, not yet read.
fn three() -> (History, Partition) {
    let (mut history, p) = (History::default(), partition("t", 0));
    for offset in 0..3 {
        let value = history.send(1, &p);
        history.sent(value, Outcome::Ok { offset });
    }
    (history, p)
}

fn read(history: &mut History, p: &Partition, records: &[(i64, u64)]) {
    for &(offset, value) in records {
        history.polled(9, p, offset, value);
    }
}

#[test]
fn a_sound_history_is_clean() {
    let (mut history, p) = three();
    let unknown_and_absent = history.send(2, &p);
    let unknown_and_there = history.send(2, &p);
    let refused = history.send(2, &p);
    history.sent(refused, Outcome::Failed);
    let recognized = history.send(2, &p);
    history.sent(recognized, Outcome::OkSomewhere);
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2), (3, unknown_and_there), (4, recognized)]);
    history.high_watermark(9, &p, 5, Some(4));
    history.drained(&p, 5);
    assert_eq!(names(&history, Rules::idempotent()), Vec::<&str>::new());
    assert_eq!((history.acknowledged(), history.unknown()), (4, 2));
    assert!(!p.to_string().is_empty() && unknown_and_absent == 3);
    history.assert_sound(&Rules::idempotent(), "sound");
}

#[test]
fn a_lost_write_is_found() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (2, 2)]);
    assert_eq!(names(&history, Rules { contiguous: false, ..Rules::idempotent() }), ["lost-write"]);
    assert_eq!(names(&history, Rules::idempotent()), ["lost-write", "offset-gap"]);
}

#[test]
fn an_unseen_write_is_found_after_the_drain_only() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 1)]);
    assert_eq!(names(&history, Rules::idempotent()), Vec::<&str>::new());
    history.drained(&p, 2);
    assert_eq!(names(&history, Rules::idempotent()), ["unseen"]);
}

#[test]
fn an_acknowledged_write_to_a_partition_that_nobody_could_read_is_unseen() {
    let (mut history, p) = three();
    history.drained(&p, 0);
    assert_eq!(names(&history, Rules::idempotent()), ["unseen"; 3]);
}

#[test]
fn an_acknowledgement_without_offset_must_be_seen_too() {
    let (mut history, p) = three();
    let value = history.send(1, &p);
    history.sent(value, Outcome::OkSomewhere);
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2)]);
    history.drained(&p, 3);
    assert_eq!(names(&history, Rules::idempotent()), ["unseen"]);
}

#[test]
fn a_duplicate_is_found_unless_allowed() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2), (3, 1)]);
    assert_eq!(names(&history, Rules::idempotent()), ["duplicate"]);
    assert_eq!(names(&history, Rules::plain_with_retries()), Vec::<&str>::new());
}

#[test]
fn a_duplicate_of_an_unknown_send_is_found() {
    let (mut history, p) = (History::default(), partition("t", 0));
    let value = history.send(1, &p);
    read(&mut history, &p, &[(0, value), (1, value)]);
    assert_eq!(names(&history, Rules::plain_without_retries()), ["duplicate"]);
}

#[test]
fn inconsistent_offsets_are_found() {
    let (mut history, p) = three();
    let other = history.send(2, &p);
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2)]);
    history.polled(8, &p, 1, other);
    assert_eq!(names(&history, Rules::idempotent()), ["inconsistent-offsets"]);
}

#[test]
fn a_record_at_another_offset_than_the_acknowledged_one_is_found() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 2), (2, 1)]);
    assert_eq!(names(&history, Rules::idempotent()), ["inconsistent-offsets"; 2]);
}

#[test]
fn two_acknowledgements_of_one_offset_are_found() {
    let (mut history, p) = three();
    let value = history.send(2, &p);
    history.sent(value, Outcome::Ok { offset: 2 });
    assert_eq!(names(&history, Rules::idempotent()), ["inconsistent-offsets"]);
}

#[test]
fn a_refused_send_that_is_seen_is_found() {
    let (mut history, p) = (History::default(), partition("t", 0));
    let value = history.send(1, &p);
    history.sent(value, Outcome::Failed);
    read(&mut history, &p, &[(0, value)]);
    assert_eq!(names(&history, Rules::idempotent()), ["failed-read"]);
}

#[test]
fn values_that_were_never_sent_here_are_found() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2), (3, 77)]);
    history.polled(9, &partition("t", 1), 0, 1);
    assert_eq!(names(&history, Rules::idempotent()), ["phantom", "phantom"]);
}

#[test]
fn a_reader_that_goes_back_is_found_unless_it_sought() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2)]);
    history.sought(9, &p);
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2)]);
    assert_eq!(names(&history, Rules::idempotent()), Vec::<&str>::new());
    read(&mut history, &p, &[(1, 1)]);
    assert_eq!(names(&history, Rules::idempotent()), ["nonmonotonic-poll"]);
}

#[test]
fn a_reader_that_stands_still_is_found() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (0, 0)]);
    assert_eq!(names(&history, Rules::idempotent()), ["nonmonotonic-poll"]);
}

#[test]
fn a_reader_that_skips_is_found() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2)]);
    history.polled(8, &p, 0, 0);
    history.polled(8, &p, 2, 2);
    assert_eq!(names(&history, Rules::idempotent()), ["poll-skip"]);
}

#[test]
fn reordered_sends_are_found() {
    let (mut history, p) = (History::default(), partition("t", 0));
    let (first, second) = (history.send(1, &p), history.send(1, &p));
    history.sent(first, Outcome::Ok { offset: 1 });
    history.sent(second, Outcome::Ok { offset: 0 });
    read(&mut history, &p, &[(0, second), (1, first)]);
    assert_eq!(names(&history, Rules::idempotent()), ["nonmonotonic-send"]);
    assert_eq!(names(&history, Rules::plain_with_retries()), Vec::<&str>::new());
}

#[test]
fn sends_of_different_producers_may_interleave() {
    let (mut history, p) = (History::default(), partition("t", 0));
    let (first, second) = (history.send(1, &p), history.send(2, &p));
    history.sent(first, Outcome::Ok { offset: 1 });
    history.sent(second, Outcome::Ok { offset: 0 });
    assert_eq!(names(&history, Rules::idempotent()), Vec::<&str>::new());
}

#[test]
fn gaps_are_found_where_offsets_are_contiguous() {
    let (mut history, p) = (History::default(), partition("t", 0));
    let values: Vec<u64> = (0..3).map(|_| history.send(1, &p)).collect();
    read(&mut history, &p, &[(1, values[0]), (3, values[1])]);
    history.drained(&p, 5);
    assert_eq!(names(&history, Rules::idempotent()), ["offset-gap"; 3]);
    assert_eq!(names(&history, Rules { contiguous: false, ..Rules::idempotent() }), Vec::<&str>::new());
}

#[test]
fn a_read_above_the_high_watermark_is_found() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 1)]);
    history.high_watermark(9, &p, 1, Some(1));
    assert_eq!(names(&history, Rules::idempotent()), ["read-above-high-watermark"]);
}

#[test]
fn a_high_watermark_that_goes_back_is_found_per_reader() {
    let (mut history, p) = three();
    history.high_watermark(9, &p, 3, None);
    history.high_watermark(8, &p, 2, None);
    assert_eq!(names(&history, Rules::idempotent()), Vec::<&str>::new());
    history.high_watermark(9, &p, 2, None);
    assert_eq!(names(&history, Rules::idempotent()), ["high-watermark-regress"]);
}

#[test]
fn a_record_beyond_the_drained_end_is_found() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (1, 1), (2, 2)]);
    history.drained(&p, 2);
    assert_eq!(names(&history, Rules::idempotent()), ["beyond-end"]);
}

#[test]
#[should_panic(expected = "lost-write")]
fn an_unsound_history_panics_with_the_anomaly() {
    let (mut history, p) = three();
    read(&mut history, &p, &[(0, 0), (2, 2)]);
    history.assert_sound(&Rules::idempotent(), "planted");
}
