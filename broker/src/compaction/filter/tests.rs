//! What is kept of a batch, to the byte, and what cannot be filtered.

use kafka_protocol::records::RecordBatchDecoder;
use proptest::prelude::*;

use super::*;
use crate::batch::testing::{RecordSpec, reseal};
use crate::batch::{Codec, first_at_or_after, max_timestamp};
use crate::compaction::KeyMap;
use crate::compaction::testing::{batch, build, header, records, seen, with_raw};
use crate::records::RecordsError;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const NOW: i64 = 50_000;
const RETENTION: i64 = 1_000;
const POLICY: FilterPolicy = FilterPolicy {
    now_ms: NOW,
    delete_retention_ms: RETENTION,
    keep_empty: false,
    levels: Levels { gzip: -1, zstd: 3 },
};

/// A map that knows these batches.
fn keys(batches: &[&[u8]]) -> KeyMap {
    let mut keys = KeyMap::new(1 << 20, 1_000, 0, [5; 16]);
    for batch in batches {
        keys.add(batch).unwrap();
    }
    keys
}

fn rewritten(filtered: Filtered) -> Rewritten {
    match filtered.kept {
        Kept::Rewritten(rewritten) => rewritten,
        other => panic!("{other:?}"),
    }
}

fn at(now_ms: i64) -> FilterPolicy {
    FilterPolicy { now_ms, ..POLICY }
}

#[test]
fn what_is_all_current_stays_as_it_is() {
    let batch = batch(0, Codec::Gzip, &[(Some("a"), Some("1")), (Some("b"), Some(""))]);
    let filtered = filter(&batch, &keys(&[&batch]), &POLICY).unwrap();
    let expected = Filtered { kept: Kept::Unchanged, records: 2, dropped_records: 0, tombstones_until_ms: None };
    assert_eq!(filtered, expected);
}

#[test]
fn what_was_replaced_goes_and_the_rest_stays_to_the_byte() {
    for codec in CODECS {
        let old = batch(
            100,
            codec,
            &[
                (Some("a"), Some("1")),
                (Some("b"), Some("1")),
                (None, Some("1")),
                (Some("a"), Some("2")),
                (Some("c"), Some("1")),
            ],
        );
        let new = batch(200, codec, &[(Some("c"), Some("2"))]);
        let filtered = filter(&old, &keys(&[&old, &new]), &POLICY).unwrap();
        assert_eq!((filtered.records, filtered.dropped_records, filtered.tombstones_until_ms), (2, 3, None));
        let rewritten = rewritten(filtered);
        let kept: Vec<_> = seen(&old).into_iter().filter(|record| [101, 103].contains(&record.offset)).collect();
        assert_eq!(seen(&rewritten.bytes), kept, "{codec:?}");
        let (before, after) = (BatchHeader::parse(&old).unwrap(), BatchHeader::parse(&rewritten.bytes).unwrap());
        let expected = BatchHeader {
            length: rewritten.bytes.len() as i32 - 12,
            crc: crc32c::crc32c(&rewritten.bytes[21..]),
            max_timestamp: 1_003,
            record_count: 2,
            ..before
        };
        assert_eq!((after, rewritten.body_crc), (expected, expected.crc));
        let meta = EntryMeta {
            base_offset: 100,
            last_offset: 104,
            max_timestamp: 1_003,
            leader_epoch: 3,
            producer_id: 7,
            producer_epoch: 2,
            base_sequence: 40,
            attributes: codec.id(),
        };
        assert_eq!(rewritten.meta, meta);
        // Times are found across the gaps.
        let records = &rewritten.bytes[61..];
        assert_eq!(first_at_or_after(&after, records, 0, 1_002).unwrap().map(|found| found.offset), Some(103));
        assert_eq!(max_timestamp(&after, records, 0).unwrap().map(|found| found.offset), Some(103));
    }
}

#[test]
fn raw_bytes_of_records_are_copied() {
    let old = batch(0, Codec::None, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (Some("a"), Some("2"))]);
    let rewritten = rewritten(filter(&old, &keys(&[&old]), &POLICY).unwrap());
    let first = 1 + usize::from(old[61] >> 1);
    assert_eq!(rewritten.bytes[61..], old[61 + first..]);
}

