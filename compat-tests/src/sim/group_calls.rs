//! What members of a group ask its coordinator, in old and new versions.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Duration;

use super::connection::NoReply;
use super::dice::Dice;
use super::group_model::{CommitId, Shown};
use super::session::{PATIENCE, Session, topic_name};
use crate::checker::{Partition, partition};

const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "in-turn";

/// Kafka's error codes that members have to understand.
pub mod code {
    pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub const NOT_COORDINATOR: i16 = 16;
    pub const ILLEGAL_GENERATION: i16 = 22;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const REBALANCE_IN_PROGRESS: i16 = 27;
    pub const MEMBER_ID_REQUIRED: i16 = 79;
    pub const FENCED_INSTANCE_ID: i16 = 82;
}

/// Why there is no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Code(i16),
    NoReply(NoReply),
}

impl From<NoReply> for Refusal {
    fn from(why: NoReply) -> Self {
        Self::NoReply(why)
    }
}

/// Nothing to say if the code is 0.
fn check(code: i16) -> Result<(), Refusal> {
    if code == 0 { Ok(()) } else { Err(Refusal::Code(code)) }
}

/// A client's versions of the APIs of groups.
#[derive(Debug, Clone, Copy)]
pub struct Versions {
    find: i16,
    join: i16,
    sync: i16,
    heartbeat: i16,
    leave: i16,
    commit: i16,
    fetch: i16,
}

impl Versions {
    const ALL: [Self; 3] = [
        Self { find: 4, join: 9, sync: 5, heartbeat: 4, leave: 5, commit: 9, fetch: 8 },
        Self { find: 2, join: 5, sync: 3, heartbeat: 3, leave: 3, commit: 7, fetch: 5 },
        // Without static members, and without a round to learn one's id.
        Self { find: 0, join: 2, sync: 1, heartbeat: 1, leave: 1, commit: 3, fetch: 3 },
    ];

