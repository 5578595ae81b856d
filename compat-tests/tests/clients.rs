//! Real clients against the real binary: what a user does on the first day, byte for byte.

use std::collections::BTreeMap;
use std::time::Duration;

use compat_tests::clients::{self, LIMIT, assign, kcat, next, read_all, watermarks};
use compat_tests::process::{Broker, Launch};
use compat_tests::raw::Raw;
use compat_tests::s3;
use compat_tests::wait::until;
use futures::TryStreamExt;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore};
use rdkafka::Message;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::task::block_in_place;

/// A broker on a folder of its own.
async fn broker() -> (TempDir, Broker) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).start().await;
    (folder, broker)
}

async fn send(producer: &FutureProducer, record: FutureRecord<'_, str, [u8]>) -> i64 {
    producer.send(record, LIMIT).await.expect("acknowledged").offset
}

fn value(text: &str) -> &[u8] {
    text.as_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_produces_and_consumes() {
    let (_folder, broker) = broker().await;
    kcat(&["-P", "-b", broker.kafka(), "-t", "hello", "-K", ":"], b"k1:one\nk2:two\n:three\n");
    let out = kcat(&["-C", "-b", broker.kafka(), "-t", "hello", "-e", "-q", "-f", "%p %o %k=%s\n"], b"");
    assert_eq!(String::from_utf8_lossy(&out), "0 0 k1=one\n0 1 k2=two\n0 2 =three\n");
    let listed = kcat(&["-L", "-b", broker.kafka()], b"");
    let listed = String::from_utf8_lossy(&listed);
    assert!(listed.contains(broker.kafka()) && listed.contains("topic \"hello\" with 1 partitions"), "{listed}");
    let last = kcat(&["-C", "-b", broker.kafka(), "-t", "hello", "-o", "-1", "-e", "-q"], b"");
    assert_eq!(String::from_utf8_lossy(&last), "three\n");
    let asked = kcat(&["-Q", "-b", broker.kafka(), "-t", "hello:0:-1"], b"");
    assert!(String::from_utf8_lossy(&asked).contains("offset 3"), "{}", String::from_utf8_lossy(&asked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_with_every_codec() {
    let (_folder, broker) = broker().await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let input: String = (0..500).map(|i| format!("{codec} line {i} {}\n", "a".repeat(i % 50))).collect();
        kcat(&["-P", "-b", broker.kafka(), "-t", codec, "-z", codec], input.as_bytes());
        let out = kcat(&["-C", "-b", broker.kafka(), "-t", codec, "-e", "-q"], b"");
        assert!(out == input.as_bytes(), "{codec}: what came back is not what went in");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_values_and_headers_come_back_as_they_went() {
    let (_folder, broker) = broker().await;
    let producer = clients::producer(broker.kafka(), &[]);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "twice", value: Some("first") })
        .insert(Header { key: "twice", value: Some("second") })
        .insert(Header { key: "", value: Some("empty key") })
        .insert(Header { key: "empty value", value: Some("") })
        .insert(Header::<&str> { key: "null value", value: None });
    let full = FutureRecord::to("t").key("key").payload(value("value")).headers(headers).timestamp(1_600_000_000_123);
    assert_eq!(send(&producer, full).await, 0);
    assert_eq!(send(&producer, FutureRecord::to("t").key("").payload(value(""))).await, 1);
    assert_eq!(send(&producer, FutureRecord::to("t").key("tombstone")).await, 2);
    assert_eq!(send(&producer, FutureRecord::to("t")).await, 3);
    let records = read_all(broker.kafka(), "t", 0).await;
    let seen: Vec<_> = records.iter().map(|r| (r.offset(), r.key(), r.payload())).collect();
    let key = |text: &'static str| Some(text.as_bytes());
    let expected =
        vec![(0, key("key"), key("value")), (1, key(""), key("")), (2, key("tombstone"), None), (3, None, None)];
    assert_eq!(seen, expected);
    assert_eq!(records[0].timestamp().to_millis(), Some(1_600_000_000_123));
    let headers: Vec<_> = records[0].headers().expect("headers").iter().map(|h| (h.key, h.value)).collect();
    let expected = vec![
        ("twice", key("first")),
        ("twice", key("second")),
        ("", key("empty key")),
        ("empty value", key("")),
        ("null value", None),
    ];
    assert_eq!(headers, expected);
    assert!(records[3].headers().is_none_or(|h| h.count() == 0));
}

/// Record `number` of a run: some compress well, some not at all.
fn payload(number: usize) -> Vec<u8> {
    let mut state = number as u32 + 1;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    if number.is_multiple_of(2) { vec![b'a'; number * 7 % 4_000] } else { (0..number * 7 % 4_000).map(noise).collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_with_and_without_idempotence() {
    let (_folder, broker) = broker().await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for idempotence in ["false", "true"] {
            let topic = format!("{codec}-{idempotence}");
            let settings = [("compression.type", codec), ("enable.idempotence", idempotence), ("linger.ms", "5")];
            let producer = clients::producer(broker.kafka(), &settings);
            let mut deliveries = Vec::new();
            for number in 0..400 {
                let payload = payload(number);
                let record = FutureRecord::<(), _>::to(&topic).payload(&payload);
                deliveries.push(producer.send_result(record).map_err(|(error, _)| error).expect("room in the queue"));
            }
            for (number, delivery) in deliveries.into_iter().enumerate() {
                let delivered = delivery.await.expect("told").expect("acknowledged");
                assert_eq!(delivered.offset, number as i64, "{topic}");
            }
            let records = read_all(broker.kafka(), &topic, 0).await;
            assert_eq!(records.len(), 400, "{topic}");
            for (number, record) in records.iter().enumerate() {
                assert!(record.payload() == Some(&payload(number)), "{topic}: record {number} was changed");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_ten_megabytes() {
    let (_folder, broker) = broker().await;
    let settings = [("message.max.bytes", "16000000"), ("message.timeout.ms", "60000")];
    let producer = clients::producer(broker.kafka(), &settings);
    let large: Vec<u8> = (0..10_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for offset in 0..3 {
        let record = FutureRecord::<(), _>::to("large").payload(&large);
        assert_eq!(producer.send(record, LIMIT).await.expect("acknowledged").offset, offset);
    }
    let (_, end) = watermarks(broker.kafka(), "large", 0).await;
    assert_eq!(end, 3);
    // Less than one record fits what this consumer asks for; it must get on all the same.
    for fetch_bytes in ["1000", "16000000"] {
        let settings = [("fetch.message.max.bytes", fetch_bytes), ("receive.message.max.bytes", "100000000")];
        let consumer = clients::consumer(broker.kafka(), &settings);
        assign(&consumer, "large", [0], Offset::Beginning);
        for offset in 0..3 {
            let record = next(&consumer).await;
            assert!(record.offset() == offset && record.payload() == Some(&large), "record {offset} was changed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_too_large_is_refused() {
    let (_folder, broker) = broker().await;
    let settings = [("message.max.bytes", "40000000"), ("message.timeout.ms", "20000")];
    let producer = clients::producer(broker.kafka(), &settings);
    let huge = vec![b'x'; 20_000_000];
    let refused = producer.send(FutureRecord::<(), _>::to("t").payload(&huge), LIMIT).await;
    let (error, _) = refused.expect_err("20 MB are more than the broker takes");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(send(&producer, FutureRecord::to("t").payload(value("small"))).await, 0);
}

/// The offset for a timestamp, or for one of the numbers that stand for the beginning and the end.
fn at_time(consumer: &StreamConsumer, topic: &str, timestamp: Offset) -> Offset {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, timestamp).expect("a timestamp");
    let found = block_in_place(|| consumer.offsets_for_times(list, LIMIT)).expect("ListOffsets is answered");
    found.find_partition(topic, 0).expect("the partition that was asked for").offset()
}

/// ListOffsets for one timestamp: the timestamp and the offset of the answer.
async fn list_offset(kafka: &str, topic: &str, timestamp: i64) -> (i64, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = Raw::connect(kafka).await.expect("a connection").call(7, &request).await;
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    (partition.timestamp, partition.offset)
}

/// Four records, at these times.
async fn write_times(kafka: &str) {
    let producer = clients::producer(kafka, &[]);
    for (number, timestamp) in [1_000, 2_000, 2_000, 5_000].into_iter().enumerate() {
        let record = FutureRecord::to("times").payload(value("x")).timestamp(timestamp);
        assert_eq!(send(&producer, record).await, number as i64);
    }
}

async fn assert_times(kafka: &str) {
    let consumer = clients::consumer(kafka, &[]);
    for (timestamp, offset) in [(0, 0), (1_000, 0), (1_001, 1), (2_000, 1), (2_001, 3), (5_000, 3)] {
        let found = at_time(&consumer, "times", Offset::Offset(timestamp));
        assert_eq!(found, Offset::Offset(offset), "at {timestamp}");
    }
    assert_eq!(at_time(&consumer, "times", Offset::Offset(5_001)), Offset::End, "nothing is as late as that");
    assert_eq!(at_time(&consumer, "times", Offset::End), Offset::Offset(4));
    assert_eq!(at_time(&consumer, "times", Offset::Beginning), Offset::Offset(0));
    assert_eq!(watermarks(kafka, "times", 0).await, (0, 4));
    // What no setting of this client asks for: the record with the highest timestamp.
    assert_eq!(list_offset(kafka, "times", -3).await, (5_000, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_by_time() {
    let (_folder, mut broker) = broker().await;
    write_times(broker.kafka()).await;
    // Once from memory, once after a restart from storage.
    for _ in 0..2 {
        assert_times(broker.kafka()).await;
        broker.kill().await;
        broker = broker.again().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_by_time_of_tiered_data() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    let mut broker = prefix.on(Launch::new(folder.path())).busy_upkeep().start().await;
    // The times are long ago.
    let topic = NewTopic::new("times", 1, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    let made = clients::admin(broker.kafka()).create_topics([&topic], &options).await.expect("answered");
    assert_eq!(made, vec![Ok("times".to_owned())]);
    write_times(broker.kafka()).await;
    until("what was written is tiered", LIMIT, async || {
        let logs = Key::from("logs");
        let listed: Vec<_> = prefix.store().list(Some(&logs)).try_collect().await.expect("a listing");
        let is_fragment = |object: &ObjectMeta| !object.location.as_ref().contains("/tiered/");
        !listed.is_empty() && !listed.iter().any(is_fragment)
    })
    .await;
    for _ in 0..2 {
        assert_times(broker.kafka()).await;
        broker.kill().await;
        broker = broker.again().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_described_and_deleted() {
    let (_folder, broker) = broker().await;
    clients::create_topic(broker.kafka(), "made", 12).await;
    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    let admin = clients::admin(broker.kafka());
    let again = NewTopic::new("made", 1, TopicReplication::Fixed(1));
    let results = admin.create_topics([&again], &options).await.expect("CreateTopics is answered");
    assert_eq!(results, vec![Err(("made".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))]);
    let bad = NewTopic::new("../escape", 1, TopicReplication::Fixed(1));
    let results = admin.create_topics([&bad], &options).await.expect("CreateTopics is answered");
    assert_eq!(results, vec![Err(("../escape".to_owned(), RDKafkaErrorCode::InvalidTopic))]);

    let partitions_of = |name: &'static str| {
        let consumer = clients::consumer(broker.kafka(), &[("allow.auto.create.topics", "false")]);
        let metadata = block_in_place(|| consumer.fetch_metadata(None, LIMIT)).expect("metadata");
        metadata.topics().iter().find(|t| t.name() == name).map(|t| t.partitions().len())
    };
    assert_eq!(partitions_of("made"), Some(12));
    let producer = clients::producer(broker.kafka(), &[]);
    send(&producer, FutureRecord::to("made").partition(11).payload(value("old"))).await;
    let results = admin.delete_topics(&["made", "absent"], &options).await.expect("DeleteTopics is answered");
    let absent = Err(("absent".to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition));
    assert_eq!(results, vec![Ok("made".to_owned()), absent]);
    assert_eq!(partitions_of("made"), None, "deletion is seen at once");
    // A topic of the same name is another topic, and empty.
    clients::create_topic(broker.kafka(), "made", 12).await;
    assert_eq!(watermarks(broker.kafka(), "made", 11).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_appear_when_somebody_writes() {
    let (_folder, broker) = broker().await;
    let producer = clients::producer(broker.kafka(), &[]);
    for topic in ["one", "two.with-all_signs", "three"] {
        assert_eq!(send(&producer, FutureRecord::to(topic).payload(value("x"))).await, 0);
        assert_eq!(read_all(broker.kafka(), topic, 0).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_do_not_appear_where_that_is_off() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).set("auto_create_topics", false).start().await;
    let producer = clients::producer(broker.kafka(), &[("message.timeout.ms", "3000")]);
    let refused = producer.send(FutureRecord::<(), str>::to("absent").payload("x"), LIMIT).await;
    let (error, _) = refused.expect_err("there is no such topic");
    let code = error.rdkafka_error_code().expect("a code");
    let expected = [
        RDKafkaErrorCode::UnknownTopic,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        RDKafkaErrorCode::MessageTimedOut,
        RDKafkaErrorCode::UnknownPartition,
    ];
    assert!(expected.contains(&code), "{code:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_apart_and_keys_choose_them() {
    let (_folder, broker) = broker().await;
    clients::create_topic(broker.kafka(), "spread", 8).await;
    let producer = clients::producer(broker.kafka(), &[("partitioner", "murmur2_random")]);
    let mut sent: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for number in 0..200 {
        let key = format!("key-{}", number % 20);
        let text = format!("{number}");
        let record = FutureRecord::to("spread").key(&key).payload(&text);
        let delivered = producer.send(record, LIMIT).await.expect("acknowledged");
        sent.entry(delivered.partition).or_default().push(text);
    }
    assert!(sent.len() > 1, "twenty keys choose more than one of eight partitions");
    for partition in 0..8 {
        let texts = read_all(broker.kafka(), "spread", partition).await;
        let texts: Vec<_> = texts.iter().map(text_of).collect();
        assert_eq!(texts, sent.remove(&partition).unwrap_or_default(), "partition {partition}");
    }
}

fn text_of(record: &OwnedMessage) -> String {
    String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_consumer_is_woken_and_committed_data_is_what_it_reads() {
    let (_folder, broker) = broker().await;
    clients::create_topic(broker.kafka(), "wait", 1).await;
    // Long enough that a consumer which is not woken fails the test.
    for isolation in ["read_committed", "read_uncommitted"] {
        let settings = [("fetch.wait.max.ms", "20000"), ("isolation.level", isolation), ("socket.timeout.ms", "60000")];
        let consumer = clients::consumer(broker.kafka(), &settings);
        assign(&consumer, "wait", [0], Offset::End);
        // The position is resolved, and the long poll stands, once a second passed without a record.
        let early = tokio::time::timeout(Duration::from_secs(1), consumer.recv()).await;
        assert!(early.is_err(), "nothing was written yet");
        let producer = clients::producer(broker.kafka(), &[]);
        send(&producer, FutureRecord::to("wait").payload(value(isolation))).await;
        let received = tokio::time::timeout(Duration::from_secs(5), consumer.recv()).await;
        let received = received.expect("the consumer is woken by the record").expect("a record").detach();
        assert_eq!(text_of(&received), isolation);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_from_a_wrong_offset_is_an_error_of_its_own() {
    let (_folder, broker) = broker().await;
    let producer = clients::producer(broker.kafka(), &[]);
    send(&producer, FutureRecord::to("t").payload(value("x"))).await;
    let consumer = clients::consumer(broker.kafka(), &[]);
    assign(&consumer, "t", [0], Offset::Offset(1_000));
    let received = tokio::time::timeout(LIMIT, consumer.recv()).await.expect("an answer").map(|m| m.detach());
    let code = received.expect_err("offset 1000 is out of range").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::AutoOffsetReset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeks_and_pauses() {
    let (_folder, broker) = broker().await;
    clients::create_topic(broker.kafka(), "seek", 2).await;
    let producer = clients::producer(broker.kafka(), &[]);
    for partition in [0, 1] {
        for number in 0..10 {
            let text = format!("{partition}-{number}");
            send(&producer, FutureRecord::to("seek").partition(partition).payload(value(&text))).await;
        }
    }
    let consumer = clients::consumer(broker.kafka(), &[]);
    assign(&consumer, "seek", [0], Offset::Offset(8));
    assert_eq!((next(&consumer).await.offset(), next(&consumer).await.offset()), (8, 9));
    for (to, offset) in [(Offset::Offset(3), 3), (Offset::Beginning, 0), (Offset::OffsetTail(2), 8)] {
        block_in_place(|| consumer.seek("seek", 0, to, LIMIT)).expect("librdkafka seeks");
        assert_eq!(next(&consumer).await.offset(), offset, "{to:?}");
    }
    // One of two partitions is paused: only the other one is read, and later the first where it was left.
    assign(&consumer, "seek", [0, 1], Offset::Beginning);
    let mut first = TopicPartitionList::new();
    first.add_partition("seek", 0);
    consumer.pause(&first).expect("librdkafka pauses");
    for offset in 0..10 {
        let record = next(&consumer).await;
        assert_eq!((record.partition(), record.offset()), (1, offset));
    }
    consumer.resume(&first).expect("librdkafka resumes");
    assert_eq!((next(&consumer).await.partition(), next(&consumer).await.offset()), (0, 1));
}
