//! Round trips of records and snapshots, and every kind of damage to them.

use super::*;

fn stamp(kind: Kind) -> Stamp {
    Stamp { kind, number: 7, incarnation: Incarnation(0x1234_5678_9abc), nonce: 99 }
}

fn record() -> Bytes {
    let ops = [
        Op::Put { key: "a".to_owned(), value: Bytes::from_static(b"\0\xff"), lease: None },
        Op::Put { key: "b".to_owned(), value: Bytes::new(), lease: Some(LeaseId(3)) },
        Op::Delete { key: "topics/\u{e9}".to_owned() },
    ];
    encode_record(stamp(Kind::Txn), 98, 5, &ops).unwrap()
}

#[test]
fn a_record_reads_back_as_written() {
    let read = decode_record("k", 7, &record()).unwrap();
    assert_eq!((read.header.kind, read.header.number, read.header.nonce), (Kind::Txn, 7, 99));
    assert_eq!(read.header.incarnation, Incarnation(0x1234_5678_9abc));
    assert_eq!((read.previous, read.revision, read.ops.len()), (98, 5, 3));
    assert_eq!(encode_record(stamp(Kind::Txn), 98, 5, &read.ops).unwrap(), record());
    assert_eq!(decode_header("k", &record()[..HEADER_BYTES]).unwrap(), read.header);
}

#[test]
fn a_snapshot_reads_back_as_written() {
    let entry = |key: &str, lease| KeyValue {
        key: key.to_owned(),
        value: Bytes::from(key.repeat(3)),
        create_revision: 1,
        mod_revision: 4,
        lease,
    };
    let entries = vec![entry("a", None), entry("b", Some(LeaseId(1)))];
    let bytes = encode_snapshot(stamp(Kind::Snapshot), 98, 5, entries.iter()).unwrap();
    let read = decode_snapshot("k", 7, &bytes).unwrap();
    assert_eq!((read.last, read.revision, read.entries), (98, 5, entries));
    assert!(decode_record("k", 7, &bytes).is_err());
    assert!(decode_snapshot("k", 7, &record()).is_err());
}

#[test]
fn every_flipped_bit_and_every_shorter_or_longer_object_is_refused_by_name() {
    let good = record();
    for bit in 0..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = decode_record("the/key", 7, &Bytes::from(bad)).expect_err("a flipped bit");
        assert!(error.to_string().contains("the/key"), "{error}");
    }
    for length in 0..good.len() {
        assert!(matches!(decode_record("k", 7, &good.slice(..length)), Err(Error::Corrupt { .. })), "{length}");
    }
    let longer = Bytes::from([&good[..], b"x"].concat());
    assert!(matches!(decode_record("k", 7, &longer), Err(Error::Corrupt { .. })));
    assert!(matches!(decode_record("k", 8, &good), Err(Error::Corrupt { .. })), "another number");
}

#[test]
fn a_newer_version_is_refused_as_such() {
    let mut newer = record().to_vec();
    newer[8] = 2;
    let damaged = decode_record("the/key", 7, &Bytes::from(newer.clone())).unwrap_err();
    assert!(matches!(damaged, Error::Corrupt { .. }), "a damaged version is not a newer one: {damaged}");
    let crc = crc32c::crc32c(&newer[..HEADER_BYTES - 4]);
    newer[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let error = decode_record("the/key", 7, &Bytes::from(newer)).unwrap_err();
    assert_eq!(error.to_string(), "the/key has format version 2; this program knows up to 1");
}

/// Counts and lengths that lie, in a body whose checksums are right, allocate nothing and are refused.
#[test]
fn lengths_that_lie_are_refused() {
    let mut body = BytesMut::new();
    body.put_u64_le(1);
    body.put_u64_le(1);
    body.put_u32_le(u32::MAX);
    body.put_u8(2);
    body.put_u32_le(u32::MAX);
    let bytes = seal(stamp(Kind::Txn), &body).unwrap();
    assert!(matches!(decode_record("k", 7, &bytes), Err(Error::Corrupt { .. })));
}
