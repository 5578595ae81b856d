//! A broker of a few lines that keeps its promises by construction, and breaks one of them when asked: the simulation's
//! checks are tried on it. What is durable is a list in memory that all incarnations share.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes, decode_request_header_from_buffer};
use object_store::{ObjectStore, PutOptions, path::Path};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, interval, sleep, timeout};
use uuid::Uuid;

use super::cluster::{Boot, Exit, Parts};
use super::net::SimStream;
use super::session::topic_name;
use super::wire::{self, Batch};

/// A promise that the fake breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// Loses the last batch at every takeover.
    ForgetsLastBatch,
    /// Appends a retried batch again.
    AppendsTwice,
    /// Goes on acknowledging after a takeover, into the void.
    IgnoresFence,
    AcceptsGaps,
    /// Answers reads with bytes that were changed.
    DamagesRecords,
    /// Serves nothing any more after the first takeover.
    NeverHeals,
}

/// What is durable.
#[derive(Default)]
pub struct Shared {
    epoch: i32,
    next_producer_id: i64,
    topics: BTreeMap<String, (Uuid, BTreeMap<i32, Partition>)>,
}

#[derive(Default)]
struct Partition {
    next: i64,
    batches: Vec<(Batch, Bytes)>,
}

/// Boots fakes that share one memory.
pub fn boot(mistake: Mistake) -> Boot {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let boot = move |parts| -> BoxFuture<'static, Exit> {
        let shared = Arc::clone(&shared);
        Box::pin(run(parts, shared, mistake))
    };
    Boot { run: Arc::new(boot), has_groups: false }
}

async fn run(mut parts: Parts, shared: Arc<Mutex<Shared>>, mistake: Mistake) -> Exit {
    // A real broker takes over by writing: a host without access to the bucket does not get further either.
    while !reachable(&*parts.store).await {
        sleep(Duration::from_millis(100)).await;
    }
    let epoch = {
        let mut shared = shared.lock();
        shared.epoch += 1;
        if mistake == Mistake::ForgetsLastBatch {
            shared.topics.values_mut().flat_map(|(_, partitions)| partitions.values_mut()).for_each(Partition::forget);
        }
        shared.epoch
    };
    let fake =
        Arc::new(Fake { shared, epoch, mistake, address: parts.address.clone(), store: Arc::clone(&parts.store) });
    let mut check = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            biased;
            _ = parts.drain.wait_for(|drain| *drain) => return Exit::Drained,
            _ = check.tick() => {
                if fake.fenced() && mistake != Mistake::IgnoresFence {
                    return Exit::Fenced("a later epoch".to_owned());
                }
            }
            stream = parts.listener.accept_stream() => {
                tokio::spawn(Arc::clone(&fake).serve(stream));
            }
        }
    }
}

/// One write to the bucket. Its answer is believed: what is durable here lies elsewhere.
async fn reachable(store: &dyn ObjectStore) -> bool {
    let key = Path::from("meta/fake");
    let write = store.put_opts(&key, Bytes::from_static(b"x").into(), PutOptions::default());
    timeout(Duration::from_secs(2), write).await.is_ok_and(|answer| answer.is_ok())
}

struct Fake {
    shared: Arc<Mutex<Shared>>,
    epoch: i32,
    mistake: Mistake,
    address: (String, u16),
    store: Arc<dyn ObjectStore>,
}

impl Partition {
    fn forget(&mut self) {
        if let Some((batch, _)) = self.batches.pop() {
            self.next = batch.base_offset;
        }
    }
}

impl Fake {
    fn fenced(&self) -> bool {
        self.shared.lock().epoch != self.epoch
    }

