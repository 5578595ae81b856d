//! The same records with another codec, for topics whose `compression.type` is not the producer's.
//!
//! Invariants: the records' bytes stay as they are, and of the header all but codec, length and checksum; the records are
//! exactly as many as the header says; work and memory are bounded before anything is inflated; work can be done in
//! steps, so that a large batch does not keep others waiting.

use std::io::Read;

use super::seal::{BODY_HEADER_BYTES, seal};
use super::{BatchError, CODEC_MASK, HEAD_BYTES, HEADER_BYTES, LOG_APPEND_TIME, ValidBatch};
use crate::compression::{Codec, Compressor, Levels, MAX_INFLATED_BYTES, inflate};
use crate::records::{RecordsError, decompress_error};

#[cfg(test)]
mod tests;

/// Uncompressed bytes of one step.
const STEP_BYTES: usize = 64 << 10;

/// A batch that is being compressed anew.
pub struct Recompression<'a> {
    batch: &'a ValidBatch,
    codec: Codec,
    input: Box<dyn Read + Send + 'a>,
    framing: Framing,
    output: Compressor,
    chunk: Vec<u8>,
    inflated_bytes: u64,
}

/// A batch that was compressed anew.
#[derive(Debug, Clone)]
pub struct Recompressed {
    pub batch: ValidBatch,
    /// The length of its records, uncompressed.
    pub inflated_bytes: u64,
}

impl<'a> Recompression<'a> {
    /// Up to so many uncompressed bytes a batch is small: done at once.
    pub const SMALL_BYTES: usize = 128 << 10;
    /// What a small batch can take compressed, whatever is in it.
    pub const SMALL_OUTPUT_BYTES: usize = HEADER_BYTES + Self::SMALL_BYTES + Self::SMALL_BYTES / 4;

    /// The new batch, if this one is small, in at most `max_bytes`.
    pub fn small(
        batch: &'a ValidBatch,
        codec: Codec,
        levels: Levels,
        max_bytes: usize,
        append_time_ms: Option<i64>,
    ) -> Result<Option<Recompressed>, BatchError> {
        let mut raw = Vec::new();
        let input = open(batch)?.take(Self::SMALL_BYTES as u64 + 1).read_to_end(&mut raw);
        input.map_err(|error| decompress_error(&error))?;
        if raw.len() > Self::SMALL_BYTES {
            return Ok(None);
        }
        let length = raw.len() as u64;
        let input = Box::new(std::io::Cursor::new(raw));
        let mut recompression = Self::of(batch, input, Some(length), codec, levels, max_bytes)?;
        while !recompression.step()? {}
        recompression.finish(append_time_ms).map(Some)
    }

    /// For a batch of any size, to be worked on step by step.
    pub fn begin(batch: &'a ValidBatch, codec: Codec, levels: Levels, max_bytes: usize) -> Result<Self, BatchError> {
        let length = (batch.header.codec() == Some(Codec::None)).then(|| records_of(batch).len() as u64);
        Self::of(batch, open(batch)?, length, codec, levels, max_bytes)
    }

    fn of(
        batch: &'a ValidBatch,
        input: Box<dyn Read + Send + 'a>,
        length: Option<u64>,
        codec: Codec,
        levels: Levels,
        max_bytes: usize,
    ) -> Result<Self, BatchError> {
        let output =
            Compressor::new(codec, levels, vec![0; BODY_HEADER_BYTES], max_bytes.saturating_sub(HEAD_BYTES), length)?;
        let framing = Framing { left: batch.header.record_count, ..Framing::default() };
        Ok(Self { batch, codec, input, framing, output, chunk: vec![0; STEP_BYTES], inflated_bytes: 0 })
    }

    /// Goes on a little. True when all is done.
    pub fn step(&mut self) -> Result<bool, BatchError> {
        let mut filled = 0;
        while filled < self.chunk.len() {
            match self.input.read(&mut self.chunk[filled..]).map_err(|error| decompress_error(&error))? {
                0 => break,
                read => filled += read,
            }
        }
        let bytes = &self.chunk[..filled];
        self.inflated_bytes += filled as u64;
        if self.inflated_bytes > MAX_INFLATED_BYTES {
            return Err(RecordsError::TooLong.into());
        }
        self.framing.take(bytes)?;
        self.output.write(bytes)?;
        Ok(filled < self.chunk.len())
    }

    /// The batch. With a time, that is the time of its append, which its records have from now on.
    pub fn finish(self, append_time_ms: Option<i64>) -> Result<Recompressed, BatchError> {
        if !self.framing.is_complete() {
            return Err(BatchError::Invalid("there are fewer records than the batch says"));
        }
        let body = self.output.finish()?;
        let mut header = self.batch.header;
        let mut max_timestamp = self.batch.max_timestamp;
        header.attributes = header.attributes & !CODEC_MASK | self.codec.id();
        if let Some(now_ms) = append_time_ms {
            header.attributes |= LOG_APPEND_TIME;
            header.max_timestamp = now_ms;
            max_timestamp = now_ms;
        }
        let (header, head, body) = seal(header, body);
        let batch = ValidBatch { header, max_timestamp, head, body };
        Ok(Recompressed { batch, inflated_bytes: self.inflated_bytes })
    }
}

fn records_of(batch: &ValidBatch) -> &[u8] {
    &batch.body[BODY_HEADER_BYTES..]
}

fn open(batch: &ValidBatch) -> Result<Box<dyn Read + Send + '_>, BatchError> {
    let codec = batch.header.codec().ok_or(BatchError::Codec { codec: batch.header.attributes & CODEC_MASK })?;
    Ok(inflate(codec, records_of(batch)).map_err(|error| decompress_error(&error))?)
}

/// Follows the lengths of records through a stream that comes in pieces.
#[derive(Debug, Default)]
struct Framing {
    /// Records that have not begun.
    left: i32,
    /// Bytes of the record at hand that have not come.
    body: u64,
    /// What is known of the next record's length.
    length: u64,
    shift: u32,
}

impl Framing {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), BatchError> {
        loop {
            let skipped = bytes.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
            bytes = &bytes[skipped..];
            self.body -= skipped as u64;
            let Some((byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            if self.left == 0 {
                return Err(BatchError::Invalid("there is something behind the last record"));
            }
            self.length |= u64::from(byte & 0x7f) << self.shift;
            self.shift += 7;
            if byte & 0x80 != 0 && self.shift < 63 {
                continue;
            }
            // Zigzag: odd numbers are negative.
            if byte & 0x80 != 0 || self.length & 1 == 1 || self.length == 0 {
                return Err(BatchError::Invalid("a record has an impossible length"));
            }
            self.body = self.length >> 1;
            (self.length, self.shift) = (0, 0);
            self.left -= 1;
        }
    }

    fn is_complete(&self) -> bool {
        self.left == 0 && self.body == 0 && self.shift == 0
    }
}
