//! Readers: they follow partitions by long polls, and some start over from the first offset now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use tokio::time::{Instant, sleep, timeout_at};

use super::dice::Dice;
use super::offsets::{self, EARLIEST, LATEST};
use super::session::{self, Clients, PATIENCE, Phase, Session, topic_name};
use super::wire::parse_batches;
use crate::checker::Partition;

/// All of them carry the leader epoch, so that a broker that is out of date can be told; from 13 on topics go by ids.
const VERSIONS: [i16; 5] = [9, 11, 12, 13, 16];
const OFFSET_OUT_OF_RANGE: i16 = 1;
const CORRUPT_MESSAGE: i16 = 2;

pub struct Reader {
    clients: Arc<Clients>,
    id: u32,
    dice: Dice,
    positions: BTreeMap<Partition, i64>,
    topics: Vec<String>,
    epoch: i32,
    /// Starts over from offset 0 now and then.
    cold: bool,
}

/// Limits of one Fetch.
struct Limits {
    max_wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
    partition_max_bytes: i32,
}

impl Reader {
    pub fn new(clients: &Arc<Clients>, id: u32, dice: Dice, partitions: &[Partition], cold: bool) -> Self {
        let mut topics: Vec<String> = partitions.iter().map(|partition| partition.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        let positions = partitions.iter().map(|partition| (partition.clone(), 0)).collect();
        Self { clients: Arc::clone(clients), id, dice, positions, topics, epoch: -1, cold }
    }

    /// A reader that goes on at these positions, where another one may have stopped.
    pub fn resume(clients: &Arc<Clients>, id: u32, dice: Dice, positions: BTreeMap<Partition, i64>) -> Self {
        let partitions: Vec<Partition> = positions.keys().cloned().collect();
        partitions.iter().for_each(|partition| clients.model.sought(id, partition));
        Self { positions, ..Self::new(clients, id, dice, &partitions, false) }
    }

    /// What it reads next.
    pub fn positions(&self) -> &BTreeMap<Partition, i64> {
        &self.positions
    }

    /// One Fetch that does not wait. False if the session is of no more use.
    pub async fn poll(&mut self, session: &Session) -> bool {
        let limits = Limits { max_wait_ms: 0, min_bytes: 1, max_bytes: 5000, partition_max_bytes: 2000 };
        let version = *self.dice.pick(&VERSIONS);
        self.positions.is_empty() || self.fetch(session, version, &limits).await
    }

    pub async fn run(mut self) {
        while self.clients.phase() < Phase::Stop {
            if let Some(session) = session::open(&self.clients, &self.dice, &self.topics, self.epoch, true).await {
                self.epoch = session.epoch;
                self.follow(&session).await;
            }
            sleep(self.dice.ms(20..=500)).await;
        }
    }

    async fn follow(&mut self, session: &Session) {
        let version = *self.dice.pick(&VERSIONS);
        while self.clients.phase() < Phase::Stop {
            if self.cold && self.dice.chance(10) {
                self.start_over();
            }
            let limits = Limits {
                max_wait_ms: *self.dice.pick(&[0, 100, 500, 2000]),
                min_bytes: *self.dice.pick(&[1, 1, 1, 4000]),
                max_bytes: *self.dice.pick(&[1, 300, 5000, 1 << 20]),
                partition_max_bytes: *self.dice.pick(&[1, 300, 5000, 1 << 20]),
            };
            if !self.fetch(session, version, &limits).await {
                return;
            }
            if self.dice.chance(10) && !self.peek(session).await {
                return;
            }
            sleep(self.dice.ms(10..=400)).await;
            if self.dice.chance(2) {
                return;
            }
        }
    }

    /// Asks for an offset that may be above the high watermark: then there is nothing, not even a reason to wait.
    async fn peek(&self, session: &Session) -> bool {
        let Some((partition, position)) =
            self.positions.iter().nth(self.dice.below(self.positions.len() as u64) as usize)
        else {
            return false;
        };
        let offset = position + 1 + self.dice.below(3) as i64;
        let asked = FetchPartition::default()
            .with_partition(partition.index)
            .with_current_leader_epoch(session.epoch)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(5000);
        let topic = FetchTopic::default().with_topic(topic_name(&partition.topic)).with_partitions(vec![asked]);
        let request = FetchRequest::default().with_max_bytes(5000).with_session_epoch(-1).with_topics(vec![topic]);
        let Ok(response) = session.connection.call(12, &request, PATIENCE).await else { return false };
        let answer = response.responses.first().and_then(|topic| topic.partitions.first());
        if let Some(data) = answer.filter(|data| data.error_code == 0 && data.high_watermark < offset) {
            let how = format_args!(
                "{partition}: offset {offset} is served below a high watermark of {}",
                data.high_watermark
            );
            self.clients.trace.violation("no-dirty-read", how);
        }
        true
    }

    fn start_over(&mut self) {
        for (partition, position) in &mut self.positions {
            self.clients.model.sought(self.id, partition);
            *position = 0;
        }
    }

    /// One Fetch of all partitions. False if the session is of no more use.
    async fn fetch(&mut self, session: &Session, version: i16, limits: &Limits) -> bool {
        let Some(request) = self.request(session, version, limits) else { return false };
        let patience = PATIENCE + Duration::from_millis(limits.max_wait_ms as u64);
        let asked_at = Instant::now();
        let Ok(response) = session.connection.call(version, &request, patience).await else { return false };
        if response.error_code != 0 {
            self.clients.trace.note(format_args!("reader {}: error {}", self.id, response.error_code));
            return false;
        }
        let mut good = true;
        for topic in &response.responses {
            let name = if version >= 13 { session.name_of(topic.topic_id) } else { Some(topic.topic.as_str()) };
            let Some(name) = name.map(str::to_owned) else { return false };
            for data in &topic.partitions {
                let partition = Partition { topic: name.clone(), index: data.partition_index };
                if data.error_code == 0 {
                    self.clients.model.answered(&partition, session.epoch, asked_at);
                }
                good &= self.take(&partition, data);
            }
        }
        good
    }

    fn request(&self, session: &Session, version: i16, limits: &Limits) -> Option<FetchRequest> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (partition, position) in &self.positions {
            let asked = FetchPartition::default()
                .with_partition(partition.index)
                .with_current_leader_epoch(session.epoch)
                .with_fetch_offset(*position)
                .with_partition_max_bytes(limits.partition_max_bytes);
            let topic = if version >= 13 {
                FetchTopic::default().with_topic_id(*session.ids.get(&partition.topic)?)
            } else {
                FetchTopic::default().with_topic(topic_name(&partition.topic))
            };
            match topics.iter_mut().find(|known| known.topic == topic.topic && known.topic_id == topic.topic_id) {
                Some(known) => known.partitions.push(asked),
                None => topics.push(topic.with_partitions(vec![asked])),
            }
        }
        let request = FetchRequest::default()
            .with_max_wait_ms(limits.max_wait_ms)
            .with_min_bytes(limits.min_bytes)
            .with_max_bytes(limits.max_bytes)
            .with_session_epoch(-1)
            .with_topics(topics);
        Some(request)
    }

