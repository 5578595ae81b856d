//! Fetch (key 1): record batches from given offsets on; waits for data if there is none.
//!
//! Plan under each partition's lock, wait if too little is readable, read outside all locks, confirm that this broker
//! still owns its log, answer. Invariants:
//! - A waiting fetch holds no memory of its request and costs nothing until a partition wakes it or its time is up.
//! - Nothing at or above the high watermark is returned.
//! - Progress: if any partition has data, at least one batch is returned, however small the limits are; which partition
//!   is served first changes from request to request.

pub(super) mod encode;
mod read;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use storage::entry::TopicPartition;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::api::errors;
use crate::broker::Broker;
use crate::compression::Codec;
use crate::error::code_for;
use crate::partition::{Bounds, FetchPlan, Partition, Watching};
use crate::request::{CloseConnection, Reply, RequestBody, RequestContext, Response};
use crate::topics::Topic;
use crate::wire::codec;
use crate::wire::shapes;

use self::encode::{
    FIRST_VERSION_WITH_SESSIONS, FIRST_VERSION_WITH_TOPIC_IDS, FetchResponse, PartitionAnswer, TopicAnswer, encode,
};
use self::read::{ReadJob, read_all};

/// zstd came with this version (KIP-110).
const FIRST_VERSION_WITH_ZSTD: i16 = 10;
/// No client needs to wait longer for nothing (a day).
const MAX_WAIT_MS: i32 = 86_400_000;

/// How often what was not where it had been is planned anew.
const REPLANS: usize = 5;

pub fn handle(broker: &Arc<Broker>, context: RequestContext, body: RequestBody) -> Result<Reply, CloseConnection> {
    let version = context.api_version;
    let request: FetchRequest = codec::decode(&context, &body)?;
    // Nothing of the request's buffer is kept.
    let fetch = Fetch::new(broker.clone(), version, request)?;
    Ok(Reply::Later(Box::pin(fetch.run())))
}

struct Fetch {
    broker: Arc<Broker>,
    version: i16,
    read_committed: bool,
    /// For the whole request.
    error: Option<ResponseError>,
    max_wait: Duration,
    min_bytes: usize,
    max_bytes: usize,
    topics: Vec<AskedTopic>,
}

struct AskedTopic {
    /// None: there is no such topic.
    topic: Option<Arc<Topic>>,
    /// As asked for, if there is no such topic.
    name: String,
    id: Uuid,
    partitions: Vec<AskedPartition>,
}

struct AskedPartition {
    index: i32,
    found: Option<Arc<Partition>>,
    offset: i64,
    leader_epoch: i32,
    max_bytes: usize,
}

/// What every partition of the request has to say, in its order.
struct Planned {
    plans: Vec<Result<FetchPlan, ResponseError>>,
    available_bytes: usize,
    failed: bool,
}

impl Fetch {
    fn new(broker: Arc<Broker>, version: i16, request: FetchRequest) -> Result<Self, CloseConnection> {
        let read_committed = match request.isolation_level {
            0 => false,
            1 => true,
            unknown => return Err(CloseConnection(format!("a Fetch request with isolation level {unknown}"))),
        };
        let error = match (request.session_id, request.session_epoch) {
            _ if version < FIRST_VERSION_WITH_SESSIONS => None,
            // A full fetch, with or without the wish for a session.
            (0, -1 | 0) => None,
            (0, _) => Some(ResponseError::InvalidFetchSessionEpoch),
            // The end of a session that there never was, with a full fetch.
            (_, -1) => None,
            _ => Some(ResponseError::FetchSessionIdNotFound),
        };
        let max_wait_ms = request.max_wait_ms.clamp(0, MAX_WAIT_MS);
        let topics = if error.is_some() { Vec::new() } else { request.topics };
        Ok(Self {
            version,
            read_committed,
            error,
            max_wait: Duration::from_millis(max_wait_ms as u64),
            min_bytes: bytes_from(request.min_bytes),
            max_bytes: bytes_from(request.max_bytes).min(broker.config.fetch_max_bytes),
            topics: topics.into_iter().map(|topic| AskedTopic::resolve(&broker, version, topic)).collect(),
            broker,
        })
    }

