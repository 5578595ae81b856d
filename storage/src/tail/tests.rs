//! Tests of the memory tail: what is found, what is dropped first, and what memory comes back.

use std::sync::Arc;

use meta::seams::Incarnation;

use super::*;
use crate::budget::Budget;
use crate::fragment::FragmentBuilder;
use crate::samples::{entry, partition};

fn fragment(number: u64, entries: Vec<Entry>) -> DurableFragment {
    let id = FragmentId { log: 1, segment: 0, fragment: number };
    let encoded = entries.into_iter().collect::<FragmentBuilder>().finish(id, Incarnation(1), None);
    DurableFragment { index: encoded.index, entries: encoded.entries }
}

/// Entries that are slices of one allocation.
fn sharing(budget: &Budget, allocation_bytes: usize, entries: Vec<Entry>) -> Vec<Entry> {
    let permit = budget.take_anyway(allocation_bytes);
    entries.into_iter().map(|entry| Entry { permit: permit.clone(), ..entry }).collect()
}

#[test]
fn finds_the_entries_of_each_run() {
    let tail = Tail::new(1 << 20);
    let (a, b) = (partition(1, 0), partition(1, 1));
    // Offsets of `a` leave a gap: two runs of one partition in one fragment.
    let durable = fragment(0, vec![entry(b, 5, 1, 10), entry(a, 0, 2, 20), entry(a, 7, 1, 30), entry(b, 6, 1, 40)]);
    let runs: Vec<_> = durable.index.runs.iter().map(|run| (run.partition, run.run)).collect();
    tail.push(durable);
    let found: Vec<_> = runs
        .iter()
        .map(|(partition, run)| {
            let found = tail.run(*partition, run).unwrap();
            assert_eq!(found.index().len(), found.entries().len());
            found.entries().iter().map(|entry| (entry.partition, entry.meta.base_offset)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, [vec![(a, 0)], vec![(a, 7)], vec![(b, 5), (b, 6)]]);
    assert!(tail.run(partition(2, 0), &runs[0].1).is_none());
}

#[test]
fn the_oldest_goes_first_and_its_memory_comes_back() {
    let budget = Budget::new(1 << 30);
    let p = partition(1, 0);
    let push = |tail: &Tail, number: u64| {
        let durable = fragment(number, sharing(&budget, 10_000, vec![entry(p, number as i64, 1, 100)]));
        let run = durable.index.runs[0].run;
        tail.push(durable);
        run
    };
    let tail = Tail::new(35_000);
    let runs: Vec<_> = (0..5).map(|number| push(&tail, number)).collect();
    let kept: Vec<_> = runs.iter().map(|run| tail.run(p, run).is_some()).collect();
    assert_eq!(kept, [false, false, true, true, true]);
    assert!((30_000..=35_000).contains(&tail.bytes()), "{}", tail.bytes());
    assert_eq!(budget.used_bytes(), 30_000);
    let reading = tail.run(p, &runs[2]).unwrap();
    assert!(tail.evict_oldest());
    assert_eq!(budget.used_bytes(), 30_000, "a reader still holds it");
    drop(reading);
    assert_eq!(budget.used_bytes(), 20_000);
    assert!(tail.evict_oldest() && tail.evict_oldest() && !tail.evict_oldest());
    assert_eq!((tail.bytes(), budget.used_bytes()), (0, 0));
}

#[test]
fn an_allocation_shared_by_entries_counts_once() {
    let budget = Budget::new(1 << 30);
    let p = partition(1, 0);
    let entries = (0..8).map(|offset| entry(p, offset, 1, 100)).collect();
    let tail = Tail::new(1 << 20);
    tail.push(fragment(0, sharing(&budget, 64 * 1024, entries)));
    assert!((64 * 1024..68 * 1024).contains(&tail.bytes()), "{}", tail.bytes());
}

#[test]
fn what_is_larger_than_the_tail_is_not_kept() {
    let tail = Tail::new(100);
    let p = partition(1, 0);
    let durable = fragment(0, vec![entry(p, 0, 1, 1000)]);
    let run = durable.index.runs[0].run;
    tail.push(durable);
    assert!(tail.run(p, &run).is_none());
    assert_eq!(tail.bytes(), 0);
}

#[test]
fn gives_memory_back_to_producers() {
    let budget = Budget::new(100_000);
    let tail = Arc::new(Tail::new(usize::MAX));
    let evicted = tail.clone();
    budget.on_shortage(Arc::new(move || evicted.evict_oldest()));
    for number in 0..50 {
        let permit = budget.try_take(10_000).expect("cached data never stands in a producer's way");
        let entry = Entry { permit, ..entry(partition(1, 0), number, 1, 100) };
        tail.push(fragment(number as u64, vec![entry]));
    }
    assert_eq!(budget.used_bytes(), 100_000);
}
