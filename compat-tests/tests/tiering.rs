//! What happens to data after it was acknowledged, in real processes: it is tiered, it is there after kill -9 at any moment
//! of that, and what nobody wants any more is gone from the storage.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use compat_tests::clients::{self, LIMIT, assign, read_all, watermarks};
use compat_tests::process::{Broker, Launch};
use compat_tests::proxy::Proxy;
use compat_tests::s3::{self, Prefix};
use compat_tests::wait::until;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path as Key;
use rdkafka::Message;
use rdkafka::admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// A fence is as long as a fragment's header, and nothing else is.
const FENCE_BYTES: u64 = 80;

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT))
}

async fn create(kafka: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = configs.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let made = clients::admin(kafka).create_topics([&topic], &options()).await.expect("CreateTopics is answered");
    assert_eq!(made, vec![Ok(name.to_owned())]);
}

/// Records of 1 KB, their numbers in front, round robin over the partitions.
async fn produce(kafka: &str, topic: &str, partitions: i32, numbers: std::ops::Range<u32>) {
    let producer = clients::producer(kafka, &[("enable.idempotence", "true"), ("linger.ms", "1")]);
    for chunk in numbers.collect::<Vec<_>>().chunks(100) {
        let sends = chunk.iter().map(|number| {
            let payload = format!("{number:08}{}", "x".repeat(1_000));
            let producer = producer.clone();
            async move {
                let partition = (number % partitions as u32) as i32;
                let record = FutureRecord::<(), _>::to(topic).partition(partition).payload(&payload);
                producer.send(record, LIMIT).await.expect("acknowledged");
            }
        });
        futures::future::join_all(sends).await;
    }
}

/// The numbers of a partition's records, in the order of their offsets.
async fn numbers(kafka: &str, topic: &str, partition: i32) -> Vec<u32> {
    let number = |payload: &[u8]| std::str::from_utf8(&payload[..8]).expect("text").parse().expect("a number");
    read_all(kafka, topic, partition).await.iter().map(|record| number(record.payload().expect("a value"))).collect()
}

async fn assert_complete(kafka: &str, topic: &str, partitions: i32, count: u32) {
    for partition in 0..partitions {
        let expected: Vec<_> = (0..count).filter(|number| (number % partitions as u32) as i32 == partition).collect();
        assert_eq!(numbers(kafka, topic, partition).await, expected, "{topic}-{partition}");
    }
}

/// How many objects with data there are: tiered ones, and fragments.
async fn objects(prefix: &Prefix) -> (usize, usize) {
    let listed: Vec<_> = prefix.store().list(Some(&Key::from("logs"))).try_collect().await.expect("a listing");
    let data = listed.iter().filter(|object| object.size > FENCE_BYTES);
    let (tiered, fragments): (Vec<_>, Vec<_>) = data.partition(|object| object.location.as_ref().contains("/tiered/"));
    (tiered.len(), fragments.len())
}

fn bytes_in(folder: &Path) -> u64 {
    files_in(folder).iter().map(|(_, bytes)| bytes).sum()
}

/// All files below a folder, with their lengths.
fn files_in(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.flat_map(|entry| match entry.path().is_dir() {
        true => files_in(&entry.path()),
        false => vec![(entry.path(), entry.metadata().map_or(0, |metadata| metadata.len()))],
    });
    files.collect()
}

/// Fragments that the last start has read, as it said.
fn replayed(broker: &Broker) -> u32 {
    let log = broker.log();
    let line = log.lines().rev().find(|line| line.contains("rebuilt all partitions")).expect("every start says so");
    let fields = line.split_whitespace().find_map(|field| field.strip_prefix("fragments="));
    fields.expect("with the number of fragments").parse().expect("a number")
}

