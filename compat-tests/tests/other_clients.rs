//! Clients that are not librdkafka in this process: Kafka's own Java tools, confluent-kafka and kafka-python, kafkajs.
//!
//! `WOODPECKER_TEST_BROKER=HOST:PORT` points these tests at a broker that runs already: they must pass on a real Kafka.

use std::collections::BTreeSet;

use compat_tests::process::{Broker, Launch};
use compat_tests::tools::{Ended, Tools, script};
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
    let broker = Launch::new(folder.path()).set("group_initial_rebalance_delay_ms", 0).start().await;
    Served { kafka: broker.kafka().to_owned(), _own: Some((broker, folder)) }
}

/// A name that no earlier run on the same broker used.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// The rows of a table as the Java tools print them: words, header included.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| !row.is_empty()).collect()
}

/// The cell of `column` in the only row with `value` in the column `key`.
fn cell<'a>(text: &'a str, (key, value): (&str, &str), column: &str) -> &'a str {
    let rows = rows(text);
    let at = |name: &str| {
        rows[0].iter().position(|word| *word == name).unwrap_or_else(|| panic!("no column {name} in\n{text}"))
    };
    let row = rows.iter().find(|row| row.get(at(key)) == Some(&value));
    row.unwrap_or_else(|| panic!("no {key} {value} in\n{text}"))[at(column)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_tools_make_and_show_topics() {
    let served = served().await;
    let tools = Tools::new(&served.kafka);
    let topic = unique("java-topics");
    let named = ["--topic", &topic];
    let created = tools.call("topics", &["--create", "--topic", &topic, "--partitions", "3"]).await;
    assert_eq!(created.done(), format!("Created topic {topic}.\n"));
    let again = tools.call("topics", &["--create", "--topic", &topic]).await.failed();
    assert!(again.contains("TopicExistsException"), "{again}");
    let listed = tools.call("topics", &["--list"]).await.done();
    assert!(listed.lines().any(|line| line == topic), "{listed}");
    let described = tools.call("topics", &[&["--describe"], &named[..]].concat()).await.done();
    assert!(described.contains("PartitionCount: 3\tReplicationFactor: 1"), "{described}");
    assert_eq!(described.matches("\tPartition: ").count(), 3, "{described}");

    let offsets = tools.call("get-offsets", &named).await.done();
    assert_eq!(offsets, format!("{topic}:0:0\n{topic}:1:0\n{topic}:2:0\n"));
    let deleted = tools.call("topics", &[&["--delete"], &named[..]].concat()).await;
    assert_eq!(deleted.done(), "");
    let absent = tools.call("topics", &[&["--describe"], &named[..]].concat()).await.failed();
    assert!(absent.contains(&format!("Topic '{topic}' does not exist as expected")), "{absent}");
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
async fn java_tools_show_and_change_groups() {
    let served = served().await;
    let tools = Tools::new(&served.kafka);
    let (topic, group) = (unique("java-group"), unique("java-group"));
    tools.call("topics", &["--create", "--topic", &topic, "--partitions", "2"]).await.done();
    let input: String = (0..20).map(|n| format!("{n}:value {n}\n")).collect();
    let arguments = ["--topic", &topic, "--reader-property", "parse.key=true", "--reader-property", "key.separator=:"];
    tools.call_with("console-producer", &arguments, &input).await.done();
    let consume = |count: &'static str| {
        let arguments = ["--topic", &topic, "--group", &group, "--from-beginning", "--max-messages", count];
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let tools = &tools;
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            tools.call("console-consumer", &arguments).await.done()
        }
    };
    let mut seen: Vec<String> = Vec::new();
    for count in ["15", "5"] {
        seen.extend(consume(count).await.lines().map(str::to_owned));
    }
    let all: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(all, (0..20).map(|n| format!("value {n}")).collect(), "each record once: {seen:?}");

    let named = ["--group", group.as_str()];
    let groups =
        async |arguments: &[&str]| -> Ended { tools.call("consumer-groups", &[arguments, &named[..]].concat()).await };
    let listed = tools.call("consumer-groups", &["--list"]).await.done();
    assert!(listed.lines().any(|line| line == group), "{listed}");
    let state = groups(&["--describe", "--state"]).await.done();
    assert_eq!(cell(&state, ("GROUP", &group), "STATE"), "Empty", "{state}");
    let described = groups(&["--describe"]).await.done();
    let lags: Vec<&str> = ["0", "1"].iter().map(|p| cell(&described, ("PARTITION", p), "LAG")).collect();
    assert_eq!(lags, ["0", "0"], "{described}");

    let reset = ["--reset-offsets", "--topic", &topic, "--to-earliest", "--execute"];
    let reset = groups(&reset).await.done();
    assert_eq!(cell(&reset, ("PARTITION", "1"), "NEW-OFFSET"), "0", "{reset}");
    assert_eq!(consume("20").await.lines().count(), 20, "it begins again at the first record");
    let deleted = groups(&["--delete-offsets", "--topic", &topic]).await.done();
    assert!(deleted.contains("Successful"), "{deleted}");
    let deleted = groups(&["--delete"]).await.done();
    assert!(deleted.contains("was successful"), "{deleted}");
    let absent = groups(&["--describe"]).await.to_string();
    assert!(absent.contains("GroupIdNotFoundException"), "{absent}");
}

