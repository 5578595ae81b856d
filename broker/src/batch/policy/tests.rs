//! What a topic's configuration refuses, and what the time of an append looks like to a reader.

use super::*;
use crate::batch::testing::{BatchSpec, put_varint};
use crate::batch::{BatchHeader, Limits, first_at_or_after, max_timestamp, validate};
use crate::batch::{HEAD_BYTES, HEADER_BYTES};

const LIMITS: Limits = Limits { max_bytes: 1 << 20, zstd: true };
const ANYTHING: Policy = Policy { before_max_ms: i64::MAX, after_max_ms: i64::MAX, keys: false };

fn batch(base_timestamp: i64, timestamp_deltas: &[i64]) -> ValidBatch {
    let spec = BatchSpec { base_timestamp, timestamp_deltas: timestamp_deltas.to_vec(), ..BatchSpec::default() };
    validate(spec.build(), LIMITS).unwrap()
}

/// One record with a key of so many bytes; -1 is none.
fn keyed(key_bytes: i64) -> ValidBatch {
    let mut record = vec![0, 0, 0];
    put_varint(&mut record, key_bytes);
    record.extend(std::iter::repeat_n(b'k', usize::try_from(key_bytes).unwrap_or(0)));
    put_varint(&mut record, -1);
    put_varint(&mut record, 0);
    let mut records = Vec::new();
    put_varint(&mut records, record.len() as i64);
    records.extend(record);
    validate(BatchSpec::records(1).build_with(&records), LIMITS).unwrap()
}

#[test]
fn timestamps_are_held_to_the_clock_in_both_directions() {
    let policy = Policy { before_max_ms: 100, after_max_ms: 10, ..ANYTHING };
    let now = 1_000;
    for (batch, refused) in [
        (batch(900, &[0, 50]), None),
        (batch(1_010, &[0]), None),
        (batch(1_010, &[0, 1]), Some(1_011)),
        (batch(899, &[0, 100]), Some(899)),
        (batch(950, &[0, -51, 3]), Some(899)),
    ] {
        let expected = refused.map_or(Ok(()), |timestamp| Err(BatchError::TimestampRange { timestamp, now }));
        assert_eq!(check_policy(&batch, &policy, now), expected);
        assert_eq!(check_policy(&batch, &ANYTHING, now), Ok(()));
    }
    let none = batch(-1, &[0]);
    assert_eq!(check_policy(&none, &policy, now), Ok(()), "there is no timestamp that could be wrong");
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key() {
    let policy = Policy { keys: true, ..ANYTHING };
    assert_eq!(check_policy(&keyed(-1), &policy, 0), Err(BatchError::Keyless { records: vec![0] }));
    assert_eq!(check_policy(&keyed(0), &policy, 0), Ok(()));
    assert_eq!(check_policy(&keyed(3), &policy, 0), Ok(()));
    assert_eq!(check_policy(&keyed(-1), &ANYTHING, 0), Ok(()));
}

#[test]
fn the_time_of_the_append_is_what_readers_find() {
    let before = batch(1_000, &[0, 7, 3]);
    let after = at_append_time(before.clone(), 5_000);
    let bytes = [&after.stamped_head(70, 4)[..], &after.body[..]].concat();
    let header = BatchHeader::parse(&bytes).unwrap();
    assert!(header.is_log_append_time());
    assert_eq!(header.crc, crc32c::crc32c(&bytes[HEAD_BYTES..]));
    assert_eq!((header.max_timestamp, header.base_timestamp), (5_000, 1_000));
    assert_eq!(after.meta(70, 4).unwrap().max_timestamp, 5_000);
    assert_eq!(after.header.record_count, before.header.record_count);
    let records = &bytes[HEADER_BYTES..];
    assert_eq!(records, &before.body[HEADER_BYTES - HEAD_BYTES..], "the records are untouched");
    let found = first_at_or_after(&header, records, 0, 5_000).unwrap().unwrap();
    assert_eq!((found.offset, found.timestamp), (70, 5_000));
    assert_eq!(first_at_or_after(&header, records, 0, 5_001).unwrap(), None);
    assert_eq!(max_timestamp(&header, records, 0).unwrap().unwrap().timestamp, 5_000);
}
