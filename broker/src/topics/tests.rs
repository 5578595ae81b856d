//! Topics over a real (in-memory) metadata store: durable before visible, ids never reused, names and configs checked.

use super::*;
use meta::memory::MemoryStore;

fn no_configs() -> BTreeMap<String, String> {
    BTreeMap::new()
}

async fn load(store: &Arc<MemoryStore>) -> Topics {
    Topics::load(store.clone(), Random::from_seed(7), 1 << 20).await.unwrap()
}

#[tokio::test]
async fn a_created_topic_is_found_by_both_names_and_survives_a_reload() {
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    let mut opened = false;
    let created = topics.create("orders", 3, no_configs(), |_| opened = true).await.unwrap();
    let Created::New(topic) = created else { panic!("it is new") };
    assert!(opened);
    assert_eq!(topics.by_name("orders"), Some(topic.clone()));
    assert_eq!(topics.by_id(topic.id), Some(topic.clone()));
    assert_eq!(load(&store).await.by_name("orders"), Some(topic));
}

#[tokio::test]
async fn a_name_created_anew_gets_a_new_id() {
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    let Created::New(first) = topics.create("t", 1, no_configs(), |_| ()).await.unwrap() else { panic!() };
    assert!(matches!(topics.create("t", 1, no_configs(), |_| ()).await.unwrap(), Created::Exists(_)));
    let mut closed = false;
    assert!(topics.delete(&first, |_| closed = true).await.unwrap());
    assert!(closed);
    assert!(!topics.delete(&first, |_| ()).await.unwrap());
    let Created::New(second) = topics.create("t", 1, no_configs(), |_| ()).await.unwrap() else { panic!() };
    assert_ne!(first.id, second.id);
    assert_eq!(topics.by_id(first.id), None);
}

#[tokio::test]
async fn a_topic_of_ten_thousand_partitions_is_one_transaction() {
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    let before = store.list("").await.unwrap().revision;
    topics.create("wide", 10_000, no_configs(), |_| ()).await.unwrap();
    assert_eq!(store.list("").await.unwrap().revision, before + 1);
}

#[test]
fn names_follow_kafkas_rule() {
    for good in ["a", "A.b_c-9", &"x".repeat(249)] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in ["", ".", "..", "a b", "a/b", "../x", "ü", &"x".repeat(250)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_configuration_is_used_or_checked_or_refused_by_name() {
    let parse = |key: &str, value: &str| TopicConfig::parse(&[(key.to_owned(), value.to_owned())].into(), 77);
    assert_eq!(TopicConfig::parse(&BTreeMap::new(), 77).unwrap().max_message_bytes, 77);
    assert_eq!(parse("max.message.bytes", "1000").unwrap().max_message_bytes, 1000);
    for (key, value) in [
        ("retention.ms", "-1"),
        ("cleanup.policy", "compact,delete"),
        ("min.cleanable.dirty.ratio", "0.5"),
        ("compression.type", "producer"),
    ] {
        assert!(parse(key, value).is_ok(), "{key}={value}");
    }
    for (key, value) in [
        ("max.message.bytes", "many"),
        ("max.message.bytes", "-1"),
        ("compression.type", "zstd"),
        ("cleanup.policy", "shred"),
        ("min.cleanable.dirty.ratio", "2"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("no.such.thing", "1"),
    ] {
        let error = parse(key, value).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}
