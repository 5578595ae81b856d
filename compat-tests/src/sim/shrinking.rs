//! Topics that lose records from their front, by DeleteRecords and by `retention.bytes` (which no clock decides), while
//! they are written and read.
//!
//! What was deleted may be gone, everything above must be there, as it was acknowledged. Where a partition begins never
//! moves down, whoever leads it, and never further up than somebody asked for or its size allows. Each topic has one
//! client, which knows all that was ever written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{CreateTopicsRequest, DeleteRecordsRequest, FetchRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::dice::Dice;
use super::offsets::{self, EARLIEST, LATEST};
use super::probing::{Sent, produce_one};
use super::producer::init_producer_id;
use super::session::{self, Clients, PATIENCE, Phase, Session, topic_name};
use super::wire::{Batch, BatchSpec, NO_TIMESTAMP, encode_batch, parse_batches};
use crate::checker::{Partition, partition};

const OFFSET_OUT_OF_RANGE: i16 = 1;
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// Of one batch at most: one may be appended and not acknowledged yet.
const BATCH_BYTES: i64 = 400;

pub struct Shrinking {
    clients: Arc<Clients>,
    dice: Dice,
    target: Partition,
    /// `retention.bytes`, -1 for none.
    most_bytes: i64,
    /// Acknowledged batches, by their base offsets: values and length.
    acked: BTreeMap<i64, (Vec<u64>, i64)>,
    end: i64,
    next_value: u64,
    producer_id: i64,
    sequence: i32,
    /// Sent, of unknown outcome.
    open: Option<Vec<u64>>,
    /// The highest offset that was asked to be the first.
    asked_start: i64,
    /// The highest first offset that was told, and the newest leader that told one.
    start: i64,
    epoch: i32,
}

impl Shrinking {
    pub fn new(clients: &Arc<Clients>, dice: Dice, number: u32) -> Self {
        Self {
            clients: Arc::clone(clients),
            target: partition(&format!("shrinking-{number}"), 0),
            most_bytes: *dice.pick(&[-1, 600, 3_000]),
            dice,
            acked: BTreeMap::new(),
            end: 0,
            next_value: 1,
            producer_id: -1,
            sequence: 0,
            open: None,
            asked_start: 0,
            start: 0,
            epoch: -1,
        }
    }

    /// Writes, deletes and reads until the drain, and what it began even longer.
    pub async fn run(mut self) -> Self {
        while self.clients.phase() < Phase::Drain && !self.create().await {
            sleep(self.dice.ms(50..=500)).await;
        }
        while self.clients.phase() < Phase::Drain || self.open.is_some() {
            if let Some(session) = self.session().await {
                while self.step(&session).await {
                    sleep(self.dice.ms(5..=300)).await;
                }
            }
            sleep(self.dice.ms(50..=400)).await;
        }
        self
    }

