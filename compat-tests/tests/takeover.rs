//! Two brokers and one place: a folder has one owner until it ends; a bucket belongs to whoever came last, and the one
//! before acknowledges nothing any more, says so, and exits with code 3.

use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::door::Door;
use compat_tests::process::{Broker, Launch};
use compat_tests::s3::Backend;
use compat_tests::wait::{Dice, alone, scale};
use compat_tests::workload::{Load, Workload, drain};
use compat_tests::{checker, clients};
use rdkafka::producer::FutureRecord;

/// The exit code of a broker that was fenced by another one.
const FENCED: i32 = 3;
/// Without requests nothing tells a broker that it was fenced; with them it must learn it soon.
const LEARNS_WITHIN: Duration = Duration::from_secs(30);

fn says_that_it_was_fenced(broker: &Broker) {
    let log = broker.log().to_lowercase();
    assert!(log.contains("fenced"), "the log does not say that the broker was fenced:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_on_a_folder_is_refused() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Backend::Folder.launch(folder.path()).await;
    let mut first = launch.start().await;
    clients::create_topic(&launch.kafka, "kept", 3).await;
    let workload = Workload::start(&launch.kafka, Load { topic: "kept".to_owned(), ..Load::small("kept", true) });
    workload.progress(50).await;
    let second_launch = launch.elsewhere(&folder.path().join("second"));
    let mut second = second_launch.spawn();
    let code = second.wait(Duration::from_secs(30)).await;
    assert!(matches!(code, Some(1 | 2)), "a refused broker exits with a failure of its own, not {code:?}");
    let log = second.log();
    assert!(log.contains(&first.pid().to_string()), "the owner's pid {} is not named:\n{log}", first.pid());
    workload.progress(50).await;
    assert_eq!(first.exited(), None, "the first broker is untouched");
    workload.finish(&launch.kafka).await.assert_sound(&Rules::idempotent(), "the first broker's records");
}

/// Plain producers on `first` while `second` takes its bucket; returns when the first one ended.
async fn take_over(first: &mut Broker, launch: &Launch, second: &Launch) -> Broker {
    let workload_on_first = Workload::start(&launch.kafka, Load::small("contested", false));
    workload_on_first.progress(50).await;
    let second_broker = second.start().await;
    let code = first.wait(LEARNS_WITHIN).await;
    assert_eq!(code, Some(FENCED), "a fenced broker exits with a code of its own");
    says_that_it_was_fenced(first);
    // Whatever the first one acknowledged, the second one has; what it did not may be there or not.
    let mut history = workload_on_first.abandon().await;
    for index in 0..3 {
        drain(&second.kafka, &checker::partition("contested", index), &mut history).await;
    }
    history.assert_sound(&Rules::plain_without_retries(), "what the first broker acknowledged");
    second_broker
}

async fn takes_over(backend: Backend) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = backend.launch(&folder.path().join("first")).await;
    let mut first = launch.start().await;
    clients::create_topic(&launch.kafka, "contested", 3).await;
    let second = launch.elsewhere(&folder.path().join("second"));
    let mut second_broker = take_over(&mut first, &launch, &second).await;
    let producer = clients::producer(&second.kafka, &[]);
    let record = FutureRecord::<(), str>::to("contested").partition(0).payload("after");
    producer.send(record, clients::LIMIT).await.expect("the second broker acknowledges");
    assert_eq!(second_broker.exited(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_on_a_bucket_takes_over() {
    takes_over(Backend::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_on_a_bucket_with_etcd_takes_over() {
    takes_over(Backend::S3AndEtcd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_broker_learns_that_it_was_fenced_when_it_is_asked() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Backend::S3.launch(&folder.path().join("first")).await;
    let mut first = launch.start().await;
    clients::create_topic(&launch.kafka, "read", 1).await;
    let consumer = clients::consumer(&launch.kafka, &[]);
    clients::assign(&consumer, "read", [0], rdkafka::Offset::Beginning);
    // A reader alone, who never writes, must be told too.
    let reading = tokio::spawn(async move { while consumer.recv().await.is_err() {} });
    let second = launch.elsewhere(&folder.path().join("second"));
    let _second_broker = second.start().await;
    assert_eq!(first.wait(LEARNS_WITHIN).await, Some(FENCED));
    says_that_it_was_fenced(&first);
    reading.abort();
}

async fn slept_through_a_takeover(backend: Backend, rounds: u64) {
    let _turn = alone().await;
    let mut dice = Dice::new("sleeper");
    for _ in 0..rounds {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let launch = backend.launch(&folder.path().join("first")).await;
        let mut first = launch.start().await;
        clients::create_topic(&launch.kafka, "slept", 3).await;
        let workload = Workload::start(&launch.kafka, Load::small("slept", false));
        workload.progress(100).await;
        tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(200))).await;
        // Somewhere between a PUT and its acknowledgement.
        first.pause();
        let second = launch.elsewhere(&folder.path().join("second"));
        let _second_broker = second.start().await;
        first.resume();
        assert_eq!(first.wait(LEARNS_WITHIN).await, Some(FENCED));
        says_that_it_was_fenced(&first);
        let mut history = workload.abandon().await;
        for index in 0..3 {
            drain(&second.kafka, &checker::partition("slept", index), &mut history).await;
        }
        history.assert_sound(&Rules::plain_without_retries(), "what was acknowledged before and after the sleep");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_slept_through_a_takeover_is_fenced() {
    slept_through_a_takeover(Backend::S3, scale("WOODPECKER_TEST_SLEEP_ROUNDS", 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_etcd_that_slept_through_a_takeover_is_fenced() {
    slept_through_a_takeover(Backend::S3AndEtcd, scale("WOODPECKER_TEST_SLEEP_ROUNDS", 3).div_ceil(3)).await;
}

/// Lets two brokers want the same place: each start fences the other. `met` is told whenever another one holds it.
async fn fight(workload: &Workload, mut holder: Broker, one: &Launch, other: &Launch, met: impl Fn(&Broker)) -> Broker {
    let mut dice = Dice::new("fight");
    for round in 0..scale("WOODPECKER_TEST_FIGHT_ROUNDS", 6) {
        workload.progress(100).await;
        tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(300))).await;
        let challenger = if round % 2 == 0 { other } else { one };
        let mut next = challenger.spawn();
        // Every third fight the challenger dies somewhere on its way, and comes again.
        if round % 3 == 2 {
            tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(200))).await;
            next.kill().await;
            next = challenger.spawn();
        }
        next.ready().await;
        met(&next);
        assert_eq!(holder.wait(LEARNS_WITHIN).await, Some(FENCED));
        holder = next;
    }
    workload.progress(100).await;
    holder
}

/// Clients know both addresses and send to whichever answers.
async fn two_fight_and_lose_nothing(backend: Backend) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let one = backend.launch(&folder.path().join("one")).await;
    let other = one.elsewhere(&folder.path().join("other"));
    let holder = one.start().await;
    clients::create_topic(&one.kafka, "fought", 3).await;
    let workload = Workload::start(&format!("{},{}", one.kafka, other.kafka), Load::small("fought", false));
    let holder = fight(&workload, holder, &one, &other, |_| {}).await;
    let history = workload.finish(holder.kafka()).await;
    println!("fight: {} acknowledged", history.acknowledged());
    history.assert_sound(&Rules::plain_without_retries(), "two brokers and one bucket");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_that_fight_over_a_bucket_lose_nothing() {
    two_fight_and_lose_nothing(Backend::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_that_fight_over_a_bucket_and_etcd_lose_nothing() {
    two_fight_and_lose_nothing(Backend::S3AndEtcd).await;
}

/// Clients know one address, behind which the brokers change: a retry of what one broker took reaches the other. (With
/// two addresses librdkafka 2.12 can wait for ever: while it tries to reach a broker id at its old address, it does not
/// ask its bootstrap list for a new one.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_producers_make_no_duplicates_across_fights() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let one = Backend::S3.launch(&folder.path().join("one")).await;
    let door = Door::to(&one.kafka).await;
    let one = one.arg("--advertise").arg(&door.address);
    let other = one.elsewhere(&folder.path().join("other"));
    let holder = one.start().await;
    clients::create_topic(&door.address, "retried", 3).await;
    let workload = Workload::start(&door.address, Load::small("retried", true));
    let _holder = fight(&workload, holder, &one, &other, |next| door.lead_to(next.kafka())).await;
    let history = workload.finish(&door.address).await;
    println!("fight: {} acknowledged", history.acknowledged());
    history.assert_sound(&Rules::idempotent(), "two brokers behind one address");
    assert_eq!(history.unknown(), 0, "an idempotent producer learns the fate of everything it sent");
}
