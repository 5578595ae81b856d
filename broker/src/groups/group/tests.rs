//! One group from its first member to its end; `tests/` has joins, static members, and a random walk.

mod joining;

mod static_members;

mod model;

use bytes::{BufMut, BytesMut};
use kafka_protocol::ResponseError::*;

use super::testing::*;
use super::*;
use crate::groups::messages::{Join, Protocol, SyncAssignment};
use crate::groups::records::MemberMetadata;

#[test]
fn a_generation_from_join_to_sync() {
    let mut bench = Bench::new();
    let mut one = bench.join(join(""));
    let mut two = bench.join(join(""));
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    bench.pass(secs(2));
    assert!(waits(&mut one) && waits(&mut two), "the first rebalance waits for others to come");
    bench.pass(secs(4));
    let (one, two) = (got(one), got(two));
    assert_eq!(bench.group.state(), State::CompletingRebalance);
    assert_eq!((one.error, one.generation, one.member_id.as_str(), one.leader.as_str()), (None, 1, "m1", "m1"));
    assert_eq!((two.error, two.generation, two.member_id.as_str(), two.leader.as_str()), (None, 1, "m2", "m1"));
    assert_eq!((one.protocol_type.as_deref(), one.protocol.as_deref()), (Some("consumer"), Some("range")));
    let members: Vec<_> = one.members.iter().map(|member| (member.member_id.as_str(), &member.metadata[..])).collect();
    assert_eq!(members, [("m1", &b"range"[..]), ("m2", b"range")]);
    assert!(two.members.is_empty() && !one.skip_assignment);

    let mut follower = bench.sync("m2", &[]);
    assert!(bench.writes.is_empty(), "only the leader's assignment is written");
    let mut leader = bench.sync("m1", &[("m1", "a"), ("m2", "b"), ("stranger", "c")]);
    let record = metadata_of(&bench.writes[0]).clone();
    assert_eq!(
        (record.generation, record.protocol.as_deref(), record.leader.as_deref()),
        (1, Some("range"), Some("m1"))
    );
    let assigned: Vec<_> = record.members.iter().map(|m| (m.member_id.as_str(), &m.assignment[..])).collect();
    assert_eq!(assigned, [("m1", &b"a"[..]), ("m2", b"b")]);
    assert!(waits(&mut leader) && waits(&mut follower), "nobody learns an assignment that is not durable");
    assert_eq!(bench.group.state(), State::CompletingRebalance);
    bench.written(Ok(()));
    assert_eq!((got(leader).assignment, got(follower).assignment), (Bytes::from("a"), Bytes::from("b")));
    assert_eq!(bench.group.state(), State::Stable);
    assert_eq!(got(bench.sync("m2", &[])).assignment, "b", "later askers are answered at once");
}

#[test]
fn who_has_no_assignment_gets_an_empty_one() {
    let mut bench = Bench::new();
    let one = bench.join(join(""));
    bench.pass(secs(6));
    got(one);
    let sync = bench.sync("m1", &[]);
    bench.written(Ok(()));
    let synced = got(sync);
    assert_eq!((synced.error, synced.assignment.len()), (None, 0));
    assert_eq!((synced.protocol_type.as_deref(), synced.protocol.as_deref()), (Some("consumer"), Some("range")));
}

#[test]
fn an_assignment_that_is_not_written_is_never_seen() {
    let mut bench = Bench::new();
    let one = bench.join(join(""));
    bench.pass(secs(6));
    got(one);
    let sync = bench.sync("m1", &[("m1", "a")]);
    bench.written(Err(CoordinatorNotAvailable));
    assert_eq!(got(sync).error, Some(CoordinatorNotAvailable));
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    let again = got(bench.join(join("m1")));
    assert_eq!((again.error, again.generation), (None, 2));
    let sync = bench.sync("m1", &[("m1", "b")]);
    bench.written(Ok(()));
    assert_eq!(got(sync).assignment, "b");
}