    pub fn draw(dice: &Dice, is_static: bool) -> Self {
        *dice.pick(if is_static { &Self::ALL[..2] } else { &Self::ALL })
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Identity {
    pub group: String,
    /// Empty: it has not got one.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    pub versions: Versions,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A consumer's subscription, version 0.
fn subscription(topics: &[String]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Coordinators hand assignments on as they are: these are names.
pub fn encode_assignment(partitions: &BTreeSet<Partition>) -> Bytes {
    let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    Bytes::from(names.join(","))
}

pub fn decode_assignment(bytes: &Bytes) -> Option<BTreeSet<Partition>> {
    let names = str::from_utf8(bytes).ok()?;
    let parse = |name: &str| {
        let (topic, index) = name.rsplit_once('-')?;
        Some(partition(topic, index.parse().ok()?))
    };
    names.split(',').filter(|name| !name.is_empty()).map(parse).collect()
}

impl Identity {
    fn group_id(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    fn instance(&self) -> Option<StrBytes> {
        self.instance_id.as_deref().map(text)
    }

    /// Who keeps its place in a generation, whatever its member id.
    pub fn holder(&self) -> &str {
        self.instance_id.as_deref().unwrap_or(&self.member_id)
    }

    /// Fine if the broker of this connection coordinates the group.
    pub async fn find_coordinator(&self, session: &Session) -> Result<(), Refusal> {
        let version = self.versions.find;
        let request = if version >= 4 {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text(&self.group)])
        } else {
            FindCoordinatorRequest::default().with_key(text(&self.group))
        };
        let response = session.connection.call(version, &request, PATIENCE * 2).await?;
        check(response.coordinators.first().map_or(response.error_code, |found| found.error_code))
    }

    pub async fn join(
        &self,
        session: &Session,
        topics: &[String],
        session_timeout_ms: i32,
        rebalance_timeout_ms: i32,
        patience: Duration,
    ) -> Result<JoinGroupResponse, NoReply> {
        let protocol =
            JoinGroupRequestProtocol::default().with_name(text(PROTOCOL)).with_metadata(subscription(topics));
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(session_timeout_ms)
            .with_rebalance_timeout_ms(rebalance_timeout_ms)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(self.instance())
            .with_protocol_type(text(PROTOCOL_TYPE))
            .with_protocols(vec![protocol]);
        session.connection.call(self.versions.join, &request, patience).await
    }

    /// The leader says who gets what; others say nothing.
    pub async fn sync(
        &self,
        session: &Session,
        assignments: Vec<(StrBytes, Bytes)>,
        patience: Duration,
    ) -> Result<Bytes, Refusal> {
        let assignments = assignments.into_iter().map(|(member_id, assignment)| {
            SyncGroupRequestAssignment::default().with_member_id(member_id).with_assignment(assignment)
        });
        let names_protocol = self.versions.sync >= 5;
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(self.instance())
            .with_protocol_type(names_protocol.then(|| text(PROTOCOL_TYPE)))
            .with_protocol_name(names_protocol.then(|| text(PROTOCOL)))
            .with_assignments(assignments.collect());
        let response = session.connection.call(self.versions.sync, &request, patience).await?;
        check(response.error_code)?;
        Ok(response.assignment)
    }

    pub async fn heartbeat(&self, session: &Session) -> Result<(), Refusal> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(self.instance());
        check(session.connection.call(self.versions.heartbeat, &request, PATIENCE).await?.error_code)
    }

    pub async fn leave(&self, session: &Session) -> Result<(), Refusal> {
        let version = self.versions.leave;
        let request = LeaveGroupRequest::default().with_group_id(self.group_id());
        let request = if version >= 3 {
            let member =
                MemberIdentity::default().with_member_id(text(&self.member_id)).with_group_instance_id(self.instance());
            request.with_members(vec![member])
        } else {
            request.with_member_id(text(&self.member_id))
        };
        let response = session.connection.call(version, &request, PATIENCE).await?;
        check(response.error_code)?;
        check(response.members.first().map_or(0, |member| member.error_code))
    }

    /// One code for each commit, in their order. None: there was no answer about it.
    pub async fn commit(
        &self,
        session: &Session,
        commits: &[(CommitId, Partition, i64)],
    ) -> Result<Vec<Option<i16>>, NoReply> {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (id, partition, offset) in commits {
            let one = OffsetCommitRequestPartition::default()
                .with_partition_index(partition.index)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(StrBytes::from_string(id.to_string())));
            let name = topic_name(&partition.topic);
            match topics.iter_mut().find(|topic| topic.name == name) {
                Some(topic) => topic.partitions.push(one),
                None => topics.push(OffsetCommitRequestTopic::default().with_name(name).with_partitions(vec![one])),
            }
        }
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.member_id))
            .with_group_instance_id(self.instance())
            .with_topics(topics);
        // A broker gives up after five seconds, and may take a moment to say so.
        let response = session.connection.call(self.versions.commit, &request, PATIENCE * 2).await?;
        let code = |partition: &Partition| {
            let topic = response.topics.iter().find(|topic| topic.name.as_str() == partition.topic)?;
            let found = topic.partitions.iter().find(|answer| answer.partition_index == partition.index)?;
            Some(found.error_code)
        };
        Ok(commits.iter().map(|(_, partition, _)| code(partition)).collect())
    }

    /// What the group has committed for these.
    pub async fn fetch_offsets<'a>(
        &self,
        session: &Session,
        partitions: impl Iterator<Item = &'a Partition>,
    ) -> Result<Vec<Shown>, Refusal> {
        let version = self.versions.fetch;
        let mut topics: Vec<(String, Vec<i32>)> = Vec::new();
        for partition in partitions {
            match topics.iter_mut().find(|(topic, _)| *topic == partition.topic) {
                Some((_, indexes)) => indexes.push(partition.index),
                None => topics.push((partition.topic.clone(), vec![partition.index])),
            }
        }
        let topics = topics.into_iter();
        if version >= 8 {
            let topics = topics.map(|(name, indexes)| {
                OffsetFetchRequestTopics::default().with_name(topic_name(&name)).with_partition_indexes(indexes)
            });
            let group =
                OffsetFetchRequestGroup::default().with_group_id(self.group_id()).with_topics(Some(topics.collect()));
            let request = OffsetFetchRequest::default().with_groups(vec![group]);
            let mut response = session.connection.call(version, &request, PATIENCE).await?;
            let Some(group) = response.groups.pop() else { return Ok(Vec::new()) };
            check(group.error_code)?;
            let all = group.topics.into_iter().flat_map(|topic| {
                let name = topic.name;
                topic.partitions.into_iter().map(move |one| {
                    check(one.error_code)?;
                    Ok(shown(&name, one.partition_index, one.committed_offset, one.metadata))
                })
            });
            return all.collect();
        }
        let topics = topics.map(|(name, indexes)| {
            OffsetFetchRequestTopic::default().with_name(topic_name(&name)).with_partition_indexes(indexes)
        });
        let request = OffsetFetchRequest::default().with_group_id(self.group_id()).with_topics(Some(topics.collect()));
        let response = session.connection.call(version, &request, PATIENCE).await?;
        check(response.error_code)?;
        let all = response.topics.into_iter().flat_map(|topic| {
            let name = topic.name;
            topic.partitions.into_iter().map(move |one| {
                check(one.error_code)?;
                Ok(shown(&name, one.partition_index, one.committed_offset, one.metadata))
            })
        });
        all.collect()
    }
}

fn shown(topic: &str, index: i32, offset: i64, metadata: Option<StrBytes>) -> Shown {
    let metadata = metadata.map(|metadata| metadata.to_string()).unwrap_or_default();
    Shown { partition: partition(topic, index), offset, metadata }
}
