//! Fields of Kafka's records one after another: big-endian numbers, texts, bytes and counts, in the older encoding
//! (lengths are i16 and i32) and the flexible one (lengths are varints plus one; tagged fields at the end, KIP-482).
//!
//! Invariants: total on any bytes; nothing is reserved on the word of a length.

use bytes::{BufMut, Bytes, BytesMut};

use super::RecordError;

/// What is left to read of one key or value.
pub struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Fields<'a> {
    /// `what` names it in errors.
    pub fn rigid(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes, flexible: false }
    }

    /// What follows is encoded in the flexible way.
    pub fn into_flexible(self) -> Self {
        Self { flexible: true, ..self }
    }

    fn malformed(&self) -> RecordError {
        RecordError::Malformed { what: self.what }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn i16(&mut self) -> Result<i16, RecordError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, RecordError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, RecordError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// An unsigned number of at most 32 bits.
    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| self.malformed());
            }
        }
        Err(self.malformed())
    }

    /// The length of a text, of bytes or of an array. None: null.
    fn length(&mut self, rigid: impl Fn(&mut Self) -> Result<i32, RecordError>) -> Result<Option<usize>, RecordError> {
        let length = if self.flexible { i64::from(self.varint()?) - 1 } else { i64::from(rigid(self)?) };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| self.malformed()),
        }
    }

    pub fn nullable_text(&mut self) -> Result<Option<String>, RecordError> {
        let Some(length) = self.length(|fields| fields.i16().map(i32::from))? else { return Ok(None) };
        let text = str::from_utf8(self.take(length)?).map_err(|_| self.malformed())?;
        Ok(Some(text.to_owned()))
    }

    pub fn text(&mut self) -> Result<String, RecordError> {
        self.nullable_text()?.ok_or_else(|| self.malformed())
    }

    pub fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let length = self.length(Self::i32)?.ok_or_else(|| self.malformed())?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// Of an array's elements.
    pub fn count(&mut self) -> Result<usize, RecordError> {
        self.length(Self::i32)?.ok_or_else(|| self.malformed())
    }

    /// What stands at the end of every flexible structure; there is none in the older encoding.
    pub fn skip_tagged(&mut self) -> Result<(), RecordError> {
        let count = if self.flexible { self.varint()? } else { 0 };
        for _ in 0..count {
            self.varint()?;
            let length = self.varint()?;
            self.take(length as usize)?;
        }
        Ok(())
    }
}

/// In the older encoding, which has room for 32,767 bytes.
pub fn put_text(out: &mut BytesMut, what: &'static str, text: &str) -> Result<(), RecordError> {
    let length = i16::try_from(text.len()).map_err(|_| RecordError::TooLong { what })?;
    out.put_i16(length);
    out.put_slice(text.as_bytes());
    Ok(())
}

pub fn put_nullable_text(out: &mut BytesMut, what: &'static str, text: Option<&str>) -> Result<(), RecordError> {
    match text {
        Some(text) => put_text(out, what, text)?,
        None => out.put_i16(-1),
    }
    Ok(())
}

pub fn put_bytes(out: &mut BytesMut, what: &'static str, bytes: &[u8]) -> Result<(), RecordError> {
    out.put_i32(i32::try_from(bytes.len()).map_err(|_| RecordError::TooLong { what })?);
    out.put_slice(bytes);
    Ok(())
}
