//! The body of a Fetch response, versions 4 to 18, as pieces: what stands around the records, and the records themselves
//! as they are, never copied.
//!
//! Written by hand because the generated encoder copies every record into one buffer. The tests hold it against that
//! encoder, byte for byte, in every version.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use storage::budget::Permit;
use uuid::Uuid;

use crate::api::errors::Errors;
use crate::request::Response;

/// From here on lengths are varints and structures end with tagged fields (KIP-482).
const FIRST_FLEXIBLE_VERSION: i16 = 12;
/// From here on topics are named by their ids (KIP-516).
pub const FIRST_VERSION_WITH_TOPIC_IDS: i16 = 13;
/// From here on there are sessions and an error for the whole request (KIP-227).
pub const FIRST_VERSION_WITH_SESSIONS: i16 = 7;

/// What stands around the records of one partition, at most, in any version.
const PARTITION_BYTES: usize = 64;
const TOPIC_BYTES: usize = 32;

/// A response in the making.
#[derive(Debug, Default)]
pub struct FetchResponse {
    /// For the whole request.
    pub error: Option<ResponseError>,
    /// Consumers that read only what is committed get an empty list of aborted transactions, others none at all.
    pub read_committed: bool,
    pub topics: Vec<TopicAnswer>,
}

impl Errors for FetchResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        let errors = partitions.map(|partition| partition.error).chain([self.error]);
        errors.flatten().for_each(|error| see(error.code()));
    }
}

#[derive(Debug)]
pub struct TopicAnswer {
    /// Used up to version 12.
    pub name: String,
    /// Used from version 13 on.
    pub id: Uuid,
    pub partitions: Vec<PartitionAnswer>,
}

#[derive(Debug)]
pub struct PartitionAnswer {
    pub partition: i32,
    pub error: Option<ResponseError>,
    /// -1 with an error. The last stable offset too.
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub records: Vec<Bytes>,
    /// Pay for what the records pin.
    pub permits: Vec<Permit>,
}

impl PartitionAnswer {
    pub fn failed(partition: i32, error: ResponseError) -> Self {
        Self {
            partition,
            error: Some(error),
            high_watermark: -1,
            log_start_offset: -1,
            records: Vec::new(),
            permits: Vec::new(),
        }
    }
}

/// Encodes a response.
pub fn encode(response: FetchResponse, version: i16) -> Response {
    let mut out = Encoder::new(&response, version);
    out.header.put_i32(0);
    if version >= FIRST_VERSION_WITH_SESSIONS {
        out.header.put_i16(response.error.map_or(0, |error| error.code()));
        // No session: the next request is a full one too.
        out.header.put_i32(0);
    }
    out.length(response.topics.len());
    for topic in response.topics {
        out.topic(topic, response.read_committed);
    }
    out.end_of_structure();
    out.flush();
    out.response
}

struct Encoder {
    version: i16,
    /// What was not yet handed over as a piece. All pieces of it share one allocation.
    header: BytesMut,
    response: Response,
}

impl Encoder {
    fn new(response: &FetchResponse, version: i16) -> Self {
        let topics = response.topics.iter();
        let sizes = topics.map(|topic| TOPIC_BYTES + topic.name.len() + topic.partitions.len() * PARTITION_BYTES);
        let header = BytesMut::with_capacity(TOPIC_BYTES + sizes.sum::<usize>());
        Self { version, header, response: Response::default() }
    }

    fn is_flexible(&self) -> bool {
        self.version >= FIRST_FLEXIBLE_VERSION
    }

    fn topic(&mut self, topic: TopicAnswer, read_committed: bool) {
        if self.version >= FIRST_VERSION_WITH_TOPIC_IDS {
            self.header.put_slice(topic.id.as_bytes());
        } else {
            if self.is_flexible() {
                self.length(topic.name.len());
            } else {
                // A name in a request is never longer than this, nor is a topic's.
                self.header.put_i16(topic.name.len() as i16);
            }
            self.header.put_slice(topic.name.as_bytes());
        }
        self.length(topic.partitions.len());
        for partition in topic.partitions {
            self.partition(partition, read_committed);
        }
        self.end_of_structure();
    }

    fn partition(&mut self, answer: PartitionAnswer, read_committed: bool) {
        self.header.put_i32(answer.partition);
        self.header.put_i16(answer.error.map_or(0, |error| error.code()));
        self.header.put_i64(answer.high_watermark);
        self.header.put_i64(answer.high_watermark);
        if self.version >= 5 {
            self.header.put_i64(answer.log_start_offset);
        }
        match (read_committed, self.is_flexible()) {
            (true, _) => self.length(0),
            (false, true) => self.header.put_u8(0),
            (false, false) => self.header.put_i32(-1),
        }
        if self.version >= 11 {
            // No preferred read replica.
            self.header.put_i32(-1);
        }
        // Empty, never null: librdkafka takes null for a broken message set.
        self.length(answer.records.iter().map(Bytes::len).sum());
        if !answer.records.is_empty() {
            self.flush();
            self.response.parts.extend(answer.records);
            self.response.permits.extend(answer.permits);
        }
        self.end_of_structure();
    }

    /// Of an array, of bytes, and in flexible versions of strings.
    fn length(&mut self, length: usize) {
        // Responses are bounded far below 2 GiB.
        if self.is_flexible() {
            self.varint(length as u32 + 1);
        } else {
            self.header.put_i32(length as i32);
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.header.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.header.put_u8(value as u8);
    }

    fn end_of_structure(&mut self) {
        if self.is_flexible() {
            self.header.put_u8(0);
        }
    }

    fn flush(&mut self) {
        if !self.header.is_empty() {
            let piece = self.header.split().freeze();
            self.response.parts.push(piece);
        }
    }
}

#[cfg(test)]
mod tests;