#[test]
fn a_batch_of_what_was_replaced_goes_or_stays_empty() {
    let old = batch(0, Codec::Zstd, &[(Some("a"), Some("1")), (None, None), (Some("b"), None)]);
    let new = batch(3, Codec::Zstd, &[(Some("a"), Some("2")), (Some("b"), Some("2"))]);
    let keys = keys(&[&old, &new]);
    assert_eq!(filter(&old, &keys, &POLICY).unwrap().kept, Kept::Nothing);
    let policy = FilterPolicy { keep_empty: true, ..POLICY };
    let empty = rewritten(filter(&old, &keys, &policy).unwrap());
    let before = BatchHeader::parse(&old).unwrap();
    let after = BatchHeader::parse(&empty.bytes).unwrap();
    let expected =
        BatchHeader { length: 49, crc: after.crc, attributes: 0, base_timestamp: -1, record_count: 0, ..before };
    assert_eq!((after, empty.bytes.len()), (expected, 61));
    assert_eq!((empty.meta.last_offset, empty.meta.max_timestamp, empty.meta.attributes), (2, -1, 0));
    assert_eq!(after.max_timestamp, 1_002, "as Kafka leaves it");
    assert_eq!(max_timestamp(&after, &[], 0), Ok(None));
    // The next time it stays, or goes.
    assert_eq!(filter(&empty.bytes, &keys, &policy).unwrap().kept, Kept::Unchanged);
    assert_eq!(filter(&empty.bytes, &keys, &POLICY).unwrap().kept, Kept::Nothing);
}

// Catches the planted bug tombstone-dropped-at-once.
#[test]
fn tombstones_get_a_horizon_and_go_when_it_has_passed() {
    for codec in CODECS {
        let original = batch(10, codec, &[(Some("a"), None), (Some("b"), Some("1")), (Some("b"), Some("2"))]);
        let keys = keys(&[&original]);
        let first = filter(&original, &keys, &POLICY).unwrap();
        assert_eq!((first.records, first.dropped_records, first.tombstones_until_ms), (2, 1, Some(NOW + RETENTION)));
        let first = rewritten(first);
        let after = BatchHeader::parse(&first.bytes).unwrap();
        assert_eq!(after.delete_horizon_ms(), Some(NOW + RETENTION));
        assert_eq!((after.base_timestamp, after.attributes), (NOW + RETENTION, codec.id() | 0x40));
        assert_eq!((after.max_timestamp, first.meta.attributes), (1_002, codec.id() | 0x40));
        let kept: Vec<_> = seen(&original).into_iter().filter(|record| record.offset != 11).collect();
        assert_eq!(seen(&first.bytes), kept, "times, keys, values and headers are what they were");
        assert_eq!(max_timestamp(&after, &first.bytes[61..], 0).unwrap().map(|found| found.timestamp), Some(1_002));
        // The horizon is set once.
        for now in [NOW, NOW + RETENTION - 1] {
            let again = filter(&first.bytes, &keys, &at(now)).unwrap();
            assert_eq!((again.kept, again.tombstones_until_ms), (Kept::Unchanged, Some(NOW + RETENTION)));
        }
        let last = filter(&first.bytes, &keys, &at(NOW + RETENTION)).unwrap();
        assert_eq!((last.records, last.dropped_records, last.tombstones_until_ms), (1, 1, None));
        let last = rewritten(last);
        assert_eq!(seen(&last.bytes), [kept[1].clone()]);
        assert_eq!(BatchHeader::parse(&last.bytes).unwrap().base_timestamp, NOW + RETENTION, "it stays with the batch");
        assert_eq!(filter(&last.bytes, &keys, &at(i64::MAX)).unwrap().kept, Kept::Unchanged);
    }
}

/// Read by somebody else's decoder.
#[test]
fn others_read_a_batch_with_a_horizon() {
    let original = batch(10, Codec::None, &[(Some("a"), None), (Some("b"), Some("1")), (Some("b"), Some("2"))]);
    let rewritten = rewritten(filter(&original, &keys(&[&original]), &POLICY).unwrap());
    let decoded = RecordBatchDecoder::decode(&mut rewritten.bytes.clone()).unwrap().records;
    let seen: Vec<_> = decoded
        .iter()
        .map(|record| (record.offset, record.timestamp, record.key.as_deref(), record.value.as_deref()))
        .collect();
    let bytes = |text: &'static str| Some(text.as_bytes());
    assert_eq!(seen, [(10, 1_000, bytes("a"), None), (12, 1_002, bytes("b"), bytes("2"))]);
    assert!(decoded.iter().all(|record| record.delete_horizon && record.producer_id == 7));
}

