//! How much of what waits is taken at a time.

use std::time::Duration;

use super::*;

const ALL: Most = Most { bytes: u64::MAX, runs: usize::MAX };

fn fragment(number: u64) -> FragmentId {
    FragmentId { log: 1, segment: 0, fragment: number }
}

/// Five fragments of 100 bytes in 3 runs.
fn backlog() -> Backlog {
    let backlog = Backlog::default();
    (0..5).for_each(|number| backlog.push(fragment(number), 100, 3));
    backlog
}

fn taken(backlog: &Backlog, keep_bytes: u64, most: Most) -> usize {
    let taken = backlog.oldest(keep_bytes, most);
    assert!((0..).zip(&taken).all(|(number, one)| one.id == fragment(number)), "{taken:?}");
    taken.len()
}

#[test]
fn what_is_taken_is_bounded_in_bytes_and_in_runs() {
    let backlog = backlog();
    assert_eq!(taken(&backlog, 0, ALL), 5);
    assert_eq!(taken(&backlog, 0, Most { bytes: 399, ..ALL }), 3);
    assert_eq!(taken(&backlog, 0, Most { bytes: 400, ..ALL }), 4);
    assert_eq!(taken(&backlog, 0, Most { runs: 8, ..ALL }), 2);
    assert_eq!(taken(&backlog, 0, Most { runs: 9, ..ALL }), 3);
    assert_eq!(taken(&backlog, 250, ALL), 2);
    assert_eq!(taken(&backlog, u64::MAX, ALL), 0);
}

#[test]
fn one_fragment_is_taken_however_long_it_is() {
    for most in [Most { bytes: 0, ..ALL }, Most { runs: 0, ..ALL }] {
        assert_eq!(taken(&backlog(), 0, most), 1);
        assert_eq!(taken(&backlog(), 401, most), 0, "but for what is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn each_fragment_waits_since_it_came() {
    let (backlog, began) = (Backlog::default(), Instant::now());
    for number in 0..3 {
        backlog.push(fragment(number), 100, 1);
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    assert_eq!(backlog.since(), Some(began));
    backlog.forget(2);
    assert_eq!((backlog.since(), backlog.bytes()), (Some(began + Duration::from_secs(20)), 100));
    backlog.forget(1);
    assert_eq!((backlog.since(), backlog.bytes()), (None, 0));
}
