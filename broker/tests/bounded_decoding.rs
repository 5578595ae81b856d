//! Nothing that passes the check of a request's shape can hurt the decoder, whatever the bytes: for every API and
//! version, requests as clients send them pass; cut, mutated and hostile ones are refused or decode within bounds.
//!
//! This is a test program of its own, without the usual harness, because it counts what the decoder allocates: there
//! must be one thread only.

mod samples;

use std::alloc::System;

use broker::wire::shape::{DECODED_FACTOR, DECODED_FLOOR_BYTES, DECODED_MAX_BYTES, RequestShape};
use bytes::{BufMut, Bytes, BytesMut};
use meta::seams::Random;
use samples::{Sample, decode, samples};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Vectors may be given a little more than their elements need, and errors carry text and a backtrace.
const SLACK_BYTES: usize = 64 << 10;

/// What the check promises about a body of this size.
fn promised_bytes(body: usize) -> usize {
    DECODED_FLOOR_BYTES + (body * DECODED_FACTOR).min(DECODED_MAX_BYTES) + SLACK_BYTES
}

/// Checks a body and, if it passes, decodes it and holds the decoder to the promise. Returns whether it passed.
fn check_and_decode(shape: &'static RequestShape, version: i16, body: &Bytes) -> bool {
    let region = Region::new(ALLOCATOR);
    let checked = shape.check(version, body);
    let after_check = region.change().bytes_allocated;
    assert_eq!(after_check, 0, "{} v{version}: the check itself allocates", shape.name);
    if checked.is_err() {
        return false;
    }
    let decoded = decode(shape.api_key, version, body);
    let allocated = region.change().bytes_allocated;
    assert!(
        allocated <= promised_bytes(body.len()),
        "{} v{version}: {allocated} bytes allocated to decode {} ({decoded:?})",
        shape.name,
        body.len()
    );
    true
}

fn main() {
    let tests: [(&str, fn()); 8] = [
        ("what clients send passes and decodes", what_clients_send_passes_and_decodes),
        ("every version that the decoder knows has samples", every_version_that_the_decoder_knows_has_samples),
        ("what ends early or late is refused", what_ends_early_or_late_is_refused),
        ("mutated requests", mutated_requests_are_refused_or_decode_within_bounds),
        ("random bytes", random_bytes_are_refused_or_decode_within_bounds),
        ("hostile counts", hostile_counts_are_refused_or_decode_within_bounds),
        ("the densest requests", the_densest_requests_stay_within_bounds),
        ("a metadata request for many topics passes", a_metadata_request_for_many_topics_passes),
    ];
    // A failing one panics, which ends the process with an error.
    for (name, test) in tests {
        println!("{name} ...");
        test();
    }
    println!("all {} passed", tests.len());
}

fn what_clients_send_passes_and_decodes() {
    for Sample { shape, version, body } in samples() {
        let checked = shape.check(version, &body);
        assert_eq!(checked, Ok(()), "{} v{version} {body:?}", shape.name);
        decode(shape.api_key, version, &body).expect("what passes the check is laid out as the decoder wants it");
        assert!(check_and_decode(shape, version, &body));
    }
}

fn every_version_that_the_decoder_knows_has_samples() {
    let samples = samples();
    for shape in broker::wire::shapes::ALL {
        let versions: std::collections::BTreeSet<i16> = samples
            .iter()
            .filter(|sample| sample.shape.api_key == shape.api_key)
            .map(|sample| sample.version)
            .collect();
        let range = samples::versions(shape.api_key);
        assert_eq!(
            versions.into_iter().collect::<Vec<_>>(),
            (range.min..=range.max).collect::<Vec<_>>(),
            "{}",
            shape.name
        );
    }
}

fn what_ends_early_or_late_is_refused() {
    for Sample { shape, version, body } in samples() {
        for length in 0..body.len() {
            let cut = body.slice(..length);
            assert!(!check_and_decode(shape, version, &cut), "{} v{version} cut to {length}", shape.name);
        }
        let mut longer = BytesMut::from(&body[..]);
        longer.put_bytes(0, shape.ignored_bytes() + 1);
        assert!(!check_and_decode(shape, version, &longer.freeze()), "{} v{version} with a byte more", shape.name);
    }
}

fn mutated_requests_are_refused_or_decode_within_bounds() {
    const ROUNDS_PER_SAMPLE: usize = 400;
    let random = Random::from_seed(0x5eed);
    let mut passed = 0;
    for Sample { shape, version, body } in samples() {
        for _ in 0..ROUNDS_PER_SAMPLE {
            passed += usize::from(check_and_decode(shape, version, &mutated(&body, &random)));
        }
    }
    assert!(passed > 1000, "only {passed} mutated requests passed: the mutations do not test the decoder");
}

