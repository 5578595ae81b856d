//! Limits, waiting, errors and progress of Fetch, from memory and from storage.

use std::sync::atomic::Ordering;

use futures::FutureExt;
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use storage::reader::Lane;

use super::*;
use crate::api::testing::{TestBroker, finish, name};
use crate::batch::BatchHeader;
use crate::batch::testing::BatchSpec;
use crate::ownership::Loss;
use crate::topics::edits::Edits;

const TAIL: usize = 64 << 20;
/// Nothing stays in memory: everything is read from the store.
const NO_TAIL: usize = 0;

struct Ask {
    max_wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
    partition_max_bytes: i32,
    /// Partition, offset, leader epoch.
    partitions: Vec<(i32, i64, i32)>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 1 << 20,
            partition_max_bytes: 1 << 20,
            partitions: vec![(0, 0, -1)],
        }
    }
}

impl Ask {
    fn at(offset: i64) -> Self {
        Self { partitions: vec![(0, offset, -1)], ..Self::default() }
    }

    fn request(&self, version: i16, topic: &Topic) -> FetchRequest {
        let partition = |(index, offset, epoch): &(i32, i64, i32)| {
            let partition = FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(self.partition_max_bytes);
            if version >= 9 { partition.with_current_leader_epoch(*epoch) } else { partition }
        };
        let asked = FetchTopic::default().with_partitions(self.partitions.iter().map(partition).collect());
        let asked = match version >= FIRST_VERSION_WITH_TOPIC_IDS {
            true => asked.with_topic_id(topic.id),
            false => asked.with_topic(name(&topic.name)),
        };
        FetchRequest::default()
            .with_max_wait_ms(self.max_wait_ms)
            .with_min_bytes(self.min_bytes)
            .with_max_bytes(self.max_bytes)
            .with_topics(vec![asked])
    }
}

async fn fetch(test: &TestBroker, version: i16, ask: &Ask) -> Vec<PartitionData> {
    let response: FetchResponse = test.call(handle, version, &ask.request(version, &test.topic)).await;
    assert_eq!((response.error_code, response.session_id), (0, 0));
    response.responses.into_iter().flat_map(|topic| topic.partitions).collect()
}

/// The base offsets of the batches in an answer.
fn offsets(answer: &PartitionData) -> Vec<i64> {
    let mut rest = answer.records.clone().expect("records are never null");
    let mut offsets = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).unwrap();
        let batch = rest.split_to(header.length as usize + 12);
        assert_eq!(crc32c::crc32c(&batch[21..]), header.crc);
        offsets.push(header.base_offset);
    }
    offsets
}

/// Four batches of two records in each partition, in two fragments.
async fn filled(tail_bytes: usize, partitions: i32) -> TestBroker {
    let test = TestBroker::new(tail_bytes, partitions).await;
    for _ in 0..2 {
        for partition in 0..partitions {
            for _ in 0..2 {
                test.rig.append(test.id(partition), &BatchSpec::records(2));
            }
        }
        test.rig.flush();
    }
    test
}

fn batch_bytes() -> i32 {
    BatchSpec::records(2).build().len() as i32
}

#[tokio::test]
async fn every_version_reads_everything_from_memory_and_from_storage() {
    for tail_bytes in [TAIL, NO_TAIL] {
        let test = filled(tail_bytes, 1).await;
        for version in 4..=18 {
            let answers = fetch(&test, version, &Ask::default()).await;
            assert_eq!(offsets(&answers[0]), [0, 2, 4, 6], "version {version}");
            assert_eq!((answers[0].high_watermark, answers[0].last_stable_offset), (8, 8));
            assert_eq!(answers[0].error_code, 0);
        }
    }
}

#[tokio::test]
async fn an_offset_inside_a_batch_gets_the_whole_batch() {
    for tail_bytes in [TAIL, NO_TAIL] {
        let test = filled(tail_bytes, 1).await;
        for (offset, expected) in [(1, &[0_i64, 2, 4, 6][..]), (2, &[2, 4, 6]), (5, &[4, 6]), (7, &[6]), (8, &[])] {
            assert_eq!(offsets(&fetch(&test, 12, &Ask::at(offset)).await[0]), expected, "{offset}");
        }
    }
}

