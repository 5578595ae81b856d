//! The special timestamps in every version, and times exact to the record.

use kafka_protocol::messages::list_offsets_request::ListOffsetsTopic;

use super::*;
use crate::api::testing::{TestBroker, name};
use crate::api::typed;
use crate::batch::testing::BatchSpec;
use crate::ownership::Loss;
use crate::request::{CloseConnection, Reply, RequestBody};

const TAIL: usize = 64 << 20;
const NO_TAIL: usize = 0;

fn handler(broker: &Arc<Broker>, context: RequestContext, body: RequestBody) -> Result<Reply, CloseConnection> {
    typed(broker, context, body, handle)
}

async fn ask(test: &TestBroker, version: i16, timestamp: i64, epoch: i32) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let partition = if version >= 4 { partition.with_current_leader_epoch(epoch) } else { partition };
    let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let mut response: ListOffsetsResponse = test.call(handler, version, &request).await;
    response.topics.remove(0).partitions.remove(0)
}

async fn offset(test: &TestBroker, timestamp: i64) -> (i64, i64) {
    let answer = ask(test, 7, timestamp, -1).await;
    assert_eq!(answer.error_code, 0);
    (answer.offset, answer.timestamp)
}

fn spec(base_timestamp: i64, timestamp_deltas: &[i64]) -> BatchSpec {
    BatchSpec { base_timestamp, timestamp_deltas: timestamp_deltas.to_vec(), ..BatchSpec::default() }
}

/// Offsets 0..3 at 1000, 1005, 1003; 3..5 at 2000, 2010; then, in another fragment, 5..7 at 1500, 3000; one pending.
async fn filled(tail_bytes: usize) -> TestBroker {
    let test = TestBroker::new(tail_bytes, 1).await;
    test.rig.append(test.id(0), &spec(1_000, &[0, 5, 3]));
    test.rig.append(test.id(0), &spec(2_000, &[0, 10]));
    test.rig.flush();
    test.rig.append(test.id(0), &spec(1_500, &[0, 1_500]));
    test.rig.flush();
    test.rig.append(test.id(0), &spec(9_000, &[0]));
    test
}

#[tokio::test]
async fn every_version_knows_both_ends() {
    let test = filled(TAIL).await;
    for version in 1..=10 {
        for (timestamp, expected) in [(LATEST, 7), (EARLIEST, 0)] {
            let answer = ask(&test, version, timestamp, -1).await;
            assert_eq!((answer.error_code, answer.offset, answer.timestamp), (0, expected, -1), "version {version}");
            assert_eq!(answer.leader_epoch, if version >= 4 { 4 } else { -1 });
        }
    }
}

#[tokio::test]
async fn times_are_exact_to_the_record() {
    for tail_bytes in [TAIL, NO_TAIL] {
        let test = filled(tail_bytes).await;
        for (timestamp, expected) in [
            (0, (0, 1_000)),
            (1_000, (0, 1_000)),
            (1_001, (1, 1_005)),
            (1_006, (3, 2_000)),
            (2_001, (4, 2_010)),
            (2_011, (6, 3_000)),
            (3_000, (6, 3_000)),
            (3_001, (-1, -1)),
            (9_000, (-1, -1)),
        ] {
            assert_eq!(offset(&test, timestamp).await, expected, "{timestamp}");
        }
        assert_eq!(offset(&test, MAX_TIMESTAMP).await, (6, 3_000));
    }
}