/// Changes, inserts and removes some bytes, with a liking for the values that lengths break at.
fn mutated(body: &Bytes, random: &Random) -> Bytes {
    const LIKED: [u8; 9] = [0, 1, 2, 0x0f, 0x10, 0x7f, 0x80, 0xfe, 0xff];
    let mut bytes = body.to_vec();
    for _ in 0..=random.next_u64() % 3 {
        let dice = random.next_u64();
        let value = if dice & 1 == 0 { LIKED[(dice >> 8) as usize % LIKED.len()] } else { (dice >> 8) as u8 };
        let at = (dice >> 16) as usize % (bytes.len() + 1);
        match (dice >> 48) % 4 {
            0 => bytes.insert(at, value),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&((dice >> 8) as u32).to_be_bytes()),
            _ if at < bytes.len() => bytes[at] = value,
            _ => {}
        }
    }
    bytes.into()
}

fn random_bytes_are_refused_or_decode_within_bounds() {
    let random = Random::from_seed(7);
    for shape in broker::wire::shapes::ALL {
        let range = samples::versions(shape.api_key);
        for version in range.min..=range.max {
            for _ in 0..300 {
                let length = random.next_u64() as usize % 64;
                // Mostly zeros, so that some counts and lengths are small enough to lead deeper.
                let byte = |dice: u64| if dice.is_multiple_of(3) { (dice >> 8) as u8 } else { (dice >> 8) as u8 & 3 };
                let bytes: Vec<u8> = (0..length).map(|_| byte(random.next_u64())).collect();
                check_and_decode(shape, version, &bytes.into());
            }
        }
    }
}

/// Every position of every sample gets counts and lengths that claim as much as they can.
fn hostile_counts_are_refused_or_decode_within_bounds() {
    const CLAIMS: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x00, 0xff, 0xff, 0xff],
        &[0x00, 0x00, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for Sample { shape, version, body } in samples() {
        for at in 0..body.len() {
            for claim in CLAIMS {
                for keep in [true, false] {
                    let mut bytes = BytesMut::from(&body[..at]);
                    bytes.extend_from_slice(claim);
                    let rest = if keep { at } else { body.len().min(at + claim.len()) };
                    bytes.extend_from_slice(&body[rest..]);
                    check_and_decode(shape, version, &bytes.freeze());
                }
            }
        }
    }
}

/// The worst that fits into a frame: as many of the smallest elements as there is room for, and as many tagged fields.
fn the_densest_requests_stay_within_bounds() {
    const FRAME_BYTES: usize = 8 << 20;
    let varint = |out: &mut BytesMut, mut value: u32| {
        while value >= 0x80 {
            out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        out.put_u8(value as u8);
    };
    let metadata = &broker::wire::shapes::METADATA;
    let delete = &broker::wire::shapes::DELETE_TOPICS;
    let versions = &broker::wire::shapes::API_VERSIONS;
    for frame_bytes in [1 << 10, 64 << 10, FRAME_BYTES] {
        // Topics of two bytes: an empty name and no tagged fields.
        let mut topics = BytesMut::new();
        varint(&mut topics, (frame_bytes / 2) as u32 + 1);
        topics.extend(std::iter::repeat_n([1u8, 0], frame_bytes / 2).flatten());
        topics.extend_from_slice(&[1, 1, 1, 0]);
        let passed = check_and_decode(metadata, 9, &topics.freeze());
        assert_eq!(passed, frame_bytes == 1 << 10, "topics in {frame_bytes} bytes");

        // Names of one byte: empty ones.
        let mut names = BytesMut::new();
        varint(&mut names, frame_bytes as u32 + 1);
        names.extend(std::iter::repeat_n(1u8, frame_bytes));
        names.extend_from_slice(&[0, 0, 0, 1, 0]);
        check_and_decode(delete, 4, &names.freeze());

        // Tagged fields that nobody knows, of two to six bytes.
        let mut tagged = BytesMut::from(&[2u8, b'a', 2, b'b'][..]);
        let count = frame_bytes / 6;
        varint(&mut tagged, count as u32);
        for tag in 0..count {
            varint(&mut tagged, tag as u32);
            tagged.put_u8(0);
        }
        check_and_decode(versions, 3, &tagged.freeze());
    }
}

fn a_metadata_request_for_many_topics_passes() {
    let body = samples::many_topics(100_000);
    assert!(check_and_decode(&broker::wire::shapes::METADATA, 12, &body));
}