#[test]
fn a_tombstone_that_was_replaced_goes_at_once() {
    let old = batch(0, Codec::None, &[(Some("a"), None), (Some("b"), Some("1"))]);
    let new = batch(2, Codec::None, &[(Some("a"), Some("back"))]);
    let filtered = filter(&old, &keys(&[&old, &new]), &POLICY).unwrap();
    assert_eq!((filtered.dropped_records, filtered.tombstones_until_ms), (1, None));
    assert_eq!(BatchHeader::parse(&rewritten(filtered).bytes).unwrap().delete_horizon_ms(), None);
}

/// What a map does not cover is not looked at, and no horizon is given before all of a batch is covered: what its
/// tombstones delete may still be there.
// Catches the planted bug tombstone-horizon-too-early.
#[test]
fn a_batch_that_is_covered_in_part_is_filtered_in_part() {
    let one = batch(0, Codec::None, &[(Some("a"), Some("1"))]);
    let two = batch(
        1,
        Codec::None,
        &[(Some("a"), None), (Some("a"), None), (Some("b"), None), (None, None), (Some("a"), None)],
    );
    let mut keys = KeyMap::new(0, 0, 0, [5; 16]);
    keys.add(&one).unwrap();
    keys.add(&two).unwrap();
    assert_eq!((keys.len(), keys.covered_to()), (1, 3), "there is room for a only");
    let filtered = filter(&two, &keys, &POLICY).unwrap();
    assert_eq!((filtered.records, filtered.dropped_records, filtered.tombstones_until_ms), (4, 1, None));
    let rewritten = rewritten(filtered);
    assert_eq!(seen(&rewritten.bytes).iter().map(|it| it.offset).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(BatchHeader::parse(&rewritten.bytes).unwrap().delete_horizon_ms(), None);
    let above = batch(9, Codec::None, &[(Some("a"), None), (None, None)]);
    assert_eq!(filter(&above, &keys, &POLICY).unwrap().kept, Kept::Unchanged);
}

#[test]
fn the_time_of_the_append_stays() {
    let log_append = BatchHeader { attributes: 0x08, max_timestamp: 9_000, ..header(0, 2) };
    let specs = records(&[(Some("a"), Some("1")), (Some("a"), None), (Some("b"), Some("1"))]);
    let original = build(log_append, Codec::Lz4, &specs);
    let rewritten = rewritten(filter(&original, &keys(&[&original]), &POLICY).unwrap());
    let after = BatchHeader::parse(&rewritten.bytes).unwrap();
    assert_eq!((after.max_timestamp, rewritten.meta.max_timestamp), (9_000, 9_000));
    assert!(after.is_log_append_time() && after.delete_horizon_ms() == Some(NOW + RETENTION));
    assert!(seen(&rewritten.bytes).iter().all(|record| record.timestamp == 9_000));
}

#[test]
fn times_that_no_clock_shows_are_kept() {
    for (base, delta, horizon) in [
        (i64::MIN + 5, 0, None),
        (i64::MAX, 0, Some(NOW + RETENTION)),
        (-1, 0, Some(NOW + RETENTION)),
        (0, i64::MAX, Some(NOW + RETENTION)),
    ] {
        let specs = [
            RecordSpec { timestamp_delta: delta, key: Some(b"a".to_vec()), ..RecordSpec::default() },
            RecordSpec { timestamp_delta: delta, offset_delta: 1, key: Some(b"b".to_vec()), ..RecordSpec::default() },
        ];
        let original = build(BatchHeader { base_timestamp: base, ..header(0, 1) }, Codec::None, &specs);
        let filtered = filter(&original, &keys(&[&original]), &POLICY).unwrap();
        assert_eq!(filtered.tombstones_until_ms, horizon);
        match horizon {
            None => assert_eq!(filtered.kept, Kept::Unchanged, "there is no way to write it"),
            Some(_) => assert_eq!(seen(&rewritten(filtered).bytes), seen(&original)),
        }
    }
    // Kept for ever.
    let original = batch(0, Codec::None, &[(Some("a"), None)]);
    let forever = FilterPolicy { delete_retention_ms: i64::MAX, ..POLICY };
    let rewritten = rewritten(filter(&original, &keys(&[&original]), &forever).unwrap());
    assert_eq!(seen(&rewritten.bytes), seen(&original));
}

#[test]
fn an_unset_highest_time_is_made_good() {
    let original = batch(0, Codec::None, &[(Some("a"), Some("1")), (Some("a"), Some("2"))]);
    let mut unset = original.to_vec();
    unset[35..43].copy_from_slice(&(-1_i64).to_be_bytes());
    reseal(&mut unset);
    let rewritten = rewritten(filter(&unset, &keys(&[&original]), &POLICY).unwrap());
    assert_eq!(BatchHeader::parse(&rewritten.bytes).unwrap().max_timestamp, 1_001);
    assert_eq!(rewritten.meta.max_timestamp, 1_001);
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_passed_over() {
    let good = batch(0, Codec::Gzip, &[(Some("a"), Some("1")), (Some("a"), Some("2"))]);
    let keys = keys(&[&good]);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        reseal(&mut bytes);
        bytes
    };
    let mut flipped = good.to_vec();
    flipped[70] ^= 1;
    let why = |why| CompactionError::Batch { why };
    let cases = [
        (flipped, why("has a wrong checksum")),
        (good[..40].to_vec(), why("is cut off")),
        ([&good[..], &good[..]].concat(), why("has another length than it says")),
        (changed(|bytes| bytes[16] = 1), why("has another format")),
        (changed(|bytes| bytes[22] = 5), why("has a codec that does not exist")),
        (changed(|bytes| bytes[23] = 0xff), why("has impossible offsets")),
        (changed(|bytes| bytes[57] = 0xff), why("has impossible offsets")),
        (changed(|bytes| bytes[22] |= 0x10), CompactionError::Transactional),
        (changed(|bytes| bytes[22] |= 0x20), CompactionError::Transactional),
        (changed(|bytes| bytes[60] = 9), CompactionError::Records(RecordsError::Record { index: 2 })),
    ];
    for (bytes, expected) in cases {
        assert_eq!(filter(&bytes, &keys, &POLICY), Err(expected.clone()));
        let kind = expected.kind();
        assert!(matches!(kind, meta::error::ErrorKind::Corrupt | meta::error::ErrorKind::Invalid));
    }
    let broken = changed(|bytes| bytes[62] = 0);
    assert!(matches!(filter(&broken, &keys, &POLICY), Err(CompactionError::Records(RecordsError::Decompress(_)))));
}

/// What Produce accepts for a compacted topic can be filtered: nobody can stop the cleaning of a topic.
#[test]
fn what_stands_behind_the_last_record_goes() {
    let mut raw = Vec::new();
    records(&[(Some("a"), Some("1")), (Some("a"), Some("2"))]).iter().for_each(|record| record.put(&mut raw));
    raw.extend([0xff; 7]);
    let original = with_raw(header(0, 1), Codec::Zstd, 2, Some(1), &raw);
    let rewritten = rewritten(filter(&original, &keys(&[&original]), &POLICY).unwrap());
    assert_eq!(seen(&rewritten.bytes), seen(&original)[1..]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_batches_never_panic(
        codec in 0_usize..5,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let good = batch(0, CODECS[codec], &[(Some("a"), None), (Some("a"), Some("2")), (None, Some("3"))]);
        let mut bytes = good.to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        reseal(&mut bytes);
        let mut keys = KeyMap::new(1 << 16, 100, 0, [5; 16]);
        let added = keys.add(&bytes);
        let filtered = filter(&bytes, &keys, &POLICY);
        // What can be put into the map can be filtered.
        prop_assert!(added.is_err() || filtered.is_ok());
        if let Ok(Filtered { kept: Kept::Rewritten(rewritten), .. }) = filtered {
            prop_assert!(Batch::parse(&rewritten.bytes).is_ok());
        }
    }
}
