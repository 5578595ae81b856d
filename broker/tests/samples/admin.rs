//! Requests of admin clients, but for creating and deleting topics.

use broker::wire::shapes;
use kafka_protocol::messages as m;
use kafka_protocol::messages::BrokerId;

use super::{Sample, add, name, text};

pub fn add_all(out: &mut Vec<Sample>) {
    add(out, &shapes::DELETE_RECORDS, |_| vec![m::DeleteRecordsRequest::default(), delete_records()]);
    add(out, &shapes::DESCRIBE_CONFIGS, |version| {
        vec![m::DescribeConfigsRequest::default(), describe_configs(version)]
    });
    add(out, &shapes::ALTER_CONFIGS, |_| vec![m::AlterConfigsRequest::default(), alter_configs()]);
    add(out, &shapes::CREATE_PARTITIONS, |_| vec![m::CreatePartitionsRequest::default(), create_partitions()]);
    add(out, &shapes::INCREMENTAL_ALTER_CONFIGS, |_| {
        vec![m::IncrementalAlterConfigsRequest::default(), incremental_alter_configs()]
    });
    add(out, &shapes::DESCRIBE_CLUSTER, |version| {
        vec![m::DescribeClusterRequest::default(), describe_cluster(version)]
    });
    add(out, &shapes::DESCRIBE_TOPIC_PARTITIONS, |_| describe_topic_partitions());
}

fn delete_records() -> m::DeleteRecordsRequest {
    use m::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let partition = |index, offset| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(name("topic"))
        .with_partitions(vec![partition(0, 17), partition(1, -1)]);
    m::DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000)
}

fn describe_configs(version: i16) -> m::DescribeConfigsRequest {
    use m::describe_configs_request::DescribeConfigsResource;
    let resource =
        |kind, name| DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
    let topic = resource(2, "topic").with_configuration_keys(Some(vec![text("retention.ms"), text("segment.ms")]));
    let broker = resource(4, "0").with_configuration_keys(None);
    let mut request =
        m::DescribeConfigsRequest::default().with_resources(vec![topic, broker]).with_include_synonyms(true);
    if version >= 3 {
        request.include_documentation = true;
    }
    request
}

fn alter_configs() -> m::AlterConfigsRequest {
    use m::alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |key, value: Option<&str>| AlterableConfig::default().with_name(text(key)).with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configs(vec![config("retention.ms", Some("1000")), config("flush.ms", None)]);
    m::AlterConfigsRequest::default().with_resources(vec![resource.clone(), resource]).with_validate_only(true)
}

fn create_partitions() -> m::CreatePartitionsRequest {
    use m::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
    let assignment = |ids: &[i32]| {
        CreatePartitionsAssignment::default().with_broker_ids(ids.iter().map(|id| BrokerId(*id)).collect())
    };
    let topic = CreatePartitionsTopic::default().with_name(name("topic")).with_count(5);
    let assigned = topic.clone().with_assignments(Some(vec![assignment(&[0, 1]), assignment(&[])]));
    m::CreatePartitionsRequest::default()
        .with_topics(vec![assigned, topic.with_assignments(None)])
        .with_timeout_ms(1000)
        .with_validate_only(true)
}

fn incremental_alter_configs() -> m::IncrementalAlterConfigsRequest {
    use m::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = |key, operation, value: Option<&str>| {
        AlterableConfig::default().with_name(text(key)).with_config_operation(operation).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(text("0"))
        .with_configs(vec![config("log.retention.ms", 0, Some("1000")), config("log.cleanup.policy", 1, None)]);
    m::IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true)
}

fn describe_cluster(version: i16) -> m::DescribeClusterRequest {
    let mut request = m::DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    if version >= 1 {
        request.endpoint_type = 2;
    }
    if version >= 2 {
        request.include_fenced_brokers = true;
    }
    request
}

fn describe_topic_partitions() -> Vec<m::DescribeTopicPartitionsRequest> {
    use m::describe_topic_partitions_request::{Cursor, TopicRequest};
    let topics = vec![TopicRequest::default().with_name(name("one")), TopicRequest::default().with_name(name("two"))];
    let request = m::DescribeTopicPartitionsRequest::default().with_topics(topics).with_response_partition_limit(2000);
    let cursor = Cursor::default().with_topic_name(name("two")).with_partition_index(7);
    vec![
        m::DescribeTopicPartitionsRequest::default().with_cursor(None),
        request.clone().with_cursor(None),
        request.with_cursor(Some(cursor)),
    ]
}
