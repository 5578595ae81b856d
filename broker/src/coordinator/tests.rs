//! Tests of the coordinator over a log whose fragments become durable when a test says so.

use std::time::Duration;

use bytes::Bytes;
use meta::memory::MemoryStore;
use meta::seams::SystemClock;
use storage::log::Outcome;
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::config::GroupConfig;
use crate::groups::{Committed, Join, Joined, Leaver, Protocol, SyncAssignment, Synced};
use crate::partitions::testing::Rig;

struct TestCoordinator {
    rig: Rig,
    topics: Topics,
    coordinator: Arc<Coordinator>,
}

/// Long enough for every task that can go on to do so.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn groups_config() -> GroupConfig {
    GroupConfig { offsets_partitions: 3, initial_rebalance_delay: Duration::ZERO, ..GroupConfig::default() }
}

fn parts(rig: &Rig, topics: &Topics, groups: GroupConfig) -> CoordinatorParts {
    CoordinatorParts {
        config: Arc::new(BrokerConfig { groups, ..BrokerConfig::default() }),
        topics: topics.clone(),
        partitions: rig.partitions.clone(),
        budget: Budget::new(64 << 20),
        clock: Arc::new(SystemClock),
        random: Random::from_seed(2),
    }
}

impl TestCoordinator {
    async fn new() -> Self {
        Self::with(groups_config()).await
    }

    async fn with(groups: GroupConfig) -> Self {
        // Without a tail everything is loaded from the store.
        let rig = Rig::new(0);
        let topics =
            Topics::load(Arc::new(MemoryStore::new()), Random::from_seed(1), &BrokerConfig::default()).await.unwrap();
        rig.lead();
        let coordinator = Coordinator::new(parts(&rig, &topics, groups));
        rig.partitions.add_listener(coordinator.listener());
        coordinator.create_topic().await.unwrap();
        for topic in ["t", "u"] {
            topics.create(topic, 4, BTreeMap::new(), |_| {}).await.unwrap();
        }
        Self { rig, topics, coordinator }
    }

    async fn shard(&self) -> Arc<Shard> {
        let shard = self.coordinator.shard("g").unwrap();
        settle().await;
        shard
    }

    /// Another coordinator over what is durable, as after a restart.
    async fn restarted(&self) -> (Arc<Coordinator>, Arc<Shard>) {
        self.coordinator.shut_down();
        let coordinator = Coordinator::new(parts(&self.rig, &self.topics, groups_config()));
        let shard = coordinator.shard("g").unwrap();
        settle().await;
        (coordinator, shard)
    }

    async fn flush(&self) {
        self.rig.flush();
        settle().await;
    }

    async fn flushed<T>(&self, waiting: JoinHandle<T>) -> T {
        settle().await;
        assert!(!waiting.is_finished(), "answered before its record was durable");
        self.flush().await;
        assert!(waiting.is_finished(), "not answered though its record is durable");
        waiting.await.unwrap()
    }
}

fn committed(offset: i64) -> Committed {
    Committed {
        offset,
        leader_epoch: 3,
        metadata: "m".to_owned(),
        commit_timestamp_ms: SystemClock.now_ms(),
        expire_timestamp_ms: None,
    }
}

fn commit(topic: &str, partition: i32, offset: i64) -> Commit {
    let offset = CommitOffset { topic: topic.to_owned(), partition, committed: committed(offset) };
    let group = "g".to_owned();
    Commit { group, generation: -1, member_id: String::new(), instance_id: None, offsets: vec![offset] }
}

fn begin(shard: &Arc<Shard>, commit: Commit) -> JoinHandle<Result<(), ResponseError>> {
    let shard = shard.clone();
    tokio::spawn(async move { shard.commit(commit).await })
}

fn offset(shard: &Shard, topic: &str, partition: i32) -> Option<i64> {
    let fetched = shard.fetch_offsets("g", topic, &[partition]).unwrap();
    fetched[0].1.as_ref().map(|committed| committed.offset)
}

fn joining(member_id: &str) -> Join {
    Join {
        member_id: member_id.to_owned(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(10),
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0]) }],
        require_known_member_id: false,
        can_skip_assignment: false,
    }
}

