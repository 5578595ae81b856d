//! What is merged, and what that costs.

use proptest::prelude::*;

use super::*;

const MOST: Most = Most { bytes: 1 << 20, entries: 10_000 };

fn object(number: u64, bytes: u64) -> Candidate {
    Candidate { id: FragmentId::tiered(3, number), bytes, entries: 1, going_bytes: 0, stored_bytes: bytes }
}

fn objects(lengths: &[u64]) -> Vec<Candidate> {
    (0..).zip(lengths).map(|(number, bytes)| object(number, *bytes)).collect()
}

fn chosen(candidates: &[Candidate]) -> Vec<u64> {
    choose(candidates, MOST).iter().map(|id| id.fragment).collect()
}

#[test]
fn eight_neighbours_are_merged() {
    assert!(chosen(&objects(&[100; 7])).is_empty());
    assert_eq!(chosen(&objects(&[100; 20])), [0, 1, 2, 3, 4, 5, 6, 7]);
    let mut mixed = objects(&[100; 12]);
    mixed[3].bytes = 100_000;
    assert_eq!(chosen(&mixed), [4, 5, 6, 7, 8, 9, 10, 11], "one that is much longer stands between them");
    assert!(chosen(&mixed[..11]).is_empty());
    mixed[9].bytes = 100_000;
    mixed[3].bytes = 100;
    assert_eq!(chosen(&mixed), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn what_is_a_little_longer_does_not_stand_between_them() {
    let mut mixed = objects(&[100; 8]);
    mixed[3].bytes = 600;
    assert_eq!(chosen(&mixed), [0, 1, 2, 3, 4, 5, 6, 7]);
    mixed[3].bytes = 800;
    assert!(chosen(&mixed).is_empty(), "it would be written for the sake of a few others");
    mixed.push(object(8, 100));
    assert_eq!(chosen(&mixed), [0, 1, 2, 3, 4, 5, 6, 7, 8], "now they are as much as it is");
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

#[test]
fn what_is_of_little_use_is_written_anew() {
    let mut all = objects(&[1_000, 1_000, 600_000, 1_000]);
    assert!(chosen(&all).is_empty());
    all[1].stored_bytes = 1_999;
    assert!(chosen(&all).is_empty(), "more than half of it is wanted");
    all[1].stored_bytes = 2_000;
    assert_eq!(chosen(&all), [1]);
    all[2].stored_bytes = 1_200_000;
    assert_eq!(chosen(&all), [1, 2], "with its neighbour, if that is no better");
    all[1].going_bytes = 500;
    assert_eq!(chosen(&all), [2], "the rest goes by itself before long");
    let mut eight = objects(&[100; 9]);
    eight[8].stored_bytes = 1_000;
    assert_eq!(chosen(&eight), [0, 1, 2, 3, 4, 5, 6, 7], "merging comes first");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the lengths: what is chosen are neighbours that have room in one object, merging comes to an end, and few
    /// objects are left between those that are a quarter as long as they get. Of those no two may go together: three
    /// have no room, and two of which one is longer are not worth it.
    #[test]
    fn merging_ends_with_few_objects(lengths in prop::collection::vec(prop_oneof![1..1_000_u64, 1..600_000_u64], 0..300)) {
        let mut all = objects(&lengths);
        let (total, mut written) = (lengths.iter().sum::<u64>(), 0);
        loop {
            let ids = choose(&all, MOST);
            if ids.is_empty() {
                break;
            }
            let first = all.iter().position(|one| one.id == ids[0]).unwrap();
            prop_assert!(ids.len() > 1 && all[first..].iter().zip(&ids).all(|(one, id)| one.id == *id));
            let bytes: u64 = all[first..first + ids.len()].iter().map(|one| one.bytes).sum();
            prop_assert!(bytes <= MOST.bytes);
            all.splice(first..first + ids.len(), [object(ids[0].fragment, bytes)]);
            written += bytes;
        }
        for left in all.split(|one| one.bytes * 4 > MOST.bytes) {
            prop_assert!(left.len() <= 4 * FAN_IN, "{} objects are left open", left.len());
        }
        prop_assert!(written <= total * 10, "{written} bytes were written to merge {total}");
    }
}
