//! JoinGroup of dynamic members: who is let in, how long the others wait, and what brings about a new generation.

use kafka_protocol::ResponseError::*;

use super::*;
use crate::groups::messages::Joined;

fn refused(bench: &mut Bench, join: Join) -> ResponseError {
    let joined = got(bench.join(join));
    let empty = Joined::refused(joined.error.expect("was refused"), joined.member_id.clone());
    assert_eq!(joined, empty, "nothing but an error");
    joined.error.expect("was refused")
}

#[test]
fn the_first_rebalance_waits_while_members_arrive() {
    let mut bench = Bench::new();
    let mut first = bench.join(join(""));
    // One every two seconds: each three seconds with a newcomer add three more.
    let mut others = Vec::new();
    for _ in 0..4 {
        bench.pass(secs(2));
        others.push(bench.join(join("")));
    }
    assert!(waits(&mut first));
    bench.pass(secs(10));
    let completed_ms = bench.group.state_since_ms;
    let joined = got(first);
    assert_eq!((joined.generation, joined.members.len()), (1, 5));
    assert!(others.into_iter().map(got).all(|other| other.generation == 1));
    // 3, 6, 9 extended by those at 2, 4 and 8; nobody between 9 and 12.
    assert_eq!(completed_ms, Some(1_012_000));
}

#[test]
fn the_first_rebalance_ends_with_the_rebalance_timeout() {
    let mut bench = Bench::new();
    let mut first = bench.join(Join { rebalance_timeout: secs(7), ..join("") });
    for second in 1..7 {
        bench.pass(secs(1));
        assert!(waits(&mut first), "after {second} s");
        drop(bench.join(join("")));
    }
    bench.pass(secs(1));
    assert_eq!(got(first).generation, 1);
}

#[test]
fn without_a_delay_the_first_member_goes_ahead() {
    let mut bench = Bench::new();
    bench.limits.initial_rebalance_delay = secs(0);
    let joined = got(bench.join(join("")));
    assert_eq!((joined.generation, joined.leader.as_str(), joined.members.len()), (1, "m1", 1));
}

#[test]
fn a_new_member_is_told_its_id_first() {
    let mut bench = Bench::new();
    let ask = Join { require_known_member_id: true, ..join("") };
    let told = got(bench.join(ask.clone()));
    assert_eq!((told.error, told.member_id.as_str(), told.generation), (Some(MemberIdRequired), "m1", -1));
    assert_eq!(bench.group.state(), State::Empty);
    assert!(!bench.group.is_idle(), "somebody is about to join");
    let one = bench.join(Join { member_id: "m1".to_owned(), ..ask.clone() });
    bench.pass(secs(3));
    assert_eq!(got(one).generation, 1);
    let sync = bench.sync("m1", &[]);
    bench.written(Ok(()));
    assert_eq!(got(sync).error, None);

    // One that never comes back holds up a rebalance only until its session would end.
    assert_eq!(refused(&mut bench, ask.clone()), MemberIdRequired);
    let mut one = bench.join(join("m1"));
    assert_eq!(bench.group.state(), State::PreparingRebalance, "a leader that joins again wants a rebalance");
    assert!(waits(&mut one), "the other is awaited");
    bench.pass(secs(9));
    assert!(waits(&mut one));
    bench.pass(secs(1));
    assert_eq!(got(one).generation, 2);
    assert_eq!(refused(&mut bench, Join { member_id: "m2".to_owned(), ..ask }), UnknownMemberId, "it is too late");
}

#[test]
fn an_announced_member_can_leave() {
    let mut bench = Bench::new();
    assert_eq!(refused(&mut bench, Join { require_known_member_id: true, ..join("") }), MemberIdRequired);
    assert_eq!(bench.leave(&[("m1", None)]), [Ok(())]);
    assert_eq!(refused(&mut bench, join("m1")), UnknownMemberId);
    assert!(bench.group.is_idle());
}