async fn killed_and_started(mut broker: Broker) -> Broker {
    broker.kill().await;
    broker.again().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_tiered_and_a_start_reads_only_what_came_after() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    let launch = prefix.on(Launch::new(folder.path())).busy_upkeep().set("flush_interval_ms", 5);
    let mut broker = launch.start().await;
    create(&launch.kafka, "t", 4, &[]).await;
    for round in 0..3 {
        produce(&launch.kafka, "t", 4, round * 1_000..(round + 1) * 1_000).await;
        broker = killed_and_started(broker).await;
    }
    until("all fragments are tiered and gone", LIMIT, async || objects(&prefix).await.1 == 0).await;
    assert!(objects(&prefix).await.0 > 0);
    assert_complete(&launch.kafka, "t", 4, 3_000).await;
    let broker = killed_and_started(broker).await;
    assert_eq!(replayed(&broker), 0, "everything was in the manifest");
    assert_complete(&launch.kafka, "t", 4, 3_000).await;
    assert_eq!(objects(&prefix).await.1, 0);
    // And it goes on from there.
    produce(&launch.kafka, "t", 4, 3_000..3_400).await;
    let _broker = killed_and_started(broker).await;
    assert_complete(&launch.kafka, "t", 4, 3_400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_checkpointed_and_small_runs_are_moved() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path()).busy_upkeep();
    let mut broker = launch.start().await;
    create(&launch.kafka, "t", 4, &[]).await;
    for round in 0..3 {
        produce(&launch.kafka, "t", 4, round * 1_000..(round + 1) * 1_000).await;
        broker = killed_and_started(broker).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let broker = killed_and_started(broker).await;
    assert_eq!(replayed(&broker), 0, "everything was in the manifest");
    assert_complete(&launch.kafka, "t", 4, 3_000).await;
}

/// Both kinds of retention, and what DeleteRecords and the end of a topic give back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_any_more_is_gone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    let launch = prefix.on(Launch::new(folder.path())).busy_upkeep().set("flush_interval_ms", 5);
    let broker = launch.start().await;
    let kafka = &launch.kafka;
    create(kafka, "sized", 1, &[("retention.bytes", "200000")]).await;
    create(kafka, "aged", 1, &[("retention.ms", "3600000")]).await;
    produce(kafka, "sized", 1, 0..1_000).await;
    produce(kafka, "aged", 1, 0..1_000).await;

    until("what is too much has gone", LIMIT, async || watermarks(kafka, "sized", 0).await.0 >= 600).await;
    let (low, high) = watermarks(kafka, "sized", 0).await;
    assert!(high == 1_000 && low <= 1_000 - 190, "{low}..{high}: enough is left");
    let left = numbers(kafka, "sized", 0).await;
    assert_eq!(left, (low as u32..1_000).collect::<Vec<_>>());
    let consumer = clients::consumer(kafka, &[("auto.offset.reset", "error")]);
    assign(&consumer, "sized", [0], Offset::Offset(1));
    let error =
        tokio::time::timeout(LIMIT, consumer.recv()).await.expect("an answer").expect_err("below the log start");
    let out_of_range = matches!(
        error,
        KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    );
    assert!(out_of_range, "{error:?}");

    assert_eq!(watermarks(kafka, "aged", 0).await, (0, 1_000));
    let config = AlterConfig::new(ResourceSpecifier::Topic("aged")).set("retention.ms", "1");
    clients::admin(kafka).alter_configs([&config], &options()).await.expect("AlterConfigs is answered");
    until("what is too old has gone", LIMIT, async || watermarks(kafka, "aged", 0).await == (1_000, 1_000)).await;

    create(kafka, "cut", 1, &[]).await;
    produce(kafka, "cut", 1, 0..500).await;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("cut", 0, Offset::Offset(450)).expect("an offset");
    clients::admin(kafka).delete_records(&offsets, &options()).await.expect("DeleteRecords is answered");

    let broker = killed_and_started(broker).await;
    assert_eq!(watermarks(kafka, "sized", 0).await, (low, high), "what has gone stays gone");
    assert_eq!(watermarks(kafka, "aged", 0).await, (1_000, 1_000));
    assert_eq!(watermarks(kafka, "cut", 0).await, (450, 500));
    assert_eq!(numbers(kafka, "cut", 0).await, (450..500).collect::<Vec<_>>());
    let stored = async || {
        let listed: Vec<_> = prefix.store().list(Some(&Key::from("logs"))).try_collect().await.expect("a listing");
        listed.iter().map(|object| object.size).sum::<u64>()
    };
    until("its space is given back", LIMIT, async || stored().await < 900_000).await;

    let names = ["sized", "aged", "cut"];
    clients::admin(kafka).delete_topics(&names, &options()).await.expect("DeleteTopics is answered");
    until("nothing is left of deleted topics", LIMIT, async || objects(&prefix).await == (0, 0)).await;
    // A name that comes again is another topic.
    create(kafka, "sized", 1, &[]).await;
    produce(kafka, "sized", 1, 0..10).await;
    let _broker = killed_and_started(broker).await;
    assert_complete(kafka, "sized", 1, 10).await;
}

