//! What is accepted, what is refused and how, and that no bytes whatsoever make validation panic.

use proptest::prelude::*;

use super::testing::{BatchSpec, reseal};
use super::*;

const LIMITS: Limits = Limits { max_bytes: 1 << 20, zstd: true };

fn code(bytes: Bytes) -> Option<ResponseError> {
    validate(bytes, LIMITS).err().map(|error| error.code())
}

/// Changes a good batch and gives it the right checksum again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = BatchSpec::default().build().to_vec();
    change(&mut bytes);
    reseal(&mut bytes);
    bytes.into()
}

#[test]
fn a_good_batch_keeps_its_bytes_and_yields_its_numbers() {
    let bytes = BatchSpec::idempotent(7, 2, 40, 3).build();
    let batch = validate(bytes.clone(), LIMITS).unwrap();
    assert_eq!(batch.len(), bytes.len());
    assert_eq!(batch.body, bytes.slice(HEAD_BYTES..));
    assert_eq!(batch.header.crc, crc32c::crc32c(&batch.body));
    let meta = batch.meta(100, 9).unwrap();
    let expected = EntryMeta {
        base_offset: 100,
        last_offset: 102,
        max_timestamp: 1_002,
        leader_epoch: 9,
        producer_id: 7,
        producer_epoch: 2,
        base_sequence: 40,
        attributes: 0,
    };
    assert_eq!(meta, expected);
    let stamped = [&batch.stamped_head(100, 9)[..], &batch.body[..]].concat();
    let header = BatchHeader::parse(&stamped).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (100, 9));
    let same = BatchHeader { base_offset: 0, leader_epoch: -1, ..header };
    assert_eq!(same, BatchHeader::parse(&bytes).unwrap(), "nothing else is touched");
    assert_eq!(BatchHeader::parse_parts(&batch.stamped_head(100, 9), &batch.body), Some(header));
}

#[test]
fn offsets_that_run_out_are_noticed() {
    let batch = validate(BatchSpec::default().build(), LIMITS).unwrap();
    assert_eq!(batch.meta(i64::MAX - 1, 0), None);
}

#[test]
fn what_cannot_be_stored_is_refused_with_kafkas_code() {
    use ResponseError::*;
    let good = BatchSpec::default().build();
    let two = Bytes::from([&good[..], &good[..]].concat());
    let attributes = |attributes: i16| BatchSpec { attributes, ..BatchSpec::default() }.build();
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let table: Vec<(&str, Bytes, ResponseError)> = vec![
        ("nothing", Bytes::new(), CorruptMessage),
        ("cut in the header", good.slice(..40), CorruptMessage),
        ("cut in the records", good.slice(..good.len() - 1), InvalidRecord),
        ("two batches", two, InvalidRecord),
        ("a flipped bit", flipped.into(), CorruptMessage),
        ("format 0", changed(|bytes| bytes[16] = 0), UnsupportedForMessageFormat),
        ("format 1", changed(|bytes| bytes[16] = 1), UnsupportedForMessageFormat),
        ("format 3", changed(|bytes| bytes[16] = 3), UnsupportedForMessageFormat),
        ("negative length", changed(|bytes| bytes[8] = 0xff), InvalidRecord),
        ("codec 5", attributes(5), UnsupportedCompressionType),
        ("control", attributes(0x20), InvalidRecord),
        ("transactional", attributes(0x10), InvalidRecord),
        ("log append time", attributes(0x08), InvalidTimestamp),
        ("delete horizon", attributes(0x40), InvalidRecord),
        ("unknown attribute", attributes(0x100), InvalidRecord),
        ("no records", BatchSpec::records(0).build(), InvalidRecord),
        ("count above delta", changed(|bytes| bytes[60] = 4), InvalidRecord),
        ("delta above count", changed(|bytes| bytes[26] = 4), InvalidRecord),
        (
            "producer without epoch",
            BatchSpec { producer_epoch: -1, ..BatchSpec::idempotent(1, 0, 0, 1) }.build(),
            InvalidRecord,
        ),
        ("producer without sequence", BatchSpec::idempotent(1, 0, -1, 1).build(), InvalidRecord),
        ("producer -2", BatchSpec::idempotent(-2, 0, 0, 1).build(), InvalidRecord),
    ];
    for (what, bytes, expected) in table {
        assert_eq!(code(bytes), Some(expected), "{what}");
    }
    let many = BatchSpec::records(1_000).build_with(&BatchSpec::records(3).raw_records());
    assert_eq!(code(many), Some(InvalidRecord), "more records than bytes");
}

