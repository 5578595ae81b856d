//! The command line as a user meets it: help, refusals that name what is wrong, exit codes, a quick start, a clean stop.

use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::process::{Launch, free_port};
use compat_tests::s3::Backend;
use compat_tests::wait::{alone, until};
use compat_tests::workload::{Load, Workload};
use rdkafka::producer::FutureRecord;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(30);
const BAD_CONFIGURATION: i32 = 2;

/// Runs to its end and returns the exit code and all output.
async fn outcome(launch: Launch, arguments: &[&str]) -> (Option<i32>, String) {
    let mut broker = launch.spawn_with(arguments.iter().map(|a| (*a).to_owned()).collect());
    let code = broker.wait(LIMIT).await;
    (code, broker.log())
}

async fn refused(launch: Launch, arguments: &[&str], names: &[&str]) {
    let (code, said) = outcome(launch, arguments).await;
    assert_eq!(code, Some(BAD_CONFIGURATION), "{arguments:?}:\n{said}");
    for name in names {
        assert!(said.contains(name), "{arguments:?}: {name} is not mentioned:\n{said}");
    }
}

#[tokio::test]
async fn help_is_worth_reading() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, said) = outcome(Launch::new(folder.path()), &["--help"]).await;
    assert_eq!(code, Some(0));
    for word in ["--listen", "--advertise", "--http", "--storage", "--metadata", "--config", "s3://", "WOODPECKER_"] {
        assert!(said.contains(word), "--help does not mention {word}:\n{said}");
    }
}

#[tokio::test]
async fn unknown_keys_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("woodpecker.toml");
    std::fs::write(&file, "memory_bites = 5\n").expect("a file");
    let path = file.to_string_lossy().into_owned();
    refused(Launch::new(folder.path()), &["--config", &path], &["memory_bites"]).await;
    refused(Launch::new(folder.path()), &["--nonsense"], &["--nonsense"]).await;
    refused(Launch::new(folder.path()).set("memory_bites", 5), &[], &["MEMORY_BITES"]).await;
}

#[tokio::test]
async fn bad_values_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("woodpecker.toml");
    std::fs::write(&file, "memory_bytes = \"lots\"\n").expect("a file");
    let path = file.to_string_lossy().into_owned();
    refused(Launch::new(folder.path()), &["--config", &path], &["memory_bytes"]).await;
    refused(Launch::new(folder.path()), &["--config", "absent.toml"], &["absent.toml"]).await;
    refused(Launch::new(folder.path()), &["--listen", "nowhere"], &["nowhere"]).await;
    refused(Launch::new(folder.path()), &["--metadata", "zookeeper"], &["zookeeper"]).await;
    refused(Launch::new(folder.path()), &["--storage", "ftp://host/x"], &["ftp"]).await;
    let short_parts = Launch::new(folder.path()).set("merge_part_bytes", 1 << 20);
    refused(short_parts, &["--storage", "s3://bucket/x"], &["merge_part_bytes"]).await;
}

#[tokio::test]
async fn storage_urls_that_name_no_bucket_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (url, names) in [
        ("s3://", "s3://bucket/prefix"),
        ("gs:///prefix", "gs://bucket/prefix"),
        ("az:///prefix", "az://container/prefix"),
        ("az://container@account/prefix", "AZURE_STORAGE_ACCOUNT_NAME"),
    ] {
        refused(Launch::new(folder.path()), &["--storage", url], &[names]).await;
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = std::net::TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
    let address = taken.local_addr().expect("a bound socket").to_string();
    let http = format!("127.0.0.1:{}", free_port());
    let (code, said) = outcome(Launch::new(folder.path()), &["--listen", &address, "--http", &http]).await;
    assert!(matches!(code, Some(1 | 2)), "{code:?}:\n{said}");
    assert!(said.contains(&address), "{address} is not named:\n{said}");
}

#[tokio::test]
async fn it_is_ready_within_half_a_second_and_says_what_it_serves() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path());
    let before = Instant::now();
    let broker = launch.start().await;
    let took = before.elapsed();
    println!("ready after {took:?}");
    // Half a second is the promise; a machine that runs other tests beside this one gets four times as much.
    assert!(took < Duration::from_secs(2), "ready after {took:?}");
    until("it says that it serves", LIMIT, async || broker.log().contains("serving")).await;
    let said = broker.log();
    for word in [launch.kafka.as_str(), launch.http.as_str(), "data", "embedded", env!("CARGO_PKG_VERSION")] {
        assert!(said.contains(word), "{word} is not among what it says at start:\n{said}");
    }
    assert!(folder.path().join("data").is_dir(), "without flags the data is in ./data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_and_the_file_configure_it_too() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path()).set("num_partitions", 5);
    let file = folder.path().join("woodpecker.toml");
    let text = format!("listen = \"{}\"\nhttp = \"{}\"\nstorage = \"memory://\"\n", launch.kafka, launch.http);
    std::fs::write(&file, text + "num_partitions = 3\n").expect("a file");
    let mut broker = launch.spawn_with(vec!["--config".to_owned(), file.to_string_lossy().into_owned()]);
    broker.ready().await;
    let producer = clients::producer(&launch.kafka, &[]);
    producer.send(FutureRecord::<(), str>::to("t").payload("x"), LIMIT).await.expect("acknowledged");
    // The environment wins over the file.
    assert_eq!(clients::watermarks(&launch.kafka, "t", 4).await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_sent_to_the_advertised_address() {
    use rdkafka::consumer::Consumer;
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::new(folder.path()).storage("memory://").arg("--advertise").arg("broker.example:1234");
    let _broker = launch.start().await;
    let consumer = clients::consumer(&launch.kafka, &[]);
    let metadata = tokio::task::block_in_place(|| consumer.fetch_metadata(None, LIMIT)).expect("metadata");
    let brokers: Vec<_> = metadata.brokers().iter().map(|b| (b.host().to_owned(), b.port())).collect();
    assert_eq!(brokers, vec![("broker.example".to_owned(), 1234)]);
}

async fn stops_cleanly(backend: Backend) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = backend.launch(folder.path()).await;
    let mut broker = launch.start().await;
    let load = Load::small("stops", true);
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    workload.progress(200).await;
    broker.terminate();
    assert_eq!(broker.wait(LIMIT).await, Some(0), "SIGTERM drains and exits 0");
    let _broker = launch.start().await;
    workload.progress(200).await;
    workload.finish(&launch.kafka).await.assert_sound(&Rules::idempotent(), "across a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_on_a_folder() {
    stops_cleanly(Backend::Folder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_on_a_bucket() {
    stops_cleanly(Backend::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_url_is_a_folder() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("file://{}", folder.path().join("elsewhere").display());
    let launch = Launch::new(folder.path()).storage(url);
    let _broker = launch.start().await;
    assert!(folder.path().join("elsewhere").is_dir());
    let second = launch.elsewhere(&folder.path().join("second"));
    let code = second.spawn().wait(LIMIT).await;
    assert!(matches!(code, Some(1 | 2)), "the folder has an owner, by whatever name: {code:?}");
}
