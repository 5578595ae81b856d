//! Bytes as clients compress them, for tests: with encoders of their own, so that what is compressed here is not judged
//! by itself.

use std::io::Write;

use super::Codec;

pub fn gzip(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

pub fn snappy(raw: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(raw).unwrap()
}

pub fn xerial(raw: &[u8], block_bytes: usize) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in raw.chunks(block_bytes) {
        let block = snappy(block);
        out.extend((block.len() as u32).to_be_bytes());
        out.extend(block);
    }
    out
}

pub fn lz4(raw: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

/// All that clients send.
pub fn all_codecs(raw: &[u8]) -> Vec<(&'static str, Codec, Vec<u8>)> {
    vec![
        ("none", Codec::None, raw.to_vec()),
        ("gzip", Codec::Gzip, gzip(raw)),
        ("raw snappy", Codec::Snappy, snappy(raw)),
        ("framed snappy", Codec::Snappy, xerial(raw, 17)),
        ("lz4", Codec::Lz4, lz4(raw)),
        ("zstd", Codec::Zstd, zstd::encode_all(raw, 3).unwrap()),
    ]
}