    async fn serve(self: Arc<Self>, mut stream: SimStream) -> Option<()> {
        loop {
            let length = stream.read_i32().await.ok()?;
            let mut frame = BytesMut::zeroed(length as usize);
            stream.read_exact(&mut frame).await.ok()?;
            let mut frame = frame.freeze();
            let header = decode_request_header_from_buffer(&mut frame).ok()?;
            // One operation of the store for every request: a host that is cut off answers nothing.
            if !reachable(&*self.store).await {
                return None;
            }
            if self.mistake == Mistake::NeverHeals && self.epoch > 1 {
                return None;
            }
            let (version, correlation) = (header.request_api_version, header.correlation_id);
            let reply = match header.request_api_key {
                k if k == MetadataRequest::KEY => answer(version, correlation, frame, |r| self.metadata(&r)),
                k if k == ProduceRequest::KEY => answer(version, correlation, frame, |r| self.produce(r)),
                k if k == FetchRequest::KEY => answer(version, correlation, frame, |r| self.fetch(r)),
                k if k == ListOffsetsRequest::KEY => answer(version, correlation, frame, |r| self.offsets(&r)),
                k if k == InitProducerIdRequest::KEY => answer(version, correlation, frame, |r| self.producer_id(&r)),
                k if k == CreateTopicsRequest::KEY => answer(version, correlation, frame, |r| self.create(&r)),
                k if k == DeleteTopicsRequest::KEY => answer(version, correlation, frame, |r| self.delete(&r)),
                _ => None,
            }?;
            stream.write_all(&reply).await.ok()?;
        }
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let mut shared = self.shared.lock();
        let current = shared.epoch == self.epoch;
        let mut topics = Vec::new();
        for asked in request.topics.iter().flatten() {
            let name = asked.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            if request.allow_auto_topic_creation && current {
                shared.create(&name, 2);
            }
            let mut topic = MetadataResponseTopic::default().with_name(Some(topic_name(&name)));
            match shared.topics.get(&name) {
                Some((id, partitions)) => {
                    topic.topic_id = *id;
                    topic.partitions = partitions
                        .keys()
                        .map(|index| {
                            MetadataResponsePartition::default()
                                .with_partition_index(*index)
                                .with_leader_epoch(self.epoch)
                        })
                        .collect();
                }
                None => topic.error_code = 3,
            }
            topics.push(topic);
        }
        let host = StrBytes::from_string(self.address.0.clone());
        let broker = MetadataResponseBroker::default().with_host(host).with_port(i32::from(self.address.1));
        MetadataResponse::default().with_brokers(vec![broker]).with_topics(topics)
    }

    fn produce(&self, request: ProduceRequest) -> ProduceResponse {
        let mut responses = Vec::new();
        for topic in request.topic_data {
            let mut answers = Vec::new();
            for data in topic.partition_data {
                let mut answer = PartitionProduceResponse::default().with_index(data.index);
                let records = data.records.unwrap_or_default();
                match self.append(topic.name.as_str(), topic.topic_id, data.index, records) {
                    Ok(offset) => answer.base_offset = offset,
                    Err(code) => answer.error_code = code,
                }
                answers.push(answer);
            }
            let response = TopicProduceResponse::default().with_name(topic.name).with_topic_id(topic.topic_id);
            responses.push(response.with_partition_responses(answers));
        }
        ProduceResponse::default().with_responses(responses)
    }

    fn append(&self, name: &str, id: Uuid, index: i32, records: Bytes) -> Result<i64, i16> {
        if records[22] & 0x30 != 0 {
            return Err(87);
        }
        let mut batch = wire::parse_batches(records.clone()).map_err(|_| 2i16)?.pop().ok_or(2i16)?;
        let mut shared = self.shared.lock();
        let fenced = shared.epoch != self.epoch;
        let partition = shared.partition(name, id, index).ok_or(3i16)?;
        if fenced {
            return if self.mistake == Mistake::IgnoresFence { Ok(partition.next) } else { Err(6) };
        }
        if batch.producer_id >= 0
            && let Some(known) = partition.judge(&batch, self.mistake)?
        {
            return Ok(known);
        }
        batch.base_offset = partition.next;
        batch.last_offset += partition.next;
        batch.leader_epoch = self.epoch;
        partition.next = batch.last_offset + 1;
        let mut stamped = BytesMut::from(records.as_ref());
        stamped[..8].copy_from_slice(&batch.base_offset.to_be_bytes());
        stamped[12..16].copy_from_slice(&batch.leader_epoch.to_be_bytes());
        let offset = batch.base_offset;
        partition.batches.push((batch, stamped.freeze()));
        Ok(offset)
    }

    fn fetch(&self, request: FetchRequest) -> FetchResponse {
        let mut shared = self.shared.lock();
        let fenced = shared.epoch != self.epoch && self.mistake != Mistake::IgnoresFence;
        let mut responses = Vec::new();
        for topic in request.topics {
            let mut parts = Vec::new();
            for asked in topic.partitions {
                let mut data = PartitionData::default().with_partition_index(asked.partition);
                data.records = Some(Bytes::new());
                let partition = shared.partition(topic.topic.as_str(), topic.topic_id, asked.partition);
                match partition.filter(|_| !fenced) {
                    Some(partition) => {
                        data.high_watermark = partition.next;
                        let found = partition.batches.iter().find(|(batch, _)| batch.last_offset >= asked.fetch_offset);
                        data.records = found.map(|(_, bytes)| self.sent(bytes)).or(data.records);
                        data.error_code = i16::from(asked.fetch_offset > partition.next);
                    }
                    None => data.error_code = 6,
                }
                parts.push(data);
            }
            let response = FetchableTopicResponse::default().with_topic(topic.topic).with_topic_id(topic.topic_id);
            responses.push(response.with_partitions(parts));
        }
        FetchResponse::default().with_responses(responses)
    }