#[test]
fn an_outcome_that_comes_too_late_changes_nothing() {
    let mut bench = Bench::new();
    let one = bench.join(join(""));
    bench.pass(secs(6));
    got(one);
    let sync = bench.sync("m1", &[("m1", "a")]);
    let two = bench.join(join(""));
    assert_eq!(got(sync).error, Some(RebalanceInProgress), "a newcomer ends the generation");
    let one = bench.join(join("m1"));
    assert_eq!((got(one).generation, got(two).generation), (2, 2));
    bench.written(Ok(()));
    assert_eq!(bench.group.state(), State::CompletingRebalance, "that record was of generation 1");
    let step = bench.group.written(WriteId(77), Err(UnknownServerError), bench.now);
    assert!(step.write.is_none() && bench.group.state() == State::CompletingRebalance);
}

#[test]
fn a_repeated_sync_of_the_leader_waits_for_the_first() {
    let mut bench = Bench::new();
    let one = bench.join(join(""));
    bench.pass(secs(6));
    got(one);
    let first = bench.sync("m1", &[("m1", "a")]);
    let mut second = bench.sync("m1", &[("m1", "z")]);
    assert_eq!(got(first).error, Some(RebalanceInProgress));
    assert!(waits(&mut second));
    assert_eq!(bench.writes.len(), 1);
    bench.written(Ok(()));
    assert_eq!(got(second).assignment, "a");
}

#[test]
fn sync_is_refused_to_others() {
    let mut bench = Bench::new();
    bench.stable(vec![join("")]);
    let sync = |bench: &mut Bench, member_id: &str, change: &dyn Fn(&mut SyncAssignment)| {
        let mut sync = SyncAssignment {
            member_id: member_id.to_owned(),
            instance_id: None,
            generation: 1,
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        };
        change(&mut sync);
        got(bench.sync_with(sync)).error
    };
    assert_eq!(sync(&mut bench, "m1", &|_| {}), None);
    assert_eq!(sync(&mut bench, "m9", &|_| {}), Some(UnknownMemberId));
    assert_eq!(sync(&mut bench, "m1", &|sync| sync.generation = 0), Some(IllegalGeneration));
    let other = |sync: &mut SyncAssignment| sync.protocol_type = Some("connect".to_owned());
    assert_eq!(sync(&mut bench, "m1", &other), Some(InconsistentGroupProtocol));
    let other = |sync: &mut SyncAssignment| sync.protocol = Some("sticky".to_owned());
    assert_eq!(sync(&mut bench, "m1", &other), Some(InconsistentGroupProtocol));
    let same = |sync: &mut SyncAssignment| sync.protocol = Some("range".to_owned());
    assert_eq!(sync(&mut bench, "m1", &same), None);
    let two = bench.join(join(""));
    assert_eq!(sync(&mut bench, "m1", &|_| {}), Some(RebalanceInProgress));
    drop(two);
}

#[test]
fn heartbeats_keep_a_member_and_tell_it_of_rebalances() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    for _ in 0..5 {
        bench.pass(secs(9));
        assert_eq!((bench.heartbeat("m1"), bench.heartbeat("m2")), (Ok(()), Ok(())));
    }
    assert_eq!(bench.group.heartbeat("m1", None, 7, bench.now), Err(IllegalGeneration));
    assert_eq!(bench.heartbeat("m3"), Err(UnknownMemberId));
    let mut newcomer = bench.join(join(""));
    assert_eq!(bench.heartbeat("m1"), Err(RebalanceInProgress));
    bench.pass(secs(9));
    assert_eq!(bench.heartbeat("m1"), Err(RebalanceInProgress), "it is alive all the same");
    bench.pass(secs(2));
    assert_eq!(bench.heartbeat("m2"), Err(UnknownMemberId), "the silent one is gone");
    assert!(waits(&mut newcomer), "m1 is still awaited");
    assert_eq!(got(bench.join(join("m1"))).generation, 2);
    assert_eq!(got(newcomer).error, None);
}

