//! What is compressed here is what others read, within its bound, at every level.

use proptest::prelude::*;

use super::testing::all_codecs;
use super::*;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn compress(codec: Codec, levels: Levels, raw: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
    let mut compressor = Compressor::new(codec, levels, b"head".to_vec(), max, None)?;
    for part in raw.chunks(10_000) {
        compressor.write(part)?;
    }
    compressor.finish()
}

fn inflated(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    inflate(codec, bytes).unwrap().read_to_end(&mut out).unwrap();
    out
}

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| b"the quick brown fox "[(n * n / 7) % 20]).collect()
}

#[test]
fn what_comes_out_is_what_went_in_behind_its_prefix() {
    for length in [0, 1, 17, 32 << 10, (32 << 10) + 1, 300_000] {
        let raw = text(length);
        for codec in CODECS {
            let bytes = compress(codec, Levels::default(), &raw, 1 << 20).unwrap();
            assert_eq!(&bytes[..4], b"head");
            assert_eq!(inflated(codec, &bytes[4..]), raw, "{codec:?} of {length}");
            assert_eq!(bytes.capacity(), bytes.len(), "{codec:?}");
            assert_eq!(bytes, compress(codec, Levels::default(), &raw, 1 << 20).unwrap(), "{codec:?} is deterministic");
            assert!(length < 30_000 || codec == Codec::None || bytes.len() < length / 2, "{codec:?}: {}", bytes.len());
        }
    }
}

/// The framing to the byte where clients insist on one.
#[test]
fn the_framing_is_what_clients_read() {
    let raw = text(100_000);
    let of = |codec| compress(codec, Levels::default(), &raw, 1 << 20).unwrap().split_off(4);
    assert_eq!(of(Codec::Gzip)[..4], [0x1f, 0x8b, 8, 0]);
    let snappy = of(Codec::Snappy);
    assert_eq!(snappy[..16], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let first = u32::from_be_bytes(snappy[16..20].try_into().unwrap()) as usize;
    assert_eq!(snap::raw::Decoder::new().decompress_vec(&snappy[20..20 + first]).unwrap(), raw[..32 << 10]);
    let lz4 = of(Codec::Lz4);
    assert_eq!(lz4[..4], [0x04, 0x22, 0x4d, 0x18]);
    // Version 1, independent blocks, no checksums and no sizes; blocks of 64 KiB.
    assert_eq!((lz4[4], lz4[5]), (0b0110_0000, 0b0100_0000));
    assert_eq!(of(Codec::Zstd)[..4], [0x28, 0xb5, 0x2f, 0xfd]);
}

#[test]
fn levels_count() {
    let raw = text(200_000);
    let size = |codec, levels| {
        let bytes = compress(codec, levels, &raw, 1 << 20).unwrap();
        assert_eq!(inflated(codec, &bytes[4..]), raw);
        bytes.len()
    };
    let default = Levels::default();
    assert!(size(Codec::Gzip, Levels { gzip: 9, ..default }) < size(Codec::Gzip, Levels { gzip: 1, ..default }));
    assert!(size(Codec::Zstd, Levels { zstd: 22, ..default }) < size(Codec::Zstd, Levels { zstd: -100, ..default }));
    assert!(size(Codec::Zstd, Levels { zstd: -131_072, ..default }) > 0);
}

/// Whatever level a topic asks for, every client and this broker can read it.
#[test]
fn windows_stay_small_at_every_level() {
    let raw: Vec<u8> = (0..5 << 20_u32).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 28) as u8).collect();
    for (level, length) in [(22, None), (22, Some(raw.len() as u64)), (1, None)] {
        let levels = Levels { zstd: level, ..Levels::default() };
        let mut compressor = Compressor::new(Codec::Zstd, levels, Vec::new(), 8 << 20, length).unwrap();
        compressor.write(&raw).unwrap();
        let bytes = compressor.finish().unwrap();
        let mut decoder = zstd::Decoder::with_buffer(&bytes[..]).unwrap();
        decoder.window_log_max(ZSTD_WINDOW_LOG).unwrap();
        let mut out = Vec::new();
        decoder.read_to_end(&mut out).unwrap();
        assert!(out == raw, "level {level}");
    }
}

#[test]
fn the_output_is_bounded() {
    let raw: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for codec in CODECS {
        let size = compress(codec, Levels::default(), &raw, 1 << 20).unwrap().len();
        assert!(compress(codec, Levels::default(), &raw, size).is_ok(), "{codec:?}");
        for max in [10, size / 2, size - 1] {
            let refused = compress(codec, Levels::default(), &raw, max);
            assert_eq!(refused, Err(CompressError::TooLarge { max }), "{codec:?}");
        }
    }
}

#[test]
fn names_and_numbers_are_kafkas() {
    let names = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
    for (codec, name) in CODECS.into_iter().zip(names) {
        assert_eq!((Codec::from_name(name), Codec::from_id(codec.id())), (Some(codec), Some(codec)));
    }
    assert_eq!((Codec::from_name("producer"), Codec::from_id(5)), (None, None));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(
        which in 0_usize..6,
        cut in 0_usize..100,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..5),
    ) {
        let (_, codec, mut bytes) = all_codecs(&text(5_000)).swap_remove(which);
        bytes.truncate(bytes.len().saturating_sub(cut));
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if let Ok(reader) = inflate(codec, &bytes) {
            let _ = reader.take(1 << 20).read_to_end(&mut Vec::new());
        }
    }
}