#[test]
fn a_checksum_that_does_not_fit_is_found() {
    let mut bytes = BatchSpec::default().build().to_vec();
    bytes[70] ^= 0x40;
    assert!(matches!(validate(bytes.into(), LIMITS), Err(BatchError::Crc { .. })));
}

#[test]
fn size_is_bounded_and_zstd_depends_on_the_request() {
    let bytes = BatchSpec::default().build();
    let exact = Limits { max_bytes: bytes.len(), ..LIMITS };
    assert!(validate(bytes.clone(), exact).is_ok());
    let short = Limits { max_bytes: bytes.len() - 1, ..LIMITS };
    assert_eq!(validate(bytes, short).unwrap_err().code(), ResponseError::MessageTooLarge);

    let spec = BatchSpec { attributes: 4, ..BatchSpec::default() };
    let zstd = spec.build_with(&zstd::encode_all(&spec.raw_records()[..], 3).unwrap());
    assert!(validate(zstd.clone(), LIMITS).is_ok());
    let old = Limits { zstd: false, ..LIMITS };
    assert_eq!(validate(zstd, old).unwrap_err().code(), ResponseError::UnsupportedCompressionType);
}

#[test]
fn without_a_producer_id_epoch_and_sequence_mean_nothing() {
    // kafkajs sends 0 for both.
    let spec = BatchSpec { producer_epoch: 0, base_sequence: 0, ..BatchSpec::default() };
    let meta = validate(spec.build(), LIMITS).unwrap().meta(0, 0).unwrap();
    assert_eq!((meta.producer_id, meta.producer_epoch, meta.base_sequence), (-1, -1, -1));
}

#[test]
fn an_unset_max_timestamp_is_taken_from_the_records() {
    // Sarama (rp#25200): -1 in the header, timestamps in the records.
    let spec = BatchSpec { max_timestamp: Some(-1), timestamp_deltas: vec![0, 7, 3], ..BatchSpec::default() };
    let batch = validate(spec.build(), LIMITS).unwrap();
    assert_eq!(batch.max_timestamp, 1_007);
    assert_eq!(batch.header.max_timestamp, -1, "the header is left alone");
    let broken = spec.build_with(&[0xff; 40]);
    assert_eq!(code(broken), Some(ResponseError::CorruptMessage));
    let none = BatchSpec { base_timestamp: -1, max_timestamp: Some(-1), ..BatchSpec::default() };
    assert_eq!(validate(none.build(), LIMITS).unwrap().max_timestamp, -1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = BatchHeader::parse(&bytes);
        let _ = validate(bytes.into(), LIMITS);
    }

    #[test]
    fn any_change_of_a_sealed_batch_is_judged_without_a_panic(
        changes in proptest::collection::vec((0_usize..120, any::<u8>()), 1..6),
        codec in 0_i16..6,
    ) {
        let spec = BatchSpec { attributes: codec, max_timestamp: Some(-1), ..BatchSpec::default() };
        let mut bytes = spec.build().to_vec();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(batch) = validate(bytes.clone().into(), LIMITS) {
            prop_assert!(batch.header.record_count >= 1);
            prop_assert_eq!(batch.len(), bytes.len());
            let _ = first_at_or_after(&batch.header, &bytes[HEADER_BYTES..], 0, 5);
        }
    }
}