async fn joined(shard: &Arc<Shard>) -> Joined {
    let joined = shard.join("g", joining("")).await.unwrap();
    assert_eq!(joined.error, None);
    joined
}

fn syncing(shard: &Arc<Shard>, joined: &Joined) -> JoinHandle<Result<Synced, ResponseError>> {
    let sync = SyncAssignment {
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"yours"))],
    };
    let shard = shard.clone();
    tokio::spawn(async move { shard.sync("g", sync).await })
}

#[test]
fn groups_are_hashed_as_by_java() {
    for (group, hash) in [("", 0_i32), ("abc", 96_354), ("hello", 99_162_322), ("größe", 98_762_257)] {
        assert_eq!(partition_of(group, 50), hash % 50, "{group}");
    }
    // Negative, and the one number that has no absolute value.
    assert_eq!(partition_of("my-group", 50), 1_906_497_762 % 50);
    assert_eq!(partition_of("polygenelubricants", 50), 0);
}

#[tokio::test]
async fn a_commit_is_seen_when_it_is_durable_and_not_before() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let waiting = begin(&shard, commit("t", 0, 5));
    settle().await;
    assert_eq!(offset(&shard, "t", 0), None);
    assert_eq!(test.flushed(waiting).await, Ok(()));
    assert_eq!(offset(&shard, "t", 0), Some(5));
    assert_eq!(offset(&shard, "t", 1), None);
}

#[tokio::test]
async fn a_commit_that_is_lost_is_not_acknowledged_and_not_seen() {
    for (outcome, code) in
        [(Outcome::Fenced, ResponseError::NotCoordinator), (Outcome::Unknown, ResponseError::CoordinatorNotAvailable)]
    {
        let test = TestCoordinator::new().await;
        let shard = test.shard().await;
        let waiting = begin(&shard, commit("t", 0, 5));
        settle().await;
        test.rig.cut().end(outcome);
        assert_eq!(waiting.await.unwrap(), Err(code));
        assert_eq!(offset(&shard, "t", 0), None);
    }
}

#[tokio::test]
async fn records_are_applied_in_their_order() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let commits: Vec<_> = (0..20).map(|offset| begin(&shard, commit("t", 0, offset))).collect();
    settle().await;
    test.flush().await;
    for waiting in commits {
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }
    assert_eq!(offset(&shard, "t", 0), Some(19));
    // Lower than the one before: the group may do that, and the last one counts.
    assert_eq!(test.flushed(begin(&shard, commit("t", 0, 3))).await, Ok(()));
    assert_eq!(offset(&shard, "t", 0), Some(3));
    let (_coordinator, shard) = test.restarted().await;
    assert_eq!(offset(&shard, "t", 0), Some(3));
}

#[tokio::test]
async fn a_group_that_is_deleted_while_it_commits_stays_deleted() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    assert_eq!(test.flushed(begin(&shard, commit("t", 0, 1))).await, Ok(()));
    let committing = begin(&shard, commit("t", 1, 2));
    settle().await;
    let deleting = {
        let shard = shard.clone();
        tokio::spawn(async move { shard.delete("g").await })
    };
    assert_eq!(test.flushed(deleting).await, Ok(()));
    assert_eq!(committing.await.unwrap(), Ok(()));
    assert_eq!(shard.describe("g").unwrap(), None);
    assert_eq!(shard.fetch_all_offsets("g").unwrap(), BTreeMap::new());
    assert_eq!(shard.delete("g").await, Err(ResponseError::GroupIdNotFound));
    let (_coordinator, shard) = test.restarted().await;
    assert_eq!(shard.describe("g").unwrap(), None);
    assert_eq!(shard.fetch_all_offsets("g").unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn an_assignment_is_handed_out_when_it_is_durable() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let member = joined(&shard).await;
    let synced = test.flushed(syncing(&shard, &member)).await.unwrap();
    assert_eq!((synced.error, &synced.assignment[..]), (None, &b"yours"[..]));
    assert_eq!(shard.heartbeat("g", &member.member_id, None, member.generation), Ok(()));
}

