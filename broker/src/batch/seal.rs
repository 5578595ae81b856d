//! Headers as bytes: batches that are written anew here, the checksum included.

use bytes::Bytes;

use super::{BatchHeader, HEAD_BYTES, HEADER_BYTES, LENGTH_OVERHEAD};

/// What a batch's body begins with: the part of the header that is under the CRC.
pub const BODY_HEADER_BYTES: usize = HEADER_BYTES - HEAD_BYTES;

impl BatchHeader {
    /// The inverse of `parse`.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.length.to_be_bytes());
        put(&self.leader_epoch.to_be_bytes());
        put(&self.magic.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        debug_assert_eq!(at, HEADER_BYTES, "every field has its place");
        bytes
    }
}

/// A batch of this header and these records. `body` has room for its part of the header in front of the records, which
/// is filled in; length and checksum are made anew.
pub fn seal(mut header: BatchHeader, mut body: Vec<u8>) -> (BatchHeader, [u8; HEAD_BYTES], Bytes) {
    header.length = (HEAD_BYTES + body.len() - LENGTH_OVERHEAD) as i32;
    body[..BODY_HEADER_BYTES].copy_from_slice(&header.encode()[HEAD_BYTES..]);
    header.crc = crc32c::crc32c(&body);
    let mut head = [0; HEAD_BYTES];
    head.copy_from_slice(&header.encode()[..HEAD_BYTES]);
    (header, head, Bytes::from(body))
}
