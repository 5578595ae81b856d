//! Tests of the wire format: batches survive encoding and decoding, and damage is found.

use super::*;

fn batch(values: &[u64]) -> Bytes {
    let spec =
        BatchSpec { producer_id: 7, producer_epoch: 1, base_sequence: 5, attributes: 0, timestamp_ms: 99, values };
    encode_batch(&spec)
}

#[test]
fn a_batch_is_what_the_crate_reads() {
    let values = [1, 29, 1 << 40];
    let bytes = batch(&values);
    let set = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes.clone()).unwrap();
    assert_eq!(set.records.len(), 3);
    for (record, value) in set.records.iter().zip(values) {
        assert_eq!(record.value.as_ref().unwrap()[..8], value.to_be_bytes());
        assert_eq!((record.producer_id, record.producer_epoch), (7, 1));
    }
    let mut two = BytesMut::from(bytes.as_ref());
    two.extend_from_slice(&batch(&[5]));
    let parsed = parse_batches(two.freeze()).unwrap();
    assert_eq!(parsed[0].values, values);
    assert_eq!(parsed[1].values, [5]);
}

#[test]
fn damage_is_noticed() {
    let bytes = batch(&[1, 2, 3]);
    for at in CRC_COVERS_FROM..bytes.len() {
        let mut damaged = BytesMut::from(bytes.as_ref());
        damaged[at] ^= 1;
        assert!(parse_batches(damaged.freeze()).unwrap_err().contains("integrity"), "byte {at}");
    }
    assert!(parse_batches(bytes.slice(..bytes.len() - 1)).is_err());
}