/// Rounds of little data leave no trail of little objects; those that are too long for one request are written in parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_bucket_are_merged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    // No parts are shorter in S3.
    let launch = prefix.on(Launch::new(folder.path())).busy_upkeep().set("flush_interval_ms", 5);
    let launch =
        launch.set("tier_bytes", 1_000_000).set("tier_object_bytes", 1_000_000).set("tier_interval_ms", 60_000);
    let launch = launch.set("merge_object_bytes", 64 << 20).set("merge_part_bytes", 5 << 20);
    let broker = launch.start().await;
    create(&launch.kafka, "t", 3, &[]).await;
    produce(&launch.kafka, "t", 3, 0..12_000).await;
    let parts = "woodpecker_store_requests_total{kind=\"part\",purpose=\"tiered\"}";
    until("an object is written in parts", LIMIT, async || broker.metric(parts).await >= Some(2.0)).await;
    until("what was merged is gone", LIMIT, async || objects(&prefix).await.0 <= 8).await;
    assert_complete(&launch.kafka, "t", 3, 12_000).await;
    let _broker = killed_and_started(broker).await;
    assert_complete(&launch.kafka, "t", 3, 12_000).await;
}

/// Told to stop while it writes a long object, a broker gives it up: no listing would ever show what it left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_leaves_no_upload_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    let proxy = Proxy::before(&prefix.endpoint).await.expect("a proxy");
    let launch =
        prefix.through(&proxy.address).on(Launch::new(folder.path())).busy_upkeep().set("flush_interval_ms", 5);
    let launch =
        launch.set("tier_bytes", 1_000_000).set("tier_object_bytes", 1_000_000).set("tier_interval_ms", 60_000);
    let launch = launch.set("merge_object_bytes", 64 << 20).set("merge_part_bytes", 5 << 20);
    let mut broker = launch.start().await;
    create(&launch.kafka, "t", 3, &[]).await;
    let seen = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let faults = &proxy.faults;
    let under_way = || seen(&faults.uploads_begun) - seen(&faults.uploads_completed) - seen(&faults.uploads_given_up);
    // Long enough to be seen, and to be told to stop meanwhile.
    faults.put_delay_ms.store(150, Ordering::Relaxed);
    let kafka = launch.kafka.clone();
    let producing = tokio::spawn(async move { produce(&kafka, "t", 3, 0..20_000).await });
    until("an object is being written in parts", LIMIT, async || under_way() > 0).await;
    broker.terminate();
    assert_eq!(broker.wait(LIMIT).await, Some(0), "it stopped in good order");
    assert_eq!(under_way(), 0);
    assert!(seen(&faults.uploads_given_up) > 0, "one was given up");
    faults.put_delay_ms.store(0, Ordering::Relaxed);
    let _broker = broker.again().await;
    producing.await.expect("everything is acknowledged");
    assert_complete(&launch.kafka, "t", 3, 20_000).await;
}

/// A folder has the same objects, of what was too short to stay where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_folder_are_merged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path()).busy_upkeep().set("merge_part_bytes", 100_000);
    let mut broker = launch.start().await;
    create(&launch.kafka, "t", 4, &[]).await;
    for round in 0..2 {
        produce(&launch.kafka, "t", 4, round * 3_000..(round + 1) * 3_000).await;
        broker = killed_and_started(broker).await;
    }
    let tiered = || -> Vec<u64> {
        let files = files_in(&folder.path().join("data/logs"));
        files
            .into_iter()
            .filter(|(path, _)| path.to_string_lossy().contains("/tiered/"))
            .map(|(_, bytes)| bytes)
            .collect()
    };
    until("some are long", LIMIT, async || tiered().iter().any(|bytes| *bytes > 400_000)).await;
    until("few are left", LIMIT, async || tiered().len() <= 24).await;
    assert_complete(&launch.kafka, "t", 4, 6_000).await;
    let _broker = killed_and_started(broker).await;
    assert_complete(&launch.kafka, "t", 4, 6_000).await;
}

/// When everything is settled, nothing is asked of the storage, however often upkeep might look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_asks_for_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    let launch = prefix.on(Launch::new(folder.path())).busy_upkeep().set("flush_interval_ms", 5);
    let broker = launch.start().await;
    create(&launch.kafka, "kept", 2, &[("retention.ms", "-1")]).await;
    create(&launch.kafka, "aged", 2, &[("retention.ms", "86400000"), ("retention.bytes", "1000000")]).await;
    for topic in ["kept", "aged"] {
        produce(&launch.kafka, topic, 2, 0..1_000).await;
    }
    let requests = async || broker.metric("woodpecker_store_requests_total").await.expect("it is counted");
    let mut before = requests().await;
    until("everything is settled", LIMIT, async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = requests().await;
        std::mem::replace(&mut before, now) == now
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(requests().await, before, "an idle broker made requests");
}

