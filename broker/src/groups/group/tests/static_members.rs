//! Static members (KIP-345, KIP-814): they come back under a new id, and whoever used the old one is fenced.

use kafka_protocol::ResponseError::*;

use super::*;

/// `m1` and `m2` are the static members `one` and `two`, `m1` leads.
fn stable() -> Bench {
    let mut bench = Bench::new();
    bench.stable(vec![static_join("", "one"), static_join("", "two")]);
    bench
}

#[test]
fn a_restarted_follower_comes_back_without_a_rebalance() {
    let mut bench = stable();
    let mut back = bench.join(static_join("", "two"));
    assert!(waits(&mut back), "its new id is not durable yet");
    let record = bench.written_metadata();
    let members: Vec<_> = record.members.iter().map(|m| (m.member_id.as_str(), &m.assignment[..])).collect();
    assert_eq!(members, [("m1", &b"m1"[..]), ("m3", b"m2")]);
    assert_eq!((record.generation, record.leader.as_deref()), (1, Some("m1")));
    let back = got(back);
    assert_eq!((back.error, back.generation, back.member_id.as_str()), (None, 1, "m3"));
    assert_eq!((back.leader.as_str(), back.members.len(), back.skip_assignment), ("m1", 0, false));
    assert_eq!(bench.group.state(), State::Stable);
    assert_eq!(got(bench.sync("m3", &[])).assignment, "m2", "what it had before");
    assert_eq!(bench.heartbeat("m1"), Ok(()));
}

#[test]
fn a_restarted_leader_is_told_to_keep_the_assignment() {
    let mut bench = stable();
    let back = bench.join(Join { can_skip_assignment: true, ..static_join("", "one") });
    let record = bench.written_metadata();
    assert_eq!(record.leader.as_deref(), Some("m3"));
    let back = got(back);
    assert_eq!((back.leader.as_str(), back.skip_assignment, back.members.len()), ("m3", true, 2));
    assert_eq!(got(bench.sync("m3", &[])).assignment, "m1");
}

#[test]
fn an_older_client_that_led_is_told_of_another_leader() {
    let mut bench = stable();
    let back = bench.join(static_join("", "one"));
    bench.written(Ok(()));
    let back = got(back);
    assert_eq!((back.leader.as_str(), back.skip_assignment, back.members.len()), ("m1", false, 0));
    assert_eq!(back.member_id, "m3");
    assert_eq!(bench.group.roster.leader(), Some("m3"));
}

