//! Producers and a reader that go on while the broker is killed, paused or replaced, and write down what they saw.
//!
//! Each record's payload opens with its value from the history, so that every reader can tell which send it came from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::StreamConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::checker::{History, Outcome, Partition, partition};
use crate::clients;
use crate::wait::until;

/// The digits at the start of a payload.
const VALUE_DIGITS: usize = 20;
/// How long the last sends may take to be answered once the broker is up for good.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// The reader that runs beside the producers, and the one that reads everything at the end.
const TAILING_READER: u32 = 1000;
const FINAL_READER: u32 = 1001;

/// What to put on a broker.
#[derive(Debug, Clone)]
pub struct Load {
    pub topic: String,
    pub partitions: i32,
    pub producers: u32,
    /// Idempotent producers retry until they are answered; plain ones send once and never again.
    pub idempotent: bool,
    pub value_bytes: usize,
    /// Sends of one producer that wait for their answer.
    pub in_flight: usize,
    /// Records a producer sends before it takes a breath of a few milliseconds.
    pub burst: usize,
}

impl Load {
    /// A few thousand small records per second.
    pub fn small(topic: &str, idempotent: bool) -> Self {
        let topic = topic.to_owned();
        Self { topic, partitions: 3, producers: 3, idempotent, value_bytes: 100, in_flight: 500, burst: 10 }
    }

    fn producer(&self, kafka: &str) -> FutureProducer {
        let idempotent = [("enable.idempotence", "true"), ("message.timeout.ms", "300000")];
        let plain = [("acks", "all"), ("message.send.max.retries", "0"), ("message.timeout.ms", "5000")];
        let settings = if self.idempotent { &idempotent[..] } else { &plain[..] };
        clients::producer(kafka, &[settings, &[("linger.ms", "1")]].concat())
    }
}

/// The running load.
#[derive(Debug)]
pub struct Workload {
    load: Load,
    history: Arc<Mutex<History>>,
    stopping: Arc<AtomicBool>,
    producers: Vec<JoinHandle<()>>,
    reader: JoinHandle<()>,
}

fn locked(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workload {
    /// Starts on a topic that exists.
    pub fn start(kafka: &str, load: Load) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let producers = (0..load.producers).map(|id| {
            let (client, load) = (load.producer(kafka), load.clone());
            tokio::spawn(produce(id, client, load, Arc::clone(&history), Arc::clone(&stopping)))
        });
        let producers = producers.collect();
        let consumer = clients::consumer(kafka, &[]);
        clients::assign(&consumer, &load.topic, 0..load.partitions, Offset::Beginning);
        let reader = tokio::spawn(tail(consumer, Arc::clone(&history)));
        Self { load, history, stopping, producers, reader }
    }

    pub fn acknowledged(&self) -> usize {
        locked(&self.history).acknowledged()
    }

    /// Waits until this many more sends are acknowledged: the broker is serving.
    pub async fn progress(&self, more: usize) {
        let goal = self.acknowledged() + more;
        until(&format!("{goal} sends are acknowledged"), SETTLE_LIMIT, async || {
            assert!(!self.reader.is_finished(), "the tailing reader failed");
            self.acknowledged() >= goal
        })
        .await;
    }

    /// Stops the producers, waits for the fate of what they sent, and reads everything back from the broker at `kafka`.
    pub async fn finish(self, kafka: &str) -> History {
        let (topic, partitions) = (self.load.topic.clone(), self.load.partitions);
        let mut history = self.abandon().await;
        for index in 0..partitions {
            drain(kafka, &partition(&topic, index), &mut history).await;
        }
        history
    }

    /// Stops the producers and waits for the fate of what they sent, without reading anything: their broker may be gone.
    pub async fn abandon(self) -> History {
        self.stopping.store(true, Ordering::Relaxed);
        for producer in self.producers {
            producer.await.expect("a producer never panics");
        }
        assert!(!self.reader.is_finished(), "the tailing reader failed");
        self.reader.abort();
        let _ = self.reader.await;
        std::mem::take(&mut *locked(&self.history))
    }
}

/// One producer: sends round robin, remembers every outcome, ends when all its sends are answered.
async fn produce(id: u32, client: FutureProducer, load: Load, history: Arc<Mutex<History>>, stopping: Arc<AtomicBool>) {
    let room = Arc::new(Semaphore::new(load.in_flight));
    let mut sent = 0_usize;
    while !stopping.load(Ordering::Relaxed) {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let to = partition(&load.topic, sent as i32 % load.partitions);
        let value = locked(&history).send(id, &to);
        let payload = format!("{value:0VALUE_DIGITS$}{}", "x".repeat(load.value_bytes.saturating_sub(VALUE_DIGITS)));
        let record = FutureRecord::<(), str>::to(&load.topic).partition(to.index).payload(&payload);
        match client.send_result(record) {
            Ok(delivery) => {
                let history = Arc::clone(&history);
                tokio::spawn(async move {
                    let outcome = match delivery.await {
                        Ok(Ok(delivered)) if delivered.offset >= 0 => Outcome::Ok { offset: delivered.offset },
                        Ok(Ok(_)) => Outcome::OkSomewhere,
                        Ok(Err((error, _))) => outcome_of(&error),
                        Err(_) => Outcome::Unknown,
                    };
                    locked(&history).sent(value, outcome);
                    drop(permit);
                });
            }
            // It was never handed over: nobody may ever see it.
            Err(_) => locked(&history).sent(value, Outcome::Failed),
        }
        sent += 1;
        if sent.is_multiple_of(load.burst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let all = u32::try_from(load.in_flight).expect("a small number");
    let settled = tokio::time::timeout(SETTLE_LIMIT, room.acquire_many(all)).await;
    let _ = settled.expect("every send is answered after the load ended");
}

/// Only what the client or the broker refused outright has failed; everything else may have been appended.
fn outcome_of(error: &KafkaError) -> Outcome {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidRecord | Code::PurgeQueue) => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

/// The value in a record's payload. A record that is none of ours has none.
fn value_of(payload: Option<&[u8]>) -> u64 {
    let digits = payload.and_then(|p| p.get(..VALUE_DIGITS)).and_then(|d| std::str::from_utf8(d).ok());
    digits.and_then(|d| d.parse().ok()).unwrap_or(u64::MAX)
}

async fn tail(consumer: StreamConsumer, history: Arc<Mutex<History>>) {
    loop {
        match consumer.recv().await {
            Ok(m) => {
                let from = partition(m.topic(), m.partition());
                locked(&history).polled(TAILING_READER, &from, m.offset(), value_of(m.payload()));
            }
            Err(error) if clients::is_passing(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("the tailing reader failed: {error}"),
        }
    }
}

/// Reads a partition from its first offset to its high watermark into the history.
pub async fn drain(kafka: &str, from: &Partition, history: &mut History) {
    let (_, end) = clients::watermarks(kafka, &from.topic, from.index).await;
    let consumer = clients::consumer(kafka, &[]);
    clients::assign(&consumer, &from.topic, [from.index], Offset::Beginning);
    history.sought(FINAL_READER, from);
    let mut next = 0;
    while next < end {
        let record = clients::next(&consumer).await;
        history.polled(FINAL_READER, from, record.offset(), value_of(record.payload()));
        next = record.offset() + 1;
    }
    history.drained(from, end);
}