    fn sent(&self, bytes: &Bytes) -> Bytes {
        let mut bytes = BytesMut::from(bytes.as_ref());
        if self.mistake == Mistake::DamagesRecords && bytes.len() % 7 == 0 {
            bytes[40] ^= 1;
        }
        bytes.freeze()
    }

    fn offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let mut shared = self.shared.lock();
        let fenced = shared.epoch != self.epoch;
        let topics = request.topics.iter().map(|topic| {
            let answers = topic.partitions.iter().map(|asked| {
                let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
                let found = shared.partition(topic.name.as_str(), Uuid::nil(), asked.partition_index);
                match found.filter(|_| !fenced) {
                    Some(partition) => answer.with_offset(if asked.timestamp == -2 { 0 } else { partition.next }),
                    None => answer.with_error_code(6),
                }
            });
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(answers.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    fn producer_id(&self, _: &InitProducerIdRequest) -> InitProducerIdResponse {
        let mut shared = self.shared.lock();
        shared.next_producer_id += 1;
        InitProducerIdResponse::default().with_producer_id(ProducerId(shared.next_producer_id))
    }

    fn create(&self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let mut shared = self.shared.lock();
        let current = shared.epoch == self.epoch;
        let results = request.topics.iter().map(|topic| {
            let code = if current { shared.create(topic.name.as_str(), topic.num_partitions) } else { 41 };
            CreatableTopicResult::default().with_name(topic.name.clone()).with_error_code(code)
        });
        CreateTopicsResponse::default().with_topics(results.collect())
    }

    fn delete(&self, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut shared = self.shared.lock();
        let current = shared.epoch == self.epoch;
        let results = request.topics.iter().map(|topic| {
            let before = shared.topics.len();
            if current {
                shared.topics.retain(|_, (id, _)| *id != topic.topic_id);
            }
            let code = match (current, shared.topics.len() < before) {
                (false, _) => 41,
                (true, true) => 0,
                (true, false) => 100,
            };
            DeletableTopicResult::default().with_topic_id(topic.topic_id).with_error_code(code)
        });
        DeleteTopicsResponse::default().with_responses(results.collect())
    }
}

impl Shared {
    fn create(&mut self, name: &str, partitions: i32) -> i16 {
        if self.topics.contains_key(name) {
            return 36;
        }
        self.next_producer_id += 1;
        let id = Uuid::from_u128(self.next_producer_id as u128);
        let partitions = (0..partitions).map(|index| (index, Partition::default())).collect();
        self.topics.insert(name.to_owned(), (id, partitions));
        0
    }

    fn partition(&mut self, name: &str, id: Uuid, index: i32) -> Option<&mut Partition> {
        let found = self.topics.iter_mut().find(|(known, (known_id, _))| *known == name || *known_id == id);
        found.and_then(|(_, (_, partitions))| partitions.get_mut(&index))
    }
}

impl Partition {
    /// The offset of a duplicate; None for a batch that is next.
    fn judge(&self, batch: &Batch, mistake: Mistake) -> Result<Option<i64>, i16> {
        let own =
            self.batches.iter().rev().map(|(known, _)| known).filter(|known| known.producer_id == batch.producer_id);
        let newest = own.clone().next();
        let epoch = newest.map_or(batch.producer_epoch, |newest| newest.producer_epoch);
        if batch.producer_epoch < epoch {
            return Err(47);
        }
        let next = match newest {
            Some(newest) if batch.producer_epoch == epoch => newest.base_sequence + newest.values.len() as i32,
            _ => 0,
        };
        if batch.base_sequence == next || mistake == Mistake::AcceptsGaps && batch.base_sequence > next {
            return Ok(None);
        }
        let mut same = own.filter(|known| known.producer_epoch == epoch && known.base_sequence == batch.base_sequence);
        match same.next() {
            Some(_) if mistake == Mistake::AppendsTwice => Ok(None),
            Some(known) => Ok(Some(known.base_offset)),
            None => Err(45),
        }
    }
}

fn answer<R: Request>(
    version: i16,
    correlation: i32,
    mut body: Bytes,
    handle: impl FnOnce(R) -> R::Response,
) -> Option<Bytes> {
    let request = R::decode(&mut body, version).ok().filter(|_| !body.has_remaining())?;
    let response = handle(request);
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header.encode(&mut frame, R::Response::header_version(version)).ok()?;
    response.encode(&mut frame, version).ok()?;
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Some(frame.freeze())
}