#[test]
fn a_member_that_does_not_join_in_time_is_removed() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    let newcomer = bench.join(join(""));
    let one = bench.join(join("m1"));
    for _ in 0..6 {
        bench.pass(secs(9));
        assert_eq!(bench.heartbeat("m2"), Err(RebalanceInProgress));
    }
    bench.pass(secs(6));
    assert_eq!((got(one).members.len(), got(newcomer).error), (2, None));
    assert_eq!(bench.heartbeat("m2"), Err(UnknownMemberId));
}

#[test]
fn a_member_that_does_not_sync_in_time_is_removed() {
    let mut bench = Bench::new();
    let one = bench.join(join(""));
    let two = bench.join(join(""));
    bench.pass(secs(6));
    got(one);
    got(two);
    let mut leader = bench.sync("m1", &[("m1", "a"), ("m2", "b")]);
    bench.written(Ok(()));
    assert_eq!(leader.try_recv().unwrap().assignment, "a");
    for _ in 0..7 {
        bench.pass(secs(8));
        assert_eq!((bench.heartbeat("m1"), bench.heartbeat("m2")), (Ok(()), Ok(())));
    }
    bench.pass(secs(5));
    assert_eq!((bench.heartbeat("m1"), bench.heartbeat("m2")), (Err(RebalanceInProgress), Err(UnknownMemberId)));
    assert_eq!(got(bench.join(join("m1"))).generation, 2);
}

#[test]
fn members_leave_and_an_empty_group_is_recorded() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    assert_eq!(
        bench.leave(&[("m1", None), ("m9", None), ("", None), ("m2", Some("x"))]),
        [Ok(()), Err(UnknownMemberId), Err(UnknownMemberId), Err(UnknownMemberId),]
    );
    assert_eq!(bench.heartbeat("m2"), Err(RebalanceInProgress));
    assert_eq!(bench.leave(&[("m2", None)]), [Ok(())]);
    assert_eq!(bench.group.state(), State::Empty);
    let record = bench.written_metadata();
    assert_eq!((record.generation, record.protocol, record.leader, record.members.len()), (2, None, None, 0));
    assert_eq!(record.protocol_type, "consumer");
    assert_eq!(record.state_timestamp_ms, Some(bench.now.wall_ms));
    assert!(bench.group.is_idle() && bench.group.is_recorded());
}

#[test]
fn commits_are_checked_against_the_generation() {
    let mut bench = Bench::new();
    let commit = |bench: &mut Bench, member_id: &str, generation: i32| {
        bench.group.check_commit(member_id, None, generation, bench.now)
    };
    assert_eq!(commit(&mut bench, "", -1), Ok(()), "a simple consumer");
    assert_eq!(commit(&mut bench, "m1", 1), Err(UnknownMemberId));
    bench.stable(vec![join("")]);
    assert_eq!(commit(&mut bench, "", -1), Err(UnknownMemberId));
    assert_eq!(commit(&mut bench, "m1", 0), Err(IllegalGeneration));
    assert_eq!(commit(&mut bench, "m1", -1), Err(IllegalGeneration));
    for _ in 0..3 {
        bench.pass(secs(9));
        assert_eq!(commit(&mut bench, "m1", 1), Ok(()), "a commit counts as a heartbeat");
    }
    let two = bench.join(join(""));
    assert_eq!(commit(&mut bench, "m1", 1), Ok(()), "what it has done it may commit before it joins again");
    let one = bench.join(join("m1"));
    assert_eq!((got(one).generation, got(two).generation), (2, 2));
    assert_eq!(commit(&mut bench, "m1", 2), Err(RebalanceInProgress));
    assert_eq!(commit(&mut bench, "m1", 1), Err(IllegalGeneration));
}

