//! Records as bytes: what is read back, what is refused, and under which name.

use super::*;

#[test]
fn what_was_encoded_is_decoded() {
    let record =
        TopicRecord { id: Uuid::from_u128(5), partitions: 3, configs: BTreeMap::new(), log_starts: [(1, 7)].into() };
    assert_eq!(decode::<TopicRecord>("topics/t", &encode(&record)).unwrap(), record);
}

#[test]
fn a_newer_version_is_refused_by_name_and_anything_else_is_damage() {
    let refused = decode::<LogCounterRecord>("log_counter", br#"{"newest":3,"version":2,"epoch":9}"#).unwrap_err();
    assert_eq!(refused.to_string(), "log_counter has format version 2; this program knows up to 1");
    assert!(matches!(refused, Error::Invalid { .. }));
    for damaged in [&br#"{"newest":3,"epoch":9}"#[..], br#"{"newest":3"#, br#"{}"#, br#"{"newest":3,"version":1}"#] {
        let refused = decode::<LogCounterRecord>("log_counter", damaged).unwrap_err();
        assert!(matches!(&refused, Error::Corrupt { key, .. } if key == "log_counter"), "{refused}");
    }
}
