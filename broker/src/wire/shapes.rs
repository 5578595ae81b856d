//! The shapes of all requests that this broker answers, as Apache Kafka's message definitions lay them out.
//!
//! Only what the decoder of `kafka-protocol` can decode is described: its version ranges are the ceilings.

mod admin;
mod groups;

use std::mem::size_of;

use kafka_protocol::messages as m;

use crate::wire::shape::{Kind, RequestShape, Struct, Tagged, field};

pub use self::admin::{
    ALTER_CONFIGS, CREATE_PARTITIONS, DELETE_RECORDS, DESCRIBE_CLUSTER, DESCRIBE_CONFIGS, DESCRIBE_TOPIC_PARTITIONS,
    INCREMENTAL_ALTER_CONFIGS,
};
pub use self::groups::*;

const INT8: Kind = Kind::Fixed(1);
const BOOLEAN: Kind = Kind::Fixed(1);
const INT16: Kind = Kind::Fixed(2);
const INT32: Kind = Kind::Fixed(4);
const INT64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);

pub static PRODUCE: RequestShape = RequestShape {
    api_key: 0,
    name: "Produce",
    flexible_from: 9,
    body: Struct {
        fields: &[
            field("transactional_id", Kind::NullableString),
            field("acks", INT16),
            field("timeout_ms", INT32),
            field("topic_data", Kind::Structs(&PRODUCE_TOPIC)),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::ProduceRequest>(),
    },
};

static PRODUCE_TOPIC: Struct = Struct {
    fields: &[
        field("topic_data.name", Kind::String).until(12),
        field("topic_data.topic_id", UUID).since(13),
        field("topic_data.partition_data", Kind::Structs(&PRODUCE_PARTITION)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::produce_request::TopicProduceData>(),
};

static PRODUCE_PARTITION: Struct = Struct {
    fields: &[field("partition_data.index", INT32), field("partition_data.records", Kind::NullableBytes)],
    tagged: &[],
    decoded_bytes: size_of::<m::produce_request::PartitionProduceData>(),
};

pub static FETCH: RequestShape = RequestShape {
    api_key: 1,
    name: "Fetch",
    flexible_from: 12,
    body: Struct {
        fields: &[
            field("replica_id", INT32).until(14),
            field("max_wait_ms", INT32),
            field("min_bytes", INT32),
            field("max_bytes", INT32),
            field("isolation_level", INT8),
            field("session_id", INT32).since(7),
            field("session_epoch", INT32).since(7),
            field("topics", Kind::Structs(&FETCH_TOPIC)),
            field("forgotten_topics_data", Kind::Structs(&FETCH_FORGOTTEN_TOPIC)).since(7),
            field("rack_id", Kind::String).since(11),
        ],
        tagged: &[
            Tagged { tag: 0, since: 12, kind: Kind::NullableString }, // cluster_id
            Tagged { tag: 1, since: 15, kind: Kind::Struct(&FETCH_REPLICA_STATE) },
        ],
        decoded_bytes: size_of::<m::FetchRequest>(),
    },
};

static FETCH_REPLICA_STATE: Struct = Struct {
    fields: &[field("replica_state.replica_id", INT32), field("replica_state.replica_epoch", INT64)],
    tagged: &[],
    decoded_bytes: size_of::<m::fetch_request::ReplicaState>(),
};

static FETCH_TOPIC: Struct = Struct {
    fields: &[
        field("topics.topic", Kind::String).until(12),
        field("topics.topic_id", UUID).since(13),
        field("topics.partitions", Kind::Structs(&FETCH_PARTITION)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::fetch_request::FetchTopic>(),
};

static FETCH_PARTITION: Struct = Struct {
    fields: &[
        field("partitions.partition", INT32),
        field("partitions.current_leader_epoch", INT32).since(9),
        field("partitions.fetch_offset", INT64),
        field("partitions.last_fetched_epoch", INT32).since(12),
        field("partitions.log_start_offset", INT64).since(5),
        field("partitions.partition_max_bytes", INT32),
    ],
    tagged: &[
        Tagged { tag: 0, since: 17, kind: UUID },  // replica_directory_id
        Tagged { tag: 1, since: 18, kind: INT64 }, // high_watermark
    ],
    decoded_bytes: size_of::<m::fetch_request::FetchPartition>(),
};

static FETCH_FORGOTTEN_TOPIC: Struct = Struct {
    fields: &[
        field("forgotten_topics_data.topic", Kind::String).until(12),
        field("forgotten_topics_data.topic_id", UUID).since(13),
        field("forgotten_topics_data.partitions", Kind::FixedArray(4)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::fetch_request::ForgottenTopic>(),
};

pub static LIST_OFFSETS: RequestShape = RequestShape {
    api_key: 2,
    name: "ListOffsets",
    flexible_from: 6,
    body: Struct {
        fields: &[
            field("replica_id", INT32),
            field("isolation_level", INT8).since(2),
            field("topics", Kind::Structs(&LIST_OFFSETS_TOPIC)),
            field("timeout_ms", INT32).since(10),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::ListOffsetsRequest>(),
    },
};

static LIST_OFFSETS_TOPIC: Struct = Struct {
    fields: &[field("topics.name", Kind::String), field("topics.partitions", Kind::Structs(&LIST_OFFSETS_PARTITION))],
    tagged: &[],
    decoded_bytes: size_of::<m::list_offsets_request::ListOffsetsTopic>(),
};

static LIST_OFFSETS_PARTITION: Struct = Struct {
    fields: &[
        field("partitions.partition_index", INT32),
        field("partitions.current_leader_epoch", INT32).since(4),
        field("partitions.timestamp", INT64),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::list_offsets_request::ListOffsetsPartition>(),
};

pub static METADATA: RequestShape = RequestShape {
    api_key: 3,
    name: "Metadata",
    flexible_from: 9,
    body: Struct {
        fields: &[
            field("topics", Kind::Structs(&METADATA_TOPIC)).until(0),
            field("topics", Kind::NullableStructs(&METADATA_TOPIC)).since(1),
            field("allow_auto_topic_creation", BOOLEAN).since(4),
            field("include_cluster_authorized_operations", BOOLEAN).since(8).until(10),
            field("include_topic_authorized_operations", BOOLEAN).since(8),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::MetadataRequest>(),
    },
};

static METADATA_TOPIC: Struct = Struct {
    fields: &[
        field("topics.topic_id", UUID).since(10),
        field("topics.name", Kind::String).until(9),
        field("topics.name", Kind::NullableString).since(10),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::metadata_request::MetadataRequestTopic>(),
};

pub static API_VERSIONS: RequestShape = RequestShape {
    api_key: 18,
    name: "ApiVersions",
    flexible_from: 3,
    body: Struct {
        fields: &[
            field("client_software_name", Kind::String).since(3),
            field("client_software_version", Kind::String).since(3),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::ApiVersionsRequest>(),
    },
};

pub static CREATE_TOPICS: RequestShape = RequestShape {
    api_key: 19,
    name: "CreateTopics",
    flexible_from: 5,
    body: Struct {
        fields: &[
            field("topics", Kind::Structs(&CREATE_TOPIC)),
            field("timeout_ms", INT32),
            field("validate_only", BOOLEAN),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::CreateTopicsRequest>(),
    },
};

static CREATE_TOPIC: Struct = Struct {
    fields: &[
        field("topics.name", Kind::String),
        field("topics.num_partitions", INT32),
        field("topics.replication_factor", INT16),
        field("topics.assignments", Kind::Structs(&CREATE_TOPIC_ASSIGNMENT)),
        field("topics.configs", Kind::Structs(&CREATE_TOPIC_CONFIG)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::create_topics_request::CreatableTopic>(),
};

static CREATE_TOPIC_ASSIGNMENT: Struct = Struct {
    fields: &[field("assignments.partition_index", INT32), field("assignments.broker_ids", Kind::FixedArray(4))],
    tagged: &[],
    decoded_bytes: size_of::<m::create_topics_request::CreatableReplicaAssignment>(),
};

static CREATE_TOPIC_CONFIG: Struct = Struct {
    fields: &[field("configs.name", Kind::String), field("configs.value", Kind::NullableString)],
    tagged: &[],
    decoded_bytes: size_of::<m::create_topics_request::CreatableTopicConfig>(),
};

pub static DELETE_TOPICS: RequestShape = RequestShape {
    api_key: 20,
    name: "DeleteTopics",
    flexible_from: 4,
    body: Struct {
        fields: &[
            field("topics", Kind::Structs(&DELETE_TOPIC)).since(6),
            field("topic_names", Kind::Strings).until(5),
            field("timeout_ms", INT32),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::DeleteTopicsRequest>(),
    },
};

static DELETE_TOPIC: Struct = Struct {
    fields: &[field("topics.name", Kind::NullableString), field("topics.topic_id", UUID)],
    tagged: &[],
    decoded_bytes: size_of::<m::delete_topics_request::DeleteTopicState>(),
};

pub static INIT_PRODUCER_ID: RequestShape = RequestShape {
    api_key: 22,
    name: "InitProducerId",
    flexible_from: 2,
    body: Struct {
        fields: &[
            field("transactional_id", Kind::NullableString),
            field("transaction_timeout_ms", INT32),
            field("producer_id", INT64).since(3),
            field("producer_epoch", INT16).since(3),
        ],
        tagged: &[],
        decoded_bytes: size_of::<m::InitProducerIdRequest>(),
    },
};

pub static OFFSET_FOR_LEADER_EPOCH: RequestShape = RequestShape {
    api_key: 23,
    name: "OffsetForLeaderEpoch",
    flexible_from: 4,
    body: Struct {
        fields: &[field("replica_id", INT32).since(3), field("topics", Kind::Structs(&OFFSET_FOR_LEADER_EPOCH_TOPIC))],
        tagged: &[],
        decoded_bytes: size_of::<m::OffsetForLeaderEpochRequest>(),
    },
};

static OFFSET_FOR_LEADER_EPOCH_TOPIC: Struct = Struct {
    fields: &[
        field("topics.topic", Kind::String),
        field("topics.partitions", Kind::Structs(&OFFSET_FOR_LEADER_EPOCH_PARTITION)),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_for_leader_epoch_request::OffsetForLeaderTopic>(),
};

static OFFSET_FOR_LEADER_EPOCH_PARTITION: Struct = Struct {
    fields: &[
        field("partitions.partition", INT32),
        field("partitions.current_leader_epoch", INT32),
        field("partitions.leader_epoch", INT32),
    ],
    tagged: &[],
    decoded_bytes: size_of::<m::offset_for_leader_epoch_request::OffsetForLeaderPartition>(),
};

/// All shapes, in the order of their API keys.
pub static ALL: [&RequestShape; 27] = [
    &PRODUCE,
    &FETCH,
    &LIST_OFFSETS,
    &METADATA,
    &OFFSET_COMMIT,
    &OFFSET_FETCH,
    &FIND_COORDINATOR,
    &JOIN_GROUP,
    &HEARTBEAT,
    &LEAVE_GROUP,
    &SYNC_GROUP,
    &DESCRIBE_GROUPS,
    &LIST_GROUPS,
    &API_VERSIONS,
    &CREATE_TOPICS,
    &DELETE_TOPICS,
    &DELETE_RECORDS,
    &INIT_PRODUCER_ID,
    &OFFSET_FOR_LEADER_EPOCH,
    &DESCRIBE_CONFIGS,
    &ALTER_CONFIGS,
    &CREATE_PARTITIONS,
    &DELETE_GROUPS,
    &INCREMENTAL_ALTER_CONFIGS,
    &OFFSET_DELETE,
    &DESCRIBE_CLUSTER,
    &DESCRIBE_TOPIC_PARTITIONS,
];

/// The shape of an API's requests; `None` for an API that this broker does not know.
pub fn by_key(api_key: i16) -> Option<&'static RequestShape> {
    ALL.iter().find(|shape| shape.api_key == api_key).copied()
}
