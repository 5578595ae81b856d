//! What is left out when time runs short.

use super::*;

#[test]
fn one_round_of_each_client_comes_first() {
    use Client::{Java, Own};
    assert_eq!(passes(3, 2), [(Own, 0), (Java, 0), (Own, 1), (Own, 2), (Java, 1)]);
    assert_eq!(passes(2, 0), [(Own, 0), (Own, 1)]);
    assert_eq!(passes(0, 1), [(Java, 0)]);
}

#[test]
fn only_what_was_done_before_is_left_out() {
    let (at, second) = (now(), Duration::from_secs(1));
    let (done, other) = ((Client::Own, 1, 100), (Client::Java, 1, 100));
    let mut pace = Pace::default();
    assert!(pace.fits(done, at, at - second));
    pace.note(done, 2 * second);
    assert!(pace.fits(done, at, at + 2 * second));
    assert!(!pace.fits(done, at, at + second));
    assert!(pace.fits(other, at, at - second));
}
