//! Members of groups that speak the protocol by hand, one connection each.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use compat_tests::clients::LIMIT;
use compat_tests::raw::Raw;
use compat_tests::sim::wire;
use kafka_protocol::ResponseError;
use kafka_protocol::messages as m;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::time::{Instant, sleep};

/// How often a member asks whether it has to join again.
const HEARTBEAT: Duration = Duration::from_millis(100);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One member, or somebody who only commits.
pub struct ByHand {
    raw: Raw,
    group: String,
    member_id: String,
    generation: i32,
    session_ms: i32,
}

#[derive(Debug)]
pub struct InGeneration {
    pub generation: i32,
}

impl ByHand {
    /// Connected, and not a member yet.
    pub async fn connect(kafka: &str, group: &str) -> Self {
        let raw = Raw::connect(kafka).await.expect("the broker accepts connections");
        Self::new(raw, group)
    }

    fn new(raw: Raw, group: &str) -> Self {
        Self { raw, group: group.to_owned(), member_id: String::new(), generation: -1, session_ms: 30_000 }
    }

    /// Commits without being a member.
    pub async fn simple(kafka: &str, group: &str) -> Self {
        let mut simple = Self::connect(kafka, group).await;
        let deadline = Instant::now() + LIMIT;
        while let Err(error) = simple.find().await {
            assert!(Instant::now() < deadline, "no coordinator: {error:?}");
        }
        simple
    }

    /// A member in a generation, if all goes well: the broker may be dying. What is left of an attempt that failed does
    /// not hold up the next one for long.
    pub async fn try_member(kafka: &str, group: &str, topic: &str) -> Option<Self> {
        let raw = Raw::connect(kafka).await.ok()?;
        let mut member = Self { session_ms: 6_000, ..Self::new(raw, group) };
        member.join_and_sync(topic).await.ok()?;
        Some(member)
    }

    /// What a member does after an error: it connects again, and joins again if it has to. False if it cannot.
    pub async fn recover_after(&mut self, error: ResponseError, kafka: &str, topic: &str) -> bool {
        let Ok(raw) = Raw::connect(kafka).await else { return true };
        self.raw = raw;
        match error {
            ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration | ResponseError::UnknownMemberId => {
                self.join_and_sync(topic).await.is_ok()
            }
            _ => true,
        }
    }

    pub async fn reconnect(&mut self, kafka: &str) {
        self.raw = Raw::connect(kafka).await.expect("the broker accepts connections");
    }

    /// A lost connection counts as an error that passes.
    async fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, ResponseError> {
        let lost = |_| ResponseError::NetworkException;
        self.raw.request(7, version, request).await.map_err(lost)?;
        let (_, frame) = self.raw.receive().await.map_err(lost)?.ok_or(ResponseError::NetworkException)?;
        wire::response::<R>(version, frame).map_err(|_| ResponseError::CorruptMessage)
    }

    async fn find(&mut self) -> Result<(), ResponseError> {
        let request = m::FindCoordinatorRequest::default().with_coordinator_keys(vec![text(&self.group)]);
        check(self.call(4, &request).await?.coordinators[0].error_code)
    }

