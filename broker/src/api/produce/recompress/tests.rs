//! Topics that want another codec than their producers: what is stored, told, paid for and counted.

use futures::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use meta::seams::{SystemClock, WallClock};

use crate::api::produce::handle;
use crate::api::produce::tests::request;
use crate::api::testing::{TestBroker, begun, finish};
use crate::batch::testing::{BatchSpec, RecordSpec};
use crate::batch::{BatchHeader, Codec};
use crate::compression::testing::all_codecs;
use crate::request::Reply;
use crate::topics::edits::Edits;

const CODECS: [(&str, Codec); 5] = [
    ("uncompressed", Codec::None),
    ("gzip", Codec::Gzip),
    ("snappy", Codec::Snappy),
    ("lz4", Codec::Lz4),
    ("zstd", Codec::Zstd),
];

async fn configured(configs: &[(&str, &str)]) -> TestBroker {
    let test = TestBroker::new(64 << 20, 2).await;
    configure(&test, configs).await;
    test
}

async fn configure(test: &TestBroker, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())));
    test.broker.topics.alter_topic(&test.topic, &Edits::Replace(configs.collect()), false).await.unwrap();
}

fn begin(test: &TestBroker, request: &ProduceRequest) -> Reply {
    let permit = test.broker.budget.take_anyway(1);
    test.begin(handle, 9, request, permit).unwrap()
}

