//! Who goes on where he ended is read ahead for, more and more.

use super::*;
use crate::samples::partition;

#[test]
fn a_window_opens_for_who_goes_on_and_for_nobody_else() {
    let streams = Streams::default();
    let p = partition(1, 0);
    assert_eq!(streams.follow(p, 0..10, 1 << 30), 0, "nobody ended there");
    assert_eq!(streams.follow(p, 500..510, 1 << 30), 0);
    assert_eq!(streams.follow(p, 10..20, 1 << 30), FIRST_BYTES);
    assert_eq!(streams.follow(partition(1, 1), 20..30, 1 << 30), 0, "another partition");
    assert_eq!(streams.follow(p, 10..20, 1 << 30), FIRST_BYTES, "somebody else in step with it");
    let mut windows: Vec<_> = (2..10).map(|n| streams.follow(p, n * 10..(n + 1) * 10, 1 << 30)).collect();
    assert!(windows.is_sorted() && windows.iter().all(|window| *window <= MOST_BYTES), "{windows:?}");
    assert_eq!(windows.pop(), Some(MOST_BYTES));
}

#[test]
fn what_is_remembered_is_bounded() {
    let streams = Streams::default();
    for n in 0..3 * MOST as i64 {
        streams.follow(partition(1, 0), 2 * n..2 * n + 1, 1 << 30);
        let state = streams.0.lock();
        assert!(state.streams.len() <= MOST);
        assert_eq!(state.streams.len(), state.uses.len());
    }
    assert_eq!(streams.follow(partition(1, 0), 1..2, 1 << 30), 0, "forgotten");
    let last = 2 * (3 * MOST as i64 - 1) + 1;
    assert_eq!(streams.follow(partition(1, 0), last..last + 1, 1 << 30), FIRST_BYTES);
}

#[test]
fn what_there_is_is_shared_out_among_who_reads() {
    let streams = Streams::default();
    for round in 0..10 {
        for reader in 0..8 {
            streams.follow(partition(1, reader), round..round + 1, 8 << 20);
        }
    }
    assert_eq!(streams.follow(partition(1, 0), 10..11, 8 << 20), 1 << 20);
    for round in 11..200 {
        streams.follow(partition(1, 0), round..round + 1, 8 << 20);
    }
    assert_eq!(streams.follow(partition(1, 0), 200..201, 8 << 20), 8 << 20, "the others have gone");
}
