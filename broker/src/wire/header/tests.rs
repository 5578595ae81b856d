//! Tests of request and response headers.

use bytes::BytesMut;

use super::*;

const PRODUCE_8: &[u8] = &[0, 0, 0, 8, 0, 0, 0, 42, 0, 2, b'm', b'e', 0xaa];

#[test]
fn version_1_ends_after_the_client_id() {
    let (header, body_at) = decode(PRODUCE_8).unwrap().unwrap();
    let client_id = Some("me".to_owned());
    assert_eq!(header, RequestHeader { api_key: 0, api_version: 8, correlation_id: 42, client_id });
    assert_eq!(body_at, 12);
}

#[test]
fn version_2_has_tagged_fields_and_may_have_no_client_id() {
    let frame = [0, 0, 0, 9, 0, 0, 0, 42, 0xff, 0xff, 1, 7, 2, 1, 2, 0xaa];
    let (header, body_at) = decode(&frame).unwrap().unwrap();
    assert_eq!((header.client_id, body_at), (None, 15));
}

#[test]
fn unknown_apis_are_told_apart_from_malformed_headers() {
    assert_eq!(decode(&[0x7f, 0, 0, 0, 0, 0, 0, 0]), Ok(None));
}

#[test]
fn headers_that_end_early_are_refused_at_every_byte() {
    for length in 0..12 {
        assert!(decode(&PRODUCE_8[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn too_many_tagged_fields_are_refused() {
    let mut frame = vec![0, 0, 0, 9, 0, 0, 0, 42, 0xff, 0xff, 65];
    frame.extend([1, 0].repeat(65));
    assert_eq!(decode(&frame).unwrap_err().problem, Problem::Count(65));
}

#[test]
fn responses_carry_their_length_and_only_flexible_ones_tags() {
    let mut out = BytesMut::new();
    assert!(put_response(&mut out, 7, false, 3));
    assert!(put_response(&mut out, 8, true, 3));
    assert_eq!(&out[..], [0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 8, 0]);
    assert!(!put_response(&mut out, 9, false, i32::MAX as usize));
}

#[test]
fn api_versions_is_always_answered_with_the_oldest_header() {
    assert!(!response_is_flexible(18, 4));
    assert!(!response_is_flexible(0, 8));
    assert!(response_is_flexible(0, 9));
}