fn answer(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

/// One record of so many bytes, as a batch of this codec.
fn batch(spec: &BatchSpec, codec: usize, value_bytes: usize) -> bytes::Bytes {
    let mut raw = Vec::new();
    RecordSpec { value: Some(vec![b'v'; value_bytes]), ..RecordSpec::default() }.put(&mut raw);
    let (_, codec, bytes) = all_codecs(&raw).swap_remove(codec);
    BatchSpec { attributes: codec.id(), ..spec.clone() }.build_with(&bytes)
}

#[tokio::test]
async fn batches_are_stored_as_the_topic_wants_them() {
    let spec = BatchSpec::records(1);
    for value_bytes in [1_000, 500_000] {
        for (name, codec) in CODECS {
            let test = configured(&[("compression.type", name)]).await;
            for from in 0..6 {
                let sent = batch(&spec, from, value_bytes);
                let as_sent = BatchHeader::parse(&sent).unwrap();
                let reply = begin(&test, &request(&test, 9, -1, vec![(0, Some(sent))]));
                let large = value_bytes > 128 << 10 && as_sent.codec() != Some(codec);
                assert_eq!(matches!(reply, Reply::Beginning(_)), large, "{from} to {name}");
                let reply = begun(reply).await;
                let fragment = test.rig.cut();
                let entry = fragment.fragment.entries[0].clone();
                let header = BatchHeader::parse_parts(&entry.head, &entry.body).unwrap();
                assert_eq!((header.codec(), header.crc), (Some(codec), crc32c::crc32c(&entry.body)));
                assert_eq!(header.length as usize + 12, entry.len());
                assert_eq!((entry.meta.attributes, entry.body_crc), (codec.id(), header.crc));
                if as_sent.codec() != Some(codec) {
                    assert_eq!(entry.permit.bytes(), entry.body.len(), "paid to the byte");
                }
                fragment.durable(&*test.broker.partitions);
                assert_eq!(answer(&finish(reply, 9).await).error_code, 0);
                drop(entry);
            }
            while test.broker.partitions.reader().tail().evict_oldest() {}
            assert_eq!(test.broker.budget.used_bytes(), 0);
        }
    }
}

#[tokio::test]
async fn retries_are_recognized_and_it_is_counted() {
    let test = configured(&[("compression.type", "zstd")]).await;
    let sent = batch(&BatchSpec::idempotent(7, 0, 0, 1), 0, 300_000);
    for _ in 0..2 {
        let reply = begun(begin(&test, &request(&test, 9, -1, vec![(0, Some(sent.clone()))]))).await;
        test.rig.flush();
        let response: ProduceResponse = finish(reply, 9).await;
        assert_eq!((answer(&response).error_code, answer(&response).base_offset), (0, 0));
    }
    let counted = &test.broker.metrics.recompression;
    assert_eq!((counted.batches.get(), counted.received_bytes.get()), (2, 2 * sent.len() as u64));
    assert_eq!(counted.inflated_bytes.get(), 2 * (sent.len() as u64 - 61));
    let (received, stored) = (counted.received_bytes.get() as i64, counted.stored_bytes.get() as i64);
    assert!(stored < 2_000 && counted.saved_bytes.get() == received - stored);
    assert_eq!(test.broker.partitions.get(test.id(0)).unwrap().bounds(-1).unwrap().high_watermark, 1);
}

#[tokio::test]
async fn with_the_time_of_the_append() {
    let test = configured(&[("compression.type", "lz4"), ("message.timestamp.type", "LogAppendTime")]).await;
    for value_bytes in [100, 300_000] {
        let before = SystemClock.now_ms();
        let sent = batch(&BatchSpec::records(1), 0, value_bytes);
        let reply = begun(begin(&test, &request(&test, 9, -1, vec![(0, Some(sent))]))).await;
        let fragment = test.rig.cut();
        let entry = fragment.fragment.entries[0].clone();
        fragment.durable(&*test.broker.partitions);
        let response: ProduceResponse = finish(reply, 9).await;
        let time = answer(&response).log_append_time_ms;
        assert!((before..=SystemClock.now_ms()).contains(&time));
        let header = BatchHeader::parse_parts(&entry.head, &entry.body).unwrap();
        assert!(header.is_log_append_time() && header.codec() == Some(Codec::Lz4));
        assert_eq!((header.max_timestamp, entry.meta.max_timestamp), (time, time));
    }
}

#[tokio::test]
async fn without_the_time_of_the_append_none_is_told() {
    let test = configured(&[("compression.type", "lz4")]).await;
    let reply = begin(&test, &request(&test, 9, -1, vec![(0, Some(batch(&BatchSpec::records(1), 0, 100)))]));
    test.rig.flush();
    assert_eq!(answer(&finish(reply, 9).await).log_append_time_ms, -1);
}

#[tokio::test]
async fn what_cannot_be_compressed_anew_is_refused_alone() {
    let test = configured(&[("compression.type", "uncompressed"), ("max.message.bytes", "200000")]).await;
    let broken = BatchSpec { attributes: 1, ..BatchSpec::records(2) }.build_with(&[1, 2, 3]);
    let fewer = {
        let spec = BatchSpec { attributes: 4, ..BatchSpec::records(2) };
        spec.build_with(&zstd::encode_all(&BatchSpec::records(1).raw_records()[..], 1).unwrap())
    };
    let too_large = batch(&BatchSpec::records(1), 5, 300_000);
    let good = batch(&BatchSpec::records(1), 5, 150_000);
    let batches = [broken, fewer, too_large, good].map(|batch| (0, Some(batch))).to_vec();
    let reply = begun(begin(&test, &request(&test, 9, -1, batches.clone()))).await;
    test.rig.flush();
    let response: ProduceResponse = finish(reply, 9).await;
    let codes: Vec<_> = response.responses[0].partition_responses.iter().map(|answer| answer.error_code).collect();
    use ResponseError::{CorruptMessage, InvalidRecord, MessageTooLarge};
    assert_eq!(codes, [CorruptMessage.code(), InvalidRecord.code(), MessageTooLarge.code(), 0]);
    while test.broker.partitions.reader().tail().evict_oldest() {}
    assert_eq!(test.broker.budget.used_bytes(), 0);
    // Nobody hears an answer to acks=0: the connection is closed.
    let Reply::Beginning(beginning) = begin(&test, &request(&test, 9, 0, batches)) else { panic!("one is large") };
    assert!(beginning.await.is_err());
}

/// The budget is waited for, then the producer is told to try again.
#[tokio::test(start_paused = true)]
async fn short_memory_is_waited_for_but_not_forever() {
    let test = configured(&[("compression.type", "gzip")]).await;
    for value_bytes in [1_000, 500_000] {
        let sent = request(&test, 9, -1, vec![(0, Some(batch(&BatchSpec::records(1), 0, value_bytes)))]);
        let all = test.broker.budget.total_bytes() - test.broker.budget.used_bytes();
        let held = test.broker.budget.try_take(all).unwrap();
        let response: ProduceResponse = finish(begin(&test, &sent), 9).await;
        assert_eq!(answer(&response).error_code, ResponseError::KafkaStorageError.code());
        let Reply::Beginning(mut waiting) = begin(&test, &sent) else { panic!("it has to wait") };
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        let reply = waiting.await.unwrap();
        test.rig.flush();
        assert_eq!(answer(&finish(reply, 9).await).error_code, 0);
    }
}

/// A large batch does not hold up what else there is to do.
#[tokio::test]
async fn others_run_in_between() {
    let test = configured(&[("compression.type", "lz4")]).await;
    let sent = request(&test, 9, -1, vec![(0, Some(batch(&BatchSpec::records(1), 0, 900_000)))]);
    let Reply::Beginning(mut beginning) = begin(&test, &sent) else { panic!("it is large") };
    let mut polled = 0;
    let reply = loop {
        polled += 1;
        if let Some(reply) = beginning.as_mut().now_or_never() {
            break reply.unwrap();
        }
    };
    assert!(polled > 10, "polled {polled} times");
    test.rig.flush();
    assert_eq!(answer(&finish(reply, 9).await).error_code, 0);
}
