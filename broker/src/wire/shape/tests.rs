//! Tests of the check that every request passes before it is decoded.

use super::*;
use crate::wire::shapes;

fn problem(shape: &'static RequestShape, version: i16, body: &[u8]) -> Option<Problem> {
    shape.check(version, body).err().map(|malformed| malformed.problem)
}

#[test]
fn hostile_counts_of_a_few_bytes_are_refused() {
    // Both aborted the process in the decoder.
    assert_eq!(problem(&shapes::METADATA, 0, &[0x7f, 0xff, 0xff, 0xff]), Some(Problem::Count(0x7fff_ffff)));
    let compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(problem(&shapes::METADATA, 9, &compact), Some(Problem::Count(0xffff_fffe)));
}

#[test]
fn null_is_refused_where_a_value_is_required() {
    let null = [0xff, 0xff, 0xff, 0xff];
    assert_eq!(problem(&shapes::METADATA, 0, &null), Some(Problem::Null));
    assert_eq!(problem(&shapes::METADATA, 1, &null), None);
    let nameless = [0, 0, 0, 1, 0xff, 0xff];
    assert_eq!(problem(&shapes::METADATA, 1, &nameless), Some(Problem::Null));
}

#[test]
fn negative_lengths_are_refused() {
    assert_eq!(problem(&shapes::METADATA, 1, &[0xff, 0xff, 0xff, 0xfe]), Some(Problem::Length(-2)));
}

#[test]
fn all_topics_as_librdkafka_asks_for_them_is_accepted() {
    assert_eq!(problem(&shapes::METADATA, 13, &[0, 1, 0, 0]), None);
    assert_eq!(problem(&shapes::METADATA, 13, &[0, 0, 0, 0, 1, 0, 0]), None);
    assert_eq!(problem(&shapes::METADATA, 13, &[0, 0, 0, 0, 1, 0, 0, 0]), Some(Problem::Trailing(4)));
}

#[test]
fn bytes_too_many_are_refused() {
    assert_eq!(problem(&shapes::API_VERSIONS, 0, &[]), None);
    assert_eq!(problem(&shapes::API_VERSIONS, 0, &[0, 0]), Some(Problem::Trailing(2)));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    assert_eq!(problem(&shapes::API_VERSIONS, 3, &[2, 0xc3, 1, 0]), Some(Problem::Utf8));
}

#[test]
fn varints_of_more_than_32_bits_are_refused() {
    for too_long in [&[0xff, 0xff, 0xff, 0xff, 0x10][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
        assert_eq!(problem(&shapes::API_VERSIONS, 3, too_long), Some(Problem::Varint));
    }
}

/// ApiVersions v3 with empty strings and these tagged fields.
fn with_tags(tags: &[u8]) -> Option<Problem> {
    problem(&shapes::API_VERSIONS, 3, &[&[1, 1], tags].concat())
}

#[test]
fn unknown_tagged_fields_are_skipped_in_order_only() {
    assert_eq!(with_tags(&[2, 5, 1, 0xaa, 6, 0]), None);
    assert_eq!(with_tags(&[2, 5, 1, 0xaa, 5, 0]), Some(Problem::TagOrder(5)));
    assert_eq!(with_tags(&[1, 5, 2, 0xaa]), Some(Problem::Truncated));
    assert_eq!(with_tags(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some(Problem::Truncated));
}

/// Fetch in a flexible version: no topics, nothing forgotten, no rack, and these tagged fields.
fn fetch_with_tags(version: i16, tags: &[u8]) -> Option<Problem> {
    let replica_id = if version <= 14 { 4 } else { 0 };
    let fixed = vec![0; replica_id + 4 + 4 + 4 + 1 + 4 + 4];
    problem(&shapes::FETCH, version, &[&fixed[..], &[1, 1, 1], tags].concat())
}

#[test]
fn known_tagged_fields_must_be_as_long_as_they_say() {
    assert_eq!(fetch_with_tags(12, &[1, 0, 3, 3, b'a', b'b']), None);
    assert_eq!(fetch_with_tags(12, &[1, 0, 4, 3, b'a', b'b', 0]), Some(Problem::TagSize(0)));
    let replica_state = [&[1, 1, 13][..], &[0; 12], &[0]].concat();
    assert_eq!(fetch_with_tags(15, &replica_state), None);
    assert_eq!(fetch_with_tags(14, &replica_state), Some(Problem::TagVersion(1)));
}

#[test]
fn what_would_grow_too_much_in_memory_is_refused() {
    // 100,000 topics with empty names, two bytes each.
    let body = |count: u32| {
        let mut body = count.to_be_bytes().to_vec();
        body.extend(std::iter::repeat_n(0, count as usize * 2));
        body
    };
    assert_eq!(problem(&shapes::METADATA, 0, &body(2_000)), None);
    assert_eq!(problem(&shapes::METADATA, 0, &body(100_000)), Some(Problem::Memory));
}

#[test]
fn errors_name_the_field_and_the_place() {
    let error = shapes::METADATA.check(1, &[0, 0, 0, 1, 0xff, 0xff]).unwrap_err();
    assert_eq!(error.to_string(), "topics.name, byte 6: null where a value is required");
}

#[test]
fn shapes_stand_in_the_order_of_their_keys() {
    assert!(shapes::ALL.is_sorted_by_key(|shape| shape.api_key));
}
