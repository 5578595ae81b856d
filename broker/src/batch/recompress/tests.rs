//! Every codec to every other: the same records, the same header but for what has to change, and hostile batches.

use std::io::Read;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::batch::testing::{BatchSpec, RecordSpec};
use crate::batch::{BatchHeader, Limits, check_policy, validate};
use crate::compression::testing::all_codecs;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMITS: Limits = Limits { max_bytes: 64 << 20, zstd: true };
const MAX: usize = 64 << 20;

/// Three records, with duplicate names of headers, nulls and empty strings.
fn awkward() -> Vec<RecordSpec> {
    let header = |name: &str, value: Option<&str>| (name.as_bytes().to_vec(), value.map(|it| it.as_bytes().to_vec()));
    let full = RecordSpec {
        key: Some(b"key".to_vec()),
        value: Some(b"value".repeat(40)),
        headers: vec![header("twice", Some("1")), header("twice", Some("2")), header("", None), header("twice", None)],
        ..RecordSpec::default()
    };
    let tombstone = RecordSpec { timestamp_delta: -3, offset_delta: 1, key: Some(vec![]), ..RecordSpec::default() };
    let bare = RecordSpec { timestamp_delta: 7, offset_delta: 2, value: Some(vec![]), ..RecordSpec::default() };
    vec![full, tombstone, bare]
}

fn raw(records: &[RecordSpec]) -> Vec<u8> {
    let mut out = Vec::new();
    records.iter().for_each(|record| record.put(&mut out));
    out
}

fn batch(spec: &BatchSpec, codec: Codec, records: &[u8]) -> ValidBatch {
    let spec = BatchSpec { attributes: codec.id(), ..spec.clone() };
    validate(spec.build_with(records), LIMITS).unwrap()
}

fn stepwise(batch: &ValidBatch, codec: Codec, max_bytes: usize) -> Result<(Recompressed, usize), BatchError> {
    let mut recompression = Recompression::begin(batch, codec, Levels::default(), max_bytes)?;
    let mut steps = 1;
    while !recompression.step()? {
        steps += 1;
    }
    Ok((recompression.finish(None)?, steps))
}

fn at_once(batch: &ValidBatch, codec: Codec) -> Result<Option<Recompressed>, BatchError> {
    Recompression::small(batch, codec, Levels::default(), MAX, None)
}

fn inflated(batch: &ValidBatch) -> Vec<u8> {
    let mut out = Vec::new();
    open(batch).unwrap().read_to_end(&mut out).unwrap();
    out
}

/// The batch again, as it would be stored: valid, and nothing changed but codec, length and checksum.
fn check(before: &ValidBatch, after: &ValidBatch, codec: Codec) {
    let bytes = [&after.stamped_head(0, -1)[..], &after.body[..]].concat();
    let stored = validate(Bytes::from(bytes.clone()), LIMITS).unwrap();
    assert_eq!((stored.header, stored.max_timestamp), (after.header, after.max_timestamp));
    assert_eq!(stored.header.codec(), Some(codec));
    let expected = BatchHeader {
        attributes: before.header.attributes & !CODEC_MASK | codec.id(),
        length: bytes.len() as i32 - 12,
        crc: crc32c::crc32c(&bytes[HEAD_BYTES..]),
        ..before.header
    };
    assert_eq!(after.header, expected);
    assert_eq!(inflated(after), inflated(before));
}

#[test]
fn every_codec_becomes_every_other() {
    let records = raw(&awkward());
    let spec = BatchSpec::idempotent(7, 3, 100, 3);
    for (name, from, bytes) in all_codecs(&records) {
        let before = batch(&spec, from, &bytes);
        for to in CODECS {
            let after = at_once(&before, to).unwrap().unwrap();
            check(&before, &after.batch, to);
            assert_eq!(after.inflated_bytes as usize, records.len(), "{name} to {to:?}");
            let (again, _) = stepwise(&before, to, MAX).unwrap();
            check(&before, &again.batch, to);
            let meta = |batch: &ValidBatch| batch.meta(5, 6).unwrap();
            assert_eq!(storage::entry::EntryMeta { attributes: from.id(), ..meta(&again.batch) }, meta(&before));
        }
    }
}

