//! Looks inside one record batch, for times and keys only: at which offset is the first record with a timestamp, which
//! one has the highest, is there one without a key.
//!
//! Invariants: total on hostile input (an error, never a panic); records are streamed, never held: memory is bounded by
//! what a codec needs for its window, work by `MAX_INFLATED_BYTES`.

use std::io::{self, Read};

use crate::compression::{self, MAX_INFLATED_BYTES};

pub use crate::compression::Codec;

/// The records of one batch: their bytes, and the header fields that these are relative to.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    pub codec: Codec,
    pub base_offset: i64,
    pub base_timestamp: i64,
    pub count: i32,
    /// Compaction leaves gaps: there may be fewer records than offsets.
    pub last_offset_delta: i32,
    pub bytes: &'a [u8],
}

/// Where a record is, and its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordTime {
    pub offset: i64,
    pub timestamp: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    #[error("decompression failed: {0}")]
    Decompress(String),
    #[error("record {index} is malformed")]
    Record { index: i32 },
    #[error("more than {MAX_INFLATED_BYTES} bytes of records")]
    TooLong,
}

/// How many records without a key are named.
const MAX_KEYLESS: usize = 1_000;

/// What there is to know about the records of a batch as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The lowest timestamp. None if no record has any.
    pub min_timestamp: Option<i64>,
    /// The records without a key, from 0: the first thousand.
    pub keyless: Vec<i32>,
}

/// Looks at every record.
pub fn survey(records: Records<'_>) -> Result<Survey, RecordsError> {
    let mut survey = Survey { min_timestamp: None, keyless: Vec::new() };
    let mut index = 0;
    walk(records, |record, has_key| {
        if record.timestamp >= 0 {
            survey.min_timestamp = Some(survey.min_timestamp.map_or(record.timestamp, |min| min.min(record.timestamp)));
        }
        if !has_key && survey.keyless.len() < MAX_KEYLESS {
            survey.keyless.push(index);
        }
        index += 1;
        true
    })?;
    Ok(survey)
}

/// The first record at or behind an offset whose timestamp is at least this.
pub fn first_at_or_after(
    records: Records<'_>,
    from_offset: i64,
    timestamp: i64,
) -> Result<Option<RecordTime>, RecordsError> {
    let mut found = None;
    walk(records, |record, _| {
        let hit = record.offset >= from_offset && record.timestamp >= timestamp;
        if hit {
            found = Some(record);
        }
        !hit
    })?;
    Ok(found)
}

/// Of the records at or behind an offset, the first that has their highest timestamp. None if none has any.
pub fn max_timestamp(records: Records<'_>, from_offset: i64) -> Result<Option<RecordTime>, RecordsError> {
    let mut found: Option<RecordTime> = None;
    walk(records, |record, _| {
        let counts = record.offset >= from_offset && record.timestamp >= 0;
        if counts && found.is_none_or(|max| max.timestamp < record.timestamp) {
            found = Some(record);
        }
        true
    })?;
    Ok(found)
}

/// Calls `each` for the records in order, and whether they have a key, until it returns false.
fn walk(records: Records<'_>, each: impl FnMut(RecordTime, bool) -> bool) -> Result<(), RecordsError> {
    let input = compression::inflate(records.codec, records.bytes);
    scan(records, input.map_err(|error| decompress_error(&error))?, each)
}

/// Of reading what was compressed.
pub fn decompress_error(error: &io::Error) -> RecordsError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => RecordsError::TooLong,
        _ => RecordsError::Decompress(error.to_string()),
    }
}

fn scan(
    records: Records<'_>,
    input: impl Read,
    mut each: impl FnMut(RecordTime, bool) -> bool,
) -> Result<(), RecordsError> {
    let mut input = Counted { input, left: MAX_INFLATED_BYTES };
    for index in 0..records.count {
        let (record, has_key) = next_record(&mut input, &records).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RecordsError::Record { index },
            _ => decompress_error(&error),
        })?;
        if !each(record, has_key) {
            break;
        }
    }
    Ok(())
}

/// Reads one record's offset and timestamp and whether it has a key, and skips the rest. A malformed record is reported
/// as an unexpected end.
fn next_record(input: &mut Counted<impl Read>, records: &Records<'_>) -> io::Result<(RecordTime, bool)> {
    let malformed = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let length = u64::try_from(input.varint()?).map_err(|_| malformed())?;
    let start = input.left;
    input.byte()?;
    let timestamp_delta = input.varint()?;
    let offset_delta = input.varint()?;
    let key_bytes = input.varint()?;
    input.skip(u64::try_from(key_bytes).unwrap_or(0))?;
    let value_bytes = u64::try_from(input.varint()?).unwrap_or(0);
    let rest = length.checked_sub(start - input.left).filter(|rest| value_bytes <= *rest).ok_or_else(malformed)?;
    input.skip(rest)?;
    if !(0..=i64::from(records.last_offset_delta)).contains(&offset_delta) {
        return Err(malformed());
    }
    let time = RecordTime {
        offset: records.base_offset.checked_add(offset_delta).ok_or_else(malformed)?,
        timestamp: records.base_timestamp.checked_add(timestamp_delta).ok_or_else(malformed)?,
    };
    Ok((time, key_bytes >= 0))
}

/// Counts down what may still be read.
struct Counted<R> {
    input: R,
    left: u64,
}

impl<R: Read> Counted<R> {
    fn pay(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.pay(1)?;
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// A zigzag-encoded number of at most 64 bits.
    fn varint(&mut self) -> io::Result<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.pay(bytes)?;
        let skipped = io::copy(&mut (&mut self.input).take(bytes), &mut io::sink())?;
        if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
