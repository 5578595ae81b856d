//! Clients that are not librdkafka in this process: Kafka's own Java tools, confluent-kafka and kafka-python, kafkajs.
//!
//! `WOODPECKER_TEST_BROKER=HOST:PORT` points these tests at a broker that runs already: they must pass on a real Kafka.

use std::collections::BTreeSet;

use compat_tests::process::{Broker, Launch};
use compat_tests::tools::{Tools, script};
use serde_json::Value;
use tempfile::TempDir;

/// The broker under test: one of its own, or the one that was named.
struct Served {
    kafka: String,
    /// Kept for their ends: the process is killed, its folder removed.
    _own: Option<(Broker, TempDir)>,
}

async fn served() -> Served {
    if let Ok(kafka) = std::env::var("WOODPECKER_TEST_BROKER") {
        return Served { kafka, _own: None };
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).start().await;
    Served { kafka: broker.kafka().to_owned(), _own: Some((broker, folder)) }
}

/// A name that no earlier run on the same broker used.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_console_tools_write_and_read() {
    let served = served().await;
    let tools = Tools::new(&served.kafka);
    let topic = unique("java-console");
    tools.call("topics", &["--create", "--topic", &topic]).await.done();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let parsed = ["parse.key=true", "parse.headers=true", "headers.delimiter=|", "key.separator=:"];
        let mut arguments = vec!["--topic", &topic, "--compression-codec", codec];
        arguments.extend(parsed.iter().flat_map(|property| ["--reader-property", property]));
        let input = format!("h1:a,h2:b|{codec}-key:one\nh1:|NULL-key:two {codec}\n");
        tools.call_with("console-producer", &arguments, &input).await.done();
    }
    let shown = ["print.key=true", "print.headers=true", "print.offset=true", "print.partition=true"];
    let mut arguments = vec!["--topic", &topic, "--partition", "0", "--offset", "earliest", "--max-messages", "10"];
    arguments.extend(shown.iter().flat_map(|property| ["--formatter-property", property]));
    let read = tools.call("console-consumer", &arguments).await.done();
    let expected = ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate().map(|(n, codec)| {
        let (one, two) = (2 * n, 2 * n + 1);
        format!(
            "Partition:0\tOffset:{one}\th1:a,h2:b\t{codec}-key\tone\n\
             Partition:0\tOffset:{two}\th1:\tNULL-key\ttwo {codec}\n"
        )
    });
    assert_eq!(read, expected.collect::<String>());

    for (time, offset) in [("-1", 10), ("earliest", 0), ("latest", 10), ("0", 0)] {
        let found = tools.call("get-offsets", &["--topic", &topic, "--time", time]).await.done();
        assert_eq!(found, format!("{topic}:0:{offset}\n"), "at {time}");
    }
    let largest = tools.call("get-offsets", &["--topic", &topic, "--time", "max-timestamp"]).await.done();
    assert!(largest.starts_with(&format!("{topic}:0:")) && !largest.ends_with(":\n"), "{largest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_performance_and_verifiable_producers() {
    let served = served().await;
    let tools = Tools::new(&served.kafka);
    let topic = unique("java-produce");
    tools.call("topics", &["--create", "--topic", &topic]).await.done();
    let arguments = ["--topic", &topic, "--num-records", "5000", "--record-size", "200", "--throughput", "-1"];
    let performed = tools.call("producer-perf-test", &arguments).await.done();
    assert!(performed.contains("5000 records sent"), "{performed}");
    let arguments = ["--topic", &topic, "--max-messages", "500", "--acks", "-1"];
    let events = tools.call("verifiable-producer", &arguments).await.events();
    let offsets: BTreeSet<_> = events.iter().filter_map(|e| e["offset"].as_i64()).collect();
    assert_eq!(offsets, (5_000..5_500).collect(), "every acknowledged record has an offset of its own");
    let summary = events.iter().find(|e| e["name"] == "tool_data").expect("a summary");
    assert_eq!((&summary["sent"], &summary["acked"]), (&Value::from(500), &Value::from(500)), "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confluent_kafka() {
    let served = served().await;
    let tests = ["keys_values_headers_and_times", "seeks_watermarks_and_times"];
    println!("{}", script("python", "confluent.py", &served.kafka, &tests));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_python() {
    let served = served().await;
    println!("{}", script("python", "kafka_python.py", &served.kafka, &["records_and_codecs", "offsets_and_seeks"]));
}