#[test]
fn large_batches_are_done_in_steps_and_never_at_once() {
    let value: Vec<u8> = (0..1 << 20_u32).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 26) as u8).collect();
    let records = raw(&[RecordSpec { value: Some(value), ..RecordSpec::default() }]);
    for (name, from, bytes) in all_codecs(&records) {
        if name == "framed snappy" {
            continue;
        }
        let before = batch(&BatchSpec::records(1), from, &bytes);
        for to in CODECS {
            assert!(at_once(&before, to).unwrap().is_none());
            let (after, steps) = stepwise(&before, to, MAX).unwrap();
            check(&before, &after.batch, to);
            assert_eq!(steps, records.len() / STEP_BYTES + 1, "{name} to {to:?}");
        }
    }
}

/// Nothing is small that would not fit what is paid for it.
#[test]
fn the_small_ones_fit_their_room_whatever_is_in_them() {
    let mut state = 1_u32;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let value: Vec<u8> = (0..Recompression::SMALL_BYTES - 20).map(noise).collect();
    let records = raw(&[RecordSpec { value: Some(value), ..RecordSpec::default() }]);
    for (_, from, bytes) in all_codecs(&records) {
        let before = batch(&BatchSpec::records(1), from, &bytes);
        for to in CODECS {
            let max = Recompression::SMALL_OUTPUT_BYTES;
            let after = Recompression::small(&before, to, Levels::default(), max, None).unwrap().unwrap();
            check(&before, &after.batch, to);
        }
    }
}

#[test]
fn the_time_of_the_append_is_put_in_too() {
    let before = batch(&BatchSpec::default(), Codec::None, &BatchSpec::default().raw_records());
    let after =
        Recompression::small(&before, Codec::Zstd, Levels::default(), MAX, Some(77_000)).unwrap().unwrap().batch;
    assert!(after.header.is_log_append_time() && after.header.codec() == Some(Codec::Zstd));
    assert_eq!((after.header.max_timestamp, after.max_timestamp), (77_000, 77_000));
    assert_eq!(after.header.base_timestamp, before.header.base_timestamp);
    assert_eq!(after.header.crc, crc32c::crc32c(&after.body));
}

#[test]
fn what_would_become_too_large_is_refused_as_such() {
    let records = raw(&[RecordSpec { value: Some(vec![b'a'; 100_000]), ..RecordSpec::default() }]);
    let (_, from, bytes) = all_codecs(&records).swap_remove(5);
    let before = batch(&BatchSpec::records(1), from, &bytes);
    assert!(before.len() < 1_000);
    let size = records.len() + HEADER_BYTES;
    assert!(stepwise(&before, Codec::None, size).is_ok());
    let refused = stepwise(&before, Codec::None, size - 1).err().unwrap();
    assert_eq!(refused.code(), kafka_protocol::ResponseError::MessageTooLarge);
    let refused = Recompression::small(&before, Codec::None, Levels::default(), size - 1, None).err().unwrap();
    assert_eq!(refused.code(), kafka_protocol::ResponseError::MessageTooLarge);
}

#[test]
fn a_bomb_is_given_up() {
    let records = raw(&[RecordSpec { value: Some(vec![0; MAX_INFLATED_BYTES as usize]), ..RecordSpec::default() }]);
    let zstd = zstd::encode_all(&records[..], 1).unwrap();
    let before = batch(&BatchSpec::records(1), Codec::Zstd, &zstd);
    assert!(before.len() < 100_000);
    for to in [Codec::Gzip, Codec::Lz4] {
        assert_eq!(stepwise(&before, to, MAX).err(), Some(BatchError::Records(RecordsError::TooLong)));
    }
    // Uncompressed it would be much: its bound is met long before.
    let refused = stepwise(&before, Codec::None, 1 << 20).err().unwrap();
    assert_eq!(refused.code(), kafka_protocol::ResponseError::MessageTooLarge);
}

