//! Every codec as clients frame it, and hostile bytes in each of them.

use proptest::prelude::*;

use crate::batch::testing::{BatchSpec, put_varint};
use crate::compression::testing::{all_codecs, gzip};

use super::*;

fn records(codec: Codec, count: i32, bytes: &[u8]) -> Records<'_> {
    Records { codec, base_offset: 500, base_timestamp: 1_000, count, last_offset_delta: count - 1, bytes }
}

#[test]
fn times_are_found_to_the_record_in_every_codec() {
    let spec = BatchSpec { timestamp_deltas: vec![0, 5, 3, 5, 9], value_bytes: 300, ..BatchSpec::default() };
    for (name, codec, bytes) in all_codecs(&spec.raw_records()) {
        let records = records(codec, 5, &bytes);
        let first =
            |timestamp| first_at_or_after(records, 0, timestamp).unwrap().map(|found| (found.offset, found.timestamp));
        assert_eq!(first(0), Some((500, 1_000)), "{name}");
        assert_eq!(first(1_001), Some((501, 1_005)), "{name}");
        assert_eq!(first(1_005), Some((501, 1_005)), "{name}");
        assert_eq!(first(1_006), Some((504, 1_009)), "{name}");
        assert_eq!(first(1_010), None, "{name}");
        let max = max_timestamp(records, 0).unwrap().unwrap();
        assert_eq!((max.offset, max.timestamp), (504, 1_009), "{name}");
    }
}

#[test]
fn of_equal_highest_timestamps_the_first_counts() {
    let spec = BatchSpec { timestamp_deltas: vec![1, 4, 4, 2], ..BatchSpec::default() };
    let raw = spec.raw_records();
    assert_eq!(max_timestamp(records(Codec::None, 4, &raw), 0).unwrap().unwrap().offset, 501);
    let timeless = Records { base_timestamp: -10, ..records(Codec::None, 4, &raw) };
    assert_eq!(max_timestamp(timeless, 0).unwrap(), None);
}

#[test]
fn gzip_members_are_read_one_after_another() {
    let raw = BatchSpec::records(4).raw_records();
    let (one, two) = raw.split_at(30);
    let bytes = [gzip(one), gzip(two)].concat();
    assert_eq!(max_timestamp(records(Codec::Gzip, 4, &bytes), 0).unwrap().unwrap().offset, 503);
}

#[test]
fn a_bomb_is_given_up() {
    let mut record = vec![0];
    put_varint(&mut record, 0);
    put_varint(&mut record, 0);
    let length = MAX_INFLATED_BYTES as usize + 1;
    let mut raw = Vec::new();
    put_varint(&mut raw, (record.len() + length) as i64);
    raw.extend(&record);
    raw.resize(raw.len() + length, 0);
    for (name, codec, bytes) in
        [("gzip", Codec::Gzip, gzip(&raw)), ("zstd", Codec::Zstd, zstd::encode_all(&raw[..], 1).unwrap())]
    {
        assert!(bytes.len() < 1 << 20);
        assert_eq!(max_timestamp(records(codec, 1, &bytes), 0), Err(RecordsError::TooLong), "{name}");
    }
    let mut claims_much = vec![0xff, 0xff, 0xff, 0x1f];
    claims_much.extend([0; 20]);
    assert!(max_timestamp(records(Codec::Snappy, 1, &claims_much), 0).is_err());
}

#[test]
fn malformed_records_are_errors() {
    let raw = BatchSpec::records(2).raw_records();
    assert_eq!(max_timestamp(records(Codec::None, 3, &raw), 0), Err(RecordsError::Record { index: 2 }));
    assert_eq!(max_timestamp(records(Codec::None, 1, &[0xff; 20]), 0), Err(RecordsError::Record { index: 0 }));
    assert_eq!(max_timestamp(records(Codec::None, 1, &[1, 0, 0, 0]), 0), Err(RecordsError::Record { index: 0 }));
    // A key and a value that are longer than the record.
    assert_eq!(
        max_timestamp(records(Codec::None, 1, &[12, 0, 0, 0, 8, 0, 0]), 0),
        Err(RecordsError::Record { index: 0 })
    );
    assert_eq!(
        max_timestamp(records(Codec::None, 1, &[12, 0, 0, 0, 1, 8, 0]), 0),
        Err(RecordsError::Record { index: 0 })
    );
    assert!(max_timestamp(records(Codec::None, 1, &[12, 0, 0, 0, 1, 0, 0]), 0).is_ok());
    // An offset delta beyond the batch.
    assert_eq!(max_timestamp(records(Codec::None, 1, &[8, 0, 0, 4, 0]), 0), Err(RecordsError::Record { index: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(
        which in 0_usize..6,
        cut in 0_usize..200,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..5),
    ) {
        let spec = BatchSpec { value_bytes: 40, ..BatchSpec::records(6) };
        let (_, codec, mut bytes) = all_codecs(&spec.raw_records()).swap_remove(which);
        bytes.truncate(bytes.len().saturating_sub(cut));
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let _ = max_timestamp(records(codec, 6, &bytes), 0);
        let _ = first_at_or_after(records(codec, i32::MAX, &bytes), 0, 1_003);
    }
}
