//! As much of the Kafka protocol as a load generator needs, written by hand so that the client costs next to nothing:
//! the versions before flexible encoding, requests built once and sent many times, answers read in place.
//!
//! Shapes follow the message definitions of Apache Kafka: Produce 7, Fetch 4, ListOffsets 1, Metadata 4,
//! FindCoordinator 2, CreateTopics 2, DeleteTopics 1.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::clock::{now, pause};

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const FIND_COORDINATOR: i16 = 10;
pub const JOIN_GROUP: i16 = 11;
pub const HEARTBEAT: i16 = 12;
pub const LEAVE_GROUP: i16 = 13;
pub const SYNC_GROUP: i16 = 14;
pub const API_VERSIONS: i16 = 18;
pub const CREATE_TOPICS: i16 = 19;
pub const DELETE_TOPICS: i16 = 20;
pub const INIT_PRODUCER_ID: i16 = 22;

pub const PRODUCE_VERSION: i16 = 7;
pub const FETCH_VERSION: i16 = 4;
pub const LIST_OFFSETS_VERSION: i16 = 1;
pub const METADATA_VERSION: i16 = 4;
pub const FIND_COORDINATOR_VERSION: i16 = 2;
pub const CREATE_TOPICS_VERSION: i16 = 2;
pub const DELETE_TOPICS_VERSION: i16 = 1;

/// No answer for this long means that the broker is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A topic that was created is led within this time.
const LEADER_LIMIT: Duration = Duration::from_secs(30);

pub fn failed(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

/// Builds frames. The length in front is filled in by [`Encoder::frame`].
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// A request with header version 1.
    pub fn request(api_key: i16, version: i16) -> Self {
        let mut encoder = Self(vec![0; 4]);
        encoder.i16(api_key).i16(version).i32(0).string("woodpecker-bench");
        encoder
    }

    /// An answer with header version 0.
    pub fn answer(correlation: i32) -> Self {
        let mut encoder = Self(vec![0; 4]);
        encoder.i32(correlation);
        encoder
    }

    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn string(&mut self, value: &str) -> &mut Self {
        self.i16(value.len() as i16).raw(value.as_bytes())
    }

    /// The length of an array, a count of its elements.
    pub fn count(&mut self, elements: usize) -> &mut Self {
        self.i32(elements as i32)
    }

    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.i32(value.len() as i32).raw(value)
    }

    fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }

    pub fn frame(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as i32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }

    /// What was written to an encoder that began empty: a part of a request that only clients understand.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads an answer in place.
#[derive(Debug)]
pub struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| failed("a frame ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| failed("a frame ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn i16(&mut self) -> io::Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> io::Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> io::Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.i16()?;
        self.take(length.max(0) as usize)
    }

    pub fn text(&mut self) -> io::Result<String> {
        self.string().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.i32()?;
        self.take(length.max(0) as usize)
    }
}

