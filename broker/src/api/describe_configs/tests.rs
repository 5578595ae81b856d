//! What is shown in every version, for every kind of resource; and what AlterConfigs and IncrementalAlterConfigs make
//! of it.

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsResponse, alter_configs_request as legacy,
};

use super::*;
use crate::api::testing::TestBroker;
use crate::api::{alter_configs, incremental_alter_configs, typed};
use crate::topics::config::table::TABLE;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn describe_as(
    test: &TestBroker,
    version: i16,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(version >= FIRST_VERSION_WITH_TYPES);
    let handler = |broker: &_, context, body| typed(broker, context, body, handle);
    let response: DescribeConfigsResponse = test.call(handler, version, &request).await;
    assert_eq!(response.results.len(), 1);
    response.results[0].clone()
}

/// Value, source and whether it cannot be changed.
async fn one(test: &TestBroker, kind: i8, resource: &str, name: &str) -> Option<(String, i8, bool)> {
    let result = describe_as(test, 4, kind, resource, Some(&[name])).await;
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let entry = result.configs.first()?;
    Some((entry.value.as_ref().unwrap().to_string(), entry.config_source, entry.read_only))
}

/// Changes one configuration in small steps; the error code.
async fn alter(test: &TestBroker, kind: i8, resource: &str, changes: &[(&str, i8, Option<&str>)], dry: bool) -> i16 {
    let config = |(name, operation, value): &(&str, i8, Option<&str>)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(*operation).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(changes.iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(dry);
    let handler = |broker: &_, context, body| typed(broker, context, body, incremental_alter_configs::handle);
    let response: IncrementalAlterConfigsResponse = test.call(handler, 1, &request).await;
    let answer = &response.responses[0];
    assert_eq!(answer.error_message.is_some(), answer.error_code != 0);
    answer.error_code
}

async fn replace(test: &TestBroker, version: i16, resource: &str, configs: &[(&str, &str)]) -> i16 {
    let config = |(name, value): &(&str, &str)| {
        legacy::AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let resource = legacy::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(resource))
        .with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let handler = |broker: &_, context, body| typed(broker, context, body, alter_configs::handle);
    let response: AlterConfigsResponse = test.call(handler, version, &request).await;
    response.responses[0].error_code
}

#[tokio::test]
async fn a_topic_shows_every_configuration_with_its_type_and_meaning() {
    let test = TestBroker::new(1 << 20, 1).await;
    for version in 1..=4 {
        let result = describe_as(&test, version, TOPIC, "t", None).await;
        assert_eq!((result.error_code, result.resource_type, result.resource_name.as_str()), (0, TOPIC, "t"));
        let names: Vec<_> = result.configs.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, TABLE.iter().map(|row| row.name).collect::<Vec<_>>(), "version {version}");
        for (entry, row) in result.configs.iter().zip(TABLE) {
            assert!(!entry.read_only && !entry.is_sensitive, "{}", row.name);
            assert_eq!(
                entry.value.as_ref().map(StrBytes::as_str),
                Some(test.broker.topics.defaults().value(row).as_str())
            );
            let synonyms: Vec<_> = entry.synonyms.iter().map(|synonym| synonym.name.as_str()).collect();
            match row.name {
                // As Kafka has it: the broker's default is in hours, or there is none.
                "retention.ms" | "segment.ms" | "segment.jitter.ms" | "flush.ms" => assert!(synonyms.is_empty()),
                // What the broker was started with, and what is built in.
                "max.message.bytes" => assert_eq!(synonyms, ["message.max.bytes"; 2]),
                _ => assert_eq!(synonyms, Vec::from_iter(row.broker), "{}", row.name),
            }
            assert_eq!(entry.config_type, if version >= 3 { row.values.kind() as i8 } else { 0 });
            let documentation = entry.documentation.as_ref().map(StrBytes::as_str).unwrap_or_default();
            assert_eq!(documentation, if version >= 3 { row.documentation() } else { String::new() });
        }
    }
}

#[tokio::test]
async fn a_broker_shows_its_settings_under_kafkas_names() {
    let test = TestBroker::new(1 << 20, 1).await;
    for (name, value, source, read_only) in [
        ("num.partitions", "1", 5, true),
        ("auto.create.topics.enable", "true", 5, true),
        ("advertised.listeners", "PLAINTEXT://127.0.0.1:9092", 4, true),
        ("message.max.bytes", "1048576", 4, false),
        ("log.retention.ms", "604800000", 5, false),
        ("log.flush.interval.messages", "9223372036854775807", 5, false),
    ] {
        assert_eq!(one(&test, BROKER, "0", name).await, Some((value.to_owned(), source, read_only)), "{name}");
    }
    assert_eq!(describe_as(&test, 4, BROKER, "", None).await.configs, []);
}

