//! The bytes of journal records and snapshots. Both are one header and one body, all integers little-endian.
//!
//! ```text
//! header, 56 bytes                                     body of a journal record
//!  0  magic "WPKRMETA"                                  0  nonce of the record before (0 for the first)
//!  8  u16 format version                                8  revision after it
//! 10  u8 kind: 1 transaction, 2 takeover, 3 snapshot   16  u32 count, then the operations:
//! 11  u8 zero                                              u8 1 put: key, value, u64 lease (0: none)
//! 12  u32 length of the body                               u8 2 delete: key
//! 16  u64 number                                       body of a snapshot
//! 24  u128 incarnation of the writer                    0  nonce of the record of its number
//! 40  u64 nonce                                         8  revision
//! 48  u32 CRC32C of the body                           16  u32 count, then the entries:
//! 52  u32 CRC32C of the header before it                   key, value, u64 created, u64 changed, u64 lease
//! ```
//! Keys and values are a u32 length and the bytes. The header is the record's identity for the settled write. Each
//! record names the nonce of the one before: a record that does not follow what was read before it is never applied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::seams::Incarnation;
use crate::store::{KeyValue, LeaseId, Op, Revision};

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"WPKRMETA";
const VERSION: u16 = 1;
pub const HEADER_BYTES: usize = 56;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Txn = 1,
    Takeover = 2,
    Snapshot = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub number: u64,
    pub incarnation: Incarnation,
    pub nonce: u64,
    body_length: u32,
    body_crc: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub header: Header,
    pub previous: u64,
    pub revision: Revision,
    pub ops: Vec<Op>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub header: Header,
    /// The nonce of the journal record of its number.
    pub last: u64,
    pub revision: Revision,
    pub entries: Vec<KeyValue>,
}

/// Who writes what: the parts of a header that the writer chooses.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    pub kind: Kind,
    pub number: u64,
    pub incarnation: Incarnation,
    pub nonce: u64,
}

pub fn encode_record(stamp: Stamp, previous: u64, revision: Revision, ops: &[Op]) -> Result<Bytes> {
    let mut body = BytesMut::new();
    body.put_u64_le(previous);
    body.put_u64_le(revision);
    put_length(&mut body, ops.len())?;
    for op in ops {
        match op {
            Op::Put { key, value, lease } => {
                body.put_u8(1);
                put_bytes(&mut body, key.as_bytes())?;
                put_bytes(&mut body, value)?;
                body.put_u64_le(lease.map_or(0, |lease| lease.0));
            }
            Op::Delete { key } => {
                body.put_u8(2);
                put_bytes(&mut body, key.as_bytes())?;
            }
        }
    }
    seal(stamp, &body)
}

pub fn encode_snapshot<'a>(
    stamp: Stamp,
    last: u64,
    revision: Revision,
    entries: impl ExactSizeIterator<Item = &'a KeyValue>,
) -> Result<Bytes> {
    let mut body = BytesMut::new();
    body.put_u64_le(last);
    body.put_u64_le(revision);
    put_length(&mut body, entries.len())?;
    for entry in entries {
        put_bytes(&mut body, entry.key.as_bytes())?;
        put_bytes(&mut body, &entry.value)?;
        body.put_u64_le(entry.create_revision);
        body.put_u64_le(entry.mod_revision);
        body.put_u64_le(entry.lease.map_or(0, |lease| lease.0));
    }
    seal(stamp, &body)
}

fn seal(stamp: Stamp, body: &[u8]) -> Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body.len());
    bytes.put_slice(MAGIC);
    bytes.put_u16_le(VERSION);
    bytes.put_u8(stamp.kind as u8);
    bytes.put_u8(0);
    put_length(&mut bytes, body.len())?;
    bytes.put_u64_le(stamp.number);
    bytes.put_u128_le(stamp.incarnation.0);
    bytes.put_u64_le(stamp.nonce);
    bytes.put_u32_le(crc32c::crc32c(body));
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    assert_eq!(bytes.len(), HEADER_BYTES, "the layout above");
    bytes.put_slice(body);
    Ok(bytes.freeze())
}

fn put_length(into: &mut BytesMut, length: usize) -> Result<()> {
    let length = u32::try_from(length).map_err(|_| Error::Invalid { what: format!("{length} is too much") })?;
    into.put_u32_le(length);
    Ok(())
}

fn put_bytes(into: &mut BytesMut, bytes: &[u8]) -> Result<()> {
    put_length(into, bytes.len())?;
    into.put_slice(bytes);
    Ok(())
}