/// The same in a folder: files of segments and tiered objects go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_gives_space_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path()).busy_upkeep();
    let mut broker = launch.start().await;
    create(&launch.kafka, "t", 2, &[]).await;
    for round in 0..3 {
        produce(&launch.kafka, "t", 2, round * 1_000..(round + 1) * 1_000).await;
        broker = killed_and_started(broker).await;
    }
    let data = folder.path().join("data/logs");
    assert!(bytes_in(&data) > 3_000_000);
    clients::admin(&launch.kafka).delete_topics(&["t"], &options()).await.expect("DeleteTopics is answered");
    create(&launch.kafka, "other", 1, &[]).await;
    produce(&launch.kafka, "other", 1, 0..10).await;
    // What the last start but one wrote goes when a segment of a later one is complete.
    let _broker = killed_and_started(broker).await;
    until("files of earlier starts are gone", LIMIT, async || bytes_in(&data) < 200_000).await;
    assert_complete(&launch.kafka, "other", 1, 10).await;
}

/// Of each key the last record stays, at its offset; what has no value goes; what is read is the same after kill -9.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_topic_keeps_the_last_record_of_each_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    let launch = prefix.on(Launch::new(folder.path())).busy_upkeep().set("flush_interval_ms", 5);
    let broker = launch.start().await;
    let kafka = &launch.kafka;
    let configs = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01"), ("delete.retention.ms", "0")];
    create(kafka, "t", 1, &configs).await;
    let producer = clients::producer(kafka, &[("enable.idempotence", "true"), ("linger.ms", "1")]);
    let mut last = std::collections::BTreeMap::new();
    for number in 0..4_000_u32 {
        let (key, payload) = (format!("key-{}", number % 50), format!("{number:08}{}", "x".repeat(500)));
        // The keys from 40 on are deleted in the end.
        let deleted = number >= 3_950 && number % 50 >= 40;
        let record = FutureRecord::to("t").key(&key);
        let record = if deleted { record } else { record.payload(&payload) };
        let sent = producer.send_result(record).expect("there is room in the queue");
        if number % 100 == 99 {
            sent.await.expect("an answer").expect("acknowledged");
        }
        last.insert(key, (i64::from(number), !deleted));
    }
    // Something must come after, for what went before to be tiered, compacted, and its tombstones to be dropped.
    for round in 0..3 {
        produce_keyed(&producer, round).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    let survivors = async || {
        let records = read_all(kafka, "t", 0).await;
        let of_keys = records.iter().filter(|record| record.key().expect("a key").starts_with(b"key-"));
        let shown = of_keys.map(|record| {
            let key = String::from_utf8(record.key().expect("a key").to_vec()).expect("text");
            (key, (record.offset(), record.payload().is_some()))
        });
        shown.collect::<Vec<_>>()
    };
    until("old records and tombstones are gone", LIMIT, async || survivors().await.len() <= 40).await;
    let expected: Vec<_> = last.iter().filter(|(_, (_, lives))| *lives).map(|(key, at)| (key.clone(), *at)).collect();
    let mut found = survivors().await;
    assert!(found.is_sorted_by_key(|(_, (offset, _))| *offset));
    found.sort();
    assert_eq!(found, expected, "the last record of each key, at its offset");
    let (low, high) = watermarks(kafka, "t", 0).await;
    assert!(low == 0 && high > 4_000, "{low}..{high}: offsets stay");
    let stored = async || {
        let listed: Vec<_> = prefix.store().list(Some(&Key::from("logs"))).try_collect().await.expect("a listing");
        listed.iter().map(|object| object.size).sum::<u64>()
    };
    until("its space is given back", LIMIT, async || stored().await < 500_000).await;

    let _broker = killed_and_started(broker).await;
    let mut again = survivors().await;
    again.sort();
    assert_eq!(again, expected);
    assert_eq!(watermarks(kafka, "t", 0).await, (low, high));
    produce_keyed(&producer, 9).await;
}

/// A hundred records with a key each.
async fn produce_keyed(producer: &rdkafka::producer::FutureProducer, round: u32) {
    for number in 0..100 {
        let (key, payload) = (format!("other-{number}"), format!("{round} {}", "y".repeat(1_000)));
        producer.send(FutureRecord::to("t").key(&key).payload(&payload), LIMIT).await.expect("acknowledged");
    }
}