#[tokio::test]
async fn deleted_records_have_no_times() {
    for tail_bytes in [TAIL, NO_TAIL] {
        let test = TestBroker::new(tail_bytes, 1).await;
        // Offsets 0..4 at 1000, 9000, 1500, 1200; 4..6 at 2000, 2500; then, in another fragment, 6 at 2200.
        test.rig.append(test.id(0), &spec(1_000, &[0, 8_000, 500, 200]));
        test.rig.append(test.id(0), &spec(2_000, &[0, 500]));
        test.rig.flush();
        test.rig.append(test.id(0), &spec(2_200, &[0]));
        test.rig.flush();
        let partition = test.broker.partitions.get(test.id(0)).unwrap();
        for (start, first_from_1100, max) in [
            (0, (1, 9_000), (1, 9_000)),
            (1, (1, 9_000), (1, 9_000)),
            (2, (2, 1_500), (5, 2_500)),
            (3, (3, 1_200), (5, 2_500)),
            (4, (4, 2_000), (5, 2_500)),
            (6, (6, 2_200), (6, 2_200)),
            (7, (-1, -1), (-1, -1)),
        ] {
            partition.raise_log_start(start);
            assert_eq!(offset(&test, 1_100).await, first_from_1100, "from {start}");
            assert_eq!(offset(&test, MAX_TIMESTAMP).await, max, "from {start}");
        }
    }
}

#[tokio::test]
async fn special_timestamps_came_with_their_versions() {
    let test = filled(TAIL).await;
    let unsupported = ResponseError::UnsupportedVersion.code();
    for (timestamp, version, expected) in [
        (MAX_TIMESTAMP, 6, (unsupported, -1)),
        (MAX_TIMESTAMP, 7, (0, 6)),
        (EARLIEST_LOCAL, 7, (unsupported, -1)),
        (EARLIEST_LOCAL, 8, (0, 0)),
        (LATEST_TIERED, 8, (unsupported, -1)),
        (LATEST_TIERED, 9, (0, -1)),
        (-6, 10, (unsupported, -1)),
    ] {
        let answer = ask(&test, version, timestamp, -1).await;
        assert_eq!((answer.error_code, answer.offset), expected, "{timestamp} {version}");
    }
}

#[tokio::test]
async fn an_empty_partition_has_no_times() {
    let test = TestBroker::new(TAIL, 1).await;
    for (timestamp, expected) in [(LATEST, 0), (EARLIEST, 0), (MAX_TIMESTAMP, -1), (5, -1)] {
        assert_eq!(offset(&test, timestamp).await, (expected, -1));
    }
}

#[tokio::test]
async fn a_batch_that_claims_too_much_is_passed_over() {
    let test = TestBroker::new(TAIL, 1).await;
    test.rig.append(test.id(0), &BatchSpec { max_timestamp: Some(5_000), ..spec(1_000, &[0]) });
    test.rig.append(test.id(0), &spec(2_000, &[0]));
    test.rig.flush();
    test.rig.append(test.id(0), &spec(3_000, &[0]));
    test.rig.flush();
    assert_eq!(offset(&test, 1_500).await, (1, 2_000));
    assert_eq!(offset(&test, 2_500).await, (2, 3_000));
    assert_eq!(offset(&test, 3_500).await, (-1, -1));
}

#[tokio::test]
async fn producers_that_leave_the_maximum_unset_are_found_by_time() {
    let test = TestBroker::new(TAIL, 1).await;
    test.rig.append(test.id(0), &BatchSpec { max_timestamp: Some(-1), ..spec(1_000, &[0, 50]) });
    test.rig.flush();
    assert_eq!(offset(&test, 1_001).await, (1, 1_050));
    assert_eq!(offset(&test, MAX_TIMESTAMP).await, (1, 1_050));
}

#[tokio::test]
async fn leader_epochs_and_ownership_are_checked() {
    let test = filled(TAIL).await;
    assert_eq!(ask(&test, 7, LATEST, 3).await.error_code, ResponseError::FencedLeaderEpoch.code());
    assert_eq!(ask(&test, 7, LATEST, 5).await.error_code, ResponseError::UnknownLeaderEpoch.code());
    test.rig.ownership.declare_lost(Loss::Fenced("somebody else has it".to_owned()));
    let answer = ask(&test, 7, LATEST, -1).await;
    assert_eq!((answer.error_code, answer.offset), (ResponseError::NotLeaderOrFollower.code(), -1));
}

#[tokio::test]
async fn damaged_batches_are_an_error_of_their_partition() {
    let test = filled(NO_TAIL).await;
    test.rig.store.damage(80);
    assert_eq!(ask(&test, 7, 1_001, -1).await.error_code, ResponseError::KafkaStorageError.code());
}
