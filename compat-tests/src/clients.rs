//! Real clients: librdkafka through the `rdkafka` crate, and kcat.
//!
//! librdkafka's blocking calls run in place: tests that use them need a runtime of several threads.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::FutureProducer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::task::block_in_place;
use tokio::time::Instant;

/// How long a single answer may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Settings that every client here has in common, then the given ones.
pub fn config(kafka: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka).set("broker.address.family", "v4");
    config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200");
    config.set("retry.backoff.ms", "20").set("topic.metadata.refresh.fast.interval.ms", "50");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    if let Ok(contexts) = std::env::var("WOODPECKER_TEST_RDKAFKA_DEBUG") {
        show_what_librdkafka_does();
        config.set("debug", contexts);
    }
    config
}

/// On standard output, for who looks into a failure: `WOODPECKER_TEST_RDKAFKA_DEBUG=broker,metadata,topic` and the like.
fn show_what_librdkafka_does() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let only = tracing_subscriber::EnvFilter::new("librdkafka=debug");
        tracing_subscriber::fmt().with_env_filter(only).with_ansi(false).init();
    });
}

fn client<T: FromClientConfig>(config: &ClientConfig) -> T {
    config.create().unwrap_or_else(|error| panic!("librdkafka takes {config:?}: {error}"))
}

pub fn producer(kafka: &str, settings: &[(&str, &str)]) -> FutureProducer {
    client(&config(kafka, settings))
}

/// A consumer for explicit assignments. librdkafka wants the name of a group even then, and never uses it.
pub fn consumer(kafka: &str, settings: &[(&str, &str)]) -> StreamConsumer {
    let mut config = config(kafka, &[("group.id", "assigned"), ("enable.auto.commit", "false")]);
    config.set("auto.offset.reset", "error").set("fetch.wait.max.ms", "100");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    client(&config)
}

/// Assigns these partitions of a topic, all from the same place.
pub fn assign(consumer: &StreamConsumer, topic: &str, partitions: impl IntoIterator<Item = i32>, from: Offset) {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition, from).expect("an offset that librdkafka knows");
    }
    consumer.assign(&list).expect("an assignment that librdkafka takes");
}

/// The next record. Transport errors pass by themselves; anything else the broker says fails the test.
pub async fn next(consumer: &StreamConsumer) -> OwnedMessage {
    let deadline = Instant::now() + LIMIT;
    loop {
        let received = tokio::time::timeout_at(deadline, consumer.recv()).await;
        match received.unwrap_or_else(|_| panic!("no record within {LIMIT:?}")) {
            Ok(message) => return message.detach(),
            Err(error) if is_passing(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("the consumer failed: {error}"),
        }
    }
}

/// Errors that end by themselves once the broker is back, or the topic is there.
pub fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let passing = [
        Code::BrokerTransportFailure,
        Code::AllBrokersDown,
        Code::OperationTimedOut,
        Code::LeaderNotAvailable,
        Code::NotLeaderForPartition,
        Code::UnknownTopicOrPartition,
        Code::RequestTimedOut,
        Code::Resolve,
    ];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}

/// The first offset and the high watermark of a partition, as soon as the broker tells.
pub async fn watermarks(kafka: &str, topic: &str, partition: i32) -> (i64, i64) {
    let consumer = consumer(kafka, &[]);
    let deadline = Instant::now() + LIMIT;
    loop {
        match block_in_place(|| consumer.fetch_watermarks(topic, partition, Duration::from_secs(5))) {
            Ok(watermarks) => return watermarks,
            Err(error) => assert!(Instant::now() < deadline, "no watermarks of {topic}-{partition}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every record from the first one to the high watermark of now.
pub async fn read_all(kafka: &str, topic: &str, partition: i32) -> Vec<OwnedMessage> {
    let (_, end) = watermarks(kafka, topic, partition).await;
    let consumer = consumer(kafka, &[]);
    assign(&consumer, topic, [partition], Offset::Beginning);
    let mut records = Vec::new();
    while last_offset(&records) < end - 1 {
        records.push(next(&consumer).await);
    }
    records
}

fn last_offset(records: &[OwnedMessage]) -> i64 {
    use rdkafka::Message;
    records.last().map_or(-1, Message::offset)
}

pub fn admin(kafka: &str) -> AdminClient<DefaultClientContext> {
    client(&config(kafka, &[]))
}

pub async fn create_topic(kafka: &str, name: &str, partitions: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    let results = admin(kafka).create_topics([&topic], &options).await.expect("CreateTopics is answered");
    assert_eq!(results, vec![Ok(name.to_owned())]);
}

/// What kcat wrote to its standard output. Fails the test if kcat fails or takes too long.
pub fn kcat(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    block_in_place(|| {
        let mut command = Command::new("timeout");
        command.args(["60", "kcat"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kcat is installed (make deps)");
        child.stdin.take().expect("a pipe was asked for").write_all(input).expect("kcat reads its input");
        let output = child.wait_with_output().expect("kcat can be waited for");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kcat {arguments:?}: {}\n{said}", output.status);
        output.stdout
    })
}
