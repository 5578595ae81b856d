//! What people read.

use super::super::report::{Checked, FORMAT, Object, Orphans, Unchecked};
use super::*;

#[test]
fn lengths_have_units_and_columns_their_width() {
    let shown: Vec<_> = [0, 1023, 1024, 1_572_864].into_iter().map(bytes).collect();
    assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
    let mut text = String::new();
    table(&mut text, &[row(["log", "state"]), row(["1000", "open"]), row(["2", "sealed"])]);
    assert_eq!(text, "\nlog   state\n1000  open\n2     sealed\n");
}

#[test]
fn damage_is_told_last_with_its_key_and_the_partitions_concerned() {
    let damage = Damage {
        key: "logs/1".to_owned(),
        why: vec!["a".to_owned(), "b".to_owned()],
        partitions: vec!["t-0".to_owned()],
    };
    let report = Verification {
        format: FORMAT,
        storage: "folder x".to_owned(),
        metadata: "embedded".to_owned(),
        revision: 7,
        result: "damaged",
        checked: Checked::default(),
        damage: vec![damage],
        unchecked: vec![Unchecked { key: "k".to_owned(), why: "no answer".to_owned() }],
        orphans: vec![Orphans { reason: "because", objects: 2, bytes: 2048, keys: vec!["o".to_owned()] }],
        strange: vec![Object { key: "s".to_owned(), bytes: 3 }],
    };
    let text = verification(&report);
    let end = "orphans: 2 objects, 2.0 KiB: because\n  o\nstrange: s (3 B)\nNOT CHECKED: k: no answer\n\
               DAMAGE: logs/1: a; b\n  with records of t-0\ndamaged\n";
    assert!(text.ends_with(end), "{text}");
}