#[tokio::test]
async fn a_gap_at_the_end_of_a_run_is_passed_however_small_the_limits_are() {
    let test = filled(NO_TAIL, 1).await;
    test.rig.store.compact_first();
    for offset in [2, 3] {
        assert_eq!(offsets(&fetch(&test, 12, &Ask::at(offset)).await[0]), [4, 6]);
        for limit in [0, 1, batch_bytes() - 1] {
            let ask = Ask { max_bytes: limit, ..Ask::at(offset) };
            assert_eq!(offsets(&fetch(&test, 12, &ask).await[0]), [4], "offset {offset}, limit {limit}");
            let ask = Ask { partition_max_bytes: limit, ..Ask::at(offset) };
            assert_eq!(offsets(&fetch(&test, 12, &ask).await[0]), [4], "offset {offset}, limit {limit}");
        }
    }
}

#[tokio::test]
async fn an_answer_holds_no_more_of_what_is_stored_than_one_reader_may() {
    let test = TestBroker::new(NO_TAIL, 4).await;
    test.rig.store.is_remote.store(true, Ordering::Relaxed);
    let large = BatchSpec::records(1000);
    for _ in 0..8 {
        (0..4).for_each(|partition| drop(test.rig.append(test.id(partition), &large)));
        test.rig.flush();
    }
    let most = test.rig.partitions.reader().chunks(Lane::Near).most_at_once();
    let batch = large.build().len();
    assert!(batch < most / 4 && 8 * batch > most / 2, "{batch} of {most}");
    let mut ask = Ask { partitions: (0..4).map(|partition| (partition, 0, -1)).collect(), ..Ask::default() };
    let mut seen = [0; 4];
    for _ in 0..100 {
        let answers = fetch(&test, 12, &ask).await;
        let bytes: usize = answers.iter().map(|answer| answer.records.as_ref().unwrap().len()).sum();
        assert!(bytes <= most, "{bytes} of {most}");
        if bytes == 0 {
            break;
        }
        for (answer, (partition, offset, _)) in answers.iter().zip(&mut ask.partitions) {
            let offsets = offsets(answer);
            let expected: Vec<i64> = (0..offsets.len() as i64).map(|n| *offset + 1000 * n).collect();
            assert_eq!(offsets, expected, "nothing is skipped");
            *offset += 1000 * offsets.len() as i64;
            seen[*partition as usize] += offsets.len();
        }
    }
    assert_eq!(seen, [8; 4]);
}

#[tokio::test]
async fn limits_are_kept_but_for_the_first_batch() {
    for tail_bytes in [TAIL, NO_TAIL] {
        let test = filled(tail_bytes, 3).await;
        let one = batch_bytes();
        // Limit of the request, of a partition, batches returned in all.
        let table = [
            (0, 1 << 20, 1),
            (1 << 20, 0, 1),
            (1, 1, 1),
            (one, 1 << 20, 1),
            (2 * one, 1 << 20, 2),
            (3 * one - 1, 1 << 20, 2),
            (1 << 20, one, 3),
            (1 << 20, 2 * one, 6),
            (1 << 20, 3 * one, 9),
            (7 * one, 2 * one, 6),
            (5 * one, 2 * one, 5),
            (1 << 20, 1 << 20, 12),
            (i32::MAX, i32::MAX, 12),
        ];
        for (max_bytes, partition_max_bytes, batches) in table {
            let partitions = (0..3).map(|partition| (partition, 0, -1)).collect();
            let ask = Ask { max_bytes, partition_max_bytes, partitions, ..Ask::default() };
            let answers = fetch(&test, 12, &ask).await;
            let found: usize = answers.iter().map(|answer| offsets(answer).len()).sum();
            assert_eq!(found, batches, "{max_bytes} {partition_max_bytes} {tail_bytes}");
            for answer in &answers {
                assert!([0, 2, 4, 6].starts_with(&offsets(answer)), "contiguous from the offset on");
            }
        }
    }
}

