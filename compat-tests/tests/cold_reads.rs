//! Reads of what is no longer in memory, from a real S3 server: however many read the same, it is asked for once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use compat_tests::clients::{self, LIMIT, read_all};
use compat_tests::http;
use compat_tests::process::Launch;
use compat_tests::proxy::Proxy;
use compat_tests::s3;
use compat_tests::wait::alone;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::ObjectStore;
use object_store::path::Path;
use rdkafka::Message;
use rdkafka::producer::FutureRecord;
use tokio::time::Instant;

/// With the memory that a broker has by default.
const CHUNK_BYTES: u64 = 128 << 10;
const PARTITIONS: i32 = 3;
const READERS: usize = 12;
const RECORDS: u32 = 6_000;

async fn produce(kafka: &str, topic: &str) {
    let producer = clients::producer(kafka, &[("linger.ms", "20")]);
    let sends = (0..RECORDS).map(|number| {
        let payload = format!("{number:08}{}", "x".repeat(1_000));
        let producer = producer.clone();
        async move {
            let record = FutureRecord::<(), _>::to(topic).partition((number % 3) as i32).payload(&payload);
            producer.send(record, LIMIT).await.expect("acknowledged");
        }
    });
    join_all(sends).await;
}

/// The sum of a metric of the broker over all its labels.
async fn metric(launch: &Launch, name: &str) -> u64 {
    let (status, text) = http::get(&launch.http, "/metrics").await.expect("/metrics answers");
    assert_eq!(status, 200);
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a number") as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_the_same_old_data_cost_one_get_a_chunk_at_most() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = s3::prefix().await;
    let proxy = Proxy::before(&prefix.endpoint).await.expect("a proxy");
    let launch = prefix.through(&proxy.address).on(Launch::new(folder.path()));
    let mut broker = launch.start().await;
    clients::create_topic(&launch.kafka, "old", PARTITIONS).await;
    produce(&launch.kafka, "old").await;
    broker.kill().await;
    let _broker = broker.again().await;

    let logs = prefix.store().list(Some(&Path::from("logs"))).try_collect::<Vec<_>>().await.expect("a listing");
    let (bytes, chunks) = logs
        .iter()
        .fold((0, 0), |(bytes, chunks), object| (bytes + object.size, chunks + object.size.div_ceil(CHUNK_BYTES)));
    let asked = || proxy.faults.other_requests.load(Ordering::Relaxed);
    let (before, since) = (asked(), Instant::now());
    let readers = (0..READERS).map(|reader| {
        let kafka = launch.kafka.clone();
        tokio::spawn(async move {
            let partition = (reader % PARTITIONS as usize) as i32;
            let records = read_all(&kafka, "old", partition).await;
            let number = |payload: &[u8]| std::str::from_utf8(&payload[..8]).expect("text").parse().expect("a number");
            let numbers: Vec<u32> = records.iter().map(|record| number(record.payload().expect("a value"))).collect();
            let expected: Vec<u32> = (0..RECORDS).filter(|number| (number % 3) as i32 == partition).collect();
            assert_eq!(numbers, expected, "partition {partition}");
        })
    });
    for read in join_all(readers).await {
        read.expect("a reader reads everything");
    }
    let gets = metric(&launch, "woodpecker_read_requests_total").await;
    assert!((1..=chunks).contains(&gets), "{gets} GETs for {chunks} chunks");
    let ahead = metric(&launch, "woodpecker_read_ahead_bytes_total").await / CHUNK_BYTES;
    let read = metric(&launch, "woodpecker_read_cache_misses_total").await + ahead;
    assert!(read <= chunks, "each of {chunks} chunks is read once, not {read} in all");
    assert!(metric(&launch, "woodpecker_read_cache_hits_total").await > read, "and serves many");
    // What else was asked for: whether the log is still our own, once a second, of several keys.
    let others = 8 * (since.elapsed() + Duration::from_secs(1)).as_secs() + 8;
    let passed = asked() - before;
    assert!(passed <= gets + others, "{passed} requests passed the proxy, {gets} of them for chunks");
    let held = metric(&launch, "woodpecker_read_cache_bytes").await;
    assert!(held > 0 && held <= bytes + 512 * chunks, "{held} bytes are kept of {bytes}");
}
