//! A client that does what it must not, and checks that it is refused: gaps in sequences, stale producer epochs, bytes
//! that do not match their CRC, batches that only a broker or a transaction may write. And one that asks for what must
//! be granted: a batch that was acknowledged is sent again, also after a failover, and has to be recognized.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use tokio::time::{Instant, sleep};

use super::dice::Dice;
use super::model::Ack;
use super::producer::{add_data, init_producer_id};
use super::session::{self, Clients, PATIENCE, Phase, Session};
use super::wire::{BatchSpec, NO_TIMESTAMP, encode_batch};
use crate::checker::{Partition, partition};

/// A broker remembers this many batches of a producer, at least.
const REMEMBERED: usize = 5;

/// How a single Produce ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    At(i64),
    Error(i16),
    Unknown,
}

/// Sends one batch to one partition and waits.
pub async fn produce_one(session: &Session, to: &Partition, bytes: Bytes) -> Sent {
    let mut topics = Vec::new();
    let data = PartitionProduceData::default().with_index(to.index).with_records(Some(bytes));
    if add_data(&mut topics, session, 9, &to.topic, data).is_none() {
        return Sent::Unknown;
    }
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(topics);
    let Ok(response) = session.connection.call(9, &request, PATIENCE * 2).await else { return Sent::Unknown };
    let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
    match answer {
        Some(answer) if answer.error_code == 0 => Sent::At(answer.base_offset),
        Some(answer) => Sent::Error(answer.error_code),
        None => Sent::Unknown,
    }
}

pub struct Prober {
    clients: Arc<Clients>,
    dice: Dice,
    id: u32,
    target: Partition,
    producer_id: i64,
    producer_epoch: i16,
    next_sequence: i32,
    /// Acknowledged, newest last, with their offsets.
    acked: Vec<(Bytes, i64)>,
    /// A good batch whose fate is not known yet.
    open: Option<(Bytes, Vec<u64>, u32)>,
    epoch: i32,
}

impl Prober {
    pub fn new(clients: &Arc<Clients>, id: u32, dice: Dice, topic: &str, index: i32) -> Self {
        Self {
            clients: Arc::clone(clients),
            dice,
            id,
            target: partition(topic, index),
            producer_id: -1,
            producer_epoch: 0,
            next_sequence: 0,
            acked: Vec::new(),
            open: None,
            epoch: -1,
        }
    }

    pub async fn run(mut self) {
        let topics = [self.target.topic.clone()];
        while self.clients.phase() < Phase::Drain || self.open.is_some() {
            if let Some(session) = session::open(&self.clients, &self.dice, &topics, self.epoch, true).await {
                self.epoch = session.epoch;
                while self.step(&session).await {
                    sleep(self.dice.ms(50..=900)).await;
                }
            }
            sleep(self.dice.ms(50..=400)).await;
        }
    }

    /// False if another session is needed, or if it is time to end.
    async fn step(&mut self, session: &Session) -> bool {
        if self.producer_id < 0 {
            let Some(id) = init_producer_id(session).await else { return false };
            self.clients.model.producer_id(self.id, id);
            self.producer_id = id;
        }
        if self.open.is_some() || self.acked.is_empty() {
            return self.good_batch(session).await;
        }
        if self.clients.phase() >= Phase::Drain {
            return false;
        }
        match self.dice.below(7) {
            0 | 1 => self.good_batch(session).await,
            2 => self.again(session).await,
            3 => {
                let sequence = self.next_sequence + 1 + self.dice.below(5) as i32;
                self.bad_batch(session, "seq-gap-rejected", sequence, self.producer_epoch, 0, false).await
            }
            4 if self.producer_epoch > 0 => {
                let epoch = self.producer_epoch - 1;
                self.bad_batch(session, "fenced-writer", self.next_sequence, epoch, 0, false).await
            }
            4 => {
                // As clients do after an error they cannot explain: the next epoch begins at sequence 0.
                (self.producer_epoch, self.next_sequence) = (self.producer_epoch + 1, 0);
                self.acked.clear();
                self.good_batch(session).await
            }
            5 => self.bad_batch(session, "integrity", self.next_sequence, self.producer_epoch, 0, true).await,
            _ => {
                let attributes = *self.dice.pick(&[0x10, 0x20, 0x30]);
                self.bad_batch(session, "lso-safe", self.next_sequence, self.producer_epoch, attributes, false).await
            }
        }
    }

    fn encode(&self, values: &[u64], base_sequence: i32, producer_epoch: i16, attributes: i16) -> Bytes {
        let producer_id = self.producer_id;
        encode_batch(&BatchSpec {
            producer_id,
            producer_epoch,
            base_sequence,
            attributes,
            timestamp_ms: NO_TIMESTAMP,
            values,
        })
    }

    async fn good_batch(&mut self, session: &Session) -> bool {
        if self.open.is_none() {
            let values = self.clients.model.send(self.id, &self.target, 1 + self.dice.below(3));
            let bytes = self.encode(&values, self.next_sequence, self.producer_epoch, 0);
            self.open = Some((bytes, values, 0));
        }
        let Some((bytes, values, attempts)) = &mut self.open else { return false };
        *attempts += 1;
        let ack = Ack { epoch: session.epoch, retried: *attempts > 1, sent_at: Instant::now() };
        match produce_one(session, &self.target, bytes.clone()).await {
            Sent::At(offset) => {
                self.clients.model.acked(&self.target, values, offset, ack);
                self.next_sequence += values.len() as i32;
                self.acked.push((bytes.clone(), offset));
                self.open = None;
                true
            }
            Sent::Error(error @ (45..=47 | 59)) => {
                let how = format_args!("{}: error {error} for a batch in sequence", self.target);
                self.clients.trace.violation("dedup-failover", how);
                false
            }
            Sent::Error(_) | Sent::Unknown => false,
        }
    }

    /// Sends one of the last acknowledged batches once more.
    async fn again(&mut self, session: &Session) -> bool {
        let recent = &self.acked[self.acked.len().saturating_sub(REMEMBERED)..];
        let (bytes, offset) = self.dice.pick(recent).clone();
        let sent = produce_one(session, &self.target, bytes).await;
        self.clients.trace.note(format_args!("prober sends {offset} again: {sent:?}"));
        match sent {
            Sent::At(same) if same == offset => true,
            Sent::At(_) | Sent::Error(45..=47 | 59) => {
                let how = format_args!("{}: {offset} sent again was answered by {sent:?}", self.target);
                self.clients.trace.violation("dedup-failover", how);
                false
            }
            Sent::Error(_) | Sent::Unknown => false,
        }
    }

    async fn bad_batch(
        &mut self,
        session: &Session,
        invariant: &str,
        sequence: i32,
        producer_epoch: i16,
        attributes: i16,
        damage: bool,
    ) -> bool {
        let values = self.clients.model.send(self.id, &self.target, 1);
        self.clients.model.refused(&values);
        let mut bytes = self.encode(&values, sequence, producer_epoch, attributes);
        if damage {
            let mut damaged = BytesMut::from(bytes.as_ref());
            let at = 21 + self.dice.below(damaged.len() as u64 - 21) as usize;
            damaged[at] ^= 1 << self.dice.below(8);
            bytes = damaged.freeze();
        }
        let sent = produce_one(session, &self.target, bytes).await;
        self.clients.trace.note(format_args!("prober breaks {invariant}: {sent:?}"));
        if let Sent::At(offset) = sent {
            let how = format_args!("{}: a batch that had to be refused was acknowledged at {offset}", self.target);
            self.clients.trace.violation(invariant, how);
        }
        matches!(sent, Sent::Error(_))
    }
}