#[tokio::test]
async fn no_partition_starves() {
    let test = filled(TAIL, 4).await;
    let mut served = [0; 4];
    for _ in 0..200 {
        let partitions = (0..4).map(|partition| (partition, 0, -1)).collect();
        let answers = fetch(&test, 12, &Ask { max_bytes: 1, partitions, ..Ask::default() }).await;
        for answer in answers {
            served[answer.partition_index as usize] += offsets(&answer).len();
        }
    }
    assert!(served.iter().all(|served| *served > 20), "{served:?}");
}

#[tokio::test]
async fn errors_concern_their_partition_only() {
    let test = filled(TAIL, 1).await;
    let partitions = vec![(0, 9, -1), (0, -1, -1), (0, 0, 3), (0, 0, 5), (7, 0, -1), (0, 0, 4)];
    let ask = Ask { max_wait_ms: 100_000, min_bytes: i32::MAX, partitions, ..Ask::default() };
    let answers = fetch(&test, 12, &ask).await;
    let codes: Vec<_> = answers.iter().map(|answer| answer.error_code).collect();
    let expected = [
        ResponseError::OffsetOutOfRange.code(),
        ResponseError::OffsetOutOfRange.code(),
        ResponseError::FencedLeaderEpoch.code(),
        ResponseError::UnknownLeaderEpoch.code(),
        ResponseError::UnknownTopicOrPartition.code(),
        0,
    ];
    assert_eq!(codes, expected);
    assert!(answers[..5].iter().all(|answer| answer.records.as_ref().is_some_and(|records| records.is_empty())));
    assert_eq!(offsets(&answers[5]), [0, 2, 4, 6]);
}

#[tokio::test]
async fn unknown_topics_have_the_code_of_their_version() {
    let test = filled(TAIL, 1).await;
    let unknown = Topic { name: "nobody".to_owned(), id: Uuid::from_u128(77), ..(*test.topic).clone() };
    for (version, expected) in [(4, ResponseError::UnknownTopicOrPartition), (13, ResponseError::UnknownTopicId)] {
        let response: FetchResponse = test.call(handle, version, &Ask::default().request(version, &unknown)).await;
        assert_eq!(response.responses[0].partitions[0].error_code, expected.code());
        if version == 4 {
            assert_eq!(response.responses[0].topic, name("nobody"));
        }
    }
}