    async fn run(self) -> Result<Response, CloseConnection> {
        let mut planned = self.plan_or_wait().await;
        let mut replans = 0;
        let answers = loop {
            let (answers, moved) = self.read(planned).await;
            if !moved || replans == REPLANS {
                break answers;
            }
            replans += 1;
            planned = self.plan();
        };
        let mut response = self.respond(answers);
        // Only now: what was read and planned above was true if this broker still owns its log.
        if let Err(error) = self.broker.ownership.confirm().await {
            let code = code_for(error.kind());
            for answer in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                *answer = PartitionAnswer::failed(answer.partition, code);
            }
        }
        errors::count(&self.broker.metrics, shapes::FETCH.api_key, &response);
        Ok(encode(response, self.version))
    }

    fn partitions(&self) -> impl Iterator<Item = &AskedPartition> {
        self.topics.iter().flat_map(|topic| &topic.partitions)
    }

    fn plan(&self) -> Planned {
        let mut planned = Planned { plans: Vec::new(), available_bytes: 0, failed: false };
        for topic in &self.topics {
            let by_id = self.version >= FIRST_VERSION_WITH_TOPIC_IDS;
            for asked in &topic.partitions {
                let readable = match self.version < FIRST_VERSION_WITH_ZSTD && topic.is_zstd() {
                    true => Err(ResponseError::UnsupportedCompressionType),
                    false => Ok(()),
                };
                let plan = readable.and_then(|()| asked.plan(self.max_bytes)).map_err(|code| match code {
                    // Also for a topic that was there when the request came.
                    ResponseError::UnknownTopicOrPartition if by_id && topic.is_gone(asked) => {
                        ResponseError::UnknownTopicId
                    }
                    code => code,
                });
                planned.failed |= plan.is_err();
                planned.available_bytes += plan.as_ref().map_or(0, |plan| plan.available_bytes);
                planned.plans.push(plan);
            }
        }
        planned
    }

    /// Waits until enough can be read, something is wrong, or time is up.
    async fn plan_or_wait(&self) -> Planned {
        let planned = self.plan();
        if self.is_enough(&planned) || self.max_wait.is_zero() {
            return planned;
        }
        drop(planned);
        let deadline = Instant::now() + self.max_wait;
        let watching = Watching::start(self.partitions().filter_map(|asked| asked.found.clone()).collect());
        loop {
            watching.watch().expect(self.min_bytes);
            let planned = self.plan();
            if self.is_enough(&planned) || Instant::now() >= deadline {
                return planned;
            }
            watching.watch().arrived(planned.available_bytes);
            drop(planned);
            tokio::select! {
                biased;
                () = watching.watch().enough() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn is_enough(&self, planned: &Planned) -> bool {
        planned.failed || planned.plans.is_empty() || planned.available_bytes >= self.min_bytes
    }

    /// Reads what was planned. Which partition comes first is drawn anew each time, so that none starves. True if something
    /// was not where it had been when it was planned.
    async fn read(&self, planned: Planned) -> (Vec<PartitionAnswer>, bool) {
        let mut answers = Vec::with_capacity(planned.plans.len());
        let mut jobs = Vec::new();
        for (place, (asked, plan)) in self.partitions().zip(planned.plans).enumerate() {
            match (plan, &asked.found) {
                (Ok(plan), Some(partition)) => {
                    answers.push(asked.empty_answer(plan.bounds));
                    if !plan.runs.is_empty() {
                        let (partition, offset, max_bytes) = (partition.clone(), asked.offset, asked.max_bytes);
                        jobs.push((place, ReadJob { partition, offset, plan, max_bytes }));
                    }
                }
                (Err(code), _) => answers.push(PartitionAnswer::failed(asked.index, code)),
                (Ok(_), None) => {
                    answers.push(PartitionAnswer::failed(asked.index, ResponseError::UnknownTopicOrPartition));
                }
            }
        }
        if jobs.len() > 1 {
            let first = self.broker.random.next_u64() % jobs.len() as u64;
            jobs.rotate_left(first as usize);
        }
        let (places, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        let results = read_all(self.broker.partitions.reader(), &jobs, self.max_bytes).await;
        let mut moved = false;
        for (place, result) in places.into_iter().zip(results) {
            moved |= result.moved;
            let answer = &mut answers[place];
            match result.error {
                Some(code) => *answer = PartitionAnswer::failed(answer.partition, code),
                None => {
                    self.broker.metrics.fetched_bytes.inc_by(result.bytes as u64);
                    (answer.records, answer.permits) = (result.records, result.permits);
                }
            }
        }
        (answers, moved)
    }

    fn respond(&self, answers: Vec<PartitionAnswer>) -> FetchResponse {
        let mut answers = answers.into_iter();
        let topics = self.topics.iter().map(|asked| TopicAnswer {
            name: asked.topic.as_ref().map_or_else(|| asked.name.clone(), |topic| topic.name.clone()),
            id: asked.id,
            partitions: answers.by_ref().take(asked.partitions.len()).collect(),
        });
        FetchResponse { error: self.error, read_committed: self.read_committed, topics: topics.collect() }
    }
}

impl AskedTopic {
    fn resolve(broker: &Broker, version: i16, asked: FetchTopic) -> Self {
        let by_id = version >= FIRST_VERSION_WITH_TOPIC_IDS;
        let topic = if by_id { broker.topics.by_id(asked.topic_id) } else { broker.topics.by_name(&asked.topic) };
        let partitions = asked.partitions.into_iter().map(|asked| {
            let id = topic.as_ref().map(|topic| TopicPartition { topic: topic.id, partition: asked.partition });
            AskedPartition::new(id.and_then(|id| broker.partitions.get(id)), asked)
        });
        let partitions = partitions.collect();
        // Copied, so that the request's buffer is not kept for as long as the fetch waits.
        let name = if topic.is_some() { String::new() } else { asked.topic.to_string() };
        Self { topic, name, id: asked.topic_id, partitions }
    }

    /// Its batches are compressed with zstd, whatever their producers chose.
    fn is_zstd(&self) -> bool {
        self.topic.as_ref().is_some_and(|topic| topic.config.compression.codec == Some(Codec::Zstd))
    }

    /// There is no such topic, or not any more; as opposed to a topic without such a partition.
    fn is_gone(&self, asked: &AskedPartition) -> bool {
        self.topic.is_none() || asked.found.is_some()
    }
}

impl AskedPartition {
    fn new(found: Option<Arc<Partition>>, asked: FetchPartition) -> Self {
        Self {
            index: asked.partition,
            found,
            offset: asked.fetch_offset,
            leader_epoch: asked.current_leader_epoch,
            max_bytes: bytes_from(asked.partition_max_bytes),
        }
    }

    fn plan(&self, request_max_bytes: usize) -> Result<FetchPlan, ResponseError> {
        let found = self.found.as_ref().ok_or(ResponseError::UnknownTopicOrPartition)?;
        found.plan_fetch(self.offset, self.leader_epoch, self.max_bytes.min(request_max_bytes))
    }

    fn empty_answer(&self, bounds: Bounds) -> PartitionAnswer {
        PartitionAnswer {
            partition: self.index,
            error: None,
            high_watermark: bounds.high_watermark,
            log_start_offset: bounds.log_start_offset,
            records: Vec::new(),
            permits: Vec::new(),
        }
    }
}

/// A size as clients give it; negative is nothing.
fn bytes_from(size: i32) -> usize {
    usize::try_from(size).unwrap_or(0)
}
