//! Consumer groups with real clients against the real binary: librdkafka's consumers, kcat, and members that speak the
//! protocol by hand, of which a thousand cost nothing.

mod consumers;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use compat_tests::clients::{self, LIMIT};
use compat_tests::process::{Broker, Launch, mortal, spawn};
use compat_tests::s3::Backend;
use compat_tests::wait::{Dice, alone, scale, until};
use futures::future::join_all;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::Consumer;
use rdkafka::producer::FutureRecord;
use rdkafka::topic_partition_list::Offset;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::Instant;

use self::consumers::Member;
use self::members::{ByHand, committed, describe, list};

/// A broker on a folder of its own, whose groups do not wait long for their first members.
async fn broker() -> (TempDir, Broker) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).set("group_initial_rebalance_delay_ms", 200).start().await;
    (folder, broker)
}

async fn fill(kafka: &str, topic: &str, partitions: i32, records: usize) {
    let producer = clients::producer(kafka, &[("linger.ms", "5")]);
    let sends = (0..records).map(|number| {
        let payload = format!("{number}");
        let producer = &producer;
        async move {
            let record = FutureRecord::<(), _>::to(topic).partition(number as i32 % partitions).payload(&payload);
            producer.send(record, LIMIT).await.expect("acknowledged");
        }
    });
    join_all(sends).await;
}

