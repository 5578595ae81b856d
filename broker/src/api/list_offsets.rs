//! ListOffsets (key 2): where a partition begins and ends, and where a point in time lies in it.
//!
//! Times are looked up in three steps, each exact: the first run whose highest timestamp is late enough, the first batch
//! in the run's index, the first record in that batch. A batch may claim a higher timestamp than its records have; then
//! the search goes on behind it.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use storage::entry::{EntryMeta, HEAD_BYTES, Run, TopicPartition};
use storage::error::Error;
use storage::reader::{Reader, Want};

use crate::batch::{self, BatchHeader, HEADER_BYTES};
use crate::broker::Broker;
use crate::error::code_for;
use crate::partition::{Bounds, Partition};
use crate::records::{RecordTime, RecordsError};
use crate::request::RequestContext;

#[cfg(test)]
mod tests;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// What is at the place that was asked for; -1 is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

const NOTHING: Found = Found { offset: -1, timestamp: -1, leader_epoch: -1 };

pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = broker.topics.by_name(&asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for asked in &asked.partitions {
            let partition = asked.partition_index;
            let found =
                topic.as_ref().and_then(|topic| broker.partitions.get(TopicPartition { topic: topic.id, partition }));
            let answer = match found {
                Some(found) => look_up(broker.partitions.reader(), &found, context.api_version, asked).await,
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            partitions.push(respond(partition, context.api_version, answer));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    // Only now: what was looked up above was true if this broker still owns its log.
    if let Err(error) = broker.ownership.confirm().await {
        let code = code_for(error.kind());
        for answer in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            *answer = respond(answer.partition_index, context.api_version, Err(code));
        }
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn respond(partition: i32, version: i16, answer: Result<Found, ResponseError>) -> ListOffsetsPartitionResponse {
    let (found, code) = match answer {
        Ok(found) => (found, 0),
        Err(code) => (NOTHING, code.code()),
    };
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(partition)
        .with_error_code(code)
        .with_offset(found.offset)
        .with_timestamp(found.timestamp);
    if version >= 4 { response.with_leader_epoch(found.leader_epoch) } else { response }
}

/// How often what was not where it had been is looked for anew.
const REPLANS: usize = 5;

async fn look_up(
    reader: &Reader,
    partition: &Partition,
    version: i16,
    asked: &ListOffsetsPartition,
) -> Result<Found, ResponseError> {
    for _ in 0..REPLANS {
        match try_look_up(reader, partition, version, asked).await {
            // It was moved elsewhere since it was looked for.
            Err(LookUpError::Storage(Error::Missing { key })) => tracing::debug!(key, "looking again"),
            Err(LookUpError::Storage(error)) => {
                tracing::error!(partition = %partition.id(), %error, "could not look up an offset by time");
                return Err(code_for(error.kind()));
            }
            Err(LookUpError::Refused(code)) => return Err(code),
            Ok(found) => return Ok(found),
        }
    }
    tracing::error!(partition = %partition.id(), "data that a partition refers to does not exist");
    Err(ResponseError::KafkaStorageError)
}

enum LookUpError {
    Refused(ResponseError),
    Storage(Error),
}

impl From<ResponseError> for LookUpError {
    fn from(code: ResponseError) -> Self {
        Self::Refused(code)
    }
}

impl From<Error> for LookUpError {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

async fn try_look_up(
    reader: &Reader,
    partition: &Partition,
    version: i16,
    asked: &ListOffsetsPartition,
) -> Result<Found, LookUpError> {
    let bounds = partition.bounds(asked.current_leader_epoch)?;
    let at = |offset| Found { offset, timestamp: -1, leader_epoch: partition.epoch_at(offset) };
    let found = match asked.timestamp {
        LATEST => Ok(at(bounds.high_watermark)),
        EARLIEST => Ok(at(bounds.log_start_offset)),
        MAX_TIMESTAMP if version >= 7 => find_max(reader, partition, bounds).await,
        // Nothing is tiered: everything is where it was written.
        EARLIEST_LOCAL if version >= 8 => Ok(at(bounds.log_start_offset)),
        LATEST_TIERED if version >= 9 => Ok(NOTHING),
        timestamp if timestamp >= 0 => find_time(reader, partition, bounds, timestamp).await,
        _ => return Err(ResponseError::UnsupportedVersion.into()),
    };
    Ok(found?)
}

/// Deleted records do not count, although the highest timestamps of their run and batch may be theirs: so what they share
/// with others is looked at record by record.
async fn find_max(reader: &Reader, partition: &Partition, bounds: Bounds) -> Result<Found, Error> {
    let cut = partition.cut_run();
    let mut highest = match &cut {
        Some(run) => max_of_run(reader, partition, run, bounds).await?,
        None => None,
    };
    let whole_from = cut.map_or(bounds.log_start_offset, |run| run.next_offset);
    if let Some(run) = partition.max_timestamp_run(whole_from)
        && highest.is_none_or(|found| found.timestamp < run.max_timestamp)
    {
        highest = max_of_run(reader, partition, &run, bounds).await?.or(highest);
    }
    Ok(highest.unwrap_or(NOTHING))
}

async fn max_of_run(reader: &Reader, partition: &Partition, run: &Run, bounds: Bounds) -> Result<Option<Found>, Error> {
    let index = reader.entry_index(partition.id(), run).await?;
    let start = bounds.log_start_offset;
    let cut = index.iter().map(|entry| entry.meta).find(|meta| meta.base_offset < start && start <= meta.last_offset);
    let mut highest: Option<EntryMeta> = None;
    for meta in index.iter().map(|entry| entry.meta).filter(|meta| meta.base_offset >= start) {
        if meta.max_timestamp >= 0 && highest.is_none_or(|max| max.max_timestamp < meta.max_timestamp) {
            highest = Some(meta);
        }
    }
    let mut found = None;
    if let Some(meta) = cut {
        found = look_inside(reader, partition, run, &meta, bounds, batch::max_timestamp).await?;
    }
    if let Some(meta) = highest
        && found.is_none_or(|found| found.timestamp < meta.max_timestamp)
    {
        found = look_inside(reader, partition, run, &meta, bounds, batch::max_timestamp).await?.or(found);
    }
    Ok(found)
}

async fn find_time(reader: &Reader, partition: &Partition, bounds: Bounds, timestamp: i64) -> Result<Found, Error> {
    let mut from_offset = bounds.log_start_offset;
    while let Some(run) = partition.find_timestamp(timestamp, from_offset) {
        let index = reader.entry_index(partition.id(), &run).await?;
        for entry in index.iter() {
            let meta = &entry.meta;
            if meta.max_timestamp < timestamp
                || meta.last_offset < from_offset
                || meta.last_offset >= bounds.high_watermark
            {
                continue;
            }
            let first = |header: &BatchHeader, records: &[u8], from_offset: i64| {
                batch::first_at_or_after(header, records, from_offset, timestamp)
            };
            if let Some(found) = look_inside(reader, partition, &run, meta, bounds, first).await? {
                return Ok(found);
            }
            // The batch claimed more than it holds. Many of them must not keep others from running.
            tokio::task::yield_now().await;
        }
        from_offset = run.next_offset;
    }
    Ok(NOTHING)
}

/// Reads one batch and looks for a record in it, at or behind the log start offset.
async fn look_inside(
    reader: &Reader,
    partition: &Partition,
    run: &Run,
    meta: &EntryMeta,
    bounds: Bounds,
    look: impl Fn(&BatchHeader, &[u8], i64) -> Result<Option<RecordTime>, RecordsError>,
) -> Result<Option<Found>, Error> {
    let want = Want {
        from_offset: meta.base_offset,
        // A run is known once it is durable: the bounds may be older than it.
        below_offset: run.next_offset,
        max_bytes: 0,
        at_least_one: true,
        look_up: true,
    };
    let read = reader.read(partition.id(), run, &want).await?;
    let Some((header, records)) = split_batch(&read.slices) else {
        return Err(Error::Corrupt {
            key: format!("partition {}", partition.id()),
            why: format!("there is no whole record batch at offset {}", meta.base_offset),
        });
    };
    let start = bounds.log_start_offset;
    let found = |record: RecordTime| Found {
        offset: record.offset,
        timestamp: record.timestamp,
        leader_epoch: meta.leader_epoch,
    };
    match look(&header, &records, start) {
        Ok(record) => Ok(record.map(found)),
        Err(error) => {
            // Its producer wrote records that cannot be read (nobody looked when they were appended). The batch is the
            // best answer there is.
            let offset = meta.base_offset.max(start);
            tracing::warn!(partition = %partition.id(), offset, %error, "unreadable records in a batch");
            Ok(Some(found(RecordTime { offset, timestamp: meta.max_timestamp.max(0) })))
        }
    }
}

/// Header and records of one batch: in one piece, in two from memory, in any from storage.
fn split_batch(slices: &[Bytes]) -> Option<(BatchHeader, Bytes)> {
    if let [head, body] = slices
        && head.len() == HEAD_BYTES
    {
        let header = BatchHeader::parse_parts(head.first_chunk()?, body)?;
        return Some((header, body.slice(HEADER_BYTES - HEAD_BYTES..)));
    }
    let whole = match slices {
        [whole] => whole.clone(),
        pieces => Bytes::from(pieces.concat()),
    };
    let header = BatchHeader::parse(&whole)?;
    Some((header, whole.slice(HEADER_BYTES..)))
}
