//! Records against bytes put together by hand from the formats' definitions, and against hostile bytes.

use proptest::prelude::*;

use crate::batch::{self as batches, BatchHeader, Codec};

use super::*;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn blob(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes()[..], bytes].concat()
}

/// As in flexible versions; short enough for one byte of length.
fn compact(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8 + 1][..], bytes].concat()
}

fn i16s(number: i16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn i32s(number: i32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn i64s(number: i64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn committed() -> Committed {
    Committed {
        offset: 0x0102_0304_0506,
        leader_epoch: 9,
        metadata: "meta".to_owned(),
        commit_timestamp_ms: 1_700_000_000_123,
        expire_timestamp_ms: None,
    }
}

fn group() -> GroupMetadata {
    GroupMetadata {
        protocol_type: "consumer".to_owned(),
        generation: 5,
        protocol: Some("range".to_owned()),
        leader: Some("m1".to_owned()),
        state_timestamp_ms: Some(77),
        members: vec![member("m1", None), member("m2", Some("rack"))],
    }
}

fn member(member_id: &str, instance_id: Option<&str>) -> MemberMetadata {
    MemberMetadata {
        member_id: member_id.to_owned(),
        instance_id: instance_id.map(str::to_owned),
        client_id: "app".to_owned(),
        client_host: "/10.0.0.1".to_owned(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 10_000,
        subscription: Bytes::from_static(b"sub"),
        assignment: Bytes::from_static(b"assigned"),
    }
}

fn offset_key(version: i16) -> Vec<u8> {
    [i16s(version), text("g"), text("topic"), i32s(3)].concat()
}

fn group_key() -> Vec<u8> {
    [i16s(2), text("g")].concat()
}

/// An offset's value, field by field, in each version.
fn offset_bytes(version: i16) -> Vec<u8> {
    let mut out = [i16s(version), i64s(committed().offset)].concat();
    if version >= 3 {
        out.extend(i32s(9));
    }
    out.extend(if version >= 4 { compact(b"meta") } else { text("meta") });
    out.extend(i64s(1_700_000_000_123));
    if version == 1 {
        out.extend(i64s(1_700_000_099_999));
    }
    if version >= 4 {
        // One tagged field: tag 0, 16 bytes, a topic's id.
        out.extend([1, 0, 16]);
        out.extend([0xab; 16]);
    }
    out
}

fn group_bytes(version: i16) -> Vec<u8> {
    let flexible = version >= 4;
    let text = |value: &str| if flexible { compact(value.as_bytes()) } else { text(value) };
    let blob = |value: &[u8]| if flexible { compact(value) } else { blob(value) };
    let mut out = [i16s(version), text("consumer"), i32s(5), text("range"), text("m1")].concat();
    if version >= 2 {
        out.extend(i64s(77));
    }
    out.extend(if flexible { vec![3] } else { i32s(2) });
    for (member_id, instance_id) in [("m1", None), ("m2", Some("rack"))] {
        out.extend(text(member_id));
        match instance_id {
            _ if version < 3 => {}
            Some(instance_id) => out.extend(text(instance_id)),
            None => out.extend(if flexible { vec![0] } else { i16s(-1) }),
        }
        out.extend([text("app"), text("/10.0.0.1")].concat());
        if version >= 1 {
            out.extend(i32s(300_000));
        }
        out.extend([i32s(10_000), blob(b"sub"), blob(b"assigned")].concat());
        if flexible {
            out.push(0);
        }
    }
    if flexible {
        out.push(0);
    }
    out
}

#[test]
fn offsets_are_written_as_kafka_does() {
    let record = offset_record("g", "topic", 3, Some(&committed())).unwrap();
    assert_eq!(record.key, offset_key(1));
    assert_eq!(record.value.unwrap(), offset_bytes(3));
    let expiring = Committed { leader_epoch: -1, expire_timestamp_ms: Some(1_700_000_099_999), ..committed() };
    assert_eq!(offset_record("g", "topic", 3, Some(&expiring)).unwrap().value.unwrap(), offset_bytes(1));
    assert_eq!(offset_record("g", "topic", 3, None).unwrap(), KeyValue { key: offset_key(1).into(), value: None });
}

#[test]
fn groups_are_written_as_kafka_does() {
    let record = group_record("g", Some(&group())).unwrap();
    assert_eq!(record.key, group_key());
    assert_eq!(record.value.unwrap(), group_bytes(3));
    assert_eq!(group_record("g", None).unwrap(), KeyValue { key: group_key().into(), value: None });
    let empty = GroupMetadata { protocol: None, leader: None, state_timestamp_ms: None, members: vec![], ..group() };
    let value = group_record("g", Some(&empty)).unwrap().value.unwrap();
    assert_eq!(value, [i16s(3), text("consumer"), i32s(5), i16s(-1), i16s(-1), i64s(-1), i32s(0)].concat());
    assert_eq!(decode(&group_key(), Some(&value)), Ok(Change::Group { group: "g".to_owned(), value: Some(empty) }));
}

#[test]
fn every_version_of_an_offset_is_read() {
    for key_version in [0, 1] {
        for version in 0..=4 {
            let expected = Committed {
                leader_epoch: if version >= 3 { 9 } else { -1 },
                expire_timestamp_ms: (version == 1).then_some(1_700_000_099_999),
                ..committed()
            };
            let (group, topic) = ("g".to_owned(), "topic".to_owned());
            let expected = Change::Offset { group, topic, partition: 3, value: Some(expected) };
            assert_eq!(decode(&offset_key(key_version), Some(&offset_bytes(version))), Ok(expected), "{version}");
        }
    }
    let mut unset = offset_bytes(1);
    let at = unset.len() - 8;
    unset[at..].copy_from_slice(&(-1_i64).to_be_bytes());
    let Ok(Change::Offset { value, .. }) = decode(&offset_key(1), Some(&unset)) else { panic!() };
    assert_eq!(value.unwrap().expire_timestamp_ms, None);
    let Ok(Change::Offset { value, .. }) = decode(&offset_key(1), None) else { panic!() };
    assert_eq!(value, None);
}

#[test]
fn every_version_of_a_group_is_read() {
    for version in 0..=4 {
        let mut expected = group();
        if version < 3 {
            expected.members[1].instance_id = None;
        }
        if version < 2 {
            expected.state_timestamp_ms = None;
        }
        if version < 1 {
            expected.members.iter_mut().for_each(|member| member.rebalance_timeout_ms = member.session_timeout_ms);
        }
        let expected = Change::Group { group: "g".to_owned(), value: Some(expected) };
        assert_eq!(decode(&group_key(), Some(&group_bytes(version))), Ok(expected), "{version}");
    }
    assert_eq!(decode(&group_key(), None), Ok(Change::Group { group: "g".to_owned(), value: None }));
}

#[test]
fn other_keys_are_skipped_and_other_values_refused() {
    for key_version in [3, 99, -1] {
        let key = [i16s(key_version), text("whatever")].concat();
        assert_eq!(decode(&key, Some(b"x")), Ok(Change::Unknown { key_version }));
    }
    for version in [5, -1] {
        let refused = |what| Err(RecordError::Version { what, version });
        assert_eq!(decode(&offset_key(1), Some(&i16s(version))), refused("committed offset"));
        assert_eq!(decode(&group_key(), Some(&i16s(version))), refused("group metadata"));
    }
}

#[test]
fn every_cut_is_noticed() {
    for version in 0..=4 {
        for (key, value) in [(offset_key(1), offset_bytes(version)), (group_key(), group_bytes(version))] {
            for cut in 0..value.len() {
                assert!(decode(&key, Some(&value[..cut])).is_err(), "version {version}, cut at {cut}");
            }
            for cut in 0..key.len() {
                assert!(decode(&key[..cut], Some(&value)).is_err(), "key cut at {cut}");
            }
        }
    }
}

#[test]
fn what_contradicts_itself_is_malformed() {
    let homeless = [i16s(0), text("consumer"), i32s(5), i16s(-1), i16s(-1), group_bytes(0)[27..].to_vec()].concat();
    let error = decode(&group_key(), Some(&homeless)).unwrap_err();
    assert_eq!(error, RecordError::Malformed { what: "group metadata with members but without a protocol" });
    let no_text = [i16s(3), i16s(-1)].concat();
    assert!(decode(&group_key(), Some(&no_text)).is_err());
    let many = [i16s(3), text("c"), i32s(1), text("r"), text("l"), i64s(0), i32s(i32::MAX)].concat();
    assert!(decode(&group_key(), Some(&many)).is_err());
}

#[test]
fn texts_that_do_not_fit_are_errors() {
    let long = "x".repeat(40_000);
    assert_eq!(offset_record(&long, "t", 0, None), Err(RecordError::TooLong { what: "group id" }));
    assert_eq!(group_record(&long, None), Err(RecordError::TooLong { what: "group id" }));
    let metadata = Committed { metadata: long, ..committed() };
    let error = offset_record("g", "t", 0, Some(&metadata)).unwrap_err();
    assert_eq!(error, RecordError::TooLong { what: "offset metadata" });
}

fn sample() -> Vec<KeyValue> {
    vec![
        offset_record("g", "topic", 3, Some(&committed())).unwrap(),
        group_record("g", Some(&group())).unwrap(),
        offset_record("g", "topic", 4, None).unwrap(),
        KeyValue { key: Bytes::from_static(b"\0\x07new"), value: None },
        // A value whose length takes two bytes.
        offset_record("g", "t", 0, Some(&Committed { metadata: "m".repeat(300), ..committed() })).unwrap(),
    ]
}

fn read_all(bytes: &[u8]) -> Result<Vec<(i64, Change)>, RecordError> {
    let mut changes = Vec::new();
    read(bytes, |offset, change| {
        changes.push((offset, change));
        Ok(())
    })?;
    Ok(changes)
}

#[test]
fn a_batch_is_what_a_producer_would_send() {
    let bytes = batch(&sample(), 1_234);
    let limits = batches::Limits { max_bytes: 1 << 20, zstd: true };
    let valid = batches::validate(bytes.clone(), limits).unwrap();
    assert_eq!((valid.header.record_count, valid.header.last_offset_delta, valid.max_timestamp), (5, 4, 1_234));
    assert_eq!((valid.header.producer_id, valid.header.codec()), (-1, Some(Codec::None)));
    // Two of them as the log has them, at their offsets.
    let stored = |base_offset| [&valid.stamped_head(base_offset, 6)[..], &valid.body[..]].concat();
    let changes = read_all(&[stored(100), stored(105)].concat()).unwrap();
    let offsets: Vec<i64> = changes.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (100..110).collect::<Vec<_>>());
    let expected = sample().into_iter().map(|record| decode(&record.key, record.value.as_deref()).unwrap());
    assert_eq!(changes[5..].iter().map(|(_, change)| change.clone()).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(changes[3].1, Change::Unknown { key_version: 7 });
}

#[test]
fn a_single_record_is_laid_out_as_defined() {
    let record = KeyValue { key: Bytes::from_static(b"\0\x09"), value: Some(Bytes::from_static(b"v")) };
    let bytes = batch(&[record], 0);
    // Length 9, attributes, timestamp delta, offset delta, key length 2, key, value length 1, value, no headers.
    assert_eq!(bytes[61..], [18, 0, 0, 0, 4, 0, 9, 2, b'v', 0]);
    assert_eq!(BatchHeader::parse(&bytes).unwrap().length as usize, bytes.len() - 12);
}

/// Puts the right CRC into a batch that was changed.
fn resealed(mut batch: Vec<u8>) -> Vec<u8> {
    batches::testing::reseal(&mut batch);
    batch
}

#[test]
fn batches_that_are_not_ours_are_errors() {
    let good = batch(&sample(), 0).to_vec();
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let why = |bytes: &[u8]| match read_all(bytes).unwrap_err() {
        RecordError::Batch { why } => why,
        other => panic!("{other}"),
    };
    assert_eq!(why(&change(16, 1)), "has another format");
    assert_eq!(why(&change(70, 99)), "has a wrong checksum");
    assert_eq!(why(&resealed(change(22, 1))), "is compressed");
    assert_eq!(why(&resealed(change(60, 9))), "has a malformed record");
    assert_eq!(why(&good[..good.len() - 1]), "is cut off");
    assert_eq!(why(&good[..30]), "is cut off");
    assert_eq!(why(&change(8, 0xff)), "is cut off");
    assert_eq!(read_all(&resealed(change(22, 0x20))), Ok(Vec::new()), "control batches say nothing of groups");
    assert_eq!(read_all(&[]), Ok(Vec::new()));
    let keyless = batches::testing::BatchSpec::records(1).build();
    assert_eq!(read_all(&keyless), Err(RecordError::Malformed { what: "a record without a key" }));
    let stop = read(&good, |_, _| Err(RecordError::Batch { why: "is enough" }));
    assert_eq!(stop, Err(RecordError::Batch { why: "is enough" }));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(
        version in 0_i16..=4,
        cut in 0_usize..60,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let damaged = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len().saturating_sub(cut));
            for (at, value) in &changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *value;
                }
            }
            bytes
        };
        let _ = decode(&offset_key(1), Some(&damaged(offset_bytes(version))));
        let _ = decode(&group_key(), Some(&damaged(group_bytes(version))));
        let _ = decode(&damaged(offset_key(1)), None);
        let mut stored = damaged(batch(&sample(), 0).to_vec());
        if stored.len() >= 61 {
            batches::testing::reseal(&mut stored);
        }
        let _ = read_all(&stored);
    }
}
