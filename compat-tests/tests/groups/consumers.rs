//! A librdkafka consumer in a group, with a task that polls it and remembers what happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use compat_tests::clients::{LIMIT, config};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tokio::task::{JoinHandle, block_in_place};

/// What a consumer was told and read.
#[derive(Default)]
pub struct Seen {
    assigned: Mutex<BTreeSet<i32>>,
    values: Mutex<Vec<String>>,
    rebalances: AtomicUsize,
    fenced: AtomicBool,
}

#[derive(Clone)]
struct Context(Arc<Seen>);

impl ClientContext for Context {
    fn error(&self, error: KafkaError, _reason: &str) {
        if is_fatal(&error) {
            self.0.fenced.store(true, Ordering::SeqCst);
        }
    }
}

/// Another process has taken this one's place; librdkafka gives up.
fn is_fatal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    error.rdkafka_error_code().is_some_and(|code| [Code::Fatal, Code::FencedInstanceId].contains(&code))
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.0.rebalances.fetch_add(1, Ordering::SeqCst);
        let mut assigned = self.0.assigned.lock();
        assigned.clear();
        if let Rebalance::Assign(list) = rebalance {
            assigned.extend(list.elements().iter().map(|element| element.partition()));
        }
    }
}

/// A member of a group. Leaves it when dropped, unless it is a static one.
pub struct Member {
    consumer: Arc<StreamConsumer<Context>>,
    seen: Arc<Seen>,
    polling: JoinHandle<()>,
}

impl Member {
    pub fn join(kafka: &str, group: &str, topic: &str, settings: &[(&str, &str)]) -> Self {
        let mut config = config(kafka, &[("group.id", group), ("enable.auto.commit", "false")]);
        config.set("auto.offset.reset", "earliest").set("fetch.wait.max.ms", "100");
        config.set("heartbeat.interval.ms", "500").set("partition.assignment.strategy", "range");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let seen = Arc::new(Seen::default());
        let consumer: StreamConsumer<Context> =
            config.create_with_context(Context(seen.clone())).expect("librdkafka takes the configuration");
        consumer.subscribe(&[topic]).expect("a topic can be subscribed to");
        let consumer = Arc::new(consumer);
        let polling = tokio::spawn(poll(consumer.clone(), seen.clone()));
        Self { consumer, seen, polling }
    }

    pub fn assigned(&self) -> BTreeSet<i32> {
        self.seen.assigned.lock().clone()
    }

    /// What it has read, in its order.
    pub fn values(&self) -> Vec<String> {
        self.seen.values.lock().clone()
    }

    /// How often its assignment changed.
    pub fn rebalances(&self) -> usize {
        self.seen.rebalances.load(Ordering::SeqCst)
    }

    /// Was it told that another process has taken its place?
    pub fn is_fenced(&self) -> bool {
        self.seen.fenced.load(Ordering::SeqCst)
    }

    pub fn consumer(&self) -> &StreamConsumer<impl ConsumerContext> {
        &self.consumer
    }

    /// Commits what it has read. A commit that meets a rebalance is tried again.
    pub fn commit(&self) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            match block_in_place(|| self.consumer.commit_consumer_state(CommitMode::Sync)) {
                Ok(()) => return,
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => return,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "could not commit: {error}"),
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.polling.abort();
        // The task's handle goes with it; the last one leaves the group, which takes a moment.
        let consumer = self.consumer.clone();
        block_in_place(|| {
            while Arc::strong_count(&consumer) > 2 {
                std::thread::yield_now();
            }
        });
    }
}

async fn poll(consumer: Arc<StreamConsumer<Context>>, seen: Arc<Seen>) {
    loop {
        match consumer.recv().await {
            Ok(message) => {
                let payload = message.payload().unwrap_or_default();
                seen.values.lock().push(String::from_utf8_lossy(payload).into_owned());
            }
            Err(error) if is_fatal(&error) => {
                seen.fenced.store(true, Ordering::SeqCst);
                return;
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