/// Decodes the header of the object at `key`; bytes after it are not looked at.
pub fn decode_header(key: &str, bytes: &[u8]) -> Result<Header> {
    let mut input = Input { key, rest: Bytes::copy_from_slice(&bytes[..bytes.len().min(HEADER_BYTES)]) };
    if &input.array::<8>()? != MAGIC {
        return Err(input.corrupt("it does not begin as metadata does"));
    }
    let version = u16::from_le_bytes(input.array()?);
    let [kind, zero] = input.array()?;
    let body_length = u32::from_le_bytes(input.array()?);
    let number = input.u64()?;
    let incarnation = Incarnation(u128::from_le_bytes(input.array()?));
    let nonce = input.u64()?;
    let body_crc = u32::from_le_bytes(input.array()?);
    let header_crc = u32::from_le_bytes(input.array()?);
    if crc32c::crc32c(&bytes[..HEADER_BYTES - 4]) != header_crc {
        return Err(input.corrupt("the checksum of its header is wrong"));
    }
    // Only now: a damaged version is not a newer one.
    if version > VERSION {
        let what = format!("{key} has format version {version}; this program knows up to {VERSION}");
        return Err(Error::Invalid { what });
    }
    let kind = match (kind, zero) {
        (1, 0) => Kind::Txn,
        (2, 0) => Kind::Takeover,
        (3, 0) => Kind::Snapshot,
        _ => return Err(input.corrupt("it is of an unknown kind")),
    };
    Ok(Header { kind, number, incarnation, nonce, body_length, body_crc })
}

/// Decodes the journal record of this number.
pub fn decode_record(key: &str, number: u64, bytes: &Bytes) -> Result<Record> {
    let (header, mut input) = open(key, number, bytes)?;
    if header.kind == Kind::Snapshot {
        return Err(input.corrupt("it is a snapshot"));
    }
    let (previous, revision, count) = (input.u64()?, input.u64()?, input.u32()?);
    let mut ops = Vec::new();
    for _ in 0..count {
        ops.push(match input.array()? {
            [1] => Op::Put { key: input.text()?, value: input.value()?, lease: input.lease()? },
            [2] => Op::Delete { key: input.text()? },
            _ => return Err(input.corrupt("it holds an unknown operation")),
        });
    }
    input.end()?;
    Ok(Record { header, previous, revision, ops })
}

/// Decodes the snapshot of this number.
pub fn decode_snapshot(key: &str, number: u64, bytes: &Bytes) -> Result<Snapshot> {
    let (header, mut input) = open(key, number, bytes)?;
    if header.kind != Kind::Snapshot {
        return Err(input.corrupt("it is not a snapshot"));
    }
    let (last, revision, count) = (input.u64()?, input.u64()?, input.u32()?);
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(KeyValue {
            key: input.text()?,
            value: input.value()?,
            create_revision: input.u64()?,
            mod_revision: input.u64()?,
            lease: input.lease()?,
        });
    }
    input.end()?;
    Ok(Snapshot { header, last, revision, entries })
}

fn open<'a>(key: &'a str, number: u64, bytes: &Bytes) -> Result<(Header, Input<'a>)> {
    let header = decode_header(key, bytes)?;
    let input = Input { key, rest: bytes.slice(HEADER_BYTES..) };
    if header.number != number {
        return Err(input.corrupt(&format!("it says that its number is {}", header.number)));
    }
    if input.rest.len() != header.body_length as usize {
        return Err(input.corrupt(&format!("{} bytes follow, not {}", input.rest.len(), header.body_length)));
    }
    if crc32c::crc32c(&input.rest) != header.body_crc {
        return Err(input.corrupt("its checksum is wrong"));
    }
    Ok((header, input))
}

struct Input<'a> {
    key: &'a str,
    rest: Bytes,
}

impl Input<'_> {
    fn corrupt(&self, why: &str) -> Error {
        Error::Corrupt { key: self.key.to_owned(), why: why.to_owned() }
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.rest.len() {
            return Err(self.corrupt("it ends too early"));
        }
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// A copy, not a slice of the whole: that would keep the whole in memory for as long as one value lives.
    fn value(&mut self) -> Result<Bytes> {
        self.bytes().map(|value| Bytes::copy_from_slice(&value))
    }

    fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| self.corrupt("a key is not text"))
    }

    fn lease(&mut self) -> Result<Option<LeaseId>> {
        self.u64().map(|id| (id != 0).then_some(LeaseId(id)))
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes are left over")) }
    }
}
