//! Producers: idempotent ones, which try again until they know, and plain ones, which never do.
//!
//! An idempotent producer sends the batches of each partition in order, up to five in flight, several partitions in a
//! request. After any error it starts a new session with whoever leads now and sends all that is not acknowledged
//! again, same sequences, in order. So a broker that remembers what it must never has a reason to find a gap.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::ProduceResponse;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::time::{Duration, Instant, sleep};

use super::connection::Expected;
use super::dice::Dice;
use super::model::Ack;
use super::offsets;
use super::session::{self, Clients, PATIENCE, Phase, Session, topic_name};
use super::wire::{BatchSpec, NO_TIMESTAMP, encode_batch};
use crate::checker::{Partition, partition};

/// Produce versions that a session may choose from; from 13 on topics go by their ids.
const VERSIONS: [i16; 6] = [3, 7, 8, 9, 11, 13];
/// As Kafka's producers: with more, a broker could not tell a duplicate from a gap.
const IN_FLIGHT: usize = 5;
/// Enough to cross many faults, little enough to check thousands of runs.
const MAX_BATCHES: u32 = 150;

/// Kafka's error codes that matter here.
mod code {
    pub const CORRUPT_MESSAGE: i16 = 2;
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    pub const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub const UNKNOWN_PRODUCER_ID: i16 = 59;
    pub const INVALID_RECORD: i16 = 87;
}

/// The batches of one partition.
struct Lane {
    topic: String,
    partition: Partition,
    next_sequence: i32,
    /// In order of their sequences.
    unacked: VecDeque<Batch>,
    /// How many of `unacked` were sent on this connection.
    sent: usize,
}

struct Batch {
    base_sequence: i32,
    values: Vec<u64>,
    bytes: Bytes,
    attempts: u32,
    sent_at: Instant,
}

pub struct Producer {
    clients: Arc<Clients>,
    id: u32,
    dice: Dice,
    idempotent: bool,
    producer_id: i64,
    lanes: Vec<Lane>,
    topics: Vec<String>,
    batches: u32,
    epoch: i32,
    /// Batches that were begun after the faults stopped.
    healed: bool,
}

/// One request in flight: which lanes it has a batch of.
struct InFlight {
    lanes: Vec<usize>,
    reply: Expected<ProduceRequest>,
}

/// Why a session ended.
enum End {
    Done,
    TryAgain,
}

