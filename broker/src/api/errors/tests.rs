//! Error codes are counted by API and name, wherever in a response they stand.

use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

use super::*;
use crate::api::fetch::encode::{FetchResponse, PartitionAnswer, TopicAnswer};

#[test]
fn errors_are_counted_by_name_wherever_they_stand() {
    let metrics = Metrics::new();
    let partition = |code| PartitionProduceResponse::default().with_error_code(code);
    let topic =
        TopicProduceResponse::default().with_partition_responses(vec![partition(0), partition(6), partition(6)]);
    count(&metrics, 0, &m::ProduceResponse::default().with_responses(vec![topic]));

    let partitions = vec![PartitionAnswer::failed(0, ResponseError::OffsetOutOfRange)];
    let topics = vec![TopicAnswer { name: "t".to_owned(), id: uuid::Uuid::nil(), partitions }];
    count(&metrics, 1, &FetchResponse { error: None, read_committed: false, topics });

    let partition = MetadataResponsePartition::default().with_error_code(5);
    let topic = MetadataResponseTopic::default().with_error_code(-32_000).with_partitions(vec![partition]);
    count(&metrics, 3, &m::MetadataResponse::default().with_topics(vec![topic]));

    let text = metrics.render().unwrap();
    for line in [
        "woodpecker_request_errors_total{api=\"Produce\",error=\"NotLeaderOrFollower\"} 2",
        "woodpecker_request_errors_total{api=\"Fetch\",error=\"OffsetOutOfRange\"} 1",
        "woodpecker_request_errors_total{api=\"Metadata\",error=\"LeaderNotAvailable\"} 1",
        "woodpecker_request_errors_total{api=\"Metadata\",error=\"unknown\"} 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
    }
}
