//! Passes over a whole partition, many times, against a model that knows every record that was ever written.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::testing::{Seen, build, header, seen};
use super::*;
use crate::batch::testing::RecordSpec;
use crate::batch::{BatchHeader, Codec};
use crate::compression::Levels;

const RETENTION: i64 = 100;

/// What happens to a partition.
#[derive(Debug, Clone)]
enum Step {
    /// A batch of these, by key and whether there is a value; and offsets that are skipped behind it.
    Append {
        codec: Codec,
        records: Vec<(Option<u8>, bool)>,
        gap: i64,
    },
    Clean {
        keys: usize,
        keep_empty: bool,
    },
    Wait(i64),
}

/// A partition as the cleaner has it, and everything that was ever in it.
#[derive(Default)]
struct Partition {
    batches: Vec<Bytes>,
    next_offset: i64,
    clean_to: i64,
    now_ms: i64,
    written: Vec<Seen>,
    /// When the batch of a tombstone was first cleaned as a whole, by the tombstone's offset.
    cleaned_at: BTreeMap<i64, i64>,
}

impl Partition {
    fn append(&mut self, codec: Codec, records: &[(Option<u8>, bool)], gap: i64) {
        let specs = records.iter().enumerate().map(|(n, (key, has_value))| RecordSpec {
            timestamp_delta: (n as i64 * 7) % 5,
            offset_delta: n as i64,
            key: key.map(|key| vec![key; usize::from(key)]),
            value: has_value.then(|| (self.next_offset + n as i64).to_string().into_bytes()),
            headers: vec![(b"h".to_vec(), None), (b"h".to_vec(), Some(vec![n as u8]))],
        });
        let specs: Vec<_> = specs.collect();
        let last_offset_delta = records.len() as i32 - 1;
        let header = BatchHeader { base_timestamp: self.now_ms, ..header(self.next_offset, last_offset_delta) };
        let batch = build(header, codec, &specs);
        self.written.extend(seen(&batch));
        self.batches.push(batch);
        self.next_offset += records.len() as i64 + gap;
    }

    fn clean(&mut self, keys: usize, keep_empty: bool) {
        let bytes = keys * KeyMap::BYTES_PER_KEY;
        let mut map = KeyMap::new(bytes, u64::MAX, self.clean_to, [9; 16]);
        for batch in &self.batches {
            if map.add(batch).unwrap() == Added::Full {
                break;
            }
        }
        let covered_to = map.covered_to();
        let dirty = self.written.iter().any(|record| record.offset >= self.clean_to);
        assert!(!dirty || covered_to > self.clean_to, "a pass gets on");
        let policy =
            FilterPolicy { now_ms: self.now_ms, delete_retention_ms: RETENTION, keep_empty, levels: Levels::default() };
        let mut kept = Vec::new();
        for batch in &self.batches {
            let before = BatchHeader::parse(batch).unwrap();
            let filtered = filter(batch, &map, &policy).unwrap();
            let after = match filtered.kept {
                Kept::Unchanged => batch.clone(),
                Kept::Nothing => continue,
                Kept::Rewritten(rewritten) => rewritten.bytes,
            };
            check_header(&before, &after, before.base_offset >= covered_to);
            assert_eq!(seen(&after).len(), filtered.records as usize);
            let last_offset = before.base_offset + i64::from(before.last_offset_delta);
            for tombstone in seen(&after).iter().filter(|it| !it.has_value && last_offset < covered_to) {
                let cleaned_at = *self.cleaned_at.entry(tombstone.offset).or_insert(self.now_ms);
                assert_eq!(filtered.tombstones_until_ms, Some(cleaned_at + RETENTION));
            }
            kept.push(after);
        }
        self.batches = kept;
        self.clean_to = covered_to;
        self.check();
    }

