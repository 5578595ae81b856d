//! What topics do with record batches, seen by real clients: codecs are exchanged and keys demanded, records stay.

use broker::batch::{BatchHeader, Codec};
use compat_tests::clients::{self, LIMIT, kcat, read_all};
use compat_tests::process::{Broker, Launch};
use compat_tests::raw::Raw;
use compat_tests::tools::Tools;
use kafka_protocol::messages::{FetchRequest, TopicName, fetch_request as fetch};
use kafka_protocol::protocol::StrBytes;
use rdkafka::Message;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tempfile::TempDir;

const PRODUCER_CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const TOPIC_CODECS: [(&str, Option<Codec>); 6] = [
    ("producer", None),
    ("uncompressed", Some(Codec::None)),
    ("gzip", Some(Codec::Gzip)),
    ("snappy", Some(Codec::Snappy)),
    ("lz4", Some(Codec::Lz4)),
    ("zstd", Some(Codec::Zstd)),
];

async fn broker() -> (TempDir, Broker) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).start().await;
    (folder, broker)
}

async fn create(broker: &Broker, name: &str, configs: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for (name, value) in configs {
        topic = topic.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
    let created = clients::admin(broker.kafka()).create_topics([&topic], &options).await.expect("answered");
    assert_eq!(created, vec![Ok(name.to_owned())]);
}

/// The headers of all stored batches, as a fetch returns them.
async fn stored(broker: &Broker, topic: &str) -> Vec<BatchHeader> {
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    let mut headers: Vec<BatchHeader> = Vec::new();
    loop {
        let next = headers.last().map_or(0, |header| header.base_offset + i64::from(header.last_offset_delta) + 1);
        let partition = fetch::FetchPartition::default().with_fetch_offset(next).with_partition_max_bytes(50 << 20);
        let asked = fetch::FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_bytes(50 << 20).with_topics(vec![asked]);
        let answer = raw.call(11, &request).await.responses.remove(0).partitions.remove(0);
        let mut rest = answer.records.expect("records are never null");
        if rest.is_empty() {
            return headers;
        }
        while !rest.is_empty() {
            let header = BatchHeader::parse(&rest).expect("a whole batch");
            let batch = rest.split_to(header.length as usize + 12);
            assert_eq!(crc32c::crc32c(&batch[21..]), header.crc);
            headers.push(header);
        }
    }
}

/// Record `number` of a run: some compress well, some not at all, some are large.
fn payload(number: usize) -> Vec<u8> {
    let length = if number.is_multiple_of(40) { 200_000 } else { number * 37 % 3_000 };
    let mut state = number as u32 + 1;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    if number.is_multiple_of(2) { vec![b'a'; length] } else { (0..length).map(noise).collect() }
}

fn headers(number: usize) -> OwnedHeaders {
    let number = number.to_string();
    OwnedHeaders::new()
        .insert(Header { key: "twice", value: Some(&number) })
        .insert(Header { key: "twice", value: Some("second") })
        .insert(Header::<&str> { key: "null", value: None })
}

async fn produce(producer: &FutureProducer, topic: &str, from: usize, count: usize) {
    let mut deliveries = Vec::new();
    for number in from..from + count {
        let (key, payload) = (number.to_string(), payload(number));
        let record = FutureRecord::to(topic).key(&key).payload(&payload).headers(headers(number));
        let record = record.timestamp(1_600_000_000_000 + number as i64);
        deliveries.push(producer.send_result(record).map_err(|(error, _)| error).expect("room in the queue"));
    }
    for (number, delivery) in (from..).zip(deliveries) {
        assert_eq!(delivery.await.expect("told").expect("acknowledged").offset, number as i64, "{topic}");
    }
}

fn check(topic: &str, records: &[OwnedMessage]) {
    for (number, record) in records.iter().enumerate() {
        assert!(record.payload() == Some(&payload(number)), "{topic}: record {number} was changed");
        assert_eq!(record.key(), Some(number.to_string().as_bytes()));
        assert_eq!(record.timestamp().to_millis(), Some(1_600_000_000_000 + number as i64));
        let seen: Vec<_> = record.headers().expect("headers").iter().map(|h| (h.key, h.value)).collect();
        let number = number.to_string();
        let expected = [("twice", Some(number.as_bytes())), ("twice", Some(&b"second"[..])), ("null", None)];
        assert_eq!(seen, expected, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_to_topics_of_every_compression_type() {
    const EACH: usize = 100;
    let (_folder, broker) = broker().await;
    for (topic, codec) in TOPIC_CODECS {
        create(&broker, topic, &[("compression.type", topic)]).await;
        for (number, produced) in PRODUCER_CODECS.iter().enumerate() {
            let idempotence = if number % 2 == 0 { "true" } else { "false" };
            let settings = [
                ("compression.type", *produced),
                ("enable.idempotence", idempotence),
                ("max.in.flight.requests.per.connection", "5"),
                ("linger.ms", "5"),
                ("batch.num.messages", "30"),
            ];
            let before = stored(&broker, topic).await.len();
            produce(&clients::producer(broker.kafka(), &settings), topic, number * EACH, EACH).await;
            let expected = codec.or_else(|| Codec::from_name(produced)).unwrap_or(Codec::None);
            let batches = stored(&broker, topic).await.split_off(before);
            assert!(batches.len() > 1);
            for header in batches {
                // librdkafka leaves a batch uncompressed that would become larger.
                let kept = codec.is_none() && header.codec() == Some(Codec::None);
                assert!(kept || header.codec() == Some(expected), "{produced} to {topic}: {header:?}");
                assert_eq!(header.is_idempotent(), idempotence == "true");
            }
        }
        let records = read_all(broker.kafka(), topic, 0).await;
        assert_eq!(records.len(), EACH * PRODUCER_CODECS.len(), "{topic}");
        check(topic, &records);
        let out = kcat(&["-C", "-b", broker.kafka(), "-t", topic, "-e", "-q", "-f", "%o %k %S\n"], b"");
        assert_eq!(String::from_utf8_lossy(&out).lines().count(), records.len(), "{topic}");
    }
}

/// Java's decoders are the strictest: of lz4 frames and snappy streams they read a part only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_reads_what_is_compressed_here() {
    const COUNT: usize = 40;
    let (_folder, broker) = broker().await;
    let tools = Tools::new(broker.kafka());
    let settings = [("compression.type", "none"), ("linger.ms", "50"), ("batch.size", "900000")];
    let producer = clients::producer(broker.kafka(), &settings);
    // Letters, some repeated and some not, up to several blocks of every codec in one batch.
    let letters = |number: usize| payload(number).iter().map(|byte| (b'a' + byte % 26) as char).collect::<String>();
    let expected: String = (0..COUNT).map(|number| format!("Offset:{number}\t{}\n", letters(number))).collect();
    for (topic, codec) in TOPIC_CODECS {
        create(&broker, topic, &[("compression.type", topic)]).await;
        let values: Vec<String> = (0..COUNT).map(letters).collect();
        let mut sent = Vec::new();
        for value in &values {
            let record = FutureRecord::<(), _>::to(topic).payload(value);
            sent.push(producer.send_result(record).map_err(|(error, _)| error).expect("room in the queue"));
        }
        for delivery in sent {
            delivery.await.expect("told").expect("acknowledged");
        }
        let batches = stored(&broker, topic).await;
        assert!(batches.iter().all(|batch| batch.codec() == Some(codec.unwrap_or(Codec::None))));
        assert!(batches.iter().any(|batch| batch.record_count > 5), "several records share a batch");
        let count = COUNT.to_string();
        let from = ["--topic", topic, "--partition", "0", "--offset", "earliest", "--max-messages", &count];
        let shown = ["--formatter-property", "print.offset=true"];
        let read = tools.call("console-consumer", &[&from[..], &shown].concat()).await.done();
        assert!(read == expected, "{topic}: Java reads something else");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_becomes_too_large_is_refused() {
    let (_folder, broker) = broker().await;
    create(&broker, "t", &[("compression.type", "uncompressed"), ("max.message.bytes", "100000")]).await;
    let producer = clients::producer(broker.kafka(), &[("compression.type", "zstd"), ("message.timeout.ms", "20000")]);
    let refused = producer.send(FutureRecord::<(), _>::to("t").payload(&vec![b'a'; 500_000]), LIMIT).await;
    let (error, _) = refused.expect_err("uncompressed it is more than the topic takes");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    let small = producer.send(FutureRecord::<(), _>::to("t").payload(&vec![b'a'; 90_000]), LIMIT).await;
    assert_eq!(small.expect("acknowledged").offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_topic_refuses_records_without_a_key() {
    let (_folder, broker) = broker().await;
    create(&broker, "t", &[("cleanup.policy", "compact"), ("compression.type", "lz4")]).await;
    for idempotence in ["false", "true"] {
        let producer = clients::producer(broker.kafka(), &[("enable.idempotence", idempotence)]);
        let refused = producer.send(FutureRecord::<(), _>::to("t").payload("keyless"), LIMIT).await;
        let (error, _) = refused.expect_err("a record without a key cannot be compacted");
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::InvalidRecord));
    }
    let producer = clients::producer(broker.kafka(), &[]);
    let keyed = producer.send(FutureRecord::to("t").key("").payload("an empty key is one"), LIMIT).await;
    assert_eq!(keyed.expect("acknowledged").offset, 0);
    let tombstone = producer.send(FutureRecord::<_, [u8]>::to("t").key("gone"), LIMIT).await;
    assert_eq!(tombstone.expect("acknowledged").offset, 1);
    // The answer names the records, and those only.
    let batch = keyed_batch(&[Some("key"), None, None]);
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    let answer = raw.call(9, &compat_tests::raw::produce("t", 0, batch)).await;
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 87);
    let named: Vec<_> = partition.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(named, [1, 2]);
    for text in [&partition.error_message, &partition.record_errors[0].batch_index_error_message] {
        assert!(text.as_ref().is_some_and(|text| text.contains("key")), "{text:?}");
    }
}

/// A batch of records with these keys and no values.
fn keyed_batch(keys: &[Option<&str>]) -> bytes::Bytes {
    let mut records = Vec::new();
    for (offset_delta, key) in keys.iter().enumerate() {
        // Small numbers only: zigzag is twice the number.
        let mut record = vec![0, 0, 2 * offset_delta as u8];
        record.push(key.map_or(1, |key| 2 * key.len() as u8));
        record.extend(key.unwrap_or_default().as_bytes());
        record.extend([1, 0]);
        records.push(2 * record.len() as u8);
        records.extend(record);
    }
    let header = BatchHeader {
        base_offset: 0,
        length: 0,
        leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: keys.len() as i32 - 1,
        base_timestamp: 1_600_000_000_000,
        max_timestamp: 1_600_000_000_000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: keys.len() as i32,
    };
    let body = [vec![0; broker::batch::seal::BODY_HEADER_BYTES], records].concat();
    let (_, head, body) = broker::batch::seal::seal(header, body);
    [&head[..], &body[..]].concat().into()
}
