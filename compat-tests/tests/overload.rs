//! More work than the broker can do, and no work at all: memory stays within the budget, nothing is dropped, and waiting
//! costs nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::process::{Broker, Launch};
use compat_tests::proxy::Proxy;
use compat_tests::raw::Raw;
use compat_tests::s3;
use compat_tests::wait::{alone, scale};
use compat_tests::workload::{Load, Workload};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep};

const MIB: u64 = 1 << 20;
/// What the process may take beside its budget for record data.
const BESIDE_THE_BUDGET: u64 = 64 * MIB;

/// The highest resident size seen until `end`.
async fn peak_rss(broker: &Broker, end: Instant) -> u64 {
    let mut peak = 0;
    while Instant::now() < end {
        peak = peak.max(broker.rss_bytes());
        sleep(Duration::from_millis(50)).await;
    }
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_faster_than_the_storage_are_slowed_down_within_the_budget() {
    const BUDGET: u64 = 128 * MIB;
    const STORAGE_BYTES_PER_SECOND: u64 = 12_000_000;
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = s3::prefix().await;
    let proxy = Proxy::before(&place.endpoint).await.expect("a proxy");
    let launch = Launch::new(folder.path())
        .set("memory_bytes", BUDGET)
        .set("tail_bytes", 32 * MIB)
        .set("request_max_bytes", 32 * MIB);
    let launch = place.through(&proxy.address).on(launch);
    let broker = launch.start().await;
    let load = Load { value_bytes: 20_000, in_flight: 4_000, burst: 50, ..Load::small("flood", true) };
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    proxy.faults.put_bytes_per_second.store(STORAGE_BYTES_PER_SECOND, Ordering::Relaxed);
    proxy.faults.put_delay_ms.store(50, Ordering::Relaxed);
    let workload = Workload::start(&launch.kafka, load);
    let minutes = Duration::from_secs(scale("WOODPECKER_TEST_OVERLOAD_S", 20));
    let peak = peak_rss(&broker, Instant::now() + minutes).await;
    let acknowledged = workload.acknowledged();
    proxy.faults.put_bytes_per_second.store(0, Ordering::Relaxed);
    let history = workload.finish(&launch.kafka).await;
    println!("overload: peak {} MiB with a budget of {} MiB, {acknowledged} acknowledged", peak / MIB, BUDGET / MIB);
    assert!(peak <= BUDGET + BESIDE_THE_BUDGET, "{} MiB resident", peak / MIB);
    assert!(acknowledged > 100, "the storage was slow, not dead");
    assert_eq!(history.unknown(), 0, "nothing was dropped");
    history.assert_sound(&Rules::idempotent(), "slowed down, not dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_storage_is_waited_out() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = s3::prefix().await;
    let proxy = Proxy::before(&place.endpoint).await.expect("a proxy");
    let launch = place.through(&proxy.address).on(Launch::new(folder.path()));
    let mut broker = launch.start().await;
    let load = Load::small("outage", true);
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    workload.progress(200).await;
    // First requests do not arrive; then they do, but nobody hears about it.
    for fault in [&proxy.faults.cut, &proxy.faults.swallow_put_answers] {
        fault.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(broker.exited(), None, "an outage is no reason to end");
        fault.store(false, Ordering::Relaxed);
        workload.progress(200).await;
    }
    let history = workload.finish(&launch.kafka).await;
    assert_eq!(history.unknown(), 0);
    history.assert_sound(&Rules::idempotent(), "across outages of the storage");
}

/// A fetch that waits for a record, for half a minute.
fn long_poll(topic: &str) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let topic = FetchTopic::default().with_topic(name).with_partitions(vec![partition]);
    FetchRequest::default().with_max_wait_ms(30_000).with_min_bytes(1).with_max_bytes(1 << 20).with_topics(vec![topic])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiting_readers_cost_nothing() {
    const WATCHED: Duration = Duration::from_secs(10);
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path());
    let broker = launch.start().await;
    clients::create_topic(&launch.kafka, "quiet", 1).await;
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        let mut raw = Raw::connect(&launch.kafka).await.expect("a connection");
        raw.request(1, 11, &long_poll("quiet")).await.expect("a request");
        waiting.push(raw);
    }
    sleep(Duration::from_secs(1)).await;
    let before = broker.cpu_time();
    sleep(WATCHED).await;
    let used = broker.cpu_time() - before;
    println!("1,000 long polls: {used:?} of processor time in {WATCHED:?}, {} MiB", broker.rss_bytes() / MIB);
    assert!(used < WATCHED / 100, "{used:?} of processor time in {WATCHED:?}");
    // They do wait for something: one record answers all of them.
    let producer = clients::producer(&launch.kafka, &[]);
    let record = rdkafka::producer::FutureRecord::<(), str>::to("quiet").partition(0).payload("now");
    producer.send(record, clients::LIMIT).await.expect("acknowledged");
    for mut raw in waiting {
        let (_, answer) = raw.receive().await.expect("an answer").expect("an open connection");
        assert!(answer.len() > 80, "the answer holds the record");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_is_small() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path());
    let broker = launch.start().await;
    clients::create_topic(&launch.kafka, "some", 100).await;
    sleep(Duration::from_secs(1)).await;
    let (rss, before) = (broker.rss_bytes(), broker.cpu_time());
    sleep(Duration::from_secs(5)).await;
    let used = broker.cpu_time() - before;
    println!("idle: {} MiB, {used:?} of processor time in 5 s", rss / MIB);
    assert!(rss < 30 * MIB, "{} KiB resident", rss / 1024);
    assert!(used <= Duration::from_millis(50), "{used:?} of processor time in 5 s of nothing to do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_depend_on_bytes_and_time_and_never_on_partitions() {
    let _turn = alone().await;
    let mut puts = Vec::new();
    for partitions in [1, 500] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = s3::prefix().await;
        let proxy = Proxy::before(&place.endpoint).await.expect("a proxy");
        let launch = place.through(&proxy.address).on(Launch::new(folder.path()));
        let _broker = launch.start().await;
        let load = Load { partitions, producers: 1, ..Load::small("wide", true) };
        clients::create_topic(&launch.kafka, &load.topic, partitions).await;
        let workload = Workload::start(&launch.kafka, load);
        workload.progress(1_000).await;
        let before = proxy.faults.puts.load(Ordering::Relaxed);
        sleep(Duration::from_secs(3)).await;
        puts.push(proxy.faults.puts.load(Ordering::Relaxed) - before);
        workload.abandon().await;
    }
    println!("PUTs in 3 s: {} with one partition, {} with 500", puts[0], puts[1]);
    assert!(puts[1] <= puts[0] + puts[0] / 2 + 5, "{puts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_on_a_bucket_sends_no_requests() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = s3::prefix().await;
    let proxy = Proxy::before(&place.endpoint).await.expect("a proxy");
    let launch = place.through(&proxy.address).on(Launch::new(folder.path()));
    let _broker = launch.start().await;
    clients::create_topic(&launch.kafka, "t", 10).await;
    sleep(Duration::from_secs(3)).await;
    let count = || proxy.faults.puts.load(Ordering::Relaxed) + proxy.faults.other_requests.load(Ordering::Relaxed);
    let before = count();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(count() - before, 0, "a bucket is paid by the request");
}
