//! Admin clients against the real binary: configurations, more partitions, deleted records; and what is left of it
//! after kill -9.

use std::collections::BTreeMap;

use compat_tests::clients::{self, LIMIT, assign, kcat, next, read_all, watermarks};
use compat_tests::process::{Broker, Launch};
use compat_tests::raw::Raw;
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeClusterRequest, DescribeTopicPartitionsRequest, FetchRequest,
    IncrementalAlterConfigsRequest, TopicName, alter_configs_request as legacy, fetch_request as fetch,
    incremental_alter_configs_request as incremental,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::Message;
use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Timestamp;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// A broker on a folder of its own.
async fn broker() -> (TempDir, Broker) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).start().await;
    (folder, broker)
}

async fn killed_and_started(mut broker: Broker) -> Broker {
    broker.kill().await;
    broker.again().await
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT))
}

/// What a client sees of a resource's configuration.
async fn described(broker: &Broker, resource: ResourceSpecifier<'_>) -> BTreeMap<String, ConfigEntry> {
    let admin = clients::admin(broker.kafka());
    let mut all = admin.describe_configs([&resource], &options()).await.expect("DescribeConfigs is answered");
    let resource = all.remove(0).expect("the resource is there");
    resource.entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect()
}

async fn value_of(broker: &Broker, resource: ResourceSpecifier<'_>, name: &str) -> (String, ConfigSource) {
    let mut all = described(broker, resource).await;
    let entry = all.remove(name).unwrap_or_else(|| panic!("{name} is not shown"));
    (entry.value.expect("every configuration has a value"), entry.source)
}