#[tokio::test]
async fn unknown_resources_are_refused() {
    let test = TestBroker::new(1 << 20, 1).await;
    for (kind, name, code) in [
        (TOPIC, "nobody", ResponseError::UnknownTopicOrPartition),
        (TOPIC, "no body", ResponseError::InvalidTopicException),
        (BROKER, "7", ResponseError::InvalidRequest),
        (BROKER, "x", ResponseError::InvalidRequest),
        (8, "0", ResponseError::InvalidRequest),
    ] {
        let result = describe_as(&test, 4, kind, name, None).await;
        assert_eq!(result.error_code, code.code(), "{kind} {name}");
        assert!(result.configs.is_empty() && result.error_message.is_some());
        assert_eq!(alter(&test, kind, name, &[("retention.ms", 0, Some("5"))], false).await, code.code());
    }
}

#[tokio::test]
async fn changes_are_shown_at_once() {
    let test = TestBroker::new(1 << 20, 1).await;
    let retention = async || one(&test, TOPIC, "t", "retention.ms").await.unwrap();
    assert_eq!(alter(&test, TOPIC, "t", &[("retention.ms", 0, Some("5"))], true).await, 0);
    assert_eq!(retention().await, ("604800000".to_owned(), 5, false), "that was a rehearsal");
    let changes = [("retention.ms", 0, Some("5")), ("cleanup.policy", 2, Some("compact"))];
    assert_eq!(alter(&test, TOPIC, "t", &changes, false).await, 0);
    assert_eq!(retention().await, ("5".to_owned(), 1, false));
    assert_eq!(one(&test, TOPIC, "t", "cleanup.policy").await.unwrap().0, "delete,compact");
    // One that is wrong spoils all of them.
    let changes = [("retention.ms", 0, Some("6")), ("retention.bytes", 0, Some("x"))];
    assert_eq!(alter(&test, TOPIC, "t", &changes, false).await, ResponseError::InvalidConfig.code());
    assert_eq!(retention().await.0, "5");
    assert_eq!(alter(&test, TOPIC, "t", &[("retention.ms", 1, None)], false).await, 0);
    assert_eq!(retention().await.1, 5);
    for version in 0..=2 {
        assert_eq!(replace(&test, version, "t", &[("max.message.bytes", "77")]).await, 0);
        assert_eq!(one(&test, TOPIC, "t", "cleanup.policy").await.unwrap(), ("delete".to_owned(), 5, false));
        assert_eq!(test.broker.topics.by_name("t").unwrap().config.max_message_bytes, 77);
        assert_eq!(replace(&test, version, "t", &[]).await, 0);
        assert_eq!(test.broker.topics.by_name("t").unwrap().config.max_message_bytes, 1 << 20);
    }
    let flush = [("log.flush.interval.messages", 0, Some("1234"))];
    assert_eq!(alter(&test, BROKER, "0", &flush, false).await, 0);
    let shown = one(&test, BROKER, "0", "log.flush.interval.messages").await;
    assert_eq!(shown, Some(("1234".to_owned(), 2, false)));
    assert_eq!(one(&test, TOPIC, "t", "flush.messages").await, Some(("1234".to_owned(), 2, false)));
    let fixed = [("num.partitions", 0, Some("3"))];
    assert_eq!(alter(&test, BROKER, "0", &fixed, false).await, ResponseError::InvalidRequest.code());
    assert_eq!(
        alter(&test, TOPIC, "t", &[("retention.ms", 9, Some("5"))], false).await,
        ResponseError::InvalidRequest.code()
    );
}

#[tokio::test]
async fn a_resource_may_be_named_once() {
    let test = TestBroker::new(1 << 20, 1).await;
    let resource = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name(text("t"));
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource.clone(), resource]);
    let handler = |broker: &_, context, body| typed(broker, context, body, incremental_alter_configs::handle);
    let response: IncrementalAlterConfigsResponse = test.call(handler, 1, &request).await;
    let codes: Vec<_> = response.responses.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [ResponseError::InvalidRequest.code(); 2]);
}

#[tokio::test]
async fn what_one_answer_may_take_is_limited() {
    let test = TestBroker::new(1 << 20, 1).await;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; 20_000]);
    let handler = |broker: &_, context, body| typed(broker, context, body, handle);
    let response: DescribeConfigsResponse = test.call(handler, 4, &request).await;
    let full = response.results.iter().filter(|result| !result.configs.is_empty()).count();
    assert!((1_000..10_000).contains(&full), "{full}");
    assert_eq!(response.results[19_999].error_code, ResponseError::InvalidRequest.code());
}