impl Producer {
    pub fn new(clients: &Arc<Clients>, id: u32, dice: Dice, idempotent: bool, lanes: &[(String, i32)]) -> Self {
        let lanes: Vec<Lane> = lanes
            .iter()
            .map(|(topic, index)| Lane {
                topic: topic.clone(),
                partition: partition(topic, *index),
                next_sequence: 0,
                unacked: VecDeque::new(),
                sent: 0,
            })
            .collect();
        let mut topics: Vec<String> = lanes.iter().map(|lane| lane.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        let clients = Arc::clone(clients);
        Self { clients, id, dice, idempotent, producer_id: -1, lanes, topics, batches: 0, epoch: -1, healed: false }
    }

    /// Runs until the drain is over: everything begun is acknowledged, or, without idempotence, given up.
    pub async fn run(mut self) {
        loop {
            if self.finished() {
                break;
            }
            if let Some(session) = session::open(&self.clients, &self.dice, &self.topics, self.epoch, true).await {
                self.epoch = session.epoch;
                if self.ensure_producer_id(&session).await
                    && let End::Done = self.serve(&session).await
                {
                    break;
                }
            }
            self.forget_session();
            sleep(self.dice.ms(20..=400)).await;
        }
        self.clients.trace.note(format_args!("producer {} is done after {} batches", self.id, self.batches));
    }

    fn finished(&self) -> bool {
        // Whoever got nothing through after the faults has not seen the system heal.
        self.healed && self.clients.phase() >= Phase::Drain && self.lanes.iter().all(|lane| lane.unacked.is_empty())
    }

    /// A new session starts from the first batch that is not acknowledged. Plain producers never send anything twice.
    fn forget_session(&mut self) {
        for lane in &mut self.lanes {
            lane.sent = 0;
            if !self.idempotent {
                lane.unacked.clear();
            }
        }
    }

    async fn ensure_producer_id(&mut self, session: &Session) -> bool {
        if !self.idempotent || self.producer_id >= 0 {
            return true;
        }
        let Some(id) = init_producer_id(session).await else { return false };
        self.clients.model.producer_id(self.id, id);
        self.producer_id = id;
        true
    }

    async fn serve(&mut self, session: &Session) -> End {
        let version = *self.dice.pick(&VERSIONS);
        let depth = if self.dice.chance(50) { IN_FLIGHT } else { 1 };
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        loop {
            while in_flight.len() < depth
                && let Some(next) = self.next_request(session, version)
            {
                in_flight.push_back(next);
                if self.dice.chance(50) {
                    sleep(self.dice.ms(1..=40)).await;
                }
            }
            match in_flight.pop_front() {
                Some(head) => {
                    let Ok(response) = head.reply.reply(self.patience()).await else { return End::TryAgain };
                    if !self.take_answer(session, &head.lanes, &response) {
                        return End::TryAgain;
                    }
                    if self.dice.chance(15)
                        && !offsets::check_end(&self.clients, session, &self.lanes[0].partition).await
                    {
                        return End::TryAgain;
                    }
                }
                None if self.finished() => return End::Done,
                None => {}
            }
            sleep(self.dice.ms(5..=200)).await;
            if self.dice.chance(2) {
                return End::TryAgain;
            }
        }
    }

    /// Mostly longer than a PUT under faults takes, sometimes not.
    fn patience(&self) -> Duration {
        if self.dice.chance(10) { Duration::from_millis(700) } else { Duration::from_secs(10) }
    }

    /// Batches of one or several lanes: what is to be sent again first, then something new.
    fn next_request(&mut self, session: &Session, version: i16) -> Option<InFlight> {
        let mut chosen = Vec::new();
        for index in 0..self.lanes.len() {
            if self.lanes[index].sent == self.lanes[index].unacked.len() {
                self.begin_batch(index);
            }
            let lane = &self.lanes[index];
            if lane.sent < lane.unacked.len() {
                chosen.push(index);
            }
        }
        if chosen.is_empty() {
            return None;
        }
        let mut topics: Vec<TopicProduceData> = Vec::new();
        for &index in &chosen {
            let lane = &mut self.lanes[index];
            let batch = &mut lane.unacked[lane.sent];
            batch.attempts += 1;
            batch.sent_at = Instant::now();
            lane.sent += 1;
            let data = PartitionProduceData::default()
                .with_index(lane.partition.index)
                .with_records(Some(batch.bytes.clone()));
            add_data(&mut topics, session, version, &lane.topic, data)?;
        }
        let acks = if self.dice.chance(50) { -1 } else { 1 };
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(topics);
        let reply = session.connection.send(version, &request);
        Some(InFlight { lanes: chosen, reply })
    }

    /// Maybe begins a new batch in a lane.
    fn begin_batch(&mut self, index: usize) {
        let phase = self.clients.phase();
        // After the faults every producer must get something through.
        let must = phase >= Phase::Healed && !self.healed;
        let may = phase < Phase::Drain && self.batches < MAX_BATCHES && self.dice.chance(40);
        let lane = &mut self.lanes[index];
        if !(must || may) || lane.unacked.len() >= IN_FLIGHT {
            return;
        }
        self.healed |= phase >= Phase::Healed;
        self.batches += 1;
        let count = 1 + self.dice.below(4);
        let values = self.clients.model.send(self.id, &lane.partition, count);
        let spec = BatchSpec {
            producer_id: self.producer_id,
            producer_epoch: if self.idempotent { 0 } else { -1 },
            base_sequence: if self.idempotent { lane.next_sequence } else { -1 },
            attributes: 0,
            // Years behind every broker's clock, however that jumps: ahead of it, records would be refused.
            timestamp_ms: NO_TIMESTAMP,
            values: &values,
        };
        let bytes = encode_batch(&spec);
        lane.unacked.push_back(Batch {
            base_sequence: lane.next_sequence,
            values,
            bytes,
            attempts: 0,
            sent_at: Instant::now(),
        });
        lane.next_sequence += count as i32;
    }

    /// True if the session can go on: every batch of the request was acknowledged.
    fn take_answer(&mut self, session: &Session, lanes: &[usize], response: &ProduceResponse) -> bool {
        let mut good = true;
        for &index in lanes {
            let lane = &mut self.lanes[index];
            let answer = response.responses.iter().find_map(|topic| {
                let named = topic.name.as_str() == lane.topic
                    || session.ids.get(&lane.topic).is_some_and(|id| *id == topic.topic_id);
                named.then(|| topic.partition_responses.iter().find(|answer| answer.index == lane.partition.index))?
            });
            let (trace, partition) = (&self.clients.trace, &lane.partition);
            let Some(answer) = answer else {
                trace.violation("protocol", format_args!("no answer about {partition}"));
                return false;
            };
            if answer.error_code == 0 {
                let Some(batch) = lane.unacked.pop_front() else { continue };
                lane.sent -= 1;
                let ack = Ack { epoch: session.epoch, retried: batch.attempts > 1, sent_at: batch.sent_at };
                self.clients.model.acked(partition, &batch.values, answer.base_offset, ack);
                continue;
            }
            trace.note(format_args!("producer {} {partition}: error {}", self.id, answer.error_code));
            self.judge_error(index, answer.error_code);
            good = false;
        }
        good
    }

    /// Errors that a sound broker never has a reason for: all earlier batches of this lane were acknowledged.
    fn judge_error(&self, index: usize, error: i16) {
        let lane = &self.lanes[index];
        let name = match error {
            code::OUT_OF_ORDER_SEQUENCE_NUMBER
            | code::DUPLICATE_SEQUENCE_NUMBER
            | code::INVALID_PRODUCER_EPOCH
            | code::UNKNOWN_PRODUCER_ID => "dedup-failover",
            code::CORRUPT_MESSAGE | code::INVALID_RECORD => "integrity",
            _ => return,
        };
        let at = lane.unacked.front().map(|batch| batch.base_sequence);
        let how =
            format_args!("{}: error {error} for sequence {at:?} of producer {}", lane.partition, self.producer_id);
        self.clients.trace.violation(name, how);
    }
}

/// Adds a partition's batch to a request: to its topic's part if there is one. None if the topic's id is not known.
pub fn add_data(
    topics: &mut Vec<TopicProduceData>,
    session: &Session,
    version: i16,
    topic: &str,
    data: PartitionProduceData,
) -> Option<()> {
    let fresh = if version >= 13 {
        TopicProduceData::default().with_topic_id(*session.ids.get(topic)?)
    } else {
        TopicProduceData::default().with_name(topic_name(topic))
    };
    let same = topics.iter_mut().find(|known| known.name == fresh.name && known.topic_id == fresh.topic_id);
    match same {
        Some(known) => known.partition_data.push(data),
        None => topics.push(fresh.with_partition_data(vec![data])),
    }
    Some(())
}

pub async fn init_producer_id(session: &Session) -> Option<i64> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let response = session.connection.call(4, &request, PATIENCE).await.ok()?;
    (response.error_code == 0).then_some(response.producer_id.0)
}