    fn check(&self) {
        let left: Vec<Seen> = self.batches.iter().flat_map(|batch| seen(batch)).collect();
        let by_offset: BTreeMap<i64, &Seen> = self.written.iter().map(|record| (record.offset, record)).collect();
        assert!(left.is_sorted_by_key(|record| record.offset));
        for record in &left {
            assert_eq!(Some(&record), by_offset.get(&record.offset), "a record was changed");
        }
        let is_left = |offset: i64| left.iter().any(|record| record.offset == offset);
        for record in &self.written {
            let replaced = |other: &Seen| other.key == record.key && other.offset > record.offset;
            let expected = match record.key {
                _ if record.offset >= self.clean_to => true,
                None => false,
                Some(_) if self.written.iter().any(|other| replaced(other) && other.offset < self.clean_to) => false,
                Some(_) if record.has_value => true,
                Some(_) => match self.cleaned_at.get(&record.offset) {
                    None => true,
                    // A pass at that time drops it; there may have been none since.
                    Some(at) if self.now_ms >= at + RETENTION => continue,
                    Some(_) => true,
                },
            };
            assert_eq!(is_left(record.offset), expected, "{record:?}, clean to {}", self.clean_to);
        }
        assert_eq!(last_values(&left), last_values(&self.written), "a reader ends with what was written last");
    }
}

/// Offsets, producer and codec of a batch stay.
fn check_header(before: &BatchHeader, after: &[u8], unchanged: bool) {
    let after = BatchHeader::parse(after).unwrap();
    if unchanged {
        assert_eq!(&after, before);
    }
    assert!(after.record_count == 0 || after.codec() == before.codec());
    let same = |it: &BatchHeader| {
        (it.base_offset, it.last_offset_delta, it.producer_id, it.producer_epoch, it.base_sequence, it.leader_epoch)
    };
    assert_eq!(same(&after), same(before));
    assert_eq!(before.delete_horizon_ms().is_some_and(|_| after.record_count > 0), {
        before.delete_horizon_ms().is_some() && after.delete_horizon_ms() == before.delete_horizon_ms()
    });
}

/// Where each key has a value last, as who reads everything sees it.
fn last_values(records: &[Seen]) -> BTreeMap<Vec<u8>, i64> {
    let mut values = BTreeMap::new();
    for record in records {
        let Some(key) = &record.key else { continue };
        match record.has_value {
            true => values.insert(key.clone(), record.offset),
            false => values.remove(key),
        };
    }
    values
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let codec = proptest::sample::select(vec![Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]);
    let record = (proptest::option::weighted(0.9, 0_u8..6), proptest::bool::weighted(0.7));
    let append = (codec, proptest::collection::vec(record, 1..8), 0_i64..3)
        .prop_map(|(codec, records, gap)| Step::Append { codec, records, gap });
    let clean = (0_usize..12, any::<bool>()).prop_map(|(keys, keep_empty)| Step::Clean { keys, keep_empty });
    let wait = (1_i64..RETENTION * 2).prop_map(Step::Wait);
    proptest::collection::vec(prop_oneof![4 => append, 3 => clean, 1 => wait], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    // Catches the planted bugs compaction-keeps-the-first and tombstone-dropped-at-once.
    #[test]
    fn a_reader_always_ends_with_what_was_written_last(steps in steps()) {
        let mut partition = Partition::default();
        for step in steps {
            match step {
                Step::Append { codec, records, gap } => partition.append(codec, &records, gap),
                Step::Clean { keys, keep_empty } => partition.clean(keys, keep_empty),
                Step::Wait(ms) => partition.now_ms += ms,
            }
        }
        // In the end nothing is left of what is not needed.
        for _ in 0..3 {
            partition.now_ms += RETENTION;
            while partition.written.last().is_some_and(|last| last.offset >= partition.clean_to) {
                partition.clean(1_000, false);
            }
            partition.clean(1_000, false);
        }
        let left: Vec<_> = partition.batches.iter().flat_map(|batch| seen(batch)).collect();
        let offsets: Vec<_> = left.iter().map(|record| record.offset).collect();
        let mut expected: Vec<_> = last_values(&partition.written).into_values().collect();
        expected.sort_unstable();
        prop_assert_eq!(offsets, expected);
    }
}