#[test]
fn ids_that_are_never_used_are_bounded() {
    let mut bench = Bench::new();
    let ask = Join { require_known_member_id: true, ..join("") };
    for _ in 0..10_050 {
        got(bench.join(ask.clone()));
        bench.now.instant += std::time::Duration::from_micros(1);
    }
    assert_eq!(bench.group.announced.len(), 10_000);
    assert!(!bench.group.announced.contains_key("m50") && bench.group.announced.contains_key("m51"));
}

#[test]
fn a_group_that_everybody_may_join_has_bounds() {
    let mut bench = Bench::new();
    for (session, outcome) in [(5, Some(InvalidSessionTimeout)), (1_801, Some(InvalidSessionTimeout)), (1_800, None)] {
        let mut answer = bench.join(Join { session_timeout: secs(session), ..join("") });
        assert_eq!(answer.try_recv().ok().and_then(|joined| joined.error), outcome, "{session}");
    }
    assert_eq!(refused(&mut bench, join("stranger")), UnknownMemberId);

    let mut bench = Bench::new();
    for broken in [Join { protocol_type: String::new(), ..join("") }, Join { protocols: Vec::new(), ..join("") }] {
        assert_eq!(refused(&mut bench, broken), InconsistentGroupProtocol);
    }
    bench.stable(vec![join("")]);
    for foreign in [
        Join { protocol_type: "connect".to_owned(), ..join("") },
        Join { protocols: protocols(&["sticky"]), ..join("") },
        Join { protocols: Vec::new(), ..join("m1") },
    ] {
        assert_eq!(refused(&mut bench, foreign), InconsistentGroupProtocol);
    }
    assert_eq!(bench.group.state(), State::Stable, "what is refused disturbs nobody");
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut bench = Bench::new();
    bench.limits.max_members = 2;
    let (one, two) = (bench.join(join("")), bench.join(join("")));
    assert_eq!(refused(&mut bench, join("")), GroupMaxSizeReached);
    bench.pass(secs(6));
    assert_eq!((got(one).members.len(), got(two).error), (2, None));
    assert_eq!(refused(&mut bench, join("")), GroupMaxSizeReached);
    assert_eq!(bench.group.state(), State::CompletingRebalance);
    assert_eq!(got(bench.join(join("m2"))).error, None, "members may always join again");

    // The limit was lowered: the first to join again stay.
    bench.limits.max_members = 1;
    let mut one = bench.join(Join { protocols: protocols(&["sticky", "range"]), ..join("m1") });
    assert!(waits(&mut one));
    let two = got(bench.join(join("m2")));
    assert_eq!((two.error, two.member_id.as_str()), (Some(GroupMaxSizeReached), ""));
    assert_eq!(got(one).members.len(), 1);
}

#[test]
fn the_protocol_is_voted_for_among_those_that_all_know() {
    for (offers, chosen) in [
        (vec![vec!["range", "sticky"], vec!["sticky", "range"], vec!["sticky", "range"]], "sticky"),
        (vec![vec!["range", "sticky"], vec!["sticky", "range"]], "range"),
        (vec![vec!["alone", "sticky", "range"], vec!["range", "sticky"], vec!["other", "range"]], "range"),
        (vec![vec!["b", "b", "a"], vec!["b", "a"]], "b"),
    ] {
        let mut bench = Bench::new();
        let answers: Vec<_> =
            offers.iter().map(|names| bench.join(Join { protocols: protocols(names), ..join("") })).collect();
        bench.pass(secs(60));
        let answers: Vec<_> = answers.into_iter().map(got).collect();
        assert!(answers.iter().all(|joined| joined.protocol.as_deref() == Some(chosen)), "{offers:?}");
        assert!(answers[0].members.iter().all(|member| member.metadata == chosen), "metadata is that of the protocol");
    }
}

