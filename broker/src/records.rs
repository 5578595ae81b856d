//! Looks inside one record batch, for times and keys only: at which offset is the first record with a timestamp, which
//! one has the highest, is there one without a key.
//!
//! Invariants: total on hostile input (an error, never a panic); records are streamed, never held: memory is bounded by
//! what a codec needs for its window, work by `MAX_INFLATED_BYTES`.

use std::io::{self, Read};

/// How far a batch is inflated at most.
pub const MAX_INFLATED_BYTES: u64 = 64 << 20;

/// zstd frames that need a larger window (2 to this power) are refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Snappy cannot compress better than this; a block that claims more is broken.
const SNAPPY_MAX_RATIO: usize = 32;

/// What Java's snappy streams begin with: magic, version and compatible version. Blocks with lengths follow.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// The records of one batch: their bytes, and the header fields that these are relative to.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    pub codec: Codec,
    pub base_offset: i64,
    pub base_timestamp: i64,
    pub count: i32,
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

/// The first record whose timestamp is at least this.
pub fn first_at_or_after(records: Records<'_>, timestamp: i64) -> Result<Option<RecordTime>, RecordsError> {
    let mut found = None;
    walk(records, |record, _| {
        let hit = record.timestamp >= timestamp;
        if hit {
            found = Some(record);
        }
        !hit
    })?;
    Ok(found)
}

/// The first of the records that have the highest timestamp. None if none has any.
pub fn max_timestamp(records: Records<'_>) -> Result<Option<RecordTime>, RecordsError> {
    let mut found: Option<RecordTime> = None;
    walk(records, |record, _| {
        if record.timestamp >= 0 && found.is_none_or(|max| max.timestamp < record.timestamp) {
            found = Some(record);
        }
        true
    })?;
    Ok(found)
}

/// Calls `each` for the records in order, and whether they have a key, until it returns false.
fn walk(records: Records<'_>, each: impl FnMut(RecordTime, bool) -> bool) -> Result<(), RecordsError> {
    let bytes = records.bytes;
    let failed = |error: io::Error| RecordsError::Decompress(error.to_string());
    match records.codec {
        Codec::None => scan(records, bytes, each),
        Codec::Gzip => scan(records, io::BufReader::new(flate2::bufread::MultiGzDecoder::new(bytes)), each),
        Codec::Snappy if bytes.starts_with(XERIAL_MAGIC) => {
            let blocks = bytes.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
            scan(records, XerialReader { blocks, block: Vec::new(), read: 0 }, each)
        }
        Codec::Snappy => {
            let mut inflated = Vec::new();
            inflate_snappy(bytes, &mut inflated).map_err(failed)?;
            scan(records, &inflated[..], each)
        }
        Codec::Lz4 => scan(records, io::BufReader::new(lz4_flex::frame::FrameDecoder::new(bytes)), each),
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            scan(records, io::BufReader::new(decoder), each)
        }
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
            io::ErrorKind::FileTooLarge => RecordsError::TooLong,
            io::ErrorKind::UnexpectedEof => RecordsError::Record { index },
            _ => RecordsError::Decompress(error.to_string()),
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
    let has_key = input.varint()? >= 0;
    let rest = length.checked_sub(start - input.left).ok_or_else(malformed)?;
    input.skip(rest)?;
    if !(0..i64::from(records.count)).contains(&offset_delta) {
        return Err(malformed());
    }
    let time = RecordTime {
        offset: records.base_offset.checked_add(offset_delta).ok_or_else(malformed)?,
        timestamp: records.base_timestamp.checked_add(timestamp_delta).ok_or_else(malformed)?,
    };
    Ok((time, has_key))
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

/// Inflates block by block, so that no more than one is in memory.
struct XerialReader<'a> {
    blocks: &'a [u8],
    block: Vec<u8>,
    read: usize,
}

impl Read for XerialReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() {
            let Some((length, rest)) = self.blocks.split_first_chunk::<4>() else { return Ok(0) };
            let length = u32::from_be_bytes(*length) as usize;
            let (block, rest) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
            inflate_snappy(block, &mut self.block)?;
            self.blocks = rest;
            self.read = 0;
        }
        let bytes = out.len().min(self.block.len() - self.read);
        out[..bytes].copy_from_slice(&self.block[self.read..self.read + bytes]);
        self.read += bytes;
        Ok(bytes)
    }
}

fn inflate_snappy(compressed: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(compressed).map_err(io::Error::other)?;
    if length as u64 > MAX_INFLATED_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    if length > compressed.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(io::Error::other("a snappy block claims an impossible length"));
    }
    out.resize(length, 0);
    let inflated = snap::raw::Decoder::new().decompress(compressed, out).map_err(io::Error::other)?;
    out.truncate(inflated);
    Ok(())
}

#[cfg(test)]
mod tests;