#[test]
fn the_number_of_records_has_to_be_right() {
    use kafka_protocol::ResponseError::{CorruptMessage, InvalidRecord};
    let records = raw(&awkward());
    let of = |count: usize, records: &[u8]| batch(&BatchSpec::records(count), Codec::Gzip, &gzip(records));
    let gzip_cut = {
        let bytes = gzip(&records);
        batch(&BatchSpec::records(3), Codec::Gzip, &bytes[..bytes.len() - 12])
    };
    let endless = [0xff; 40];
    for (what, before, code) in [
        ("fewer", of(4, &records), InvalidRecord),
        ("more", of(2, &records), InvalidRecord),
        ("a cut", of(3, &records[..records.len() - 1]), InvalidRecord),
        ("a byte more", of(3, &[&records[..], &[0]].concat()), InvalidRecord),
        ("an endless length", of(1, &endless), InvalidRecord),
        ("a negative length", of(1, &[1]), InvalidRecord),
        ("an empty record", of(1, &[0]), InvalidRecord),
        ("no gzip", batch(&BatchSpec::records(3), Codec::Gzip, &records), CorruptMessage),
        ("half a stream", gzip_cut, CorruptMessage),
    ] {
        assert_eq!(stepwise(&before, Codec::Lz4, MAX).err().map(|error| error.code()), Some(code), "{what}");
        assert_eq!(at_once(&before, Codec::Lz4).err().map(|error| error.code()), Some(code), "{what}");
    }
}

fn gzip(raw: &[u8]) -> Vec<u8> {
    crate::compression::testing::gzip(raw)
}

fn bytes_or_null() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60))
}

fn any_records() -> impl Strategy<Value = Vec<RecordSpec>> {
    let name = proptest::sample::select(vec![b"a".to_vec(), b"b".to_vec(), vec![]]);
    let headers = proptest::collection::vec((name, bytes_or_null()), 0..4);
    let record = (any::<i32>(), bytes_or_null(), bytes_or_null(), headers);
    proptest::collection::vec(record, 1..20).prop_map(|records| {
        let numbered = records.into_iter().enumerate();
        numbered
            .map(|(n, (time, key, value, headers))| RecordSpec {
                timestamp_delta: i64::from(time),
                offset_delta: n as i64,
                key,
                value,
                headers,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_survive(records in any_records(), from in 0_usize..6, to in 0_usize..5) {
        let bytes = raw(&records);
        let (_, from, compressed) = all_codecs(&bytes).swap_remove(from);
        let before = batch(&BatchSpec::records(records.len()), from, &compressed);
        let after = at_once(&before, CODECS[to]).unwrap().unwrap();
        check(&before, &after.batch, CODECS[to]);
        prop_assert_eq!(inflated(&after.batch), bytes);
        // What is known about the records stays known.
        let policy = crate::batch::Policy { before_max_ms: i64::MAX, after_max_ms: i64::MAX, keys: true };
        prop_assert_eq!(check_policy(&before, &policy, 0), check_policy(&after.batch, &policy, 0));
    }

    #[test]
    fn framing_is_followed_however_the_bytes_come(records in any_records(), cuts in proptest::collection::vec(1_usize..50, 1..40)) {
        let bytes = raw(&records);
        let mut framing = Framing { left: records.len() as i32, ..Framing::default() };
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            prop_assert!(!framing.is_complete());
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            framing.take(piece).unwrap();
            rest = behind;
        }
        prop_assert!(framing.is_complete());
        prop_assert!(framing.take(&[2]).is_err());
    }
}