/// Waits until these members have all partitions between them, each one, and each at least one.
async fn settled(members: &[&Member], partitions: usize) {
    until("every member has its share", LIMIT, async || {
        let assigned: Vec<BTreeSet<i32>> = members.iter().map(|member| member.assigned()).collect();
        let all: BTreeSet<i32> = assigned.iter().flatten().copied().collect();
        let shares: usize = assigned.iter().map(BTreeSet::len).sum();
        all.len() == partitions && shares == partitions && assigned.iter().all(|share| !share.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_take_over_from_each_other() {
    let _turn = alone().await;
    let (_folder, broker) = broker().await;
    let kafka = broker.kafka();
    clients::create_topic(kafka, "shared", 6).await;
    fill(kafka, "shared", 6, 600).await;
    let one = Member::join(kafka, "sharing", "shared", &[]);
    settled(&[&one], 6).await;
    until("one reads everything", LIMIT, async || one.values().len() == 600).await;
    one.commit();
    let two = Member::join(kafka, "sharing", "shared", &[]);
    settled(&[&one, &two], 6).await;
    fill(kafka, "shared", 6, 60).await;
    until("both read their shares", LIMIT, async || one.values().len() + two.values().len() == 660).await;
    assert!(!two.values().is_empty(), "the second member read nothing");
    one.commit();
    two.commit();
    drop(one);
    settled(&[&two], 6).await;
    let before = two.values().len();
    fill(kafka, "shared", 6, 60).await;
    until("the one that is left reads on", LIMIT, async || two.values().len() >= before + 60).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(two.values().len(), before + 60, "nothing is read twice after orderly commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_killed_loses_its_partitions_when_its_session_ends() {
    let _turn = alone().await;
    let (_folder, broker) = broker().await;
    let kafka = broker.kafka();
    clients::create_topic(kafka, "killed", 4).await;
    let survivor = Member::join(kafka, "killing", "killed", &[("session.timeout.ms", "6000")]);
    let kcat = which("kcat");
    let mut command = mortal(&kcat);
    command.args(["-b", kafka, "-X", "session.timeout.ms=6000", "-q", "-G", "killing", "killed"]);
    let mut victim = spawn(command);
    until("the two share", LIMIT, async || survivor.assigned().len() == 2).await;
    victim.kill().expect("a child can be killed");
    let _ = victim.wait();
    let killed = Instant::now();
    settled(&[&survivor], 4).await;
    assert!(killed.elapsed() > Duration::from_secs(3), "it cannot have been missed before its session ended");
}

fn which(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is installed (make deps)"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_that_is_restarted_costs_the_others_nothing() {
    let _turn = alone().await;
    let (_folder, broker) = broker().await;
    let kafka = broker.kafka();
    clients::create_topic(kafka, "static", 4).await;
    let timeout = ("session.timeout.ms", "20000");
    let stays = Member::join(kafka, "statics", "static", &[timeout, ("group.instance.id", "a")]);
    let goes = Member::join(kafka, "statics", "static", &[timeout, ("group.instance.id", "b")]);
    settled(&[&stays, &goes], 4).await;
    let (share, rebalances) = (goes.assigned(), stays.rebalances());
    drop(goes);
    let back = Member::join(kafka, "statics", "static", &[timeout, ("group.instance.id", "b")]);
    settled(&[&stays, &back], 4).await;
    assert_eq!(back.assigned(), share, "it gets what it had");
    assert_eq!(stays.rebalances(), rebalances, "the other one did not notice");
    let group = describe(kafka, "statics").await;
    let mut instances: Vec<_> = group.members.iter().map(|m| m.group_instance_id.clone().unwrap_or_default()).collect();
    instances.sort();
    assert_eq!(instances.iter().map(|i| i.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    // A third process that uses the same name takes the place, and the one that had it is told.
    let usurper = Member::join(kafka, "statics", "static", &[timeout, ("group.instance.id", "b")]);
    until("the former holder is fenced", LIMIT, async || back.is_fenced()).await;
    settled(&[&stays, &usurper], 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_listed_described_and_deleted() {
    let _turn = alone().await;
    let (_folder, mut broker) = broker().await;
    let kafka = broker.kafka().to_owned();
    clients::create_topic(&kafka, "seen", 2).await;
    fill(&kafka, "seen", 2, 10).await;
    let member = Member::join(&kafka, "visible", "seen", &[("client.id", "me")]);
    settled(&[&member], 2).await;
    until("it has read", LIMIT, async || member.values().len() == 10).await;
    member.commit();
    let groups = block_in_place(|| clients::consumer(&kafka, &[]).fetch_group_list(Some("visible"), LIMIT));
    let groups = groups.expect("groups are listed");
    let [group] = groups.groups() else { panic!("one group was asked for, not {}", groups.groups().len()) };
    assert_eq!((group.name(), group.state(), group.protocol_type()), ("visible", "Stable", "consumer"));
    let [described] = group.members() else { panic!("one member, not {}", group.members().len()) };
    assert_eq!((described.client_id(), described.client_host()), ("me", "/127.0.0.1"));
    assert!(described.id().starts_with("me-") && described.assignment().is_some_and(|bytes| !bytes.is_empty()));
    assert_eq!(list(&kafka).await, BTreeMap::from([("visible".to_owned(), "Stable".to_owned())]));

    let admin = clients::admin(&kafka);
    let delete = async |group: &str| admin.delete_groups(&[group], &AdminOptions::new()).await.expect("an answer");
    assert!(delete("visible").await[0].is_err(), "a group with a member is not deleted");
    drop(member);
    until("it is empty", LIMIT, async || describe(&kafka, "visible").await.group_state.as_str() == "Empty").await;
    // What it had committed and that it is empty survives.
    broker.kill().await;
    let broker = broker.again().await;
    until("it is loaded", LIMIT, async || list(&kafka).await.get("visible").is_some_and(|state| state == "Empty"))
        .await;
    assert_eq!(committed(&kafka, "visible", "seen", 2).await, [5, 5]);
    assert_eq!(delete("visible").await, vec![Ok("visible".to_owned())]);
    assert_eq!(committed(&kafka, "visible", "seen", 2).await, [-1, -1]);
    assert!(delete("visible").await[0].is_err(), "what does not exist cannot be deleted");
    assert!(list(&kafka).await.is_empty());
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_go_with_their_topic() {
    let _turn = alone().await;
    let (_folder, broker) = broker().await;
    let kafka = broker.kafka();
    for topic in ["goes", "stays"] {
        clients::create_topic(kafka, topic, 1).await;
        ByHand::simple(kafka, "keeper").await.commit(topic, 0, 7).await.expect("committed");
    }
    let gone = clients::admin(kafka).delete_topics(&["goes"], &AdminOptions::new()).await.expect("an answer");
    assert_eq!(gone, vec![Ok("goes".to_owned())]);
    clients::create_topic(kafka, "goes", 1).await;
    until("its offset is gone", LIMIT, async || committed(kafka, "keeper", "goes", 1).await == [-1]).await;
    assert_eq!(committed(kafka, "keeper", "stays", 1).await, [7]);
}

/// Commits by hand rise all the time, while the broker is killed again and again. What was acknowledged is never lost,
/// and what is read never lower than anything acknowledged or read before.
async fn commits_survive_kills(name: &str, backend: Backend) {
    let _turn = alone().await;
    let rounds = scale("WOODPECKER_TEST_KILL_ROUNDS", 10);
    let mut dice = Dice::new(name);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = backend.launch(folder.path()).await.busy_upkeep().set("group_initial_rebalance_delay_ms", 0);
    let mut broker = launch.start().await;
    clients::create_topic(&launch.kafka, "commits", 1).await;
    let (acknowledged, mut commits) = (tokio::sync::watch::Sender::new(0_i64), 0);
    let committing = {
        let (kafka, acknowledged) = (launch.kafka.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let (mut next, mut member) = (1, None);
            loop {
                let Some(current) = &mut member else {
                    member = ByHand::try_member(&kafka, "committers", "commits").await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let outcome = current.commit("commits", 0, next).await;
                if let Err(error) = outcome {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    // A member stays one while its coordinator is gone.
                    if !current.recover_after(error, &kafka, "commits").await {
                        member = None;
                    }
                } else {
                    acknowledged.send_replace(next);
                }
                // Where the outcome is unknown, the next one is higher in any case.
                next += 1;
            }
        })
    };
    let mut seen = 0;
    for round in 0..rounds {
        let from = *acknowledged.borrow();
        until("commits go on", LIMIT * 2, async || *acknowledged.borrow() >= from + 20).await;
        tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(300))).await;
        broker.kill().await;
        let least = *acknowledged.borrow();
        if round % 3 == 2 {
            let mut starting = launch.spawn();
            tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(150))).await;
            starting.kill().await;
        }
        broker = launch.start().await;
        let read = committed(&launch.kafka, "committers", "commits", 1).await[0];
        assert!(read >= least, "{name}, round {round}: {least} was acknowledged, and {read} is there");
        assert!(read >= seen, "{name}, round {round}: {seen} was read before, and now {read}");
        seen = read;
        commits = least;
    }
    committing.abort();
    println!("{name}: {rounds} kills, {commits} commits");
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_survive_kills_on_a_folder() {
    commits_survive_kills("commits, folder", Backend::Folder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_survive_kills_on_a_bucket() {
    commits_survive_kills("commits, bucket", Backend::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_reads_on_where_it_was_after_the_broker_was_killed() {
    let _turn = alone().await;
    let (_folder, mut broker) = broker().await;
    let kafka = broker.kafka().to_owned();
    clients::create_topic(&kafka, "on", 3).await;
    fill(&kafka, "on", 3, 300).await;
    let member = Member::join(&kafka, "reader", "on", &[]);
    until("it has read", LIMIT, async || member.values().len() == 300).await;
    member.commit();
    for _ in 0..3 {
        broker.kill().await;
        broker = broker.again().await;
        let before = member.values().len();
        fill(&kafka, "on", 3, 30).await;
        until("it reads on", LIMIT * 2, async || member.values().len() >= before + 30).await;
        assert_eq!(member.values().len(), before + 30, "it reads nothing twice");
        member.commit();
    }
    let list = block_in_place(|| member.consumer().committed(LIMIT)).expect("committed offsets");
    assert!(list.elements().iter().all(|element| element.offset() == Offset::Offset(130)), "{list:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_members_of_one_group() {
    let _turn = alone().await;
    let (_folder, broker) = broker().await;
    let kafka = broker.kafka();
    clients::create_topic(kafka, "hundred", 100).await;
    let began = Instant::now();
    let mut members = join_all((0..100).map(|_| ByHand::connect(kafka, "hundred"))).await;
    let joined = join_all(members.iter_mut().map(|member| member.join_and_sync("hundred"))).await;
    println!("100 members, first generation: {:?}", began.elapsed());
    let generation = joined[0].as_ref().expect("joined").generation;
    for member in &joined {
        assert_eq!(member.as_ref().expect("joined").generation, generation, "one generation for all");
    }
    // One more arrives: everybody has to join again, and does.
    let began = Instant::now();
    let mut late = ByHand::connect(kafka, "hundred").await;
    let (late, others) = tokio::join!(
        late.join_and_sync("hundred"),
        join_all(members.iter_mut().map(|member| member.rejoin_when_told("hundred")))
    );
    println!("100 members, rebalance for one more: {:?}", began.elapsed());
    let generation = late.expect("joined").generation;
    assert!(others.iter().all(|other| other.as_ref().is_ok_and(|joined| joined.generation == generation)));
    assert_eq!(describe(kafka, "hundred").await.members.len(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_groups() {
    let _turn = alone().await;
    let (_folder, mut broker) = broker().await;
    let kafka = broker.kafka().to_owned();
    clients::create_topic(&kafka, "thousand", 1).await;
    let began = Instant::now();
    let name = |number: i64| format!("group-{number}");
    let one = async |number: i64| {
        let mut member = ByHand::connect(&kafka, &name(number)).await;
        member.join_and_sync("thousand").await.expect("joined");
        member.commit("thousand", 0, number).await.expect("committed");
        member
    };
    let members = join_all((0..1000).map(one)).await;
    println!("1000 groups of one member, joined and committed: {:?}", began.elapsed());
    assert_eq!(list(&kafka).await.values().filter(|state| *state == "Stable").count(), 1000);
    broker.kill().await;
    let began = Instant::now();
    let broker = broker.again().await;
    until("all groups are loaded", LIMIT, async || list(&kafka).await.len() == 1000).await;
    println!("1000 groups loaded: {:?}", began.elapsed());
    for number in [0, 1, 499, 999] {
        assert_eq!(committed(&kafka, &name(number), "thousand", 1).await, [number]);
    }
    // They are members still: a restart of the coordinator costs no rebalance.
    for (number, mut member) in members.into_iter().enumerate().step_by(100) {
        member.reconnect(&kafka).await;
        member.heartbeat().await.unwrap_or_else(|code| panic!("member of group {number}: {code:?}"));
    }
    drop(broker);
}
