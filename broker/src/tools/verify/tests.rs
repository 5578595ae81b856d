//! When a suspicion is damage, and what is told of how often.

use super::*;
use meta::keys::store as keys;
use object_store::path::Path;
use storage::census::Orphan;
use uuid::Uuid;

fn reference(base_offset: i64) -> (TopicPartition, Run) {
    let run = Run {
        fragment: FragmentId::tiered(1, 2),
        base_offset,
        next_offset: base_offset + 10,
        max_timestamp: -1,
        leader_epoch: 1,
        file_position: 0,
        position: 80,
        length: 100,
        index_position: 180,
        index_length: 64,
    };
    (TopicPartition { topic: Uuid::from_u128(1), partition: 0 }, run)
}

#[test]
fn only_what_is_still_referred_to_is_damage() {
    let faults = || {
        let of = |why: &str, run| Fault { why: why.to_owned(), run };
        vec![of("itself", None), of("kept", Some(reference(0))), of("dropped", Some(reference(10)))]
    };
    let current = Needed { runs: vec![reference(0), reference(20)], fragments: 1 };
    assert_eq!(still_true(faults(), Some(&current)), vec!["itself", "kept"]);
    assert!(still_true(faults(), None).is_empty(), "nothing needs the unit any more");
}

#[test]
fn each_thing_is_told_once_and_examples_are_few() {
    let mut findings = Findings::default();
    for _ in 0..3 {
        findings.damage("logs/1", "torn".to_owned(), vec!["t-0".to_owned()]);
        findings.damage("logs/1", "lost".to_owned(), Vec::new());
    }
    let damage = &findings.damage["logs/1"];
    assert_eq!((damage.why.clone(), damage.partitions.len()), (vec!["torn".to_owned(), "lost".to_owned()], 1));
    assert!(findings.is_damaged("logs/1") && !findings.is_damaged("logs/2"));
    for number in 0..1_500 {
        findings.count(Role::Orphan(Orphan::LeftBehind), &Path::from(format!("o/{number}")), 10);
        findings.count(Role::Strange, &Path::from(format!("s/{number}")), 1);
        findings.count(Role::Fence, &Path::from(keys::LOGS), 80);
    }
    let orphans = &findings.orphans[&Orphan::LeftBehind];
    assert_eq!((orphans.objects, orphans.bytes, orphans.keys.len()), (1_500, 15_000, 20));
    assert_eq!((findings.strange.len(), findings.checked.fences), (1_000, 1_500));
}
