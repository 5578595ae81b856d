//! Answers after durability, errors per partition, and what is kept in memory.

use futures::FutureExt;
use kafka_protocol::messages::TransactionalId;

use meta::seams::{SystemClock, WallClock};

use super::*;
use crate::api::testing::{TestBroker, decode, finish, name};
use crate::batch::BatchHeader;
use crate::batch::testing::BatchSpec;
use crate::topics::edits::Edits;

const TAIL: usize = 64 << 20;

pub fn request(test: &TestBroker, version: i16, acks: i16, batches: Vec<(i32, Option<Bytes>)>) -> ProduceRequest {
    let data = |(index, records): (i32, Option<Bytes>)| {
        PartitionProduceData::default().with_index(index).with_records(records)
    };
    let topic = TopicProduceData::default().with_partition_data(batches.into_iter().map(data).collect());
    let topic = match version >= FIRST_VERSION_WITH_TOPIC_IDS {
        true => topic.with_topic_id(test.topic.id),
        false => topic.with_name(name(&test.topic.name)),
    };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1_000).with_topic_data(vec![topic])
}

fn batch(spec: &BatchSpec) -> Option<Bytes> {
    Some(spec.build())
}

fn begin(test: &TestBroker, version: i16, request: &ProduceRequest) -> Reply {
    let permit = test.broker.budget.take_anyway(1);
    test.begin(handle, version, request, permit).unwrap()
}

/// The answer of every partition: its error and its base offset.
fn outcomes(response: &ProduceResponse) -> Vec<(i16, i64)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    partitions.map(|partition| (partition.error_code, partition.base_offset)).collect()
}

// Catches the planted bug produce-reply-before-durable.
#[tokio::test]
async fn every_version_answers_when_it_is_durable_and_not_before() {
    let test = TestBroker::new(TAIL, 2).await;
    let mut next = 0;
    for version in 3..=13 {
        for acks in [1, -1] {
            let batches = vec![(0, batch(&BatchSpec::records(2))), (1, batch(&BatchSpec::records(1)))];
            let reply = begin(&test, version, &request(&test, version, acks, batches));
            let mut answer = Box::pin(finish::<ProduceResponse>(reply, version));
            assert!(answer.as_mut().now_or_never().is_none(), "version {version}");
            test.rig.flush();
            let response = answer.await;
            assert_eq!(outcomes(&response), [(0, 2 * next), (0, next)], "version {version}");
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.log_append_time_ms, -1);
            assert_eq!(partition.log_start_offset, if version >= 5 { 0 } else { -1 });
            match version >= FIRST_VERSION_WITH_TOPIC_IDS {
                true => assert_eq!(response.responses[0].topic_id, test.topic.id),
                false => assert_eq!(response.responses[0].name, name("t")),
            }
            next += 1;
        }
    }
}

#[tokio::test]
async fn requests_are_appended_in_the_order_of_arrival_without_waiting() {
    let test = TestBroker::new(TAIL, 1).await;
    let replies: Vec<_> = (0..40)
        .map(|n| begin(&test, 9, &request(&test, 9, -1, vec![(0, batch(&BatchSpec::idempotent(1, 0, n, 1)))])))
        .collect();
    test.rig.flush();
    for (n, reply) in (0..).zip(replies) {
        assert_eq!(outcomes(&finish(reply, 9).await), [(0, n)]);
    }
}

#[tokio::test]
async fn acks_0_is_never_answered_and_acks_2_is_refused() {
    let test = TestBroker::new(TAIL, 1).await;
    let good = request(&test, 9, 0, vec![(0, batch(&BatchSpec::default()))]);
    assert!(matches!(begin(&test, 9, &good), Reply::Never));
    test.rig.flush();
    assert_eq!(test.broker.partitions.get(test.id(0)).unwrap().bounds(-1).unwrap().high_watermark, 3);
    let bad = request(&test, 9, 0, vec![(5, batch(&BatchSpec::default()))]);
    let permit = test.broker.budget.take_anyway(1);
    assert!(test.begin(handle, 9, &bad, permit).is_err(), "the producer learns it by the closed connection");
    for acks in [2, -2] {
        let refused = request(&test, 9, acks, vec![(0, batch(&BatchSpec::default()))]);
        let response: ProduceResponse = finish(begin(&test, 9, &refused), 9).await;
        assert_eq!(outcomes(&response), [(ResponseError::InvalidRequiredAcks.code(), -1)]);
    }
    assert!(test.rig.cut().fragment.entries.is_empty());
}