#[test]
fn a_group_comes_back_from_its_record() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), static_join("", "rack-1")]);
    let described = bench.group.describe();
    let WriteKind::Metadata(record) = bench.group.record(|member| member.assignment.clone()) else { unreachable!() };
    bench.group = Group::restore("g", record, bench.now);
    assert_eq!(bench.group.describe(), described);
    assert_eq!((bench.group.generation(), bench.group.state()), (1, State::Stable));
    bench.pass(secs(9));
    assert_eq!(bench.heartbeat("m1"), Ok(()));
    assert_eq!(bench.group.heartbeat("m2", Some("rack-1"), 1, bench.now), Ok(()));
    assert_eq!(bench.group.heartbeat("m1", Some("rack-1"), 1, bench.now), Err(FencedInstanceId));
    assert_eq!(got(bench.sync("m2", &[])).assignment, "m2");
    bench.pass(secs(11));
    assert_eq!(bench.group.state(), State::Empty, "sessions of restored members end too");
    let empty = bench.written_metadata();
    let restored = Group::restore("g", empty, bench.now);
    assert_eq!((restored.state(), restored.generation(), restored.protocol_type()), (State::Empty, 2, "consumer"));
    assert!(restored.is_recorded() && restored.next_deadline().is_none());
}

#[test]
fn deleting_needs_an_empty_group_and_a_record() {
    let mut bench = Bench::new();
    assert!(!bench.group.is_recorded());
    bench.stable(vec![join("")]);
    assert_eq!(bench.group.delete(bench.now).unwrap_err(), NonEmptyGroup);
    bench.leave(&[("m1", None)]);
    bench.written(Ok(()));
    let empty_since = bench.group.expiry();
    bench.pass(secs(5));
    let write = bench.group.delete(bench.now).unwrap().write.unwrap();
    assert_eq!((write.kind, bench.group.state()), (WriteKind::Tombstone, State::Dead));
    assert_eq!(got(bench.join(join(""))).error, Some(CoordinatorNotAvailable));
    assert_eq!(bench.group.delete(bench.now).unwrap_err(), GroupIdNotFound);
    assert_eq!(bench.group.check_offset_delete(), Err(GroupIdNotFound));
    let _ = bench.group.written(write.id, Err(RequestTimedOut), bench.now);
    assert_eq!((bench.group.state(), bench.group.expiry()), (State::Empty, empty_since), "as if nothing had happened");
    let write = bench.group.delete(bench.now).unwrap().write.unwrap();
    let _ = bench.group.written(write.id, Ok(()), bench.now);
    assert_eq!(bench.group.state(), State::Dead);
}

#[test]
fn unloading_answers_everybody() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    let newcomer = bench.join(join(""));
    let one = bench.join(join("m1"));
    bench.group.unload(NotCoordinator);
    assert_eq!((got(newcomer).error, got(one).error), (Some(NotCoordinator), Some(NotCoordinator)));
    assert_eq!(bench.heartbeat("m2"), Err(CoordinatorNotAvailable));
    assert_eq!(bench.group.check_commit("", None, -1, bench.now), Err(CoordinatorNotAvailable));
    assert_eq!(bench.leave(&[("m2", None)]), [Err(CoordinatorNotAvailable)]);
    assert_eq!(bench.group.next_deadline(), None);

    let mut bench = Bench::new();
    let one = bench.join(join(""));
    bench.pass(secs(6));
    got(one);
    let sync = bench.sync("m1", &[]);
    bench.group.unload(NotCoordinator);
    assert_eq!(got(sync).error, Some(NotCoordinator));
    bench.written(Ok(()));
    assert_eq!(bench.group.state(), State::Dead, "its outcome is too late");
}

fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_slice(b"whatever later versions have");
    bytes.freeze()
}

fn subscriber(metadata: Bytes) -> Join {
    Join { protocols: vec![Protocol { name: "range".to_owned(), metadata }], ..join("") }
}

