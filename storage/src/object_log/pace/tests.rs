//! Tests of the pace alone, on numbers.

use super::*;

const INTERVAL: Duration = Duration::from_millis(50);

/// Flushes as soon as it may for so long, with something to flush all the time; how many there were.
fn busy(pace: &mut Pace, now: &mut Instant, how_long: Duration) -> u32 {
    let until = *now + how_long;
    let mut flushes = 0;
    loop {
        let next = pace.next(false).map_or(*now, |next| next.max(*now));
        if next >= until {
            *now = until;
            return flushes;
        }
        *now = next;
        pace.began(*now);
        flushes += 1;
    }
}

#[test]
fn without_a_budget_the_interval_counts_alone() {
    let (mut pace, mut now) = (Pace::new(INTERVAL, 0), Instant::now());
    assert_eq!(pace.next(false), None, "the first flush waits for nothing");
    assert_eq!(busy(&mut pace, &mut now, Duration::from_secs(100)), 2_000);
}

#[test]
fn a_budget_that_is_not_exceeded_changes_nothing() {
    let (mut pace, mut now) = (Pace::new(INTERVAL, 20), Instant::now());
    assert_eq!(busy(&mut pace, &mut now, Duration::from_secs(100)), 2_000);
}

#[test]
fn above_the_budget_the_interval_widens_until_it_fits_and_goes_back() {
    let (mut pace, mut now) = (Pace::new(INTERVAL, 4), Instant::now());
    // What ten seconds allow may be used at once.
    let first = busy(&mut pace, &mut now, Duration::from_secs(2));
    assert_eq!(first, 40);
    let in_100_s = first + busy(&mut pace, &mut now, Duration::from_secs(98));
    assert!((435..=440).contains(&in_100_s), "4/s and ten seconds ahead: {in_100_s}");
    assert_eq!(busy(&mut pace, &mut now, Duration::from_secs(100)), 400);
    // Half a budget of quiet, then a little to write: at the interval again.
    now += Duration::from_secs(5);
    assert_eq!(busy(&mut pace, &mut now, Duration::from_millis(500)), 10);
    assert_eq!(pace.next(false), Some(now), "50 ms after the last one");
}

#[test]
fn what_is_forced_is_paid_for_and_leaves_no_debt() {
    let (mut pace, mut now) = (Pace::new(INTERVAL, 2), Instant::now());
    for _ in 0..1_000 {
        now += Duration::from_millis(10);
        pace.began(now);
    }
    let next = pace.next(false).expect("a flush has begun");
    assert_eq!(next - now, Duration::from_millis(500), "as long as one PUT of the budget, and no longer");
}

#[test]
fn memory_that_is_short_ends_the_widening_and_not_the_interval() {
    let (mut pace, mut now) = (Pace::new(INTERVAL, 1), Instant::now());
    busy(&mut pace, &mut now, Duration::from_secs(60));
    let last = pace.last.expect("a flush has begun");
    assert_eq!(pace.next(false), Some(last + Duration::from_secs(1)));
    assert_eq!(pace.next(true), Some(last + INTERVAL));
}
