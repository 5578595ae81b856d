//! The broker dies between every two durable steps, at each place that the source names (`fail_point!`), on a folder and
//! on a bucket: nothing acknowledged is lost, nothing is there twice. Needs a broker built with the feature
//! `failpoints`: `make test-failpoints`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::process::{Broker, Launch};
use compat_tests::s3::Backend;
use compat_tests::wait::{Dice, alone, scale};
use compat_tests::workload::{Load, Workload};
use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use tokio::time::Instant;

/// Points that healthy storage and a short test do not lead to: the simulation and the unit tests do.
const ELSEWHERE: &[(&str, &str)] = &[
    ("embedded::after_snapshot", "a thousand metadata transactions away"),
    ("embedded::after_journal_deleted", "two thousand metadata transactions away"),
    ("settled::unclear", "only after an error of the store"),
    ("object_log::self_fenced", "only after an outcome that stays unknown"),
    ("object_log::closed", "only in a broker that ends in good order"),
    ("file_log::registered", "only after a write that failed"),
    ("tiered::upload_unclear", "only after an error of the store"),
    ("upkeep::compacted", "this load has no keys; a crash at any moment of upkeep is in the tests of upkeep"),
    ("etcd::before_commit", "only with etcd"),
    ("etcd::after_commit", "only with etcd"),
];

/// How long a broker is given to reach a point.
const REACHED_WITHIN: Duration = Duration::from_secs(4);

/// Every point that the sources name.
fn points() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace");
    let mut found = BTreeSet::new();
    let mut folders: Vec<_> = ["meta", "storage", "broker"].map(|krate| root.join(krate).join("src")).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("sources are text");
            let places = text.split("fail_point!(\"").skip(1);
            found.extend(places.filter_map(|place| Some(place.split_once('"')?.0.to_owned())));
        }
    }
    found
}

/// Metadata is written too, while the broker lives.
async fn create_topics(kafka: &str, first: u32) {
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(1)));
    let admin = clients::admin(kafka);
    for number in first.. {
        let name = format!("extra-{number}");
        // It may die of it: that is what this is for.
        let _ = admin.create_topics([&NewTopic::new(&name, 1, TopicReplication::Fixed(1))], &options).await;
        let _ = admin.create_partitions([&NewPartitions::new(&name, 2)], &options).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets a broker run until it dies at the point that its environment names. False if it did not in time.
async fn dies(broker: &mut Broker, kafka: &str, first_topic: u32) -> bool {
    let creating = tokio::spawn({
        let kafka = kafka.to_owned();
        async move { create_topics(&kafka, first_topic).await }
    });
    let deadline = Instant::now() + REACHED_WITHIN;
    while broker.exited().is_none() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    creating.abort();
    let died = broker.exited().is_some();
    if !died {
        broker.kill().await;
    }
    died
}

fn dying_at(launch: &Launch, point: &str, after: u64) -> Launch {
    let action = if after == 0 { "panic".to_owned() } else { format!("{after}*off->panic") };
    launch.clone().env("FAILPOINTS", format!("{point}={action}"))
}

/// Crashes at every point, at its first time and later; returns the points that were reached.
async fn crash_everywhere(name: &str, backend: Backend) -> BTreeSet<String> {
    let _turn = alone().await;
    let mut dice = Dice::new(name);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let is_folder = matches!(backend, Backend::Folder);
    let launch = backend.launch(folder.path()).await.busy_upkeep();
    // S3 takes no short parts, so there everything is written in one piece.
    let launch = if is_folder { launch.set("merge_part_bytes", 2_000) } else { launch };
    let mut broker = launch.start().await;
    let load = Load::small("crashes", true);
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    let mut reached = BTreeSet::new();
    let mut topics = 0;
    for round in 0..scale("WOODPECKER_TEST_FAILPOINT_ROUNDS", 2) {
        for point in points() {
            let after = if round == 0 { 0 } else { dice.below(20) };
            workload.progress(20).await;
            broker.kill().await;
            topics += 1000;
            if dies(&mut dying_at(&launch, &point, after).spawn(), &launch.kafka, topics).await {
                println!("{name}: died at {point}, time {}", after + 1);
                reached.insert(point);
            }
            broker = launch.start().await;
        }
    }
    workload.progress(100).await;
    let history = workload.finish(&launch.kafka).await;
    history.assert_sound(&Rules::idempotent(), name);
    assert_eq!(history.unknown(), 0, "an idempotent producer learns the fate of everything it sent");
    reached
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_any_two_durable_steps_loses_nothing() {
    let mut missed = points();
    assert!(missed.len() > 20, "the sources name their failpoints: {missed:?}");
    for (name, backend) in [("folder", Backend::Folder), ("bucket", Backend::S3)] {
        for point in crash_everywhere(name, backend).await {
            missed.remove(&point);
        }
    }
    for (point, why) in ELSEWHERE {
        assert!(points().contains(*point), "{point} is no failpoint ({why})");
        missed.remove(*point);
    }
    assert!(missed.is_empty(), "never reached: {missed:?}");
}
