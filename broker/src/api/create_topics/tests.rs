//! What the answer shows, and what is refused.

use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig};

use super::*;
use crate::api::testing::{TestBroker, name};
use crate::api::typed;
use crate::topics::config::table::TABLE;

fn topic(called: &str, partitions: i32, factor: i16, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = |(name, value): &(&str, Option<&str>)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    CreatableTopic::default()
        .with_name(name(called))
        .with_num_partitions(partitions)
        .with_replication_factor(factor)
        .with_configs(configs.iter().map(config).collect())
}

async fn ask(test: &TestBroker, version: i16, topics: Vec<CreatableTopic>, dry: bool) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default().with_topics(topics).with_validate_only(dry);
    let handler = |broker: &_, context, body| typed(broker, context, body, handle);
    let response: CreateTopicsResponse = test.call(handler, version, &request).await;
    response.topics
}

#[tokio::test]
async fn the_answer_shows_the_whole_topic() {
    let test = TestBroker::new(1 << 20, 1).await;
    for version in 2..=7 {
        let called = format!("v{version}");
        for dry in [true, false] {
            let asked = topic(&called, -1, -1, &[("retention.ms", Some("5")), ("min.insync.replicas", Some("2"))]);
            let result = ask(&test, version, vec![asked], dry).await.remove(0);
            assert_eq!((result.error_code, result.name), (0, name(&called)));
            assert_eq!(test.broker.topics.by_name(&called).is_some(), !dry);
            if version < FIRST_VERSION_WITH_CONFIGS {
                continue;
            }
            assert_eq!((result.num_partitions, result.replication_factor), (1, 1));
            let configs = result.configs.unwrap();
            assert_eq!(configs.len(), TABLE.len());
            let shown = |name: &str| {
                let found = configs.iter().find(|config| config.name.as_str() == name).unwrap();
                (found.value.as_ref().unwrap().to_string(), found.config_source)
            };
            assert_eq!(shown("retention.ms"), ("5".to_owned(), 1));
            assert_eq!(shown("segment.bytes"), ("1073741824".to_owned(), 5));
            assert_eq!(shown("max.message.bytes"), ("1048576".to_owned(), 4));
            assert_eq!(result.topic_id.is_nil(), dry || version < 7);
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_kafkas_code() {
    use ResponseError::*;
    let test = TestBroker::new(1 << 20, 1).await;
    let assigned = |brokers: &[i32]| {
        let assignment = CreatableReplicaAssignment::default()
            .with_partition_index(0)
            .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect());
        topic("new", -1, -1, &[]).with_assignments(vec![assignment])
    };
    for (asked, code) in [
        (topic("t", 1, 1, &[]), TopicAlreadyExists),
        (topic("no body", 1, 1, &[]), InvalidTopicException),
        (topic("new", 0, 1, &[]), InvalidPartitions),
        (topic("new", 1, 0, &[]), InvalidReplicationFactor),
        (topic("new", 1, 1, &[("no.such.thing", Some("1"))]), InvalidConfig),
        (topic("new", 1, 1, &[("retention.ms", Some("soon"))]), InvalidConfig),
        (topic("new", 1, 1, &[("retention.ms", None)]), InvalidConfig),
        (topic("new", 1, 1, &[("compression.type", Some("brotli"))]), InvalidConfig),
        (assigned(&[3]), InvalidReplicaAssignment),
        (assigned(&[0]).with_num_partitions(1), InvalidRequest),
    ] {
        for dry in [true, false] {
            let result = ask(&test, 7, vec![asked.clone()], dry).await.remove(0);
            assert_eq!(result.error_code, code.code(), "{asked:?}");
            assert!(result.error_message.is_some_and(|text| !text.is_empty()));
        }
    }
    let twice = ask(&test, 7, vec![topic("new", 1, 1, &[]), topic("new", 1, 1, &[])], false).await;
    assert!(twice.iter().all(|result| result.error_code == InvalidRequest.code()));
    assert_eq!(ask(&test, 7, vec![assigned(&[0])], false).await[0].error_code, 0);
}