#[tokio::test]
async fn sessions_are_declined() {
    let test = filled(TAIL, 1).await;
    for (id, epoch, expected) in [
        (0, -1, None),
        (0, 0, None),
        (0, 1, Some(ResponseError::InvalidFetchSessionEpoch)),
        (5, 1, Some(ResponseError::FetchSessionIdNotFound)),
        (5, -1, None),
    ] {
        let request = Ask::default().request(11, &test.topic).with_session_id(id).with_session_epoch(epoch);
        let response: FetchResponse = test.call(handle, 11, &request).await;
        assert_eq!(response.error_code, expected.map_or(0, |error| error.code()), "{id} {epoch}");
        assert_eq!(response.session_id, 0);
        assert_eq!(response.responses.is_empty(), expected.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_data_and_no_longer_than_asked() {
    let test = filled(TAIL, 2).await;
    let partitions = vec![(0, 8, -1), (1, 8, -1)];
    let ask = Ask { max_wait_ms: 500, partitions, ..Ask::default() };
    let began = Instant::now();
    let answers = fetch(&test, 12, &ask).await;
    assert_eq!(began.elapsed(), Duration::from_millis(500));
    assert!(answers.iter().all(|answer| offsets(answer).is_empty() && answer.high_watermark == 8));

    let permit = test.broker.budget.take_anyway(1 << 20);
    let reply = test.begin(handle, 12, &ask.request(12, &test.topic), permit).unwrap();
    assert_eq!(test.broker.budget.used_bytes(), 0, "a waiting fetch holds nothing of its request");
    let mut answer = Box::pin(finish::<FetchResponse>(reply, 12));
    assert!(answer.as_mut().now_or_never().is_none());
    test.rig.append(test.id(1), &BatchSpec::records(1));
    assert!(answer.as_mut().now_or_never().is_none(), "what is not durable is not there");
    test.rig.flush();
    let response = answer.now_or_never().expect("woken by the data");
    assert_eq!(offsets(&response.responses[0].partitions[1]), [8]);
}

#[tokio::test(start_paused = true)]
async fn min_bytes_are_waited_for() {
    let test = TestBroker::new(TAIL, 1).await;
    let ask = Ask { max_wait_ms: 60_000, min_bytes: 2 * batch_bytes(), ..Ask::default() };
    let permit = test.broker.budget.take_anyway(1);
    let reply = test.begin(handle, 12, &ask.request(12, &test.topic), permit).unwrap();
    let mut answer = Box::pin(finish::<FetchResponse>(reply, 12));
    for expected in [false, true] {
        assert!(answer.as_mut().now_or_never().is_none());
        test.rig.append(test.id(0), &BatchSpec::records(2));
        test.rig.flush();
        if expected {
            let response = answer.as_mut().now_or_never().expect("enough");
            assert_eq!(offsets(&response.responses[0].partitions[0]), [0, 2]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_leadership_ends_the_wait() {
    for (version, deleted, expected) in
        [(12, false, ResponseError::NotLeaderOrFollower), (13, true, ResponseError::UnknownTopicId)]
    {
        let test = TestBroker::new(TAIL, 1).await;
        let ask = Ask { max_wait_ms: 60_000, ..Ask::default() };
        let permit = test.broker.budget.take_anyway(1);
        let reply = test.begin(handle, version, &ask.request(version, &test.topic), permit).unwrap();
        let mut answer = Box::pin(finish::<FetchResponse>(reply, version));
        assert!(answer.as_mut().now_or_never().is_none());
        match deleted {
            true => test.broker.partitions.close_topic(test.topic.id, 1),
            false => test.broker.partitions.resign("test"),
        }
        let response = answer.now_or_never().expect("woken");
        assert_eq!(response.responses[0].partitions[0].error_code, expected.code());
    }
}

#[tokio::test]
async fn a_broker_that_lost_its_log_serves_nothing() {
    let test = filled(TAIL, 1).await;
    test.rig.ownership.declare_lost(Loss::Fenced("somebody else has it".to_owned()));
    let answers = fetch(&test, 12, &Ask::default()).await;
    assert_eq!(answers[0].error_code, ResponseError::NotLeaderOrFollower.code());
    assert!(offsets(&answers[0]).is_empty());
}

#[tokio::test]
async fn damage_concerns_its_partition_only() {
    let test = filled(NO_TAIL, 2).await;
    // The first partition lies in front in every fragment.
    test.rig.store.damage(100);
    let partitions = vec![(0, 0, -1), (1, 0, -1)];
    let answers = fetch(&test, 12, &Ask { partitions, ..Ask::default() }).await;
    assert_eq!(answers[0].error_code, ResponseError::KafkaStorageError.code());
    assert!(offsets(&answers[0]).is_empty());
    assert_eq!(offsets(&answers[1]), [0, 2, 4, 6]);
}

#[tokio::test]
async fn clients_that_cannot_know_zstd_are_told_so() {
    let test = filled(TAIL, 1).await;
    let edits = Edits::Replace(vec![("compression.type".to_owned(), Some("zstd".to_owned()))]);
    test.broker.topics.alter_topic(&test.topic, &edits, false).await.unwrap();
    for (version, code) in [(9, ResponseError::UnsupportedCompressionType.code()), (10, 0)] {
        assert_eq!(fetch(&test, version, &Ask::default()).await[0].error_code, code);
    }
}
