//! What is merged, and what that costs.

use proptest::prelude::*;

use super::*;

const MOST: Most = Most { bytes: 1 << 20, entries: 10_000 };

fn object(number: u64, bytes: u64) -> Candidate {
    Candidate { id: FragmentId::tiered(3, number), bytes, entries: 1, going_bytes: 0 }
}

fn objects(lengths: &[u64]) -> Vec<Candidate> {
    (0..).zip(lengths).map(|(number, bytes)| object(number, *bytes)).collect()
}

fn chosen(candidates: &[Candidate]) -> Vec<u64> {
    choose(candidates, MOST).iter().map(|id| id.fragment).collect()
}

#[test]
fn eight_of_a_class_are_merged_in_their_order() {
    assert!(chosen(&objects(&[100; 7])).is_empty());
    assert_eq!(chosen(&objects(&[100; 20])), [0, 1, 2, 3, 4, 5, 6, 7]);
    let mut mixed = objects(&[100; 9]);
    mixed[3].bytes = 1_000;
    assert_eq!(chosen(&mixed), [0, 1, 2, 4, 5, 6, 7, 8], "one of another class is left out");
    mixed[5].bytes = 1_000;
    assert!(chosen(&mixed).is_empty());
}

#[test]
fn what_fills_an_object_is_merged_and_what_does_is_not() {
    assert_eq!(chosen(&objects(&[400_000, 400_000, 400_000])), [0, 1], "a third one has no room");
    assert!(chosen(&objects(&[400_000, 400_000])).is_empty(), "there is room for a third one");
    assert_eq!(chosen(&objects(&[1 << 19, 1 << 19])), [0, 1]);
    assert!(chosen(&objects(&[600_000; 20])).is_empty(), "they are long enough");
    let mut many = objects(&[100; 8]);
    many.iter_mut().for_each(|candidate| candidate.entries = 4_000);
    assert_eq!(chosen(&many), [0, 1], "entries count as well");
}

#[test]
fn what_goes_before_long_is_not_worth_it() {
    let mut all = objects(&[100; 9]);
    all[0].going_bytes = 50;
    all[1].going_bytes = 49;
    assert_eq!(chosen(&all), [1, 2, 3, 4, 5, 6, 7, 8]);
}

proptest! {
    /// Whatever the lengths: what is chosen has room in one object, merging comes to an end, and few objects are left,
    /// each byte written about once a class.
    #[test]
    fn merging_ends_with_few_objects(lengths in prop::collection::vec(1..600_000_u64, 0..300)) {
        let mut all = objects(&lengths);
        let (total, mut written) = (lengths.iter().sum::<u64>(), 0);
        let mut next = lengths.len() as u64;
        loop {
            let ids = choose(&all, MOST);
            if ids.is_empty() {
                break;
            }
            let bytes: u64 = all.iter().filter(|one| ids.contains(&one.id)).map(|one| one.bytes).sum();
            prop_assert!(ids.len() > 1 && bytes <= MOST.bytes && ids.is_sorted());
            all.retain(|one| !ids.contains(&one.id));
            all.push(object(next, bytes));
            next += 1;
            written += bytes;
        }
        let open = all.iter().filter(|one| one.bytes * 2 <= MOST.bytes).count();
        prop_assert!(open <= 7 * FAN_IN, "{open} objects are left open");
        prop_assert!(written <= total * 7, "{written} bytes were written to merge {total}");
    }
}