#[test]
fn subscribed_topics_are_protected() {
    let mut bench = Bench::new();
    assert_eq!(bench.group.expiry(), Expiry::SinceCommit);
    assert!(!bench.group.is_subscribed_to("a"));
    bench.stable(vec![subscriber(subscription(&["a", "b"])), subscriber(subscription(&["b", "c"]))]);
    let subscribed = ["a", "b", "c"].map(str::to_owned).into();
    assert_eq!(bench.group.expiry(), Expiry::Unsubscribed { subscribed });
    assert!(bench.group.is_subscribed_to("c") && !bench.group.is_subscribed_to("d"));
    assert_eq!(bench.group.check_offset_delete(), Ok(()));
    bench.leave(&[("m1", None)]);
    assert_eq!(bench.group.expiry(), Expiry::Never, "a group that rebalances");
    bench.leave(&[("m2", None)]);
    assert_eq!(bench.group.expiry(), Expiry::SinceEmpty { empty_since_ms: bench.now.wall_ms });
    assert!(!bench.group.is_subscribed_to("c"));

    for broken in [
        &b""[..],
        b"\0\x01\0\0\0\x02\0\x01a",
        b"\xff\xff\0\0\0\0",
        b"\0\x01\x7f\xff\xff\xff",
        b"\0\0\0\0\0\x01\0\x01\xff",
    ] {
        let mut bench = Bench::new();
        bench.stable(vec![subscriber(Bytes::copy_from_slice(broken))]);
        assert_eq!(bench.group.expiry(), Expiry::Never);
        assert!(bench.group.is_subscribed_to("anything"));
    }
    let mut bench = Bench::new();
    bench.stable(vec![Join { protocol_type: "connect".to_owned(), ..join("") }]);
    assert_eq!(bench.group.check_offset_delete(), Err(NonEmptyGroup));
    assert!(!bench.group.is_subscribed_to("a"));
}

#[test]
fn what_is_described() {
    let mut bench = Bench::new();
    bench.stable(vec![static_join("", "rack-1")]);
    let described = bench.group.describe();
    assert_eq!((described.state.name(), described.protocol.as_str()), ("Stable", "range"));
    let member = &described.members[0];
    assert_eq!((member.member_id.as_str(), member.instance_id.as_deref()), ("m1", Some("rack-1")));
    assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("client", "/127.0.0.1"));
    assert_eq!((&member.metadata[..], &member.assignment[..]), (&b"range"[..], &b"m1"[..]));
    drop(bench.join(join("")));
    let described = bench.group.describe();
    assert_eq!((described.state.name(), described.protocol.as_str()), ("PreparingRebalance", ""));
    assert!(described.members.iter().all(|member| member.metadata.is_empty() && member.assignment.is_empty()));
}

#[test]
fn member_ids_are_kafkas_and_bounded() {
    let random = uuid::Uuid::from_u128(7);
    assert_eq!(member_id_for(None, "app", random), "app-00000000-0000-0000-0000-000000000007");
    assert_eq!(member_id_for(Some("rack-1"), "app", random), "rack-1-00000000-0000-0000-0000-000000000007");
    assert!(member_id_for(None, &"ä".repeat(30_000), random).len() <= 1_100);
}

#[test]
fn a_record_with_strange_members_restores_to_something_sound() {
    let member = |member_id: &str, instance_id: Option<&str>| MemberMetadata {
        member_id: member_id.to_owned(),
        instance_id: instance_id.map(str::to_owned),
        client_id: String::new(),
        client_host: String::new(),
        rebalance_timeout_ms: -1,
        session_timeout_ms: -5,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    let record = GroupMetadata {
        protocol_type: String::new(),
        generation: i32::MAX,
        protocol: Some(String::new()),
        leader: Some("nobody".to_owned()),
        state_timestamp_ms: None,
        members: vec![member("a", Some("x")), member("a", None), member("b", Some("x")), member("c", Some("x"))],
    };
    let mut bench = Bench::new();
    bench.group = Group::restore("g", record, bench.now);
    assert_eq!(bench.group.describe().members.len(), 2);
    bench.pass(secs(1));
    assert_eq!((bench.group.state(), bench.group.generation()), (State::Empty, 1), "numbers begin anew at their end");
}
