//! Produce (key 0): appends one record batch per partition, and answers when all of them are durable.
//!
//! Invariants:
//! - Everything up to enqueueing into the log runs in `handle`, so in the order in which requests arrived; only the wait
//!   for durability is left to the reply. If large batches have to be compressed anew first, the connection takes no
//!   other request until they are enqueued.
//! - No acknowledgement before durability, whatever `acks` says; a retry of a batch that is still pending waits for it.
//! - Record bytes are neither copied nor looked into, except that a small batch is copied out of a large receive buffer
//!   that it would pin, and that a topic's configuration may demand it (the time of the append, keys, a lowest
//!   timestamp, another codec).
//! - A topic is resolved once per request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use kafka_protocol::protocol::StrBytes;
use meta::planted;
use storage::budget::Permit;
use storage::entry::TopicPartition;
use storage::log::Outcome;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::api::errors;
use crate::batch::{self, BatchError, Limits, Policy, ValidBatch};
use crate::broker::Broker;
use crate::partition::{AppendResult, Durability, Partition};
use crate::request::{CloseConnection, Reply, RequestBody, RequestContext};
use crate::topics::TopicConfig;
use crate::wire::codec;

/// As `compression.type` wants it.
mod recompress;
#[cfg(test)]
mod tests;

use self::recompress::Task;

/// zstd came with this version (KIP-110).
const FIRST_VERSION_WITH_ZSTD: i16 = 7;
/// From here on topics are named by their ids (KIP-516).
const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
/// From here on an error can carry a text (KIP-467).
const FIRST_VERSION_WITH_MESSAGES: i16 = 8;

/// Version 0 is advertised, or old librdkafka stops compressing (KAFKA-18659), but nothing below 3 is understood.
pub fn handle(broker: &Arc<Broker>, context: RequestContext, body: RequestBody) -> Result<Reply, CloseConnection> {
    let version = context.api_version;
    let request: ProduceRequest = codec::decode(&context, &body)?;
    let acks = request.acks;
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut topics = check(broker, version, request);
    let mut slots = topics.iter().flat_map(|topic| &topic.slots);
    let large = slots.any(|slot| matches!(slot.state, SlotState::Large(_)));
    match acks {
        -1..=1 if large => {
            let broker = Arc::clone(broker);
            return Ok(Reply::Beginning(Box::pin(async move {
                recompress::finish(&broker, &mut topics, context.received).await;
                append(&broker, &mut topics, body);
                reply(&broker, context, topics, acks, timeout)
            })));
        }
        -1..=1 => append(broker, &mut topics, body),
        _ => refuse_all(&mut topics, ResponseError::InvalidRequiredAcks),
    }
    reply(broker, context, topics, acks, timeout)
}

/// The answer, when all that was enqueued is durable.
fn reply(
    broker: &Broker,
    context: RequestContext,
    topics: Vec<Topic>,
    acks: i16,
    timeout: Duration,
) -> Result<Reply, CloseConnection> {
    if acks == 0 {
        // Nobody waits for an answer; closing the connection is how Kafka tells such a producer to look again.
        return match topics.iter().flat_map(|topic| &topic.slots).find_map(|slot| slot.failure()) {
            None => Ok(Reply::Never),
            Some(error) => Err(CloseConnection(format!("a batch sent with acks=0 was refused: {error}"))),
        };
    }
    let deadline = context.received + timeout;
    let metrics = broker.metrics.clone();
    Ok(Reply::Later(Box::pin(async move {
        let response = answer(topics, context.api_version, deadline).await;
        errors::count(&metrics, context.api_key, &response);
        codec::encode(&context, &response)
    })))
}

/// One topic of the request and what becomes of its partitions.
struct Topic {
    name: TopicName,
    id: Uuid,
    slots: Vec<Slot>,
}

struct Slot {
    partition: i32,
    state: SlotState,
}

enum SlotState {
    Failed {
        code: ResponseError,
        message: Option<String>,
        /// Which records are to blame, if not the whole batch is.
        records: Vec<i32>,
    },
    Checked(Checked),
    /// To be compressed anew, which takes a while.
    Large(Task),
    Enqueued(Enqueued),
}

/// A batch that may be appended.
struct Checked {
    partition: Arc<Partition>,
    batch: ValidBatch,
    /// The batch is a copy, with another codec or the time of its append; this pays for it.
    rewritten: Option<Permit>,
}

/// An append that is answered when it is durable.
struct Enqueued {
    base_offset: i64,
    /// -1: the records have the producer's timestamps.
    append_time_ms: i64,
    log_start_offset: i64,
    /// None: it is.
    durability: Option<Durability>,
    /// The batch is an old duplicate, and this says so.
    then: Option<ResponseError>,
}

impl Slot {
    fn failure(&self) -> Option<ResponseError> {
        match &self.state {
            SlotState::Failed { code, .. } => Some(*code),
            SlotState::Checked(_) | SlotState::Large(_) | SlotState::Enqueued(_) => None,
        }
    }
}

impl SlotState {
    fn failed(code: ResponseError) -> Self {
        Self::Failed { code, message: None, records: Vec::new() }
    }