#[tokio::test]
async fn members_and_offsets_are_there_after_a_restart() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let member = joined(&shard).await;
    test.flushed(syncing(&shard, &member)).await.unwrap();
    let as_member = Commit { generation: member.generation, member_id: member.member_id.clone(), ..commit("t", 2, 77) };
    assert_eq!(test.flushed(begin(&shard, as_member)).await, Ok(()));
    let (_coordinator, shard) = test.restarted().await;
    assert_eq!(offset(&shard, "t", 2), Some(77));
    let group = shard.describe("g").unwrap().unwrap();
    assert_eq!((group.state.name(), group.members.len()), ("Stable", 1));
    assert_eq!(shard.heartbeat("g", &member.member_id, None, member.generation), Ok(()));
    assert_eq!(shard.delete("g").await, Err(ResponseError::NonEmptyGroup));
    let leaver = Leaver { member_id: member.member_id, instance_id: None };
    assert_eq!(shard.leave("g", &[leaver]).unwrap(), [Ok(())]);
    test.flush().await;
    assert_eq!(shard.list().unwrap()[0].state.name(), "Empty");
}

#[tokio::test]
async fn nothing_is_answered_before_everything_is_read() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    assert_eq!(test.flushed(begin(&shard, commit("t", 0, 5))).await, Ok(()));
    test.coordinator.shut_down();
    let again = Coordinator::new(parts(&test.rig, &test.topics, groups_config()));
    let shard = again.shard("g").unwrap();
    let loading = ResponseError::CoordinatorLoadInProgress;
    assert_eq!(shard.fetch_offsets("g", "t", &[0]).unwrap_err(), loading);
    assert_eq!(shard.list().unwrap_err(), loading);
    assert_eq!(shard.join("g", joining("")).await.unwrap_err(), loading);
    assert_eq!(shard.heartbeat("g", "m", None, 1), Err(loading));
    settle().await;
    assert_eq!(offset(&shard, "t", 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn records_that_are_damaged_on_their_way_are_read_again() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    assert_eq!(test.flushed(begin(&shard, commit("t", 0, 5))).await, Ok(()));
    test.rig.store.damage(80);
    let (_coordinator, shard) = test.restarted().await;
    assert_eq!(shard.list().unwrap_err(), ResponseError::CoordinatorLoadInProgress);
    // The same bit again: as it was.
    test.rig.store.damage(80);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(offset(&shard, "t", 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn damaged_records_are_not_made_groups_of() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    assert_eq!(test.flushed(begin(&shard, commit("t", 0, 5))).await, Ok(()));
    test.rig.store.damage(80);
    let (_coordinator, shard) = test.restarted().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shard.list().unwrap_err(), ResponseError::NotCoordinator);
}

#[tokio::test]
async fn who_waits_is_told_when_the_partition_is_given_up() {
    let test =
        TestCoordinator::with(GroupConfig { initial_rebalance_delay: Duration::from_secs(60), ..groups_config() })
            .await;
    let shard = test.shard().await;
    let waiting = {
        let shard = shard.clone();
        tokio::spawn(async move { shard.join("g", joining("")).await })
    };
    let committing = begin(&shard, Commit { group: "h".to_owned(), ..commit("t", 0, 5) });
    settle().await;
    assert!(!waiting.is_finished() && !committing.is_finished());
    test.rig.partitions.resign("a test");
    let told = waiting.await.unwrap().map(|joined| joined.error);
    assert!(matches!(told, Err(ResponseError::NotCoordinator) | Ok(Some(ResponseError::NotCoordinator))), "{told:?}");
    assert_eq!(shard.list().unwrap_err(), ResponseError::NotCoordinator);
    assert!(test.coordinator.shard("g").is_err() && test.coordinator.shards().is_empty());
    // What was appended before still ends as the log decides.
    test.rig.flush();
    assert_eq!(committing.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn what_was_committed_for_a_topic_goes_with_it() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    for topic in ["t", "u"] {
        assert_eq!(test.flushed(begin(&shard, commit(topic, 0, 5))).await, Ok(()));
    }
    test.coordinator.topic_deleted("t");
    assert_eq!(offset(&shard, "t", 0), Some(5), "not before that is durable");
    test.flush().await;
    assert_eq!((offset(&shard, "t", 0), offset(&shard, "u", 0)), (None, Some(5)));
    let (_coordinator, shard) = test.restarted().await;
    assert_eq!((offset(&shard, "t", 0), offset(&shard, "u", 0)), (None, Some(5)));
}

#[tokio::test]
async fn offsets_are_deleted_but_not_of_topics_that_are_read() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    for topic in ["t", "u"] {
        assert_eq!(test.flushed(begin(&shard, commit(topic, 0, 5))).await, Ok(()));
    }
    let mut join = joining("");
    join.protocols[0].metadata = Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\0\0\0\0");
    let member = shard.join("g", join).await.unwrap();
    test.flushed(syncing(&shard, &member)).await.unwrap();
    let wanted = vec![("t".to_owned(), 0), ("u".to_owned(), 0), ("u".to_owned(), 1)];
    let deleting = {
        let shard = shard.clone();
        tokio::spawn(async move { shard.delete_offsets("g", wanted).await })
    };
    let outcomes = test.flushed(deleting).await.unwrap();
    assert_eq!(outcomes, [Err(ResponseError::GroupSubscribedToTopic), Ok(()), Ok(())]);
    assert_eq!((offset(&shard, "t", 0), offset(&shard, "u", 0)), (Some(5), None));
    assert_eq!(shard.delete_offsets("h", Vec::new()).await, Err(ResponseError::GroupIdNotFound));
}

#[tokio::test(start_paused = true)]
async fn offsets_and_groups_that_nobody_uses_are_forgotten() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let mut old = commit("t", 0, 5);
    old.offsets[0].committed.commit_timestamp_ms -= 8 * 24 * 3_600_000;
    let interval = groups_config().offsets_retention_check_interval;
    for commit in [old, commit("t", 1, 6)] {
        assert_eq!(test.flushed(begin(&shard, commit)).await, Ok(()));
    }
    tokio::time::sleep(interval).await;
    settle().await;
    test.flush().await;
    assert_eq!((offset(&shard, "t", 0), offset(&shard, "t", 1)), (None, Some(6)));
    // The topic is gone, and whoever deleted it crashed before saying so here.
    let topic = test.topics.by_name("t").unwrap();
    test.topics.delete(&topic, |_| {}).await.unwrap();
    tokio::time::sleep(interval).await;
    settle().await;
    test.flush().await;
    assert_eq!(shard.describe("g").unwrap(), None);
    let (_coordinator, shard) = test.restarted().await;
    assert_eq!(shard.describe("g").unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_falls_silent_is_removed_and_the_group_becomes_empty() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let member = joined(&shard).await;
    test.flushed(syncing(&shard, &member)).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(shard.heartbeat("g", &member.member_id, None, member.generation), Ok(()));
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    settle().await;
    test.flush().await;
    assert_eq!(shard.list().unwrap()[0].state.name(), "Empty");
    let unknown = Err(ResponseError::UnknownMemberId);
    assert_eq!(shard.heartbeat("g", &member.member_id, None, member.generation), unknown);
}

#[tokio::test]
async fn a_group_that_never_came_to_be_leaves_nothing() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let unknown = Err(ResponseError::UnknownMemberId);
    assert_eq!(shard.join("g", joining("stranger")).await.map(drop), unknown);
    assert_eq!(shard.heartbeat("g", "stranger", None, 1), unknown);
    let mut hasty = joining("");
    hasty.session_timeout = Duration::from_millis(1);
    assert_eq!(shard.join("g", hasty).await.unwrap().error, Some(ResponseError::InvalidSessionTimeout));
    let as_member = Commit { generation: 4, member_id: "stranger".to_owned(), ..commit("t", 0, 1) };
    assert_eq!(shard.commit(as_member).await, Err(ResponseError::IllegalGeneration));
    assert!(shard.list().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_finds_no_memory_gives_up_in_time() {
    let test = TestCoordinator::new().await;
    let shard = test.shard().await;
    let budget = &shard.shared.parts.budget;
    let _all = budget.try_take(budget.total_bytes()).unwrap();
    assert_eq!(shard.commit(commit("t", 0, 1)).await, Err(ResponseError::CoordinatorNotAvailable));
    assert!(shard.list().unwrap().is_empty());
}
