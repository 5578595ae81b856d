//! Topics over a real (in-memory) metadata store: durable before visible, ids never reused, names and configs checked.

use kafka_protocol::ResponseError;
use meta::error::ErrorKind;
use meta::memory::MemoryStore;
use storage::samples::{TxnFault, UncertainMeta};

use super::defaults::Source;
use super::edits::{Edit, Edits, Operation};
use super::*;

fn no_configs() -> Configs {
    Configs::new()
}

fn settings() -> BrokerConfig {
    BrokerConfig { message_max_bytes: 1 << 20, ..BrokerConfig::default() }
}

async fn load(store: &Arc<MemoryStore>) -> Topics {
    Topics::load(store.clone(), Random::from_seed(7), &settings()).await.unwrap()
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

/// What was perhaps done is never told as done, nor as impossible; the next attempt finds out.
#[tokio::test]
async fn an_unknown_outcome_is_settled_or_told_as_such() {
    let store = UncertainMeta::new();
    let topics = Topics::load(Arc::new(store.clone()), Random::from_seed(7), &settings()).await.unwrap();
    let is_unknown = |error: Error| error.kind() == ErrorKind::Unknown;

    store.script([TxnFault::LostUnknown]);
    assert!(topics.create("t", 1, no_configs(), |_| panic!("it is not there")).await.is_err_and(is_unknown));
    assert_eq!(topics.by_name("t"), None);
    store.script([TxnFault::AppliedUnknown]);
    let Created::New(topic) = topics.create("t", 1, no_configs(), |_| ()).await.unwrap() else { panic!("it is new") };

    store.script([TxnFault::LostUnknown]);
    assert!(topics.delete(&topic, |_| panic!("it is still there")).await.is_err_and(is_unknown));
    assert_eq!(topics.by_name("t"), Some(topic.clone()));
    store.script([TxnFault::AppliedUnknown]);
    assert!(topics.delete(&topic, |_| ()).await.unwrap());
    assert_eq!(topics.by_name("t"), None);
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

async fn made(topics: &Topics, name: &str, configs: &[(&str, &str)]) -> Arc<Topic> {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let Created::New(topic) = topics.create(name, 2, configs, |_| ()).await.unwrap() else { panic!("it is new") };
    topic
}

fn set(name: &str, value: &str) -> Edits {
    let edit = Edit { name: name.to_owned(), operation: Operation::Set, value: Some(value.to_owned()) };
    Edits::OneByOne(vec![edit])
}

fn refused(outcome: Result<(), ChangeError>) -> ResponseError {
    outcome.expect_err("it is refused").refusal().0
}

// Catches the planted bug topic-change-not-durable.
#[tokio::test]
async fn changes_of_a_topic_are_durable_and_at_once_in_force() {
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    let topic = made(&topics, "t", &[("retention.ms", "5")]).await;
    topics.alter_topic(&topic, &set("max.message.bytes", "1234"), false).await.unwrap();
    let mut opened = 0;
    topics.add_partitions(&topic, 7, |topic| opened = topic.partitions).await.unwrap();
    assert_eq!(opened, 7);
    topics.raise_log_starts(&topic, &[(0, 5), (1, 9)].into(), || ()).await.unwrap();
    topics.raise_log_starts(&topic, &[(0, 8), (1, 2)].into(), || ()).await.unwrap();
    let changed = topics.by_name("t").unwrap();
    assert_eq!((changed.config.max_message_bytes, changed.partitions), (1234, 7));
    assert_eq!(changed.configs.get("retention.ms").map(String::as_str), Some("5"), "the rest stays as it was");
    assert_eq!(changed.log_starts, [(0, 8), (1, 9)].into(), "they never move down");
    assert_eq!(topics.by_id(topic.id), Some(changed.clone()));
    assert_eq!(load(&store).await.by_name("t"), Some(changed));
}

#[tokio::test]
async fn what_is_only_checked_or_refused_changes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    let topic = made(&topics, "t", &[]).await;
    let before = store.list("").await.unwrap();
    topics.alter_topic(&topic, &set("max.message.bytes", "1234"), true).await.unwrap();
    topics.alter_broker(true, &set("message.max.bytes", "1234"), true).await.unwrap();
    for check_only in [true, false] {
        let refused_as = |outcome| assert_eq!(refused(outcome), ResponseError::InvalidConfig);
        refused_as(topics.alter_topic(&topic, &set("max.message.bytes", "-5"), check_only).await);
        refused_as(topics.alter_topic(&topic, &set("message.max.bytes", "5"), check_only).await);
        let refused_as = |outcome| assert_eq!(refused(outcome), ResponseError::InvalidRequest);
        refused_as(topics.alter_broker(false, &set("max.message.bytes", "5"), check_only).await);
        refused_as(topics.alter_broker(false, &set("num.partitions", "5"), check_only).await);
        refused_as(topics.alter_broker(true, &set("unclean.leader.election.enable", "true"), check_only).await);
    }
    for count in [1, 2, MAX_PARTITIONS + 1] {
        assert_eq!(refused(topics.add_partitions(&topic, count, |_| ()).await), ResponseError::InvalidPartitions);
    }
    topics.delete(&topic, |_| ()).await.unwrap();
    let gone = ResponseError::UnknownTopicOrPartition;
    assert_eq!(refused(topics.alter_topic(&topic, &set("retention.ms", "5"), false).await), gone);
    let anew = made(&topics, "t", &[]).await;
    assert_eq!(refused(topics.add_partitions(&topic, 9, |_| ()).await), gone, "another topic has the name");
    assert_eq!(topics.by_name("t"), Some(anew));
    assert_eq!(store.list("").await.unwrap().entries.len(), before.entries.len());
}

#[tokio::test]
async fn a_change_is_made_of_what_is_stored() {
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    let topic = made(&topics, "t", &[]).await;
    // Another broker changes it meanwhile.
    let other = load(&store).await;
    other.alter_topic(&topic, &set("retention.ms", "5"), false).await.unwrap();
    topics.alter_topic(&topic, &set("retention.bytes", "6"), false).await.unwrap();
    let stored = load(&store).await.by_name("t").unwrap();
    assert_eq!(stored.configs.len(), 2, "{:?}", stored.configs);
    assert_eq!(topics.by_name("t"), Some(stored));
}

/// What holds for a topic, and where that comes from.
fn described(topics: &Topics, topic: &str, name: &str) -> (String, Vec<Source>) {
    let topic = topics.by_name(topic).unwrap();
    let all = describe::topic(&topic.configs, &topics.defaults());
    let found = all.iter().find(|described| described.name == name).unwrap();
    (found.value().to_owned(), found.layers.iter().map(|layer| layer.source).collect())
}

#[tokio::test]
async fn the_nearest_value_counts_and_all_are_told() {
    use Source::{Default, DynamicBroker, DynamicDefaultBroker, StaticBroker, Topic};
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    made(&topics, "own", &[("max.message.bytes", "100")]).await;
    made(&topics, "plain", &[]).await;
    let bytes = |topics: &Topics, topic: &str| {
        let (value, sources) = described(topics, topic, "max.message.bytes");
        assert_eq!(topics.by_name(topic).unwrap().config.max_message_bytes.to_string(), value);
        (value, sources)
    };
    assert_eq!(bytes(&topics, "plain"), ("1048576".to_owned(), vec![StaticBroker, Default]));
    topics.alter_broker(true, &set("message.max.bytes", "300"), false).await.unwrap();
    assert_eq!(bytes(&topics, "plain"), ("300".to_owned(), vec![DynamicDefaultBroker, StaticBroker, Default]));
    topics.alter_broker(false, &set("message.max.bytes", "200"), false).await.unwrap();
    // All of it is durable.
    for topics in [&topics, &load(&store).await] {
        let all = vec![DynamicBroker, DynamicDefaultBroker, StaticBroker, Default];
        assert_eq!(bytes(topics, "plain"), ("200".to_owned(), all.clone()));
        assert_eq!(bytes(topics, "own"), ("100".to_owned(), [vec![Topic], all].concat()));
        let broker = describe::broker(&topics.defaults(), &settings());
        let row = broker.iter().find(|row| row.name == "message.max.bytes").unwrap();
        assert_eq!((row.value(), row.source(), row.read_only), ("200", DynamicBroker, false));
        let everyone = describe::all_brokers(&topics.defaults());
        assert_eq!(
            everyone.iter().map(|row| (row.name, row.value())).collect::<Vec<_>>(),
            [("message.max.bytes", "300")]
        );
    }
    let delete = Edit { name: "message.max.bytes".to_owned(), operation: Operation::Delete, value: None };
    topics.alter_broker(false, &Edits::OneByOne(vec![delete]), false).await.unwrap();
    assert_eq!(bytes(&topics, "plain").0, "300");
}

#[tokio::test]
async fn a_default_that_contradicts_a_topic_is_refused() {
    let store = Arc::new(MemoryStore::new());
    let topics = load(&store).await;
    made(&topics, "t", &[("min.compaction.lag.ms", "50")]).await;
    let outcome = topics.alter_broker(true, &set("log.cleaner.max.compaction.lag.ms", "40"), false).await;
    let (error, text) = outcome.unwrap_err().refusal();
    assert_eq!(error, ResponseError::InvalidRequest);
    assert!(text.contains("topic t"), "{text}");
    load(&store).await;
}
