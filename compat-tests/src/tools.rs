//! Clients in other languages: Kafka's own Java tools, and scripts for Python and Node.
//!
//! Starting a JVM costs more than what a tool does, so one JVM serves all calls of a test (`clients/java/Tools.java`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::block_in_place;

use crate::process::{mortal, spawn};

/// Longer than any call, or script, takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Kafka's tools by the names of the scripts that start them, and the programs of its own system tests.
const TOOLS: &[(&str, &str)] = &[
    ("broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
    ("configs", "kafka.admin.ConfigCommand"),
    ("console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("console-producer", "org.apache.kafka.tools.ConsoleProducer"),
    ("consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
    ("delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
    ("get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("groups", "org.apache.kafka.tools.GroupsCommand"),
    ("producer-perf-test", "org.apache.kafka.tools.ProducerPerformance"),
    ("topics", "org.apache.kafka.tools.TopicCommand"),
    ("verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"),
    (VERIFIABLE_PRODUCER, "org.apache.kafka.tools.VerifiableProducer"),
];
/// Waits for its acknowledgements while its JVM ends: it gets one of its own.
const VERIFIABLE_PRODUCER: &str = "verifiable-producer";

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub call: String,
    pub exit: i64,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// What it printed, provided that it succeeded.
    pub fn done(self) -> String {
        assert!(self.exit == 0, "{self}");
        self.out
    }

    /// Everything it printed, provided that it failed.
    pub fn failed(self) -> String {
        assert!(self.exit != 0, "it should have failed: {self}");
        self.out + &self.err
    }

    /// The lines of standard output that are JSON objects: the events of the verifiable clients.
    pub fn events(self) -> Vec<Value> {
        self.done().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: exit {}\n--- out\n{}\n--- err\n{}", self.call, self.exit, self.out, self.err)
    }
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Value>>>>;

/// Kafka's own tools, pointed at one broker. Dropping it ends all calls.
#[derive(Debug)]
pub struct Tools {
    kafka: String,
    child: Child,
    calls: Mutex<(u64, ChildStdin)>,
    waiting: Waiting,
}

impl Tools {
    pub fn new(kafka: &str) -> Self {
        let mut command = mortal(&client("java"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command);
        let calls = child.stdin.take().expect("a pipe was asked for");
        let answers = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let waiting = Waiting::default();
        let waiting_too = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                let answer: Value = serde_json::from_str(&line).expect("an answer is JSON");
                let id = answer["id"].as_u64().expect("an answer has a number");
                if let Some(caller) = waiting_too.lock().remove(&id) {
                    let _gone = caller.send(answer);
                }
            }
            // Whoever waits learns that nothing will come.
            waiting_too.lock().clear();
        });
        Self { kafka: kafka.to_owned(), child, calls: Mutex::new((0, calls)), waiting }
    }

    /// Calls a tool with these arguments, and the address of the broker.
    pub async fn call(&self, tool: &str, arguments: &[&str]) -> Ended {
        self.call_with(tool, arguments, "").await
    }

    /// The same with something on standard input.
    pub async fn call_with(&self, tool: &str, arguments: &[&str], input: &str) -> Ended {
        let main = TOOLS.iter().find(|(name, _)| *name == tool).unwrap_or_else(|| panic!("no tool {tool}")).1;
        let arguments: Vec<&str> = ["--bootstrap-server", &self.kafka].iter().chain(arguments).copied().collect();
        let call = format!("{tool} {}", arguments.join(" "));
        if tool == VERIFIABLE_PRODUCER {
            return alone(call, main, &arguments);
        }
        let (caller, answer) = oneshot::channel();
        {
            let mut calls = self.calls.lock();
            calls.0 += 1;
            self.waiting.lock().insert(calls.0, caller);
            let line = json!({"id": calls.0, "main": main, "args": arguments, "stdin": input});
            writeln!(calls.1, "{line}").expect("the JVM takes calls");
        }
        let answer =
            tokio::time::timeout(LIMIT, answer).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {call}"));
        let answer = answer.unwrap_or_else(|_| panic!("the JVM ended during: {call}"));
        let text = |name: &str| answer[name].as_str().expect("an answer is complete").to_owned();
        let exit = answer["exit"].as_i64().expect("an answer is complete");
        Ended { call, exit, out: text("out"), err: text("err") }
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program of Kafka in a JVM of its own.
fn alone(call: String, main: &str, arguments: &[&str]) -> Ended {
    let kafka = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/kafka");
    let mut command = limited(&kafka);
    command
        .args(["java", main])
        .args(arguments)
        .env("KAFKA_JVM_FLAGS", "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1");
    let output = block_in_place(|| command.output()).expect("Kafka is installed (make deps)");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let exit = output.status.code().map_or(-1, i64::from);
    Ended { call, exit, out: text(output.stdout), err: text(output.stderr) }
}

/// A program that is ended when it takes too long.
fn limited(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &LIMIT.as_secs().to_string()]).arg(program).stdin(Stdio::null());
    command
}

/// The script that runs the clients of a language.
fn client(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(language).join("run")
}

/// Runs a script of `clients/LANGUAGE` against a broker, or these tests of it; what it printed, provided that it
/// succeeded.
pub fn script(language: &str, name: &str, kafka: &str, tests: &[&str]) -> String {
    block_in_place(|| {
        let output = limited(&client(language)).args([name, kafka]).args(tests).output();
        let output = output.expect("the clients are installed (make deps)");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{language} {name}: {}\n--- out\n{out}\n--- err\n{err}", output.status);
        out.into_owned()
    })
}