#[test]
fn the_old_id_is_fenced_everywhere() {
    let mut bench = stable();
    let back = bench.join(static_join("", "two"));
    let now = bench.now;
    assert_eq!(bench.group.heartbeat("m2", Some("two"), 1, now), Err(FencedInstanceId));
    assert_eq!(bench.group.check_commit("m2", Some("two"), 1, now), Err(FencedInstanceId));
    assert_eq!(bench.leave(&[("m2", Some("two"))]), [Err(FencedInstanceId)]);
    assert_eq!(got(bench.join(static_join("m2", "two"))).error, Some(FencedInstanceId));
    let sync = SyncAssignment {
        member_id: "m2".to_owned(),
        instance_id: Some("two".to_owned()),
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    assert_eq!(got(bench.sync_with(sync)).error, Some(FencedInstanceId));
    bench.written(Ok(()));
    assert_eq!(got(back).error, None);
}

#[test]
fn who_waits_under_the_old_id_is_fenced_at_once() {
    let mut bench = stable();
    let newcomer = bench.join(join(""));
    let first = bench.join(static_join("m2", "two"));
    let second = bench.join(static_join("", "two"));
    assert_eq!(got(first).error, Some(FencedInstanceId));
    let one = got(bench.join(static_join("m1", "one")));
    assert_eq!((one.generation, one.members.len()), (2, 3));
    assert_eq!((got(second).member_id.as_str(), got(newcomer).error), ("m4", None));

    let follower = bench.sync("m4", &[]);
    let mut third = bench.join(static_join("", "two"));
    assert_eq!(got(follower).error, Some(FencedInstanceId));
    assert!(waits(&mut third), "the leader assigns to the old id: everybody joins again");
    assert_eq!(bench.group.state(), State::PreparingRebalance);
}

#[test]
fn a_new_id_that_cannot_be_written_is_taken_back() {
    let mut bench = stable();
    let back = bench.join(Join { session_timeout: secs(100), ..static_join("", "one") });
    bench.pass(secs(8));
    assert_eq!(bench.heartbeat("m2"), Ok(()));
    bench.written(Err(CoordinatorNotAvailable));
    let back = got(back);
    assert_eq!((back.error, back.member_id.as_str()), (Some(CoordinatorNotAvailable), ""));
    assert_eq!((bench.group.state(), bench.group.roster.leader()), (State::Stable, Some("m1")));
    bench.pass(secs(9));
    assert_eq!(bench.group.heartbeat("m1", Some("one"), 1, bench.now), Ok(()), "it has the session it had");
    assert_eq!(bench.heartbeat("m2"), Ok(()));
    bench.pass(secs(11));
    assert_eq!(bench.group.state(), State::Empty);
}

#[test]
fn a_rebalance_answers_whoever_comes_back_meanwhile() {
    for outcome in [Ok(()), Err(CoordinatorNotAvailable)] {
        let mut bench = stable();
        let back = bench.join(static_join("", "two"));
        let newcomer = bench.join(join(""));
        let one = got(bench.join(static_join("m1", "one")));
        assert_eq!((one.generation, one.members.len()), (2, 3));
        let back = got(back);
        assert_eq!((back.error, back.generation, back.member_id.as_str()), (None, 2, "m3"));
        assert_eq!(got(newcomer).generation, 2);
        bench.written(outcome);
        assert_eq!(bench.group.state(), State::CompletingRebalance);
        assert_eq!(bench.group.heartbeat("m3", Some("two"), 2, bench.now), Ok(()));
    }
}

#[test]
fn another_protocol_brings_about_a_rebalance() {
    let mut bench = Bench::new();
    let both = |join: Join| Join { protocols: protocols(&["range", "sticky"]), ..join };
    bench.stable(vec![both(static_join("", "one")), both(static_join("", "two"))]);
    let back = bench.join(Join { protocols: protocols(&["sticky"]), ..static_join("", "two") });
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    let one = got(bench.join(both(static_join("m1", "one"))));
    assert_eq!((one.generation, one.protocol.as_deref()), (2, Some("sticky")));
    assert_eq!(got(back).protocol.as_deref(), Some("sticky"));
}

#[test]
fn a_static_member_outlives_a_rebalance_but_not_its_session() {
    let mut bench = Bench::new();
    let slow = |join: Join| Join { session_timeout: secs(100), ..join };
    bench.stable(vec![slow(static_join("", "one")), slow(join(""))]);
    let mut newcomer = bench.join(join(""));
    let mut two = bench.join(slow(join("m2")));
    assert!(waits(&mut newcomer) && waits(&mut two));
    bench.pass(secs(60));
    let two = got(two);
    assert_eq!((two.generation, two.members.len()), (2, 3), "it is counted in though it did not join");
    assert_eq!(two.leader, "m2", "but it cannot lead");
    assert_eq!(got(newcomer).leader, "m2");
    bench.pass(secs(45));
    assert!(!bench.group.roster.contains("m1"));
}

#[test]
fn static_members_that_all_stay_away_are_waited_for() {
    let mut bench = Bench::new();
    let slow = |join: Join| Join { session_timeout: secs(1_000), rebalance_timeout: secs(10), ..join };
    bench.stable(vec![slow(static_join("", "one")), slow(static_join("", "two")), slow(join(""))]);
    assert_eq!(bench.leave(&[("m3", None)]), [Ok(())]);
    bench.pass(secs(500));
    assert_eq!((bench.group.state(), bench.group.generation()), (State::PreparingRebalance, 1));
    let (one, two) = (bench.join(static_join("m1", "one")), bench.join(static_join("", "two")));
    assert_eq!((got(one).generation, got(two).generation), (2, 2));
}

#[test]
fn no_time_to_rebalance_is_no_time_to_sync() {
    let mut bench = Bench::new();
    let never = |join: Join| Join { session_timeout: secs(50), rebalance_timeout: secs(0), ..join };
    let one = bench.join(never(static_join("", "one")));
    bench.pass(secs(3));
    got(one);
    bench.pass(secs(3));
    assert_eq!(bench.group.state(), State::Empty);
}

#[test]
fn administrators_remove_static_members_by_name() {
    let mut bench = stable();
    assert_eq!(
        bench.leave(&[("", Some("two")), ("", Some("three")), ("m1", Some("two"))]),
        [Ok(()), Err(UnknownMemberId), Err(UnknownMemberId)]
    );
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    assert_eq!(got(bench.join(static_join("m1", "one"))).members.len(), 1);
}

#[test]
fn a_static_member_needs_no_announced_id() {
    let mut bench = Bench::new();
    let mut one = bench.join(Join { require_known_member_id: true, ..static_join("", "one") });
    assert!(waits(&mut one));
    bench.pass(secs(3));
    assert_eq!(got(one).member_id, "m1");
}
