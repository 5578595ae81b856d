//! Brokers whose metadata is in a real etcd: they outlive its absence, take over from each other, and refuse what is not
//! theirs. (Kill loops and fights on etcd are among those of the other backends.)

use std::path::Path;
use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::etcd::Etcd;
use compat_tests::process::Launch;
use compat_tests::s3;
use compat_tests::wait::{alone, scale, until};
use compat_tests::workload::{Load, Workload};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::FutureRecord;
use tokio::time::{Instant, sleep};

/// What a client waits for an answer by default, at least.
const CLIENTS_WAIT: Duration = Duration::from_secs(30);

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Records {
    Folder,
    Bucket,
}

async fn launch(records: Records, folder: &Path, etcd: &Etcd, prefix: &str) -> Launch {
    let launch = Launch::new(folder).arg("--metadata").arg(etcd.url(prefix));
    match records {
        Records::Folder => launch.storage(folder.join("data").to_string_lossy()),
        Records::Bucket => s3::prefix().await.on(launch),
    }
}

/// How CreateTopics is answered, and after how long.
async fn create_topic(kafka: &str, name: &str) -> (Result<(), RDKafkaErrorCode>, Duration) {
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let options = AdminOptions::new().request_timeout(Some(CLIENTS_WAIT));
    let began = Instant::now();
    let answer = clients::admin(kafka).create_topics([&topic], &options).await;
    let answer = answer.expect("CreateTopics is answered").remove(0);
    (answer.map(|_| ()).map_err(|(_, code)| code), began.elapsed())
}

/// Producers and a consumer notice nothing of an etcd that is away; whoever wants to change metadata is told to try again.
async fn etcd_is_away(records: Records, killed: bool) {
    let _turn = alone().await;
    let away = Duration::from_secs(scale("WOODPECKER_TEST_ETCD_OUTAGE_S", 15));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut etcd = Etcd::start(folder.path()).await;
    let launch = launch(records, &folder.path().join("broker"), &etcd, "outage").await;
    let mut broker = launch.start().await;
    clients::create_topic(&launch.kafka, "steady", 3).await;
    let workload = Workload::start(&launch.kafka, Load::small("steady", true));
    workload.progress(500).await;

    if killed {
        etcd.nodes[0].kill();
    } else {
        etcd.nodes[0].pause();
    }
    let began = Instant::now();
    let (kafka, watched) = (launch.kafka.clone(), began + away);
    let admin = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while Instant::now() < watched {
            let (answer, took) = create_topic(&kafka, "later").await;
            assert_eq!(answer, Err(RDKafkaErrorCode::RequestTimedOut), "a code that is tried again");
            longest = longest.max(took);
            sleep(Duration::from_millis(200)).await;
        }
        longest
    });
    let (mut seen, mut at, mut longest) = (workload.acknowledged(), Instant::now(), Duration::ZERO);
    while began.elapsed() < away {
        sleep(Duration::from_millis(20)).await;
        if workload.acknowledged() > seen {
            (longest, seen, at) = (longest.max(at.elapsed()), workload.acknowledged(), Instant::now());
        }
    }
    longest = longest.max(at.elapsed());
    let read = clients::read_all(&launch.kafka, "steady", 0).await.len();
    assert!(read > 100, "a new consumer reads all there is, {read} records");
    let refused_after = admin.await.expect("CreateTopics is refused in time");
    if killed {
        etcd.nodes[0].start();
    } else {
        etcd.nodes[0].resume();
    }
    etcd.healthy(0).await;
    let mut created = None;
    until("topics can be created again", Duration::from_secs(15), async || {
        created = Some(create_topic(&launch.kafka, "later").await.0);
        // It may have been created by an attempt of which nobody could tell.
        matches!(created, Some(Ok(()) | Err(RDKafkaErrorCode::TopicAlreadyExists)))
    })
    .await;
    println!(
        "{records:?}, etcd away for {away:?}: longest wait of producers {longest:?}, CreateTopics refused within {refused_after:?}"
    );
    assert!(longest < Duration::from_secs(5), "producers waited {longest:?}");
    assert!(refused_after < CLIENTS_WAIT / 2, "CreateTopics was refused after {refused_after:?}");
    let record = FutureRecord::<(), str>::to("later").partition(0).payload("x");
    clients::producer(&launch.kafka, &[]).send(record, clients::LIMIT).await.expect("the new topic takes records");
    workload.progress(100).await;
    assert_eq!(broker.exited(), None);
    workload.finish(&launch.kafka).await.assert_sound(&Rules::idempotent(), "records of an etcd outage");

    broker.terminate();
    assert_eq!(broker.wait(CLIENTS_WAIT).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_stands_still_under_a_broker_on_a_bucket() {
    etcd_is_away(Records::Bucket, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_killed_under_a_broker_on_a_folder() {
    etcd_is_away(Records::Folder, true).await;
}

/// A broker that is not asked to append or to read learns from the metadata that it is nobody any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_that_is_asked_to_create_a_topic_after_a_takeover_is_fenced() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let etcd = Etcd::start(folder.path()).await;
    let launch = launch(Records::Bucket, &folder.path().join("first"), &etcd, "idle").await;
    let mut first = launch.start().await;
    let second = launch.elsewhere(&folder.path().join("second"));
    let _second_broker = second.start().await;
    // Perhaps it is told so, perhaps the broker is gone before it could tell.
    let topic = NewTopic::new("mine", 1, TopicReplication::Fixed(1));
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
    let answer = clients::admin(&launch.kafka).create_topics([&topic], &options).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer[0].is_err()));
    assert_eq!(first.wait(CLIENTS_WAIT).await, Some(3));
    let (created, _) = create_topic(&second.kafka, "mine").await;
    assert_eq!(created, Ok(()));
}

/// Starts a broker that must not serve; what it says.
async fn refused(launch: &Launch) -> String {
    let mut broker = launch.spawn();
    assert_eq!(broker.wait(CLIENTS_WAIT).await, Some(1));
    broker.log()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_and_metadata_that_are_not_each_others_are_refused() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let etcd = Etcd::start(folder.path()).await;
    let data = folder.path().join("data");
    let on = |name: &str, metadata: &str, data: &Path| {
        let launch = Launch::new(&folder.path().join(name)).storage(data.to_string_lossy());
        launch.arg("--metadata").arg(metadata)
    };
    let ours = on("one", &etcd.url("ours"), &data);
    let mut broker = ours.start().await;
    clients::create_topic(&ours.kafka, "kept", 1).await;
    broker.terminate();
    assert_eq!(broker.wait(CLIENTS_WAIT).await, Some(0));

    assert!(refused(&on("two", "embedded", &data)).await.contains("in etcd"));
    assert!(refused(&on("three", &etcd.url("theirs"), &data)).await.contains("knows nothing"));
    assert!(refused(&on("four", &etcd.url("ours"), &folder.path().join("other"))).await.contains("another storage"));
    let secret = etcd.url("ours").replace("etcd://", "etcd://me:hush-hush@");
    let said = refused(&on("five", &secret, &data)).await;
    assert!(said.contains("metadata=etcd://127.0.0.1") && !said.contains("hush-hush"), "{said}");

    let broker = broker.again().await;
    assert_eq!(clients::watermarks(broker.kafka(), "kept", 0).await, (0, 0));
}