/// The partitions that a verifiable consumer was given last.
fn last_assigned(events: &[Value]) -> usize {
    let given = events.iter().rev().find(|e| e["name"] == "partitions_assigned");
    given.and_then(|e| e["partitions"].as_array()).map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_performance_and_verifiable_consumers() {
    let served = served().await;
    let tools = Tools::new(&served.kafka);
    let (topic, group) = (unique("java-consume"), unique("java-consume"));
    tools.call("topics", &["--create", "--topic", &topic, "--partitions", "4"]).await.done();
    let mut arguments = vec!["--topic", &topic, "--max-messages", "2000", "--acks", "-1", "--throughput", "-1"];
    arguments.extend(["--repeating-keys", "50"]);
    tools.call("verifiable-producer", &arguments).await.done();

    let perf = ["--topic", &topic, "--num-records", "2000", "--timeout", "60000", "--group", &unique("java-perf")];
    let performed = tools.call("consumer-perf-test", &perf).await.done();
    assert!(performed.lines().any(|line| line.split(", ").nth(4) == Some("2000")), "{performed}");

    // A static member: it is told what it holds, reads everything, and commits it.
    let mut consumer = vec!["--topic", &topic, "--group-id", &group, "--group-instance-id", "one"];
    consumer.extend(["--max-messages", "2000", "--reset-policy", "earliest"]);
    let events = tools.call("verifiable-consumer", &consumer).await.events();
    assert_eq!(last_assigned(&events), 4, "{events:?}");
    let consumed: i64 =
        events.iter().filter(|e| e["name"] == "records_consumed").filter_map(|e| e["count"].as_i64()).sum();
    assert_eq!(consumed, 2_000);
    let committed = events.iter().filter(|e| e["name"] == "offsets_committed");
    assert!(committed.clone().count() > 0 && committed.clone().all(|e| e["success"] == true), "{events:?}");
    let described = tools.call("consumer-groups", &["--describe", "--group", &group]).await.done();
    let lag: i64 = ["0", "1", "2", "3"]
        .iter()
        .map(|p| cell(&described, ("PARTITION", p), "LAG").parse::<i64>().expect("a lag"))
        .sum();
    assert_eq!(lag, 0, "{described}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_tools_change_configurations() {
    let served = served().await;
    let tools = Tools::new(&served.kafka);
    let topic = unique("java-configs");
    let arguments = ["--create", "--topic", &topic, "--config", "max.message.bytes=50000"];
    tools.call("topics", &arguments).await.done();
    let entity = ["--entity-type", "topics", "--entity-name", &topic];
    let configs =
        async |arguments: &[&str]| -> Ended { tools.call("configs", &[arguments, &entity[..]].concat()).await };
    let described = configs(&["--describe"]).await.done();
    assert!(described.contains("max.message.bytes=50000"), "{described}");
    let altered = configs(&["--alter", "--add-config", "max.message.bytes=40000"]).await.done();
    assert_eq!(altered, format!("Completed updating config for topic {topic}.\n"));
    let described = configs(&["--describe"]).await.done();
    assert!(described.contains("max.message.bytes=40000"), "{described}");
    let huge = format!("{}\n", "x".repeat(45_000));
    let refused = tools.call_with("console-producer", &["--topic", &topic], &huge).await;
    assert!(refused.to_string().contains("RecordTooLargeException"), "{refused}");
    configs(&["--alter", "--delete-config", "max.message.bytes"]).await.done();
    tools.call_with("console-producer", &["--topic", &topic], &huge).await.done();
    let unknown = configs(&["--alter", "--add-config", "no.such.setting=1"]).await.failed();
    assert!(unknown.contains("InvalidConfigurationException") || unknown.contains("Unknown"), "{unknown}");

    tools.call("topics", &["--alter", "--topic", &topic, "--partitions", "4"]).await.done();
    let fewer = tools.call("topics", &["--alter", "--topic", &topic, "--partitions", "2"]).await.failed();
    assert!(fewer.contains("InvalidPartitionsException"), "{fewer}");
    let offsets = tools.call("get-offsets", &["--topic", &topic]).await.done();
    assert_eq!(offsets.lines().count(), 4, "{offsets}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confluent_kafka() {
    let served = served().await;
    println!("{}", script("python", "confluent.py", &served.kafka, &[]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_python() {
    let served = served().await;
    println!("{}", script("python", "kafka_python.py", &served.kafka, &[]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafkajs() {
    let served = served().await;
    println!("{}", script("node", "kafkajs.js", &served.kafka, &[]));
}