/// One connection, used by one thread.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Sends a frame under this correlation id.
    pub fn send(&mut self, frame: &mut [u8], correlation: i32) -> io::Result<()> {
        frame[8..12].copy_from_slice(&correlation.to_be_bytes());
        self.stream.write_all(frame)
    }

    /// The next answer, which must be the one to `correlation`; without the header.
    pub fn receive(&mut self, correlation: i32) -> io::Result<Decoder<'_>> {
        let mut decoder = Decoder(read_frame(&mut self.stream, &mut self.answer)?);
        let answered = decoder.i32()?;
        if answered != correlation {
            return Err(failed(format!("answer to request {answered}, expected the one to {correlation}")));
        }
        Ok(decoder)
    }

    pub fn call(&mut self, request: Encoder) -> io::Result<Decoder<'_>> {
        self.send(&mut request.frame(), 1)?;
        self.receive(1)
    }

    /// Creates a topic and waits until all its partitions are led.
    pub fn create_topic(&mut self, topic: &str, partitions: usize) -> io::Result<()> {
        let mut request = Encoder::request(CREATE_TOPICS, CREATE_TOPICS_VERSION);
        request.count(1).string(topic).i32(partitions as i32).i16(1).count(0).count(0).i32(30_000).i8(0);
        let mut answer = self.call(request)?;
        answer.i32()?;
        answer.i32()?;
        answer.string()?;
        match answer.i16()? {
            0 => {}
            error => return Err(failed(format!("cannot create topic {topic}: Kafka error {error}"))),
        }
        let limit = now() + LEADER_LIMIT;
        // Kafka's metadata is ahead of its logs for a moment, so every partition is asked as well.
        while self.led_partitions(topic)? < partitions
            || (0..partitions).any(|partition| self.end_offset(topic, partition).is_err())
        {
            if now() > limit {
                return Err(failed(format!("topic {topic} is not led after {LEADER_LIMIT:?}")));
            }
            pause(Duration::from_millis(50));
        }
        Ok(())
    }

    fn led_partitions(&mut self, topic: &str) -> io::Result<usize> {
        let mut request = Encoder::request(METADATA, METADATA_VERSION);
        request.count(1).string(topic).i8(0);
        let mut answer = self.call(request)?;
        answer.i32()?;
        for _ in 0..answer.i32()? {
            answer.i32()?;
            answer.string()?;
            answer.i32()?;
            answer.string()?;
        }
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        let error = answer.i16()?;
        answer.string()?;
        answer.take(1)?;
        let mut led = 0;
        for _ in 0..answer.i32()? {
            let partition_error = answer.i16()?;
            answer.i32()?;
            let leader = answer.i32()?;
            for _ in 0..2 {
                let replicas = answer.i32()?;
                answer.take(replicas as usize * 4)?;
            }
            led += usize::from(error == 0 && partition_error == 0 && leader >= 0);
        }
        Ok(led)
    }

    pub fn delete_topic(&mut self, topic: &str) -> io::Result<()> {
        let mut request = Encoder::request(DELETE_TOPICS, DELETE_TOPICS_VERSION);
        request.count(1).string(topic).i32(30_000);
        let mut answer = self.call(request)?;
        answer.i32()?;
        answer.i32()?;
        answer.string()?;
        match answer.i16()? {
            0 => Ok(()),
            error => Err(failed(format!("cannot delete topic {topic}: Kafka error {error}"))),
        }
    }

    /// Asks who coordinates a group; the error code.
    pub fn find_coordinator(&mut self, group: &str) -> io::Result<i16> {
        let mut request = Encoder::request(FIND_COORDINATOR, FIND_COORDINATOR_VERSION);
        request.string(group).i8(0);
        let mut answer = self.call(request)?;
        answer.i32()?;
        answer.i16()
    }

    /// The high watermark of a partition.
    pub fn end_offset(&mut self, topic: &str, partition: usize) -> io::Result<i64> {
        let mut request = Encoder::request(LIST_OFFSETS, LIST_OFFSETS_VERSION);
        request.i32(-1).count(1).string(topic).count(1).i32(partition as i32).i64(-1);
        let mut answer = self.call(request)?;
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        let error = answer.i16()?;
        answer.i64()?;
        match error {
            0 => answer.i64(),
            error => Err(failed(format!("no end offset of {topic}-{partition}: Kafka error {error}"))),
        }
    }
}

/// Reads one frame, without its length, to the front of `buffer`. The buffer only grows: zeroing it for every answer
/// would be the client's largest cost.
pub fn read_frame<'a>(stream: &mut impl Read, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = i32::from_be_bytes(length) as usize;
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    stream.read_exact(&mut buffer[..length])?;
    Ok(&buffer[..length])
}

/// Waits until a broker lists itself, which is when it serves.
pub fn wait_until_served(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let deadline: Instant = now() + limit;
    loop {
        let listed = Connection::open(address).and_then(|mut connection| {
            let mut request = Encoder::request(METADATA, METADATA_VERSION);
            request.count(0).i8(0);
            let mut answer = connection.call(request)?;
            answer.i32()?;
            answer.i32()
        });
        match listed {
            Ok(brokers) if brokers > 0 => return Ok(()),
            _ if now() > deadline => return Err(failed(format!("nothing serves on {address} after {limit:?}"))),
            _ => pause(Duration::from_millis(20)),
        }
    }
}