    fn refused(partition: &Partition, error: &BatchError) -> Self {
        tracing::debug!(partition = %partition.id(), %error, "refused a record batch");
        let records = error.records().to_vec();
        Self::Failed { code: error.code(), message: Some(error.to_string()), records }
    }

    /// Nothing is wrong with the batch: the producer tries again.
    fn short_of_memory() -> Self {
        let message = Some("there is no memory to write the batch as the topic wants it".to_owned());
        Self::Failed { code: ResponseError::KafkaStorageError, message, records: Vec::new() }
    }
}

fn check(broker: &Broker, version: i16, request: ProduceRequest) -> Vec<Topic> {
    let now_ms = broker.clock.now_ms();
    request.topic_data.into_iter().map(|topic| check_topic(broker, version, now_ms, topic)).collect()
}

fn check_topic(broker: &Broker, version: i16, now_ms: i64, data: TopicProduceData) -> Topic {
    let by_id = version >= FIRST_VERSION_WITH_TOPIC_IDS;
    let topic = if by_id { broker.topics.by_id(data.topic_id) } else { broker.topics.by_name(&data.name) };
    let unknown = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
    let check_one = |data: PartitionProduceData| {
        let partition = data.index;
        let Some(topic) = &topic else { return Slot { partition, state: SlotState::failed(unknown) } };
        if topic.is_internal() {
            return Slot { partition, state: SlotState::failed(ResponseError::InvalidTopicException) };
        }
        let id = TopicPartition { topic: topic.id, partition };
        let state = match broker.partitions.get(id) {
            None => SlotState::failed(ResponseError::UnknownTopicOrPartition),
            Some(partition) => {
                let limits =
                    Limits { max_bytes: topic.config.max_message_bytes, zstd: version >= FIRST_VERSION_WITH_ZSTD };
                check_records(broker, partition, data.records, limits, &topic.config, now_ms)
            }
        };
        Slot { partition, state }
    };
    let slots = data.partition_data.into_iter().map(check_one).collect();
    // Copied, so that the answer does not keep the receive buffer for as long as it waits.
    let name = TopicName(StrBytes::from_string(data.name.to_string()));
    Topic { name, id: data.topic_id, slots }
}

fn check_records(
    broker: &Broker,
    partition: Arc<Partition>,
    records: Option<Bytes>,
    limits: Limits,
    config: &TopicConfig,
    now_ms: i64,
) -> SlotState {
    let Some(records) = records.filter(|records| !records.is_empty()) else {
        let message = Some("exactly one record batch is expected per partition".to_owned());
        return SlotState::Failed { code: ResponseError::InvalidRecord, message, records: Vec::new() };
    };
    let batch = match check_batch(records, limits, config, now_ms) {
        Ok(batch) => batch,
        Err(error) => return SlotState::refused(&partition, &error),
    };
    let append_time_ms = config.log_append_time.then_some(now_ms);
    if let Some(codec) = config.compression.codec.filter(|codec| batch.header.codec() != Some(*codec)) {
        let max_bytes = limits.max_bytes.min(broker.config.request_max_bytes);
        let levels = config.compression.levels;
        return recompress::begin(broker, Task { partition, batch, codec, levels, max_bytes, append_time_ms });
    }
    if append_time_ms.is_none() {
        return SlotState::Checked(Checked { partition, batch, rewritten: None });
    }
    // The copy is paid for before it is made. There is no waiting here: the producer tries again.
    let Some(permit) = broker.budget.try_take(batch.body.len()) else { return SlotState::short_of_memory() };
    let batch = batch::at_append_time(batch, now_ms);
    SlotState::Checked(Checked { partition, batch, rewritten: Some(permit) })
}

fn check_batch(records: Bytes, limits: Limits, config: &TopicConfig, now_ms: i64) -> Result<ValidBatch, BatchError> {
    let batch = batch::validate(records, limits)?;
    let keys = config.compacted;
    let policy = match config.log_append_time {
        // The producer's timestamps are of no interest.
        true => Policy { before_max_ms: i64::MAX, after_max_ms: i64::MAX, keys },
        false => {
            Policy { before_max_ms: config.timestamp_before_max_ms, after_max_ms: config.timestamp_after_max_ms, keys }
        }
    };
    batch::check_policy(&batch, &policy, now_ms)?;
    Ok(batch)
}

fn refuse_all(topics: &mut [Topic], code: ResponseError) {
    for slot in topics.iter_mut().flat_map(|topic| &mut topic.slots) {
        slot.state = SlotState::failed(code);
    }
}

/// Hands every checked batch to its partition.
fn append(broker: &Broker, topics: &mut [Topic], body: RequestBody) {
    let Some(log) = broker.partitions.log() else {
        return refuse_all(topics, ResponseError::NotLeaderOrFollower);
    };
    let permit = unpin(broker, topics, body);
    for slot in topics.iter_mut().flat_map(|topic| &mut topic.slots) {
        // The placeholder is never seen: it is replaced on the next line but one.
        let placeholder = SlotState::failed(ResponseError::UnknownServerError);
        slot.state = match std::mem::replace(&mut slot.state, placeholder) {
            SlotState::Checked(Checked { partition, batch, rewritten }) => {
                broker.metrics.produced_batches.inc();
                broker.metrics.produced_bytes.inc_by(batch.len() as u64);
                let append_time_ms = if batch.header.is_log_append_time() { batch.max_timestamp } else { -1 };
                let permit = rewritten.unwrap_or_else(|| permit.clone());
                appended(partition.append(&*log, batch, permit), append_time_ms)
            }
            other => other,
        };
    }
}

