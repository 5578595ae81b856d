//! Batches are built and read back.

use super::*;

#[test]
fn a_batch_says_what_it_holds() {
    let batch = Batch::filled(100, 16 << 10, 1);
    assert!(batch.bytes.len() <= 16 << 10 && batch.bytes.len() > (16 << 10) - 300);
    let seen = first(&batch.bytes).unwrap();
    assert_eq!((seen.base_offset, seen.records, seen.length), (0, batch.records, batch.bytes.len()));
    assert_eq!(seen.last_offset, batch.records as i64 - 1);
    assert!(first(&batch.bytes[..batch.bytes.len() - 1]).is_none());
}

#[test]
fn a_large_record_has_a_batch_of_its_own() {
    assert_eq!(Batch::filled(16 << 10, 16 << 10, 1).records, 1);
}
