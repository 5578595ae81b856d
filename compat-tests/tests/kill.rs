//! kill -9 at random moments, again and again, while clients go on: every acknowledged record is there, once, at its
//! offset. Ten rounds per backend and kind of producer; `WOODPECKER_TEST_KILL_ROUNDS` makes it more.

use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::process::Broker;
use compat_tests::s3::Backend;
use compat_tests::wait::{Dice, alone, scale};
use compat_tests::workload::{Load, Workload};

/// Kills the broker once per round: in the middle of the load, and every third time once more while it recovers.
async fn kill_rounds(name: &str, backend: Backend, idempotent: bool) {
    let _turn = alone().await;
    let rounds = match backend {
        // What differs from a bucket alone is the start.
        Backend::S3AndEtcd => scale("WOODPECKER_TEST_KILL_ROUNDS", 10).div_ceil(2),
        Backend::Folder | Backend::S3 => scale("WOODPECKER_TEST_KILL_ROUNDS", 10),
    };
    let mut dice = Dice::new(name);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = backend.launch(folder.path()).await.busy_upkeep();
    let mut broker = launch.start().await;
    let load = Load::small("kills", idempotent);
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    for round in 0..rounds {
        workload.progress(100).await;
        tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(500))).await;
        broker.kill().await;
        if round % 3 == 2 {
            let mut starting: Broker = launch.spawn();
            tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(150))).await;
            starting.kill().await;
        }
        broker = launch.start().await;
    }
    workload.progress(100).await;
    let history = workload.finish(&launch.kafka).await;
    println!("{name}: {rounds} kills, {} acknowledged, {} unknown", history.acknowledged(), history.unknown());
    if idempotent {
        history.assert_sound(&Rules::idempotent(), name);
        assert_eq!(history.unknown(), 0, "an idempotent producer learns the fate of everything it sent");
    } else {
        history.assert_sound(&Rules::plain_without_retries(), name);
        assert!(history.unknown() > 0, "{rounds} kills in the middle of a load leave something unknown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_producers_on_a_folder() {
    kill_rounds("idempotent, folder", Backend::Folder, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_producers_on_a_bucket() {
    kill_rounds("idempotent, bucket", Backend::S3, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_producers_on_a_folder() {
    kill_rounds("plain, folder", Backend::Folder, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_producers_on_a_bucket() {
    kill_rounds("plain, bucket", Backend::S3, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_producers_on_a_bucket_with_etcd() {
    kill_rounds("idempotent, bucket and etcd", Backend::S3AndEtcd, true).await;
}