#[tokio::test]
async fn errors_concern_their_partition_only() {
    let test = TestBroker::new(TAIL, 2).await;
    let large = BatchSpec { value_bytes: 1 << 20, ..BatchSpec::default() };
    let zstd = BatchSpec { attributes: 4, ..BatchSpec::default() };
    let transactional = BatchSpec { attributes: 0x10, ..BatchSpec::default() };
    let batches = vec![
        (0, None),
        (0, Some(Bytes::new())),
        (0, batch(&large)),
        (7, batch(&BatchSpec::default())),
        (0, batch(&zstd)),
        (0, batch(&transactional)),
        (1, batch(&BatchSpec::default())),
    ];
    for version in [6, 9] {
        let reply = begin(&test, version, &request(&test, version, -1, batches.clone()));
        test.rig.flush();
        let response: ProduceResponse = finish(reply, version).await;
        let codes: Vec<_> = outcomes(&response).into_iter().map(|(code, _)| code).collect();
        let expected = [
            ResponseError::InvalidRecord.code(),
            ResponseError::InvalidRecord.code(),
            ResponseError::MessageTooLarge.code(),
            ResponseError::UnknownTopicOrPartition.code(),
            if version < 7 { ResponseError::UnsupportedCompressionType.code() } else { 0 },
            ResponseError::InvalidRecord.code(),
            0,
        ];
        assert_eq!(codes, expected);
        let message = &response.responses[0].partition_responses[5].error_message;
        assert_eq!(message.is_some(), version >= 8);
    }
}

