//! Counts the errors that a response tells its client, wherever in the response they stand.

mod admin;

use kafka_protocol::ResponseError;
use kafka_protocol::messages as m;

use crate::metrics::Metrics;

/// A response that carries error codes.
pub trait Errors {
    /// Shows every code in it; 0 is none.
    fn each_code(&self, see: &mut dyn FnMut(i16));
}

/// Counts the errors in a response of this API.
pub fn count(metrics: &Metrics, api_key: i16, response: &impl Errors) {
    response.each_code(&mut |code| {
        if code != 0 {
            match ResponseError::try_from_code(code) {
                Some(ResponseError::Unknown(_)) | None => metrics.error(api_key, "unknown"),
                Some(error) => metrics.error(api_key, &format!("{error:?}")),
            }
        }
    });
}

impl Errors for m::ProduceResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        let partitions = self.responses.iter().flat_map(|topic| &topic.partition_responses);
        partitions.for_each(|partition| see(partition.error_code));
    }
}

impl Errors for m::ListOffsetsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| see(partition.error_code));
    }
}

impl Errors for m::MetadataResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
        for topic in &self.topics {
            see(topic.error_code);
            topic.partitions.iter().for_each(|partition| see(partition.error_code));
        }
    }
}

impl Errors for m::CreateTopicsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.topics.iter().for_each(|topic| see(topic.error_code));
    }
}

impl Errors for m::DeleteTopicsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.responses.iter().for_each(|topic| see(topic.error_code));
    }
}

impl Errors for m::InitProducerIdResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
    }
}

impl Errors for m::OffsetForLeaderEpochResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| see(partition.error_code));
    }
}

impl Errors for m::FindCoordinatorResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
        self.coordinators.iter().for_each(|coordinator| see(coordinator.error_code));
    }
}

impl Errors for m::JoinGroupResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
    }
}

impl Errors for m::SyncGroupResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
    }
}

impl Errors for m::HeartbeatResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
    }
}

impl Errors for m::LeaveGroupResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
        self.members.iter().for_each(|member| see(member.error_code));
    }
}

impl Errors for m::OffsetCommitResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| see(partition.error_code));
    }
}

impl Errors for m::OffsetFetchResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| see(partition.error_code));
        self.groups.iter().for_each(|group| see(group.error_code));
    }
}

impl Errors for m::OffsetDeleteResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| see(partition.error_code));
    }
}

impl Errors for m::ListGroupsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
    }
}

impl Errors for m::DescribeGroupsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.groups.iter().for_each(|group| see(group.error_code));
    }
}

impl Errors for m::DeleteGroupsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.results.iter().for_each(|group| see(group.error_code));
    }
}

#[cfg(test)]
mod tests;
