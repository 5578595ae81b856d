//! The errors in the responses of admin APIs.

use kafka_protocol::messages as m;

use super::Errors;

impl Errors for m::DeleteRecordsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| see(partition.error_code));
    }
}

impl Errors for m::DescribeConfigsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.results.iter().for_each(|result| see(result.error_code));
    }
}

impl Errors for m::AlterConfigsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.responses.iter().for_each(|response| see(response.error_code));
    }
}

impl Errors for m::IncrementalAlterConfigsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.responses.iter().for_each(|response| see(response.error_code));
    }
}

impl Errors for m::CreatePartitionsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        self.results.iter().for_each(|result| see(result.error_code));
    }
}

impl Errors for m::DescribeClusterResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        see(self.error_code);
    }
}

impl Errors for m::DescribeTopicPartitionsResponse {
    fn each_code(&self, see: &mut dyn FnMut(i16)) {
        for topic in &self.topics {
            see(topic.error_code);
            topic.partitions.iter().for_each(|partition| see(partition.error_code));
        }
    }
}