#[tokio::test]
async fn unknown_topics_have_the_code_of_their_version() {
    let test = TestBroker::new(TAIL, 1).await;
    for (version, code) in [(12, ResponseError::UnknownTopicOrPartition), (13, ResponseError::UnknownTopicId)] {
        let mut request = request(&test, version, -1, vec![(0, batch(&BatchSpec::default()))]);
        request.topic_data[0].name = if version == 12 { name("nobody") } else { Default::default() };
        request.topic_data[0].topic_id = if version == 13 { Uuid::from_u128(99) } else { Uuid::nil() };
        let response: ProduceResponse = finish(begin(&test, version, &request), version).await;
        assert_eq!(outcomes(&response), [(code.code(), -1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_takes_too_long_stays_queued() {
    let test = TestBroker::new(TAIL, 1).await;
    let spec = BatchSpec::idempotent(1, 0, 0, 2);
    let late = begin(&test, 9, &request(&test, 9, -1, vec![(0, batch(&spec))]));
    let response: ProduceResponse = finish(late, 9).await;
    assert_eq!(outcomes(&response), [(ResponseError::RequestTimedOut.code(), -1)]);
    let retry = begin(&test, 9, &request(&test, 9, -1, vec![(0, batch(&spec))]));
    test.rig.flush();
    assert_eq!(outcomes(&finish(retry, 9).await), [(0, 0)], "the retry finds it");
    assert_eq!(test.broker.partitions.get(test.id(0)).unwrap().bounds(-1).unwrap().high_watermark, 2);
}

#[tokio::test]
async fn what_is_not_known_to_be_durable_is_not_acknowledged() {
    for (outcome, code) in [
        (Outcome::Fenced, ResponseError::NotLeaderOrFollower),
        (Outcome::Unknown, ResponseError::NotEnoughReplicasAfterAppend),
    ] {
        let test = TestBroker::new(TAIL, 1).await;
        let request = request(&test, 9, 1, vec![(0, batch(&BatchSpec::default()))]);
        let reply = begin(&test, 9, &request);
        test.rig.cut().end(outcome);
        assert_eq!(outcomes(&finish(reply, 9).await), [(code.code(), -1)]);
        test.broker.partitions.resign("test");
        let response: ProduceResponse = finish(begin(&test, 9, &request), 9).await;
        assert_eq!(outcomes(&response), [(ResponseError::NotLeaderOrFollower.code(), -1)]);
    }
}

#[tokio::test]
async fn an_old_duplicate_says_so() {
    let test = TestBroker::new(TAIL, 1).await;
    let one = |n| request(&test, 9, -1, vec![(0, batch(&BatchSpec::idempotent(1, 0, n, 1)))]);
    let replies: Vec<_> = (0..7).map(|n| begin(&test, 9, &one(n))).collect();
    test.rig.flush();
    drop(replies);
    assert_eq!(outcomes(&finish(begin(&test, 9, &one(6)), 9).await), [(0, 6)]);
    let expected = [(ResponseError::DuplicateSequenceNumber.code(), -1)];
    assert_eq!(outcomes(&finish(begin(&test, 9, &one(0)), 9).await), expected);
}

#[tokio::test]
async fn small_batches_do_not_pin_large_buffers() {
    let test = TestBroker::new(TAIL, 1).await;
    let small = batch(&BatchSpec { value_bytes: 1_000, ..BatchSpec::default() });
    // To a partition that does not exist.
    let refused = batch(&BatchSpec { value_bytes: 10_000, ..BatchSpec::default() });
    for (batches, copied) in [(vec![(0, small.clone()), (99, refused)], true), (vec![(0, small)], false)] {
        let request = request(&test, 9, -1, batches);
        let pinned = 64 << 10;
        let permit = test.broker.budget.take_anyway(pinned);
        let reply = test.begin(handle, 9, &request, permit).unwrap();
        let fragment = test.rig.cut();
        let entry = &fragment.fragment.entries[0];
        assert_eq!(entry.permit.bytes() == pinned, !copied);
        let held = test.broker.budget.used_bytes();
        assert_eq!(held, if copied { entry.body.len() } else { pinned });
        fragment.durable(&*test.broker.partitions);
        drop(reply);
        while test.broker.partitions.reader().tail().evict_oldest() {}
        assert_eq!(test.broker.budget.used_bytes(), 0);
    }
}

#[tokio::test]
async fn a_transactional_id_alone_is_no_transaction() {
    let test = TestBroker::new(TAIL, 1).await;
    let id = TransactionalId(StrBytes::from_static_str("tx"));
    let request = request(&test, 9, -1, vec![(0, batch(&BatchSpec { attributes: 0x10, ..BatchSpec::default() }))])
        .with_transactional_id(Some(id));
    let Reply::Later(answer) = begin(&test, 9, &request) else { panic!("an answer was expected") };
    let response: ProduceResponse = decode(&answer.await.unwrap(), 9);
    assert_eq!(outcomes(&response), [(ResponseError::InvalidRecord.code(), -1)]);
}

/// A broker whose topic sets this.
async fn configured(name: &str, value: &str) -> TestBroker {
    let test = TestBroker::new(TAIL, 1).await;
    let edits = Edits::Replace(vec![(name.to_owned(), Some(value.to_owned()))]);
    test.broker.topics.alter_topic(&test.topic, &edits, false).await.unwrap();
    test
}

async fn produced(test: &TestBroker, spec: &BatchSpec) -> PartitionProduceResponse {
    let reply = begin(test, 9, &request(test, 9, -1, vec![(0, batch(spec))]));
    test.rig.flush();
    let response: ProduceResponse = finish(reply, 9).await;
    response.responses[0].partition_responses[0].clone()
}

#[tokio::test]
async fn the_largest_batch_of_a_topic_can_be_changed_at_any_time() {
    let test = configured("max.message.bytes", "100").await;
    let spec = BatchSpec { value_bytes: 200, ..BatchSpec::default() };
    assert_eq!(produced(&test, &spec).await.error_code, ResponseError::MessageTooLarge.code());
    let edits = Edits::Replace(Vec::new());
    test.broker.topics.alter_topic(&test.topic, &edits, false).await.unwrap();
    assert_eq!(produced(&test, &spec).await.error_code, 0);
}

#[tokio::test]
async fn timestamps_out_of_range_are_refused() {
    let now = SystemClock.now_ms();
    let at = |timestamp: i64| BatchSpec { base_timestamp: timestamp, ..BatchSpec::records(1) };
    let invalid = ResponseError::InvalidTimestamp.code();
    let test = TestBroker::new(TAIL, 1).await;
    assert_eq!(produced(&test, &at(now + 7_200_000)).await.error_code, invalid, "an hour is the default");
    assert_eq!(produced(&test, &at(now + 1_800_000)).await.error_code, 0);
    assert_eq!(produced(&test, &at(0)).await.error_code, 0);
    let test = configured("message.timestamp.before.max.ms", "60000").await;
    assert_eq!(produced(&test, &at(now - 120_000)).await.error_code, invalid);
    assert_eq!(produced(&test, &at(now)).await.error_code, 0);
    let test = configured("message.timestamp.after.max.ms", "60000000").await;
    assert_eq!(produced(&test, &at(now + 7_200_000)).await.error_code, 0);
}

#[tokio::test]
async fn a_compacted_topic_needs_keys() {
    let test = configured("cleanup.policy", "compact").await;
    let refused = produced(&test, &BatchSpec::default()).await;
    assert_eq!(refused.error_code, ResponseError::InvalidRecord.code());
    assert!(refused.error_message.unwrap().contains("key"));
}

#[tokio::test]
async fn the_time_of_the_append_is_stored_told_and_paid_for() {
    let test = configured("message.timestamp.type", "LogAppendTime").await;
    let before = SystemClock.now_ms();
    // Far ahead of the clock: of no interest here.
    let spec = BatchSpec { base_timestamp: i64::MAX / 2, ..BatchSpec::idempotent(7, 0, 0, 2) };
    let reply = begin(&test, 9, &request(&test, 9, -1, vec![(0, batch(&spec))]));
    let fragment = test.rig.cut();
    let entry = fragment.fragment.entries[0].clone();
    assert_eq!(test.broker.budget.used_bytes(), entry.body.len(), "the copy is paid for, the buffer is free");
    fragment.durable(&*test.broker.partitions);
    let response: ProduceResponse = finish(reply, 9).await;
    let answer = &response.responses[0].partition_responses[0];
    let time = answer.log_append_time_ms;
    assert!(answer.error_code == 0 && (before..=SystemClock.now_ms()).contains(&time));
    let header = BatchHeader::parse_parts(&entry.head, &entry.body).unwrap();
    assert!(header.is_log_append_time() && header.max_timestamp == time && entry.meta.max_timestamp == time);
    assert_eq!((header.crc, entry.body_crc), (crc32c::crc32c(&entry.body), crc32c::crc32c(&entry.body)));
    let again = produced(&test, &spec).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0), "a retry is recognized");
}
