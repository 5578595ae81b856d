//! Load: producers that keep requests in flight, readers that drain what was produced, and one producer that sends a
//! single record at a time and waits.
//!
//! Every answer is checked: a Kafka error, a gap or a record too few fails the run, so that no broker looks fast by
//! losing data.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use crate::{
    batch::{self, Batch},
    clock::{epoch_ms, now, pause},
    wire::{Connection, Decoder, Encoder, FETCH, FETCH_VERSION, PRODUCE, PRODUCE_VERSION, failed},
};

/// Java's consumer asks for this much.
const FETCH_MAX_BYTES: i32 = 50 << 20;
const PARTITION_MAX_BYTES: i32 = 1 << 20;

/// What is sent, and how.
#[derive(Debug, Clone)]
pub struct Load {
    pub topic: String,
    pub partitions: usize,
    pub record_bytes: usize,
    pub batch_bytes: usize,
    pub connections: usize,
    /// Requests in flight on each connection.
    pub window: usize,
    /// Record values to send, in all.
    pub total_bytes: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Bytes of record values.
    pub bytes: u64,
    pub records: u64,
    pub elapsed: Duration,
    /// Of each request, sorted.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    pub fn mb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    /// In milliseconds.
    pub fn latency_ms(&self, percentile: usize) -> f64 {
        let index = (self.latencies.len() * percentile / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }

    fn sum(parts: Vec<Self>, elapsed: Duration) -> Self {
        let mut sum = Self { elapsed, ..Self::default() };
        for part in parts {
            sum.bytes += part.bytes;
            sum.records += part.records;
            sum.latencies.extend(part.latencies);
        }
        sum.latencies.sort_unstable();
        sum
    }
}

/// A Produce request that carries one batch for each of these partitions, acks=all.
pub fn produce_request(topic: &str, partitions: Range<usize>, batch: &Batch) -> Vec<u8> {
    let mut request = Encoder::request(PRODUCE, PRODUCE_VERSION);
    request.i16(-1).i16(-1).i32(30_000).count(1).string(topic).count(partitions.len());
    for partition in partitions {
        request.i32(partition as i32).bytes(&batch.bytes);
    }
    request.frame()
}

pub fn check_produced(mut answer: Decoder<'_>) -> io::Result<()> {
    for _ in 0..answer.i32()? {
        let topic = answer.string()?;
        for _ in 0..answer.i32()? {
            let (partition, error, base_offset) = (answer.i32()?, answer.i16()?, answer.i64()?);
            if error != 0 || base_offset < 0 {
                let topic = String::from_utf8_lossy(topic);
                return Err(failed(format!("produce to {topic}-{partition}: Kafka error {error}, at {base_offset}")));
            }
            answer.i64()?;
            answer.i64()?;
        }
    }
    Ok(())
}

/// Sends `load.total_bytes` as fast as the broker takes them.
pub fn produce(address: SocketAddr, load: &Load) -> io::Result<Outcome> {
    let batch = Batch::filled(load.record_bytes, load.batch_bytes, epoch_ms());
    let request_records = batch.records * load.partitions;
    let request_bytes = (request_records * load.record_bytes) as u64;
    let requests = (load.total_bytes / request_bytes / load.connections as u64).max(1) as usize;
    let frame = produce_request(&load.topic, 0..load.partitions, &batch);
    let window = load.window;
    on_connections(address, load.connections, move |_, mut connection| {
        let mut frame = frame.clone();
        let mut in_flight = VecDeque::<Instant>::with_capacity(window);
        let mut latencies = Vec::with_capacity(requests);
        for sent in 0..requests + window {
            if sent >= window.min(requests) && latencies.len() < requests {
                check_produced(connection.receive(latencies.len() as i32)?)?;
                let since = in_flight.pop_front().ok_or_else(|| failed("an answer to no request"))?;
                latencies.push(now() - since);
            }
            if sent < requests {
                in_flight.push_back(now());
                connection.send(&mut frame, sent as i32)?;
            }
        }
        let (bytes, records) = (request_bytes * requests as u64, (request_records * requests) as u64);
        Ok(Outcome { bytes, records, latencies, ..Outcome::default() })
    })
}

/// One record at a time, the next one `gap` after the answer: what a quiet topic's producer waits.
pub fn single_records(
    address: SocketAddr,
    topic: &str,
    record_bytes: usize,
    count: usize,
    gap: Duration,
) -> io::Result<Outcome> {
    let frame = produce_request(topic, 0..1, &Batch::of(1, record_bytes, epoch_ms()));
    on_connections(address, 1, move |_, mut connection| {
        let mut frame = frame.clone();
        let mut latencies = Vec::with_capacity(count);
        for sent in 0..count {
            pause(gap);
            let since = now();
            connection.send(&mut frame, sent as i32)?;
            check_produced(connection.receive(sent as i32)?)?;
            latencies.push(now() - since);
        }
        Ok(Outcome { bytes: (count * record_bytes) as u64, records: count as u64, latencies, ..Outcome::default() })
    })
}

/// Reads every partition from its start to its end, the partitions shared out among the connections.
pub fn drain(address: SocketAddr, load: &Load) -> io::Result<Outcome> {
    let mut asking = Connection::open(address)?;
    let ends = (0..load.partitions)
        .map(|partition| asking.end_offset(&load.topic, partition))
        .collect::<io::Result<Vec<i64>>>()?;
    let connections = load.connections.min(load.partitions);
    let (topic, record_bytes) = (load.topic.clone(), load.record_bytes);
    on_connections(address, connections, move |index, mut connection| {
        let mine = ends.iter().enumerate().skip(index).step_by(connections);
        let mut reader = Reader {
            topic: topic.clone(),
            positions: mine.map(|(partition, end)| Position { partition, next: 0, end: *end }).collect(),
            records: 0,
            latencies: Vec::new(),
        };
        while reader.positions.iter().any(|position| position.next < position.end) {
            reader.fetch(&mut connection)?;
        }
        let bytes = reader.records * record_bytes as u64;
        Ok(Outcome { bytes, records: reader.records, latencies: reader.latencies, ..Outcome::default() })
    })
}

/// One Fetch of partition 0 from its start; how many records came.
pub fn fetch_oldest(address: SocketAddr, topic: &str) -> io::Result<u64> {
    let mut connection = Connection::open(address)?;
    let end = connection.end_offset(topic, 0)?;
    let positions = vec![Position { partition: 0, next: 0, end }];
    let mut reader = Reader { topic: topic.to_owned(), positions, records: 0, latencies: Vec::new() };
    if end > 0 {
        reader.fetch(&mut connection)?;
    }
    Ok(reader.records)
}

/// Follows the end of partition 0 from this offset on until so many records have come; when each of them did.
pub fn tail(address: SocketAddr, topic: &str, from: i64, records: usize) -> io::Result<Vec<Instant>> {
    let mut connection = Connection::open(address)?;
    let positions = vec![Position { partition: 0, next: from, end: from + records as i64 }];
    let mut reader = Reader { topic: topic.to_owned(), positions, records: 0, latencies: Vec::new() };
    let mut arrivals = Vec::with_capacity(records);
    while arrivals.len() < records {
        reader.fetch(&mut connection)?;
        arrivals.resize(records.min(reader.records as usize), now());
    }
    Ok(arrivals)
}

#[derive(Debug)]
struct Position {
    partition: usize,
    next: i64,
    end: i64,
}

#[derive(Debug)]
struct Reader {
    topic: String,
    positions: Vec<Position>,
    records: u64,
    latencies: Vec<Duration>,
}

impl Reader {
    fn fetch(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut request = Encoder::request(FETCH, FETCH_VERSION);
        let unread = self.positions.iter().filter(|position| position.next < position.end);
        request.i32(-1).i32(500).i32(1).i32(FETCH_MAX_BYTES).i8(0).count(1).string(&self.topic);
        request.count(unread.clone().count());
        for position in unread {
            request.i32(position.partition as i32).i64(position.next).i32(PARTITION_MAX_BYTES);
        }
        let since = now();
        let mut answer = connection.call(request)?;
        self.latencies.push(now() - since);
        answer.i32()?;
        for _ in 0..answer.i32()? {
            answer.string()?;
            for _ in 0..answer.i32()? {
                let (partition, error) = (answer.i32()? as usize, answer.i16()?);
                answer.i64()?;
                answer.i64()?;
                let aborted = answer.i32()?.max(0);
                answer.take(aborted as usize * 16)?;
                let batches = answer.bytes()?;
                let position = self.positions.iter_mut().find(|position| position.partition == partition);
                let position = position.ok_or_else(|| failed("a partition that was not asked for"))?;
                if error != 0 {
                    return Err(failed(format!("fetch of partition {partition}: Kafka error {error}")));
                }
                self.records += position.advance(batches)?;
            }
        }
        Ok(())
    }
}

impl Position {
    /// Passes over the whole batches in `bytes`, which must follow each other without a gap; how many records.
    fn advance(&mut self, mut bytes: &[u8]) -> io::Result<u64> {
        let mut records = 0;
        while let Some(seen) = batch::first(bytes) {
            if seen.base_offset != self.next {
                let Self { partition, next, .. } = self;
                return Err(failed(format!("partition {partition}: offset {} where {next} was due", seen.base_offset)));
            }
            self.next = seen.last_offset + 1;
            records += seen.records as u64;
            bytes = &bytes[seen.length..];
        }
        Ok(records)
    }
}

/// Runs `work` on every connection in a thread of its own, all started at once.
fn on_connections<F>(address: SocketAddr, connections: usize, work: F) -> io::Result<Outcome>
where
    F: Fn(usize, Connection) -> io::Result<Outcome> + Send + Sync,
{
    let (work, start) = (Arc::new(work), Arc::new(Barrier::new(connections + 1)));
    let open = (0..connections).map(|_| Connection::open(address)).collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, connection) in open.into_iter().enumerate() {
            let (work, start) = (Arc::clone(&work), Arc::clone(&start));
            threads.push(scope.spawn(move || {
                start.wait();
                work(index, connection)
            }));
        }
        start.wait();
        let since = now();
        let parts = threads.into_iter().map(|thread| thread.join().map_err(|_| failed("a load thread panicked"))?);
        let parts = parts.collect::<io::Result<Vec<Outcome>>>()?;
        Ok(Outcome::sum(parts, now() - since))
    })
}
