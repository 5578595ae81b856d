//! In every version: the end of the current epoch, epochs that never were, and errors.

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic;

use super::*;
use crate::api::testing::{TestBroker, name};
use crate::api::typed;
use crate::batch::testing::BatchSpec;
use crate::ownership::Loss;
use crate::request::{CloseConnection, Reply, RequestBody};

fn handler(broker: &Arc<Broker>, context: RequestContext, body: RequestBody) -> Result<Reply, CloseConnection> {
    typed(broker, context, body, handle)
}

async fn ask(test: &TestBroker, version: i16, asked: OffsetForLeaderPartition) -> (i16, i32, i64) {
    let topic = OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![asked]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let response: OffsetForLeaderEpochResponse = test.call(handler, version, &request).await;
    let answer = &response.topics[0].partitions[0];
    (answer.error_code, answer.leader_epoch, answer.end_offset)
}

#[tokio::test]
async fn every_version_answers() {
    let test = TestBroker::new(1 << 20, 1).await;
    test.rig.append(test.id(0), &BatchSpec::records(3));
    test.rig.flush();
    test.rig.append(test.id(0), &BatchSpec::records(1));
    let asked = |partition, current, epoch| {
        OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch)
    };
    for version in 2..=4 {
        assert_eq!(ask(&test, version, asked(0, -1, 4)).await, (0, 4, 3), "what is pending does not count");
        assert_eq!(ask(&test, version, asked(0, 4, 5)).await, (0, -1, -1));
        let fenced = ResponseError::FencedLeaderEpoch.code();
        assert_eq!(ask(&test, version, asked(0, 3, 4)).await, (fenced, -1, -1));
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(ask(&test, version, asked(1, -1, 4)).await, (unknown, -1, -1));
    }
    test.rig.ownership.declare_lost(Loss::Fenced("somebody else has it".to_owned()));
    let lost = ResponseError::NotLeaderOrFollower.code();
    assert_eq!(ask(&test, 4, asked(0, -1, 4)).await, (lost, -1, -1));
}