fn appended(result: AppendResult, append_time_ms: i64) -> SlotState {
    match result {
        AppendResult::Appended { base_offset, log_start_offset, durability } => SlotState::Enqueued(Enqueued {
            base_offset,
            append_time_ms,
            log_start_offset,
            durability: Some(durability),
            then: None,
        }),
        // It has the time of its first append, which nobody remembers.
        AppendResult::Duplicate { base_offset, log_start_offset, durability } => {
            SlotState::Enqueued(Enqueued { base_offset, append_time_ms: -1, log_start_offset, durability, then: None })
        }
        AppendResult::OldDuplicate { durability } => SlotState::Enqueued(Enqueued {
            base_offset: -1,
            append_time_ms: -1,
            log_start_offset: -1,
            durability,
            then: Some(ResponseError::DuplicateSequenceNumber),
        }),
        AppendResult::Rejected(code) => SlotState::failed(code),
    }
}

/// Copies the batches out of the receive buffer if they are less than half of their frame, and pays for the copies
/// instead: most of a large frame may have been refused. (That a small frame shares its buffer with others is no waste:
/// they go the same way.) Returns what pays for the batches.
fn unpin(broker: &Broker, topics: &mut [Topic], body: RequestBody) -> Permit {
    let RequestBody { bytes: frame, permit } = body;
    let batches = || {
        topics.iter().flat_map(|topic| &topic.slots).filter_map(|slot| match &slot.state {
            SlotState::Checked(Checked { batch, rewritten: None, .. }) => Some(batch.body.len()),
            _ => None,
        })
    };
    let bytes: usize = batches().sum();
    if bytes == 0 || bytes >= frame.len() / 2 {
        return permit;
    }
    // Without memory for a copy, the buffer stays pinned: it is paid for.
    let Some(own) = broker.budget.try_take(bytes) else { return permit };
    for slot in topics.iter_mut().flat_map(|topic| &mut topic.slots) {
        if let SlotState::Checked(Checked { batch, rewritten: None, .. }) = &mut slot.state {
            batch.body = Bytes::copy_from_slice(&batch.body);
        }
    }
    own
}

async fn answer(topics: Vec<Topic>, version: i16, deadline: Instant) -> ProduceResponse {
    let mut responses = Vec::with_capacity(topics.len());
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.slots.len());
        for slot in topic.slots {
            partitions.push(answer_one(slot, version, deadline).await);
        }
        let response = TopicProduceResponse::default()
            .with_name(topic.name)
            .with_topic_id(topic.id)
            .with_partition_responses(partitions);
        responses.push(response);
    }
    ProduceResponse::default().with_responses(responses)
}

async fn answer_one(slot: Slot, version: i16, deadline: Instant) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default()
        .with_index(slot.partition)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1);
    let failed = |code: ResponseError| response.clone().with_error_code(code.code());
    match slot.state {
        SlotState::Failed { code, message, records } if version >= FIRST_VERSION_WITH_MESSAGES => {
            let message = message.map(StrBytes::from_string);
            let wrong = |record: i32| {
                let error = BatchIndexAndErrorMessage::default().with_batch_index(record);
                error.with_batch_index_error_message(message.clone())
            };
            let records = records.into_iter().map(wrong).collect();
            failed(code).with_record_errors(records).with_error_message(message)
        }
        SlotState::Failed { code, .. } => failed(code),
        SlotState::Checked(_) | SlotState::Large(_) => failed(ResponseError::UnknownServerError),
        SlotState::Enqueued(enqueued) => match enqueued.outcome(deadline).await {
            Ok(()) => response
                .with_base_offset(enqueued.base_offset)
                .with_log_append_time_ms(enqueued.append_time_ms)
                .with_log_start_offset(enqueued.log_start_offset),
            Err(code) => failed(code),
        },
    }
}

impl Enqueued {
    /// Waits for durability. An append that takes too long stays in the log's queue: its outcome is unknown.
    async fn outcome(&self, deadline: Instant) -> Result<(), ResponseError> {
        let outcome = match &self.durability {
            None => Outcome::Durable,
            Some(_) if planted::bug("produce-reply-before-durable") => Outcome::Durable,
            Some(durability) => {
                timeout_at(deadline, durability.resolved()).await.map_err(|_| ResponseError::RequestTimedOut)?
            }
        };
        match outcome {
            Outcome::Durable => self.then.map_or(Ok(()), Err),
            Outcome::Fenced => Err(ResponseError::NotLeaderOrFollower),
            Outcome::Unknown => Err(ResponseError::NotEnoughReplicasAfterAppend),
        }
    }
}
