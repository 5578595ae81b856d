//! The shapes of the requests of admin clients, but for creating and deleting topics.

use std::mem::size_of;

use kafka_protocol::messages as m;

use super::{BOOLEAN, INT8, INT32, INT64};
use crate::wire::shape::{Kind, RequestShape, Struct, field};

pub static DELETE_RECORDS: RequestShape = RequestShape {
    api_key: 21,
    name: "DeleteRecords",
    flexible_from: 2,
    body: Struct {
        fields: &[field("topics", Kind::Structs(&DELETE_RECORDS_TOPIC)), field("timeout_ms", INT32)],
        tagged: &[],
        decoded_bytes: size_of::<m::DeleteRecordsRequest>(),
    },
};

static DELETE_RECORDS_TOPIC: Struct = Struct {
    fields: &[field("topics.name", Kind::String), field("topics.partitions", Kind::Structs(&DELETE_RECORDS_PARTITION))],
    tagged: &[],
    decoded_bytes: size_of::<m::delete_records_request::DeleteRecordsTopic>(),
};

static DELETE_RECORDS_PARTITION: Struct = Struct {
    fields: &[field("partitions.partition_index", INT32), field("partitions.offset", INT64)],
    tagged: &[],
    decoded_bytes: size_of::<m::delete_records_request::DeleteRecordsPartition>(),
};

pub static DESCRIBE_CONFIGS: RequestShape = RequestShape {
    api_key: 32,
    name: "DescribeConfigs",
    flexible_from: 4,
    body: Struct {
        fields: &[
            field("resources", Kind::Structs(&DESCRIBE_CONFIGS_RESOURCE)),
            field("include_synonyms", BOOLEAN).since(1),
            field("include_documentation", BOOLEAN).since(3),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::DescribeConfigsRequest>(),
    },
};

static DESCRIBE_CONFIGS_RESOURCE: Struct = Struct {
    fields: &[
        field("resources.resource_type", INT8),
        field("resources.resource_name", Kind::String),
        field("resources.configuration_keys", Kind::NullableStrings),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::describe_configs_request::DescribeConfigsResource>(),
};

pub static ALTER_CONFIGS: RequestShape = RequestShape {
    api_key: 33,
    name: "AlterConfigs",
    flexible_from: 2,
    body: Struct {
        fields: &[field("resources", Kind::Structs(&ALTER_CONFIGS_RESOURCE)), field("validate_only", BOOLEAN)],
        tagged: &[],
        decoded_bytes: size_of::<m::AlterConfigsRequest>(),
    },
};

static ALTER_CONFIGS_RESOURCE: Struct = Struct {
    fields: &[
        field("resources.resource_type", INT8),
        field("resources.resource_name", Kind::String),
        field("resources.configs", Kind::Structs(&ALTER_CONFIGS_CONFIG)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::alter_configs_request::AlterConfigsResource>(),
};

static ALTER_CONFIGS_CONFIG: Struct = Struct {
    fields: &[field("configs.name", Kind::String), field("configs.value", Kind::NullableString)],
    tagged: &[],
    decoded_bytes: size_of::<m::alter_configs_request::AlterableConfig>(),
};

pub static CREATE_PARTITIONS: RequestShape = RequestShape {
    api_key: 37,
    name: "CreatePartitions",
    flexible_from: 2,
    body: Struct {
        fields: &[
            field("topics", Kind::Structs(&CREATE_PARTITIONS_TOPIC)),
            field("timeout_ms", INT32),
            field("validate_only", BOOLEAN),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::CreatePartitionsRequest>(),
    },
};

static CREATE_PARTITIONS_TOPIC: Struct = Struct {
    fields: &[
        field("topics.name", Kind::String),
        field("topics.count", INT32),
        field("topics.assignments", Kind::NullableStructs(&CREATE_PARTITIONS_ASSIGNMENT)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::create_partitions_request::CreatePartitionsTopic>(),
};

static CREATE_PARTITIONS_ASSIGNMENT: Struct = Struct {
    fields: &[field("assignments.broker_ids", Kind::FixedArray(4))],
    tagged: &[],
    decoded_bytes: size_of::<m::create_partitions_request::CreatePartitionsAssignment>(),
};

pub static INCREMENTAL_ALTER_CONFIGS: RequestShape = RequestShape {
    api_key: 44,
    name: "IncrementalAlterConfigs",
    flexible_from: 1,
    body: Struct {
        fields: &[
            field("resources", Kind::Structs(&INCREMENTAL_ALTER_CONFIGS_RESOURCE)),
            field("validate_only", BOOLEAN),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::IncrementalAlterConfigsRequest>(),
    },
};

static INCREMENTAL_ALTER_CONFIGS_RESOURCE: Struct = Struct {
    fields: &[
        field("resources.resource_type", INT8),
        field("resources.resource_name", Kind::String),
        field("resources.configs", Kind::Structs(&INCREMENTAL_ALTER_CONFIGS_CONFIG)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::incremental_alter_configs_request::AlterConfigsResource>(),
};

static INCREMENTAL_ALTER_CONFIGS_CONFIG: Struct = Struct {
    fields: &[
        field("configs.name", Kind::String),
        field("configs.config_operation", INT8),
        field("configs.value", Kind::NullableString),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::incremental_alter_configs_request::AlterableConfig>(),
};

pub static DESCRIBE_CLUSTER: RequestShape = RequestShape {
    api_key: 60,
    name: "DescribeCluster",
    flexible_from: 0,
    body: Struct {
        fields: &[
            field("include_cluster_authorized_operations", BOOLEAN),
            field("endpoint_type", INT8).since(1),
            field("include_fenced_brokers", BOOLEAN).since(2),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::DescribeClusterRequest>(),
    },
};

pub static DESCRIBE_TOPIC_PARTITIONS: RequestShape = RequestShape {
    api_key: 75,
    name: "DescribeTopicPartitions",
    flexible_from: 0,
    body: Struct {
        fields: &[
            field("topics", Kind::Structs(&DESCRIBE_TOPIC_PARTITIONS_TOPIC)),
            field("response_partition_limit", INT32),
            field("cursor", Kind::NullableStruct(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::DescribeTopicPartitionsRequest>(),
    },
};

static DESCRIBE_TOPIC_PARTITIONS_TOPIC: Struct = Struct {
    fields: &[field("topics.name", Kind::String)],
    tagged: &[],
    decoded_bytes: size_of::<m::describe_topic_partitions_request::TopicRequest>(),
};

static DESCRIBE_TOPIC_PARTITIONS_CURSOR: Struct = Struct {
    fields: &[field("cursor.topic_name", Kind::String), field("cursor.partition_index", INT32)],
    tagged: &[],
    decoded_bytes: size_of::<m::describe_topic_partitions_request::Cursor>(),
};