    /// Reads everything that there is. False if that was not possible in time.
    pub async fn read_back(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        // It may never have come to be.
        while self.producer_id >= 0 && Instant::now() < deadline {
            let Some(session) = self.session().await else {
                sleep(Duration::from_millis(200)).await;
                continue;
            };
            if timeout_at(deadline, self.read(&session)).await == Ok(true) {
                return true;
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.producer_id < 0
    }

    async fn session(&mut self) -> Option<Session> {
        let topics = [self.target.topic.clone()];
        let session = session::open(&self.clients, &self.dice, &topics, self.epoch, false).await?;
        self.epoch = session.epoch;
        Some(session)
    }

    async fn create(&mut self) -> bool {
        let Some(session) = session::open(&self.clients, &self.dice, &[], -1, false).await else { return false };
        let config = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("retention.bytes"))
            .with_value(Some(StrBytes::from_string(self.most_bytes.to_string())));
        let topic = CreatableTopic::default()
            .with_name(topic_name(&self.target.topic))
            .with_num_partitions(1)
            .with_replication_factor(-1)
            .with_configs(vec![config]);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
        let Ok(response) = session.connection.call(7, &request, PATIENCE).await else { return false };
        let error = response.topics.first().map_or(-1, |topic| topic.error_code);
        error == 0 || error == TOPIC_ALREADY_EXISTS
    }

    /// False if another session is needed, or if it is time to end.
    async fn step(&mut self, session: &Session) -> bool {
        if self.producer_id < 0 {
            let Some(id) = init_producer_id(session).await else { return false };
            self.producer_id = id;
        }
        if self.open.is_some() {
            return self.produce(session).await;
        }
        if self.clients.phase() >= Phase::Drain {
            return false;
        }
        match self.dice.below(10) {
            0 => self.delete(session).await,
            1 | 2 => self.read(session).await,
            _ => self.produce(session).await,
        }
    }

    async fn produce(&mut self, session: &Session) -> bool {
        if self.open.is_none() {
            let count = 1 + self.dice.below(3);
            self.open = Some((self.next_value..self.next_value + count).collect());
            self.next_value += count;
        }
        let values = self.open.clone().unwrap_or_default();
        let bytes = encode_batch(&BatchSpec {
            producer_id: self.producer_id,
            producer_epoch: 0,
            base_sequence: self.sequence,
            attributes: 0,
            timestamp_ms: NO_TIMESTAMP,
            values: &values,
        });
        let length = bytes.len() as i64;
        match produce_one(session, &self.target, bytes).await {
            Sent::At(offset) => {
                self.note(format_args!("acked at {offset}: {values:?}"));
                if offset != self.end {
                    self.violation("dedup-failover", format_args!("{values:?} at {offset}, not at {}", self.end));
                }
                self.sequence += values.len() as i32;
                self.end = offset + values.len() as i64;
                self.acked.insert(offset, (values, length));
                self.open = None;
                true
            }
            Sent::Error(error) => {
                self.note(format_args!("produce: error {error}"));
                false
            }
            Sent::Unknown => false,
        }
    }

    async fn delete(&mut self, session: &Session) -> bool {
        let offset = match self.dice.below(4) {
            0 => -1,
            _ => self.start + self.dice.below((self.end - self.start).max(0) as u64 + 1) as i64,
        };
        self.asked_start = self.asked_start.max(if offset < 0 { self.end } else { offset });
        let asked = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
        let topic =
            DeleteRecordsTopic::default().with_name(topic_name(&self.target.topic)).with_partitions(vec![asked]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
        let Ok(response) = session.connection.call(2, &request, PATIENCE).await else { return false };
        let Some(answer) = response.topics.first().and_then(|topic| topic.partitions.first()) else { return false };
        self.note(format_args!("delete below {offset}: error {} start {}", answer.error_code, answer.low_watermark));
        if answer.error_code != 0 {
            return answer.error_code == OFFSET_OUT_OF_RANGE;
        }
        if answer.low_watermark < offset {
            self.violation("log-start-monotonic", format_args!("{offset} was asked for: {}", answer.low_watermark));
        }
        self.started_at(answer.low_watermark);
        true
    }

    /// A leader that is as new as every one before told where the partition begins.
    fn started_at(&mut self, start: i64) {
        if start < self.start {
            self.violation("log-start-monotonic", format_args!("it began at {}, and now at {start}", self.start));
        }
        self.start = self.start.max(start);
        let left_bytes: i64 = self.acked.range(start..).map(|(_, (_, length))| length).sum();
        if start > self.asked_start && (self.most_bytes < 0 || left_bytes + BATCH_BYTES < self.most_bytes) {
            let how = format_args!("it begins at {start}, {left_bytes} of {} bytes are left", self.most_bytes);
            self.violation("acked-durable", how);
        }
    }

    /// From the first offset to the last. False if another session is needed.
    async fn read(&mut self, session: &Session) -> bool {
        let (clients, target) = (Arc::clone(&self.clients), self.target.clone());
        let Some(end) = offsets::list_offset(&clients, session, &target, LATEST).await else { return false };
        if end < self.end {
            self.violation("hwm-monotonic", format_args!("it ends at {end}, {} were acknowledged", self.end));
        }
        let Some(mut position) = offsets::list_offset(&clients, session, &target, EARLIEST).await else { return false };
        self.started_at(position);
        while position < end {
            let max_bytes = *self.dice.pick(&[1, 500, 1 << 20]);
            match self.fetch(session, position, max_bytes).await {
                Fetched::Nothing => return false,
                Fetched::Batches(batches) => {
                    let before = position;
                    batches.iter().for_each(|batch| self.saw(&mut position, batch));
                    if position == before {
                        return false;
                    }
                }
                Fetched::OutOfRange => {
                    // It was deleted while we were reading it, or there is something wrong.
                    let Some(start) = offsets::list_offset(&clients, session, &target, EARLIEST).await else {
                        return false;
                    };
                    self.started_at(start);
                    if start <= position {
                        let how = format_args!("{position} is out of range, but it begins at {start}");
                        self.violation("acked-durable", how);
                        return false;
                    }
                    position = start;
                }
            }
        }
        self.note(format_args!("read from {} to {position}", self.start));
        true
    }

    async fn fetch(&self, session: &Session, position: i64, max_bytes: i32) -> Fetched {
        let asked = FetchPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(session.epoch)
            .with_fetch_offset(position)
            .with_partition_max_bytes(max_bytes);
        let topic = FetchTopic::default().with_topic(topic_name(&self.target.topic)).with_partitions(vec![asked]);
        let request = FetchRequest::default()
            .with_max_bytes(max_bytes)
            .with_min_bytes(1)
            .with_max_wait_ms(100)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let Ok(response) = session.connection.call(12, &request, PATIENCE).await else { return Fetched::Nothing };
        let Some(data) = response.responses.first().and_then(|topic| topic.partitions.first()) else {
            return Fetched::Nothing;
        };
        match data.error_code {
            0 => {}
            OFFSET_OUT_OF_RANGE => return Fetched::OutOfRange,
            error => {
                self.note(format_args!("fetch at {position}: error {error}"));
                return Fetched::Nothing;
            }
        }
        match parse_batches(data.records.clone().unwrap_or_default()) {
            Ok(batches) => Fetched::Batches(batches),
            Err(why) => {
                self.violation("integrity", format_args!("at {position}: {why}"));
                Fetched::Nothing
            }
        }
    }

    fn saw(&self, position: &mut i64, batch: &Batch) {
        if batch.base_offset > *position || batch.last_offset < *position {
            self.violation("contiguous-log", format_args!("at {position} comes {batch:?}"));
        }
        let known = self.acked.get(&batch.base_offset).map(|(values, _)| values);
        // What is not acknowledged yet may be read already.
        let expected = known.or(self.open.as_ref().filter(|_| batch.base_offset == self.end));
        if expected != Some(&batch.values) {
            self.violation("offset-immutable", format_args!("{expected:?} was acknowledged: {batch:?}"));
        }
        *position = (*position).max(batch.last_offset + 1);
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.clients.trace.note(format_args!("{}: {what}", self.target));
    }

    fn violation(&self, name: &'static str, how: std::fmt::Arguments<'_>) {
        self.clients.trace.violation(name, format_args!("{}: {how}", self.target));
    }
}

enum Fetched {
    Batches(Vec<Batch>),
    OutOfRange,
    /// An error, or no answer.
    Nothing,
}
