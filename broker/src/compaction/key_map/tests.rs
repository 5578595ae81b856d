//! What the map knows, up to where, and in how much memory.

use super::*;
use crate::batch::Codec;
use crate::batch::testing::RecordSpec;
use crate::compaction::testing::{batch, build, header};

const SECRET: [u8; 16] = *b"a secret of 16 b";

fn map(keys: usize, from_offset: i64) -> KeyMap {
    KeyMap::new(1 << 20, keys as u64, from_offset, SECRET)
}

#[test]
fn the_last_offset_of_a_key_is_known() {
    let mut map = map(100, 0);
    let first = batch(0, Codec::None, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (None, Some("keyless"))]);
    let second = batch(10, Codec::Zstd, &[(Some("a"), None), (Some(""), Some("2")), (Some("a"), Some("3"))]);
    assert_eq!((map.add(&first), map.covered_to()), (Ok(Added::All), 3));
    assert_eq!((map.add(&second), map.covered_to()), (Ok(Added::All), 13));
    let known: Vec<_> = ["a", "b", "", "c"].iter().map(|key| map.last_offset(key.as_bytes())).collect();
    assert_eq!(known, [Some(12), Some(1), Some(11), None]);
    assert_eq!((map.len(), map.is_empty()), (3, false));
}

#[test]
fn what_an_earlier_pass_has_seen_is_left_out() {
    let mut map = map(100, 11);
    let below = batch(0, Codec::None, &[(Some("a"), Some("1"))]);
    let across = batch(10, Codec::Gzip, &[(Some("b"), Some("1")), (Some("c"), Some("1"))]);
    assert_eq!((map.add(&below), map.covered_to()), (Ok(Added::All), 11));
    assert_eq!((map.add(&across), map.covered_to()), (Ok(Added::All), 12));
    let known: Vec<_> = ["a", "b", "c"].iter().map(|key| map.last_offset(key.as_bytes())).collect();
    assert_eq!(known, [None, None, Some(11)]);
    assert_eq!(map.from_offset(), 11);
}

#[test]
fn a_full_map_says_up_to_where_it_knows() {
    // Room for three slots at least, so two keys.
    let mut map = KeyMap::new(3 * KeyMap::BYTES_PER_KEY, u64::MAX, 0, SECRET);
    assert_eq!(map.memory_bytes(), 72);
    let one = batch(0, Codec::None, &[(Some("a"), Some("1"))]);
    let two = batch(5, Codec::None, &[(Some("b"), Some("1")), (Some("a"), Some("1")), (Some("c"), Some("1"))]);
    assert_eq!(map.add(&one), Ok(Added::All));
    assert_eq!((map.add(&two), map.covered_to(), map.len()), (Ok(Added::Full), 7, 2));
    assert_eq!((map.last_offset(b"a"), map.last_offset(b"b"), map.last_offset(b"c")), (Some(6), Some(5), None));
    // From then on nothing is taken: what was left out would be missing.
    let three = batch(20, Codec::None, &[(Some("a"), Some("1"))]);
    assert_eq!((map.add(&three), map.covered_to(), map.last_offset(b"a")), (Ok(Added::Full), 7, Some(6)));
}

#[test]
fn the_smallest_map_gets_on() {
    let mut offset = 0;
    for _ in 0..3 {
        let mut map = KeyMap::new(0, 0, offset, SECRET);
        let batch = batch(0, Codec::Lz4, &[(Some("a"), None), (Some("b"), None), (Some("c"), None)]);
        map.add(&batch).unwrap();
        assert_eq!((map.covered_to(), map.len()), (offset + 1, 1));
        offset = map.covered_to();
    }
}

#[test]
fn memory_is_bounded_by_what_is_needed_too() {
    let large = KeyMap::new(1 << 20, 1 << 40, 0, SECRET);
    assert!(large.memory_bytes() <= 1 << 20 && large.memory_bytes() > (1 << 20) - KeyMap::BYTES_PER_KEY);
    assert!(KeyMap::new(1 << 30, 100, 0, SECRET).memory_bytes() < 3_000);
}

#[test]
fn as_many_keys_fit_as_there_are() {
    for count in [0_usize, 1, 2, 9, 10, 11, 1_000, 4_321] {
        let keys: Vec<RecordSpec> = (0..count)
            .map(|n| RecordSpec {
                offset_delta: n as i64,
                key: Some(n.to_string().into_bytes()),
                ..RecordSpec::default()
            })
            .collect();
        let mut map = map(count, 100);
        let batch = build(header(100, count as i32), Codec::Snappy, &keys);
        assert_eq!((map.add(&batch), map.len()), (Ok(Added::All), count));
        for n in 0..count {
            assert_eq!(map.last_offset(n.to_string().as_bytes()), Some(100 + n as i64));
        }
        assert_eq!(map.last_offset(b"another"), None);
    }
}

#[test]
fn batches_come_in_order_and_whole() {
    let mut map = map(100, 0);
    let first = batch(5, Codec::None, &[(Some("a"), Some("1"))]);
    assert_eq!(map.add(&first), Ok(Added::All));
    assert_eq!(map.add(&first), Err(CompactionError::Order { offset: 5, covered_to: 6 }));
    assert!(matches!(map.add(&first[..first.len() - 1]), Err(CompactionError::Batch { .. })));
    assert_eq!(map.covered_to(), 6);
}

/// A producer may number its records as it likes; the map keeps the highest offset all the same.
#[test]
fn the_order_inside_a_batch_does_not_matter() {
    let record = |offset_delta| RecordSpec { offset_delta, key: Some(b"a".to_vec()), ..RecordSpec::default() };
    let mut map = map(100, 0);
    map.add(&build(header(10, 2), Codec::None, &[record(2), record(0), record(1)])).unwrap();
    assert_eq!((map.last_offset(b"a"), map.covered_to()), (Some(12), 13));
}

#[test]
fn each_secret_gives_another_table() {
    let batch = batch(0, Codec::None, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (Some("c"), Some("1"))]);
    let table = |secret| {
        let mut map = KeyMap::new(1 << 20, 1_000, 0, secret);
        map.add(&batch).unwrap();
        map.table
    };
    assert_eq!(table([1; 16]), table([1; 16]));
    assert_ne!(table([1; 16]), table([2; 16]));
}