    /// Joins with the id it has, as the first generation that comes; the leader assigns, nothing to anybody.
    pub async fn join_and_sync(&mut self, topic: &str) -> Result<InGeneration, ResponseError> {
        use m::join_group_request::JoinGroupRequestProtocol;
        use m::sync_group_request::SyncGroupRequestAssignment;
        let deadline = Instant::now() + LIMIT;
        loop {
            let protocol =
                JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(subscription(topic));
            let join = m::JoinGroupRequest::default()
                .with_group_id(GroupId(text(&self.group)))
                .with_session_timeout_ms(self.session_ms)
                .with_rebalance_timeout_ms(self.session_ms)
                .with_member_id(text(&self.member_id))
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            let joined = self.call(9, &join).await?;
            match check(joined.error_code) {
                Ok(()) => {}
                Err(ResponseError::MemberIdRequired) => {
                    self.member_id = joined.member_id.to_string();
                    continue;
                }
                Err(error) => {
                    self.recover(error, deadline).await?;
                    continue;
                }
            }
            self.member_id = joined.member_id.to_string();
            self.generation = joined.generation_id;
            let assignments = joined.members.iter().map(|member| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(member.member_id.clone())
                    .with_assignment(Bytes::copy_from_slice(member.member_id.as_bytes()))
            });
            let sync = m::SyncGroupRequest::default()
                .with_group_id(GroupId(text(&self.group)))
                .with_generation_id(self.generation)
                .with_member_id(text(&self.member_id))
                .with_protocol_type(Some(text("consumer")))
                .with_protocol_name(Some(text("range")))
                .with_assignments(assignments.collect());
            let synced = self.call(5, &sync).await?;
            match check(synced.error_code) {
                Ok(()) => {
                    assert_eq!(&synced.assignment[..], self.member_id.as_bytes(), "somebody else's assignment");
                    return Ok(InGeneration { generation: self.generation });
                }
                Err(error) => self.recover(error, deadline).await?,
            }
        }
    }

    /// What a client does about errors that pass: it looks for the coordinator again, or joins again.
    async fn recover(&mut self, error: ResponseError, deadline: Instant) -> Result<(), ResponseError> {
        if Instant::now() > deadline {
            return Err(error);
        }
        match error {
            ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable => self.find().await?,
            ResponseError::CoordinatorLoadInProgress => {}
            ResponseError::RebalanceInProgress => return Ok(()),
            ResponseError::UnknownMemberId => self.member_id = String::new(),
            error => return Err(error),
        }
        sleep(Duration::from_millis(10)).await;
        Ok(())
    }

    /// Sends heartbeats until it has to join again, and does.
    pub async fn rejoin_when_told(&mut self, topic: &str) -> Result<InGeneration, ResponseError> {
        loop {
            match self.heartbeat().await {
                Ok(()) => sleep(HEARTBEAT).await,
                Err(ResponseError::RebalanceInProgress) => return self.join_and_sync(topic).await,
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn heartbeat(&mut self) -> Result<(), ResponseError> {
        let request = m::HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id));
        check(self.call(4, &request).await?.error_code)
    }

    pub async fn commit(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), ResponseError> {
        use m::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let partition =
            OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition.with_committed_metadata(Some(text("by hand")))]);
        let request = m::OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.member_id))
            .with_topics(vec![topic]);
        let deadline = Instant::now() + LIMIT;
        loop {
            match check(self.call(9, &request).await?.topics[0].partitions[0].error_code) {
                Err(ResponseError::CoordinatorLoadInProgress) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(10)).await;
                }
                done => return done,
            }
        }
    }
}

fn check(code: i16) -> Result<(), ResponseError> {
    ResponseError::try_from_code(code).map_or(Ok(()), Err)
}

/// A consumer's subscription, version 0.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1];
    bytes.extend((topic.len() as u16).to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend(0_i32.to_be_bytes());
    bytes.into()
}

/// What a group has committed for the first partitions of a topic; -1 for nothing.
pub async fn committed(kafka: &str, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
    use m::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    let topic = OffsetFetchRequestTopics::default()
        .with_name(TopicName(text(topic)))
        .with_partition_indexes((0..partitions).collect());
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![topic]));
    let request = m::OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true);
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut answer = Raw::connect(kafka).await.expect("a connection").call(8, &request).await;
        let mut group = answer.groups.remove(0);
        match check(group.error_code) {
            Ok(()) => return group.topics.remove(0).partitions.iter().map(|p| p.committed_offset).collect(),
            Err(ResponseError::CoordinatorLoadInProgress) if Instant::now() < deadline => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("no offsets: {error:?}"),
        }
    }
}

pub async fn describe(kafka: &str, group: &str) -> m::describe_groups_response::DescribedGroup {
    let request = m::DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    Raw::connect(kafka).await.expect("a connection").call(5, &request).await.groups.remove(0)
}

/// All groups and their states.
pub async fn list(kafka: &str) -> BTreeMap<String, String> {
    let request = m::ListGroupsRequest::default();
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = Raw::connect(kafka).await.expect("a connection").call(5, &request).await;
        match check(answer.error_code) {
            Ok(()) => {
                let groups = answer.groups.into_iter();
                return groups.map(|group| (group.group_id.to_string(), group.group_state.to_string())).collect();
            }
            Err(ResponseError::CoordinatorLoadInProgress) if Instant::now() < deadline => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("no list of groups: {error:?}"),
        }
    }
}