#[test]
fn who_missed_an_answer_is_told_again() {
    let mut bench = Bench::new();
    let (one, two) = (bench.join(join("")), bench.join(join("")));
    bench.pass(secs(6));
    got(one);
    got(two);
    let again = got(bench.join(join("m1")));
    assert_eq!((again.generation, again.members.len()), (1, 2), "the leader too, before it has assigned");
    let again = got(bench.join(join("m2")));
    assert_eq!((again.generation, again.members.len(), again.leader.as_str()), (1, 0, "m1"));
    let syncs = [bench.sync("m1", &[]), bench.sync("m2", &[])];
    bench.written(Ok(()));
    assert!(syncs.into_iter().map(got).all(|synced| synced.error.is_none()));
    assert_eq!(got(bench.join(join("m2"))).generation, 1);
    assert_eq!(bench.group.state(), State::Stable);
}

#[test]
fn changed_metadata_and_the_leader_bring_about_a_rebalance() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    let changed = Join {
        protocols: vec![Protocol { name: "range".to_owned(), metadata: "new".into() }],
        client_id: "other".to_owned(),
        session_timeout: secs(20),
        ..join("m2")
    };
    let mut two = bench.join(changed);
    assert!(waits(&mut two));
    let one = got(bench.join(join("m1")));
    assert_eq!((one.generation, &one.members[1].metadata[..]), (2, &b"new"[..]));
    assert_eq!(got(two).generation, 2);
    assert_eq!(bench.group.describe().members[1].client_id, "other", "everything is taken over");
    bench.pass(secs(15));
    assert_eq!(bench.group.describe().members.len(), 1, "the session timeout too: m1 is gone, m2 is not");

    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    let mut leader = bench.join(join("m1"));
    assert!(waits(&mut leader));
    assert_eq!(got(bench.join(join("m2"))).generation, 2);
    assert_eq!(got(leader).leader, "m1", "the leader stays");
}

#[test]
fn another_leads_if_the_leader_does_not_come_back() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    assert_eq!(bench.leave(&[("m1", None)]), [Ok(())]);
    let two = got(bench.join(join("m2")));
    assert_eq!((two.generation, two.leader.as_str(), two.members.len()), (2, "m2", 1));
}

#[test]
fn a_second_request_takes_the_place_of_the_first() {
    let mut bench = Bench::new();
    bench.stable(vec![join(""), join("")]);
    let first = bench.join(join("m1"));
    let mut second = bench.join(join("m1"));
    assert_eq!(got(first).error, Some(RebalanceInProgress));
    assert!(waits(&mut second));
    got(bench.join(join("m2")));
    assert_eq!(got(second).generation, 2);
}

#[test]
fn who_waits_needs_no_heartbeats_but_a_new_member_not_for_ever() {
    let mut bench = Bench::new();
    let slow = Join { rebalance_timeout: secs(1_000), session_timeout: secs(1_000), ..join("") };
    bench.stable(vec![slow, join("")]);
    let mut newcomer = bench.join(join(""));
    let mut two = bench.join(join("m2"));
    bench.pass(secs(290));
    assert!(waits(&mut newcomer) && waits(&mut two), "both have sessions of ten seconds");
    bench.pass(secs(10));
    assert_eq!(got(newcomer).error, Some(UnknownMemberId), "if it is still there, it tries again");
    assert!(waits(&mut two));
    bench.pass(secs(700));
    assert_eq!(got(two).generation, 2);
}

#[test]
fn a_session_begins_anew_when_a_wait_is_over() {
    let mut bench = Bench::new();
    let (one, two) = (bench.join(join("")), bench.join(join("")));
    bench.pass(secs(6));
    got(one);
    got(two);
    let mut follower = bench.sync("m2", &[]);
    for _ in 0..5 {
        bench.pass(secs(8));
        assert_eq!(bench.heartbeat("m1"), Ok(()));
    }
    assert!(waits(&mut follower));
    let newcomer = bench.join(join(""));
    assert_eq!(got(follower).error, Some(RebalanceInProgress));
    bench.pass(secs(9));
    assert_eq!(bench.heartbeat("m2"), Err(RebalanceInProgress), "it had no way to say that it lives");
    drop(newcomer);
}