async fn alter(broker: &Broker, config: AlterConfig<'_>) {
    let admin = clients::admin(broker.kafka());
    let mut results = admin.alter_configs([&config], &options()).await.expect("AlterConfigs is answered");
    results.remove(0).expect("altered");
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// The error code for a change, by itself: the `rdkafka` crate drops it.
async fn alter_code(broker: &Broker, kind: i8, resource: &str, name: &str, value: &str) -> i16 {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = legacy::AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let resource = legacy::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = Raw::connect(broker.kafka()).await.expect("a connection").call(2, &request).await;
    answer.responses[0].error_code
}

async fn send(producer: &FutureProducer, topic: &str, text: &str) -> Result<i64, RDKafkaErrorCode> {
    let record = FutureRecord::<(), str>::to(topic).payload(text);
    match producer.send(record, LIMIT).await {
        Ok(delivered) => Ok(delivered.offset),
        Err((error, _)) => Err(error.rdkafka_error_code().expect("a code")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topic_configurations_are_shown_changed_and_kept() {
    let (_folder, broker) = broker().await;
    let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1))
        .set("max.message.bytes", "1234")
        .set("min.insync.replicas", "2")
        .set("segment.bytes", "16777216");
    let made = clients::admin(broker.kafka()).create_topics([&topic], &options()).await.expect("answered");
    assert_eq!(made, vec![Ok("t".to_owned())]);
    let resource = ResourceSpecifier::Topic("t");
    let all = described(&broker, resource).await;
    assert!(all.len() >= 33, "{}", all.len());
    assert_eq!(all["max.message.bytes"].source, ConfigSource::DynamicTopic);
    assert_eq!(all["retention.ms"].value.as_deref(), Some("604800000"));
    assert!(all["retention.ms"].is_default && !all["retention.ms"].is_read_only);

    // In force at once.
    let producer = clients::producer(broker.kafka(), &[("message.timeout.ms", "20000")]);
    let large = "x".repeat(2_000);
    assert_eq!(send(&producer, "t", &large).await, Err(RDKafkaErrorCode::MessageSizeTooLarge));
    let config = AlterConfig::new(resource).set("max.message.bytes", "5000").set("retention.ms", "-1");
    alter(&broker, config).await;
    assert_eq!(send(&producer, "t", &large).await, Ok(0));
    assert_eq!(alter_code(&broker, TOPIC, "t", "max.message.bytes", "many").await, INVALID_CONFIG);
    assert_eq!(alter_code(&broker, TOPIC, "t", "no.such.thing", "1").await, INVALID_CONFIG);
    assert_eq!(alter_code(&broker, TOPIC, "absent", "retention.ms", "1").await, UNKNOWN_TOPIC_OR_PARTITION);

    let broker = killed_and_started(broker).await;
    assert_eq!(value_of(&broker, resource, "max.message.bytes").await, ("5000".to_owned(), ConfigSource::DynamicTopic));
    assert_eq!(value_of(&broker, resource, "retention.ms").await, ("-1".to_owned(), ConfigSource::DynamicTopic));
    let replaced = value_of(&broker, resource, "segment.bytes").await;
    assert_eq!(replaced, ("1073741824".to_owned(), ConfigSource::Default), "AlterConfigs replaces everything");
    assert_eq!(send(&producer, "t", &"x".repeat(6_000)).await, Err(RDKafkaErrorCode::MessageSizeTooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_configurations_are_shown_changed_and_kept() {
    let (_folder, broker) = broker().await;
    let resource = ResourceSpecifier::Broker(0);
    let all = described(&broker, resource).await;
    for (name, value) in [("auto.create.topics.enable", "true"), ("num.partitions", "1"), ("broker.id", "0")] {
        let entry = &all[name];
        assert_eq!((entry.value.as_deref(), entry.is_read_only, entry.is_default), (Some(value), true, true), "{name}");
    }
    let original = value_of(&broker, resource, "log.flush.interval.messages").await;
    assert_eq!(original, ("9223372036854775807".to_owned(), ConfigSource::Default));
    let config = AlterConfig::new(resource).set("log.flush.interval.messages", "1234").set("message.max.bytes", "1000");
    alter(&broker, config).await;
    assert_eq!(alter_code(&broker, BROKER, "0", "num.partitions", "3").await, INVALID_REQUEST);

    let broker = killed_and_started(broker).await;
    let changed = value_of(&broker, resource, "log.flush.interval.messages").await;
    assert_eq!(changed, ("1234".to_owned(), ConfigSource::DynamicBroker));
    // It is what topics have that say nothing.
    clients::create_topic(broker.kafka(), "t", 1).await;
    let inherited = value_of(&broker, ResourceSpecifier::Topic("t"), "max.message.bytes").await;
    assert_eq!(inherited, ("1000".to_owned(), ConfigSource::DynamicBroker));
    let producer = clients::producer(broker.kafka(), &[("message.timeout.ms", "20000")]);
    assert_eq!(send(&producer, "t", &"x".repeat(2_000)).await, Err(RDKafkaErrorCode::MessageSizeTooLarge));
    alter(&broker, AlterConfig::new(resource)).await;
    assert_eq!(send(&producer, "t", &"x".repeat(2_000)).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_changed_item_by_item() {
    let (_folder, broker) = broker().await;
    clients::create_topic(broker.kafka(), "t", 1).await;
    for (operation, expected) in [(2, "delete,compact"), (2, "delete,compact"), (3, "delete"), (1, "delete")] {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let config = incremental::AlterableConfig::default()
            .with_name(text("cleanup.policy"))
            .with_config_operation(operation)
            .with_value(Some(text("compact")));
        let resource = incremental::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = Raw::connect(broker.kafka()).await.expect("a connection").call(1, &request).await;
        assert_eq!(answer.responses[0].error_code, 0);
        assert_eq!(value_of(&broker, ResourceSpecifier::Topic("t"), "cleanup.policy").await.0, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_can_have_the_time_of_their_arrival() {
    let (_folder, broker) = broker().await;
    let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    clients::admin(broker.kafka())
        .create_topics([&topic], &options())
        .await
        .expect("answered")
        .remove(0)
        .expect("made");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let settings = [("compression.type", codec), ("enable.idempotence", "true")];
        let producer = clients::producer(broker.kafka(), &settings);
        let record = FutureRecord::<(), str>::to("t").payload("x").timestamp(1_000);
        producer.send(record, LIMIT).await.expect("acknowledged");
    }
    let broker = killed_and_started(broker).await;
    let records = read_all(broker.kafka(), "t", 0).await;
    assert_eq!(records.len(), 5);
    for record in &records {
        let Timestamp::LogAppendTime(time) = record.timestamp() else { panic!("{:?}", record.timestamp()) };
        assert!(time > 1_600_000_000_000 && record.payload() == Some(b"x"), "{time}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_grow_and_the_new_partitions_are_there_at_once() {
    let (_folder, broker) = broker().await;
    clients::create_topic(broker.kafka(), "t", 2).await;
    let admin = clients::admin(broker.kafka());
    let producer = clients::producer(broker.kafka(), &[]);
    assert_eq!(send(&producer, "t", "before").await, Ok(0));
    let grown = admin.create_partitions([&NewPartitions::new("t", 5)], &options()).await.expect("answered");
    assert_eq!(grown, vec![Ok("t".to_owned())]);
    let record = FutureRecord::<(), str>::to("t").partition(4).payload("new");
    let fresh = clients::producer(broker.kafka(), &[]);
    assert_eq!(fresh.send(record, LIMIT).await.expect("acknowledged").offset, 0);
    for (count, code) in [(5, RDKafkaErrorCode::InvalidPartitions), (3, RDKafkaErrorCode::InvalidPartitions)] {
        let refused = admin.create_partitions([&NewPartitions::new("t", count)], &options()).await.expect("answered");
        assert_eq!(refused, vec![Err(("t".to_owned(), code))]);
    }
    let broker = killed_and_started(broker).await;
    let listed = kcat(&["-L", "-b", broker.kafka(), "-t", "t"], b"");
    assert!(String::from_utf8_lossy(&listed).contains("topic \"t\" with 5 partitions"));
    let records = read_all(broker.kafka(), "t", 4).await;
    assert_eq!(records.iter().map(|record| record.payload()).collect::<Vec<_>>(), [Some(&b"new"[..])]);
}

/// The error of a fetch from this offset, by itself.
async fn fetch_error(broker: &Broker, topic: &str, offset: i64) -> i16 {
    let partition = fetch::FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = fetch::FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic]);
    let answer = Raw::connect(broker.kafka()).await.expect("a connection").call(11, &request).await;
    answer.responses[0].partitions[0].error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_stay_deleted() {
    let (_folder, mut broker) = broker().await;
    clients::create_topic(broker.kafka(), "t", 1).await;
    let producer = clients::producer(broker.kafka(), &[]);
    for number in 0..10 {
        assert_eq!(send(&producer, "t", &number.to_string()).await, Ok(number));
    }
    for (before, start) in [(Offset::Offset(3), 3), (Offset::Offset(2), 3), (Offset::Offset(7), 7), (Offset::End, 10)] {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, before).expect("an offset");
        let deleted = clients::admin(broker.kafka()).delete_records(&list, &options()).await.expect("answered");
        let partition = &deleted.elements()[0];
        assert_eq!((partition.error(), partition.offset()), (Ok(()), Offset::Offset(start)));
        assert_eq!(watermarks(broker.kafka(), "t", 0).await, (start, 10));
        // They do not come back.
        broker = killed_and_started(broker).await;
        assert_eq!(watermarks(broker.kafka(), "t", 0).await, (start, 10));
        assert_eq!(fetch_error(&broker, "t", start - 1).await, 1, "OFFSET_OUT_OF_RANGE");
        assert_eq!(fetch_error(&broker, "t", start).await, 0);
        if start < 10 {
            let consumer = clients::consumer(broker.kafka(), &[]);
            assign(&consumer, "t", [0], Offset::Beginning);
            assert_eq!(next(&consumer).await.offset(), start);
        }
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(11)).expect("an offset");
    let refused = clients::admin(broker.kafka()).delete_records(&list, &options()).await.expect("answered");
    assert!(refused.elements()[0].error().is_err(), "there is nothing above the high watermark");
    let producer = clients::producer(broker.kafka(), &[]);
    assert_eq!(send(&producer, "t", "next").await, Ok(10), "offsets go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_and_its_topics_are_described_page_by_page() {
    let (_folder, broker) = broker().await;
    for (name, partitions) in [("a", 3), ("b", 4)] {
        clients::create_topic(broker.kafka(), name, partitions).await;
    }
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    let cluster = raw.call(2, &DescribeClusterRequest::default()).await;
    assert_eq!((cluster.brokers.len(), cluster.cluster_id.len()), (1, 22));
    let address = format!("{}:{}", cluster.brokers[0].host.as_str(), cluster.brokers[0].port);
    assert_eq!(address, broker.kafka());
    let first = raw.call(0, &DescribeTopicPartitionsRequest::default().with_response_partition_limit(5)).await;
    let shown: Vec<_> = first.topics.iter().map(|topic| topic.partitions.len()).collect();
    assert_eq!(shown, [3, 2]);
    let cursor = first.next_cursor.expect("there is more");
    assert_eq!((cursor.topic_name.as_str(), cursor.partition_index), ("b", 2));
}
