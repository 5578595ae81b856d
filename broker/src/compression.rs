//! The codecs of record batches, in the framing that Kafka's clients read: gzip, snappy as Java's streams frame it, lz4
//! and zstd frames.
//!
//! Invariants: inflating is total on hostile input (an error, never a panic) and streams, so that its memory is bounded by
//! what a codec needs for its window, and that nobody has to trust a length that is claimed; compressing stops at a bound
//! on its output. The same bytes are always compressed to the same bytes.

use std::io::{self, Read, Write};

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

/// How far a batch is inflated at most.
pub const MAX_INFLATED_BYTES: u64 = 64 << 20;

/// zstd frames that need a larger window (2 to this power) are refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// Of what is compressed here: higher levels look harder, not farther, and need no more than some 40 MiB for it.
const ZSTD_WINDOW_LOG: u32 = 21;
/// Up to this level zstd's window is no larger by itself.
const ZSTD_LEVEL_WITHIN_WINDOW: i32 = 3;

/// Snappy cannot compress better than this; a block that claims more is broken.
const SNAPPY_MAX_RATIO: usize = 32;
/// What Java's snappy streams begin with: magic, version and compatible version. Blocks with lengths follow.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Java's blocks are as large.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// As in a batch's attributes.
    pub fn id(self) -> i16 {
        self as i16
    }

    /// None for a codec that does not exist.
    pub fn from_id(id: i16) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd].into_iter().find(|codec| codec.id() == id)
    }

    /// As `compression.type` has it. None for `producer`, and for what does not exist.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "snappy" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// How hard is tried. Snappy and lz4 know one effort only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 9; -1 is the library's own choice, 6.
    pub gzip: i32,
    pub zstd: i32,
}

impl Default for Levels {
    fn default() -> Self {
        Self { gzip: -1, zstd: 3 }
    }
}

/// How a topic wants its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compression {
    /// None: as the producer has it.
    pub codec: Option<Codec>,
    pub levels: Levels,
}

/// The uncompressed bytes, as a stream.
pub fn inflate(codec: Codec, bytes: &[u8]) -> io::Result<Box<dyn Read + Send + '_>> {
    Ok(match codec {
        Codec::None => Box::new(bytes),
        Codec::Gzip => Box::new(io::BufReader::new(flate2::bufread::MultiGzDecoder::new(bytes))),
        Codec::Snappy if bytes.starts_with(XERIAL_MAGIC) => {
            let blocks = bytes.get(XERIAL_HEADER.len()..).unwrap_or_default();
            Box::new(XerialReader { blocks, block: Vec::new(), read: 0 })
        }
        Codec::Snappy => {
            let mut inflated = Vec::new();
            inflate_snappy(bytes, &mut inflated)?;
            Box::new(io::Cursor::new(inflated))
        }
        Codec::Lz4 => Box::new(io::BufReader::new(lz4_flex::frame::FrameDecoder::new(bytes))),
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(bytes)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(io::BufReader::new(decoder))
        }
    })
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

/// Why bytes could not be compressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    #[error("compressed they are more than {max} bytes")]
    TooLarge { max: usize },
    #[error("compression failed: {0}")]
    Failed(String),
}

/// Compresses what is written to it behind bytes that stay as they are.
pub struct Compressor {
    encoder: Encoder,
    max: usize,
}

enum Encoder {
    None(Bounded),
    Gzip(flate2::write::GzEncoder<Bounded>),
    Snappy(XerialWriter),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Bounded>>),
    Zstd(zstd::Encoder<'static, Bounded>),
}

impl Compressor {
    /// The output is `prefix` and what was compressed, at most `max` bytes together. `length` is what will be written, if
    /// that is known: it saves memory.
    pub fn new(
        codec: Codec,
        levels: Levels,
        prefix: Vec<u8>,
        max: usize,
        length: Option<u64>,
    ) -> Result<Self, CompressError> {
        let out = Bounded { bytes: prefix, max };
        let encoder = match codec {
            Codec::None => Encoder::None(out),
            Codec::Gzip => {
                let level = u32::try_from(levels.gzip).map_or(flate2::Compression::default(), flate2::Compression::new);
                Encoder::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Codec::Snappy => {
                let mut writer = XerialWriter { out, block: Vec::new() };
                writer.out.write_all(XERIAL_HEADER).map_err(|error| failed(&error, max))?;
                Encoder::Snappy(writer)
            }
            Codec::Lz4 => {
                // Small blocks that do not depend on each other: Java's clients read no others.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                Encoder::Lz4(Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(info, out)))
            }
            Codec::Zstd => Encoder::Zstd(zstd_encoder(levels.zstd, out, length).map_err(|error| failed(&error, max))?),
        };
        Ok(Self { encoder, max })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CompressError> {
        let written = match &mut self.encoder {
            Encoder::None(out) => out.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Snappy(encoder) => encoder.write_all(bytes),
            Encoder::Lz4(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        };
        written.map_err(|error| failed(&error, self.max))
    }

    /// The whole output, without spare room.
    pub fn finish(self) -> Result<Vec<u8>, CompressError> {
        let finished = match self.encoder {
            Encoder::None(out) => Ok(out),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Snappy(encoder) => encoder.finish(),
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Encoder::Zstd(encoder) => encoder.finish(),
        };
        let mut bytes = finished.map_err(|error| failed(&error, self.max))?.bytes;
        bytes.shrink_to_fit();
        Ok(bytes)
    }
}

fn zstd_encoder(level: i32, out: Bounded, length: Option<u64>) -> io::Result<zstd::Encoder<'static, Bounded>> {
    let mut encoder = zstd::Encoder::new(out, level)?;
    if level > ZSTD_LEVEL_WITHIN_WINDOW && length.is_none_or(|length| length > 1 << ZSTD_WINDOW_LOG) {
        encoder.window_log(ZSTD_WINDOW_LOG)?;
    }
    encoder.set_pledged_src_size(length)?;
    Ok(encoder)
}

fn failed(error: &io::Error, max: usize) -> CompressError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => CompressError::TooLarge { max },
        _ => CompressError::Failed(error.to_string()),
    }
}

/// Grows up to a bound.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max.saturating_sub(self.bytes.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gathers blocks and compresses each by itself.
struct XerialWriter {
    out: Bounded,
    block: Vec<u8>,
}

impl XerialWriter {
    fn put_block(&mut self) -> io::Result<()> {
        let block = snap::raw::Encoder::new().compress_vec(&self.block).map_err(io::Error::other)?;
        self.out.write_all(&(block.len() as u32).to_be_bytes())?;
        self.out.write_all(&block)?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Bounded> {
        if !self.block.is_empty() {
            self.put_block()?;
        }
        Ok(self.out)
    }
}

impl Write for XerialWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(XERIAL_BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == XERIAL_BLOCK_BYTES {
            self.put_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
