//! ListOffsets: what the leader says about the ends of its partitions.

use kafka_protocol::messages::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use tokio::time::Instant;

use super::session::{Clients, PATIENCE, Session, topic_name};
use crate::checker::Partition;

pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

/// None if there was no answer, or an error.
pub async fn list_offset(clients: &Clients, session: &Session, partition: &Partition, timestamp: i64) -> Option<i64> {
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition.index)
        .with_current_leader_epoch(session.epoch)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic_name(&partition.topic)).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let asked_at = Instant::now();
    let response = session.connection.call(7, &request, PATIENCE).await.ok()?;
    let answer = response.topics.first().and_then(|topic| topic.partitions.first())?;
    if answer.error_code != 0 {
        clients.trace.note(format_args!("offsets of {partition}: error {}", answer.error_code));
        return None;
    }
    clients.model.answered(partition, session.epoch, asked_at);
    Some(answer.offset)
}

/// The end must cover everything that was acknowledged before it was asked for. False if there was no answer.
pub async fn check_end(clients: &Clients, session: &Session, partition: &Partition) -> bool {
    let before = clients.model.highest_ack(partition);
    let Some(end) = list_offset(clients, session, partition, LATEST).await else { return false };
    clients.model.log_end(partition, end, session.epoch, before);
    true
}
