//! A fragment's header: who wrote what, how long it is, and what was known to be durable at that time.
//!
//! ```text
//!    0  magic            8
//!    8  version          2
//!   10  kind             1   1 data, 2 fence, 3 tiered
//!   11  reserved         1   0
//!   12  segment          4
//!   16  log              8
//!   24  fragment         8
//!   32  writer          16
//!   48  durable_through  8   2^64 - 1 if nothing is known to be durable
//!   56  data_length      8
//!   64  footer_length    4
//!   68  footer_crc       4
//!   72  reserved         4   0
//!   76  header_crc       4   CRC32C of the 76 bytes before
//! ```

use bytes::{Buf, BufMut};
use meta::seams::Incarnation;

use super::{DecodeError, VERSION};
use crate::entry::FragmentId;

pub const HEADER_BYTES: usize = 80;

/// What every fragment begins with.
pub const MAGIC: [u8; 8] = *b"WPfrag\r\n";
const CRC_POSITION: usize = HEADER_BYTES - 4;
const NOTHING_DURABLE: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FragmentKind {
    Data,
    /// Ends its segment: the fragment of this number, and all above, are not part of the log.
    Fence,
    /// Runs that were moved out of fragments: offsets in them may have gaps.
    Tiered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    pub kind: FragmentKind,
    pub id: FragmentId,
    /// Of a fence: who fenced.
    pub writer: Incarnation,
    /// The highest fragment of this segment that its writer knew to be durable when it wrote this one: damage at or
    /// below it is corruption, never a torn tail.
    pub durable_through: Option<u64>,
    pub data_length: u64,
    /// With the trailer.
    pub footer_length: u32,
    /// Of the footer without the trailer. Identifies the content: it covers every entry's checksum.
    pub footer_crc: u32,
}

impl FragmentHeader {
    pub fn fence(id: FragmentId, writer: Incarnation, durable_through: Option<u64>) -> Self {
        Self { kind: FragmentKind::Fence, id, writer, durable_through, data_length: 0, footer_length: 0, footer_crc: 0 }
    }

    pub fn is_fence(&self) -> bool {
        self.kind == FragmentKind::Fence
    }

    /// Of the whole fragment, from its first byte to its last.
    pub fn total_length(&self) -> u64 {
        self.footer_position() + u64::from(self.footer_length)
    }

    /// Of the footer's first byte, from the fragment's first.
    pub fn footer_position(&self) -> u64 {
        HEADER_BYTES as u64 + self.data_length
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        if let Err(error) = self.check() {
            panic!("a header that no reader would accept: {error}: {self:?}");
        }
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u16(VERSION);
        out.put_u8(match self.kind {
            FragmentKind::Data => 1,
            FragmentKind::Fence => 2,
            FragmentKind::Tiered => 3,
        });
        out.put_u8(0);
        out.put_u32(self.id.segment);
        out.put_u64(self.id.log);
        out.put_u64(self.id.fragment);
        out.put_u128(self.writer.0);
        out.put_u64(self.durable_through.unwrap_or(NOTHING_DURABLE));
        out.put_u64(self.data_length);
        out.put_u32(self.footer_length);
        out.put_u32(self.footer_crc);
        let crc = crc32c::crc32c(&bytes[..CRC_POSITION]);
        bytes[CRC_POSITION..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Decodes the header that `bytes` begins with.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((header, _)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(DecodeError::Damaged("it is shorter than a header"));
        };
        let (mut fields, mut crc) = header.split_at(CRC_POSITION);
        if fields[..MAGIC.len()] != MAGIC {
            return Err(DecodeError::Damaged("it does not begin with a fragment's magic bytes"));
        }
        if crc.get_u32() != crc32c::crc32c(fields) {
            return Err(DecodeError::Damaged("its header's checksum does not match"));
        }
        fields.advance(MAGIC.len());
        let found = fields.get_u16();
        if found > VERSION {
            return Err(DecodeError::FutureVersion { found });
        }
        let kind = fields.get_u8();
        let reserved = fields.get_u8();
        let segment = fields.get_u32();
        let id = FragmentId { segment, log: fields.get_u64(), fragment: fields.get_u64() };
        let header = Self {
            kind: match kind {
                1 => FragmentKind::Data,
                2 => FragmentKind::Fence,
                3 => FragmentKind::Tiered,
                _ => return Err(DecodeError::Damaged("its header names an unknown kind of fragment")),
            },
            id,
            writer: Incarnation(fields.get_u128()),
            durable_through: Some(fields.get_u64()).filter(|through| *through != NOTHING_DURABLE),
            data_length: fields.get_u64(),
            footer_length: fields.get_u32(),
            footer_crc: fields.get_u32(),
        };
        if found == 0 || reserved != 0 || fields.get_u32() != 0 {
            return Err(DecodeError::Damaged("its header has values that were never written"));
        }
        header.check()?;
        Ok(header)
    }

    /// What the encoder asserts and the decoder checks.
    fn check(&self) -> Result<(), DecodeError> {
        let shape = match self.kind {
            FragmentKind::Fence => self.data_length == 0 && self.footer_length == 0 && self.footer_crc == 0,
            FragmentKind::Data | FragmentKind::Tiered => {
                self.data_length > 0 && self.footer_length as usize > HEADER_BYTES
            }
        };
        if !shape {
            return Err(DecodeError::Damaged("its header's lengths do not fit its kind"));
        }
        if (self.kind == FragmentKind::Tiered) != self.id.is_tiered() {
            return Err(DecodeError::Damaged("its header's kind does not fit its number"));
        }
        if self.data_length > i64::MAX as u64 {
            return Err(DecodeError::Damaged("its header's length is absurd"));
        }
        if self.durable_through.is_some_and(|through| through >= self.id.fragment) {
            return Err(DecodeError::Damaged("its header claims to be durable itself"));
        }
        Ok(())
    }
}
