//! A batch that fits its index passes; each single thing that does not is named.

use storage::entry::EntryMeta;

use super::*;
use crate::batch::HEADER_BYTES;

/// A header as it is stored, and its entry in the index.
fn stored() -> (Vec<u8>, IndexedEntry, u32) {
    let body_crc = 0x1234_5678;
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&100_i64.to_be_bytes());
    bytes[8..12].copy_from_slice(&288_i32.to_be_bytes());
    bytes[12..16].copy_from_slice(&7_i32.to_be_bytes());
    bytes[16] = 2;
    bytes[17..21].copy_from_slice(&u32::to_be_bytes(body_crc));
    bytes[23..27].copy_from_slice(&9_i32.to_be_bytes());
    bytes[43..51].copy_from_slice(&(-1_i64).to_be_bytes());
    let meta = EntryMeta {
        base_offset: 100,
        last_offset: 109,
        max_timestamp: 5,
        leader_epoch: 7,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        attributes: 0,
    };
    (bytes, IndexedEntry { meta, position: 80, length: 300, checksum: 0 }, body_crc)
}

#[test]
fn what_does_not_fit_is_named() {
    let (bytes, entry, crc) = stored();
    assert_eq!(BatchCheck.check(&entry, &bytes, crc), Ok(()));
    assert_eq!(BatchCheck.check(&entry, &bytes, crc + 1), Err("fails its own CRC32C".to_owned()));
    assert!(BatchCheck.check(&entry, &bytes[..60], crc).is_err());
    for (at, name) in [
        (7, "base offset"),
        (11, "length"),
        (15, "leader epoch"),
        (16, "format"),
        (22, "attributes"),
        (26, "last offset"),
    ] {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        let why = BatchCheck.check(&entry, &wrong, crc).unwrap_err();
        assert!(why.contains(name), "{name}: {why}");
    }
}