    /// What the answer says about one partition. False on an error.
    fn take(&mut self, partition: &Partition, data: &PartitionData) -> bool {
        let Some(position) = self.positions.get_mut(partition) else { return false };
        let trace = &self.clients.trace;
        if data.error_code != 0 {
            trace.note(format_args!("reader {} {partition} at {position}: error {}", self.id, data.error_code));
            // Nothing is ever deleted here, and the position was once below a high watermark.
            if data.error_code == OFFSET_OUT_OF_RANGE {
                let how = format_args!("{partition}: {position} was readable and is out of range");
                trace.violation("acked-durable", how);
            }
            if data.error_code == CORRUPT_MESSAGE {
                trace.violation("integrity", format_args!("{partition} at {position}: told that it is corrupt"));
            }
            return false;
        }
        let Some(bytes) = data.records.clone() else {
            trace.violation("protocol", format_args!("{partition}: null records"));
            return false;
        };
        match parse_batches(bytes) {
            Ok(batches) => {
                *position = self.clients.model.fetched(self.id, partition, *position, data.high_watermark, batches);
                true
            }
            Err(why) => {
                trace.violation("integrity", format_args!("{partition} at {position}: {why}"));
                false
            }
        }
    }
}

/// Reads partitions from the first offset to the end, as a reader that nobody has seen before, but which has heard of
/// `least_epoch`: a former owner answers what it knows for as long as it may not have noticed. Returns those that could not
/// be read within the time for each.
pub async fn read_back(
    clients: &Arc<Clients>,
    dice: &Dice,
    partitions: &[Partition],
    least_epoch: i32,
    within: Duration,
) -> Vec<Partition> {
    let mut left = Vec::new();
    for partition in partitions {
        let deadline = Instant::now() + within;
        let id = clients.model.final_reader();
        let mut reader = Reader::new(clients, id, dice.clone(), std::slice::from_ref(partition), false);
        reader.epoch = least_epoch;
        let mut done = false;
        while !done && Instant::now() < deadline {
            done = timeout_at(deadline, reader.read_to_end(partition)).await.unwrap_or(false);
            if !done {
                sleep(Duration::from_millis(200)).await;
            }
        }
        if !done {
            left.push(partition.clone());
        }
    }
    left
}

impl Reader {
    async fn read_to_end(&mut self, partition: &Partition) -> bool {
        let Some(session) = session::open(&self.clients, &self.dice, &self.topics, self.epoch, false).await else {
            return false;
        };
        self.epoch = session.epoch;
        let before = self.clients.model.highest_ack(partition);
        let Some(end) = offsets::list_offset(&self.clients, &session, partition, LATEST).await else { return false };
        self.clients.model.log_end(partition, end, session.epoch, before);
        let Some(start) = offsets::list_offset(&self.clients, &session, partition, EARLIEST).await else {
            return false;
        };
        if start != 0 {
            self.clients.trace.violation("acked-durable", format_args!("{partition} starts at {start}, not at 0"));
        }
        let version = *self.dice.pick(&VERSIONS);
        let limits = Limits {
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 1 << 20,
            partition_max_bytes: *self.dice.pick(&[2000, 1 << 20]),
        };
        while self.positions.get(partition).is_some_and(|position| *position < end) {
            if !self.fetch(&session, version, &limits).await {
                return false;
            }
        }
        self.clients.model.drained(partition, end);
        true
    }
}
