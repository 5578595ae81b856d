//! A client of bytes: sends any frame, or anything at all, and sees exactly what comes back and when the broker closes.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::sim::wire;

/// How long an answer may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub struct Raw(TcpStream);

impl Raw {
    pub async fn connect(kafka: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(kafka).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    pub async fn request<R: Request>(&mut self, correlation: i32, version: i16, request: &R) -> io::Result<()> {
        let frame = wire::frame(correlation, version, request).map_err(io::Error::other)?;
        self.send(&frame).await
    }

    /// The next response: its correlation id, and the frame from there on. None when the broker closed.
    pub async fn receive(&mut self) -> io::Result<Option<(i32, Bytes)>> {
        let read = async {
            let mut length = [0; 4];
            if self.0.read(&mut length[..1]).await? == 0 {
                return Ok(None);
            }
            self.0.read_exact(&mut length[1..]).await?;
            let mut frame = BytesMut::zeroed(i32::from_be_bytes(length) as usize);
            self.0.read_exact(&mut frame).await?;
            let frame = frame.freeze();
            Ok(Some((frame.clone().get_i32(), frame)))
        };
        timeout(LIMIT, read).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Sends a request and takes the next response, which must be its own.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.request(7, version, request).await.expect("the broker takes a request");
        let (correlation, frame) = self.receive().await.expect("an answer").expect("an answer before the end");
        assert_eq!(correlation, 7);
        wire::response::<R>(version, frame).expect("a response of the version asked for")
    }

    /// Does the broker close the connection within `limit`, without a word?
    pub async fn is_closed_within(&mut self, limit: Duration) -> bool {
        let mut byte = [0];
        match timeout(limit, self.0.read(&mut byte)).await {
            Ok(Ok(read)) => read == 0,
            // A reset is an end too: bytes that were never read were thrown away.
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }
}

/// A Produce request with this batch for one partition, to be acknowledged when durable.
pub fn produce(topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// A batch without idempotence.
pub fn batch(values: &[u64]) -> Bytes {
    wire::encode_batch(&wire::BatchSpec {
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        attributes: 0,
        timestamp_ms: 1_700_000_000_000,
        values,
    })
}
