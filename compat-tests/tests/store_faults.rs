//! What object stores do wrong, on the whole broker: nothing acknowledged is lost or changed, nothing else becomes
//! visible above a fence, memory stays within its budget, and it goes on by itself when the store does.
//!
//! | what the store does | at the log alone | on the whole broker |
//! |---|---|---|
//! | a PUT times out, and landed, or lands later | `object_log/tests/writing.rs`: `every_ambiguity_...` | `puts_that_time_out_and_land` |
//! | a PUT answers 5xx, and landed | the same | `puts_that_fail_and_land` |
//! | a PUT answers 409 or 412, and landed, or nothing did | the same, `settled/tests.rs` | `puts_that_conflict` |
//! | a PUT is neither answered nor found for long | `writing.rs`: `a_fragment_that_never_lands_...` | the seeds of `sim.rs` |
//! | 503 SlowDown for minutes | `writing.rs`: `a_long_outage_...` | `slow_down_for_minutes` |
//! | it is gone for an hour | `writing.rs`: `a_long_outage_...` | `an_outage_of_an_hour` |
//! | it is gone while producers go on at full speed | | `an_outage_under_load_stays_within_the_budget` |
//! | it is slower than producers | `writing.rs`: `full_batches_...` | `overload.rs` |
//! | a GET ends early, or has a wrong bit | `object_log/tests/reads.rs`: `damaged_answers_...` | `gets_that_are_cut_short_or_damaged` |
//! | an object is damaged for good | `reads.rs`: `a_fence_or_anything_strange_...` | `a_damaged_object_is_named_and_never_served` |
//! | an object is gone | `reads.rs`: `a_hole_below_the_end_...` | |
//! | it ignores conditions | `probe/tests.rs` | `probe.rs`, `cloud.rs` |
//!
//! All of it at random, with crashes and takeovers in the midst: the seeds of `sim.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use compat_tests::checker::{Partition, Rules, partition};
use compat_tests::clients;
use compat_tests::process::Launch;
use compat_tests::proxy::Proxy;
use compat_tests::raw::Raw;
use compat_tests::s3;
use compat_tests::sim::admin::{self, MADE, MADE_PARTITIONS};
use compat_tests::sim::boot;
use compat_tests::sim::cluster::{self, Cluster, MACHINES};
use compat_tests::sim::dice::Dice;
use compat_tests::sim::group_model::GroupModel;
use compat_tests::sim::model::Model;
use compat_tests::sim::net::Net;
use compat_tests::sim::producer::Producer;
use compat_tests::sim::reader::{self, Reader};
use compat_tests::sim::session::{Clients, Phase};
use compat_tests::sim::stores::AuditStore;
use compat_tests::sim::trace::Trace;
use compat_tests::wait::alone;
use compat_tests::workload::{Load, Workload};
use futures::TryStreamExt;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use meta::faults::{Fault, FaultPlan, FaultStore};
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use rdkafka::producer::FutureRecord;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A simulated broker on a store that behaves until a test says otherwise, and clients that write and read all the time.
struct World {
    cluster: Arc<Cluster>,
    clients: Arc<Clients>,
    phase: watch::Sender<Phase>,
    /// Ends the supervisor, which starts another broker when there is none.
    stop: watch::Sender<bool>,
}

fn sound() -> FaultPlan {
    FaultPlan::slow(Duration::from_millis(5)..=Duration::from_millis(30))
}

fn puts(faults: &[(f64, Fault)]) -> FaultPlan {
    FaultPlan { put: faults.to_vec(), ..sound() }
}

fn partitions() -> Vec<Partition> {
    (0..MADE_PARTITIONS).map(|index| partition(MADE, index)).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let trace = Arc::new(Trace::new(true));
        let net = Net::new(Dice::new(seed, "net"));
        let bucket = AuditStore::new(Arc::new(InMemory::new()), Arc::clone(&trace));
        let store = FaultStore::new(Arc::new(bucket), Dice::new(seed, "store").random(), sound());
        let cluster = Cluster::new(net.clone(), store, Arc::clone(&trace), seed, boot::node());
        let (phase, phases) = watch::channel(Phase::Faults);
        let clients = Arc::new(Clients {
            net,
            trace: Arc::clone(&trace),
            model: Model::new(Arc::clone(&trace)),
            groups: GroupModel::new(trace),
            addresses: (0..MACHINES).map(cluster::address).collect(),
            phase: phases,
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&cluster).supervise(stopped));
        Self { cluster, clients, phase, stop }
    }

    fn acknowledged(&self) -> usize {
        self.clients.model.counts().0
    }

    async fn read_everything(&self, dice: &Dice) {
        let missing = reader::read_back(&self.clients, dice, &partitions(), -1, MINUTE).await;
        assert!(missing.is_empty(), "{missing:?} cannot be read\n{}", self.clients.trace.take_lines().join("\n"));
    }

    /// Kills the broker, and starts another one.
    async fn restart(&self) {
        self.cluster.alive().iter().for_each(|host| self.cluster.kill(host));
        self.cluster.start(1);
        sleep(Duration::from_secs(10)).await;
    }
}

/// Two seeds of: clients at work, the store goes wrong as `strike` says, it heals, everything is read back, by the same
/// broker and by the next one.
async fn survives(strike: impl AsyncFn(&World)) {
    for seed in [4, 8] {
        let world = World::new(seed);
        let dice = Dice::new(seed, "schedule");
        let (clients, cluster) = (&world.clients, &world.cluster);
        cluster.start(0);
        let made = admin::create(clients, &dice, MADE, MADE_PARTITIONS, Phase::Drain).await;
        assert!(made.is_some(), "there is a topic");
        let lanes: Vec<(String, i32)> = (0..MADE_PARTITIONS).map(|index| (MADE.to_owned(), index)).collect();
        let (mut producers, mut readers) = (JoinSet::new(), JoinSet::new());
        for id in 0..3 {
            let role = Dice::new(seed, &format!("producer {id}"));
            producers.spawn(Producer::new(clients, id, role, id != 1, &lanes).run());
        }
        for id in 0..2 {
            let role = Dice::new(seed, &format!("reader {id}"));
            readers.spawn(Reader::new(clients, 1000 + id, role, &partitions(), id > 0).run());
        }
        sleep(Duration::from_millis(500)).await;
        let before = cluster.store.counts().faults;
        strike(&world).await;
        let faults = cluster.store.counts().faults - before;
        println!("seed {seed}: {faults} faults, {} acknowledged so far", world.acknowledged());
        assert!(faults >= 10, "{faults} faults are no test");
        cluster.store.set_plan(sound());
        cluster.heal();
        world.phase.send_replace(Phase::Healed);
        let healed = world.acknowledged();
        sleep(Duration::from_secs(10)).await;
        assert!(world.acknowledged() > healed, "it goes on by itself");
        world.phase.send_replace(Phase::Drain);
        let finished = timeout(MINUTE, async { while producers.join_next().await.is_some() {} }).await;
        assert!(finished.is_ok(), "what was begun is acknowledged, or given up");
        world.phase.send_replace(Phase::Stop);
        let _ = timeout(MINUTE, async { while readers.join_next().await.is_some() {} }).await;
        sleep(Duration::from_secs(20)).await;
        world.read_everything(&dice).await;
        world.restart().await;
        world.read_everything(&dice).await;
        clients.model.judge();
        let violations = clients.trace.violations();
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}\n{}", clients.trace.take_lines().join("\n"));
        assert!(world.acknowledged() > 20, "{} acknowledged", world.acknowledged());
        world.stop.send_replace(true);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour() {
    survives(async |world| {
        world.cluster.store.set_down(true);
        sleep(MINUTE).await;
        let before = world.acknowledged();
        sleep(59 * MINUTE).await;
        assert_eq!(world.acknowledged(), before, "nothing is acknowledged that is not durable");
        assert_eq!(world.cluster.count(), 1, "an outage is no reason to end");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slow_down_for_minutes() {
    survives(async |world| {
        let refused = vec![(0.8, Fault::Unavailable(Duration::from_millis(500)))];
        let plan = FaultPlan { put: refused.clone(), get: refused.clone(), other: refused, ..sound() };
        world.cluster.store.set_plan(plan);
        sleep(5 * MINUTE).await;
        assert_eq!(world.cluster.count(), 1, "an overloaded store is no reason to end");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn puts_that_time_out_and_land() {
    let late = Fault::HangThenLandLate(Duration::from_secs(20));
    survives(async |world| {
        world.cluster.store.set_plan(puts(&[(0.2, Fault::LandThenHang), (0.2, late), (0.1, Fault::Hang)]));
        sleep(MINUTE).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn puts_that_fail_and_land() {
    let late = Fault::LandLate(Duration::from_secs(8));
    survives(async |world| {
        world.cluster.store.set_plan(puts(&[(0.3, Fault::LandThenError), (0.2, late), (0.1, Fault::FailBefore)]));
        sleep(MINUTE).await;
        world.restart().await;
        sleep(MINUTE).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn puts_that_conflict() {
    survives(async |world| {
        let conflicts = [(0.3, Fault::LandThenAlreadyExists), (0.3, Fault::AlreadyExistsNothingLanded)];
        world.cluster.store.set_plan(puts(&conflicts));
        sleep(MINUTE).await;
        world.restart().await;
        sleep(MINUTE).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn gets_that_are_cut_short_or_damaged() {
    survives(async |world| {
        let get = vec![(0.2, Fault::TruncatedGet), (0.2, Fault::BitFlip)];
        world.cluster.store.set_plan(FaultPlan { get, ..sound() });
        for _ in 0..3 {
            sleep(Duration::from_secs(20)).await;
            // Nothing is in the memory of the next one.
            world.restart().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_under_load_stays_within_the_budget() {
    const BUDGET: u64 = 64 * MIB;
    const BESIDE_THE_BUDGET: u64 = 64 * MIB;
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = s3::prefix().await;
    let proxy = Proxy::before(&place.endpoint).await.expect("a proxy");
    let launch = Launch::new(folder.path()).set("memory_bytes", BUDGET).set("tail_bytes", 16 * MIB);
    let launch = place.through(&proxy.address).on(launch.set("request_max_bytes", 16 * MIB));
    let mut broker = launch.start().await;
    // Each has five requests of a megabyte on their way: more than the budget in all.
    let load = Load { producers: 16, value_bytes: 20_000, in_flight: 400, burst: 200, ..Load::small("flood", true) };
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    workload.progress(500).await;
    proxy.faults.cut.store(true, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(8);
    let mut peak = 0;
    while Instant::now() < end {
        peak = peak.max(broker.rss_bytes());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(broker.exited(), None, "an outage is no reason to end");
    proxy.faults.cut.store(false, Ordering::Relaxed);
    workload.progress(500).await;
    let history = workload.finish(&launch.kafka).await;
    println!("an outage under load: peak {} MiB with a budget of {} MiB", peak / MIB, BUDGET / MIB);
    assert!(peak <= BUDGET + BESIDE_THE_BUDGET, "{} MiB resident", peak / MIB);
    assert!(peak >= BUDGET * 3 / 4, "{} MiB resident: the budget was not tried", peak / MIB);
    assert_eq!(history.unknown(), 0, "nothing was dropped");
    history.assert_sound(&Rules::idempotent(), "held back, not dropped");
}

async fn fetch(raw: &mut Raw, topic: &str, partition: i32) -> PartitionData {
    let wanted = FetchPartition::default().with_partition(partition).with_partition_max_bytes(1 << 20);
    let topic = TopicName(StrBytes::from_string(topic.to_owned()));
    let topic = FetchTopic::default().with_topic(topic).with_partitions(vec![wanted]);
    let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_min_bytes(1).with_max_bytes(1 << 20);
    let mut answer = raw.call(11, &request.with_session_epoch(-1).with_topics(vec![topic])).await;
    answer.responses.remove(0).partitions.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_named_and_never_served() {
    const KAFKA_STORAGE_ERROR: i16 = 56;
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = s3::prefix().await;
    let launch = place.on(Launch::new(folder.path()));
    let mut broker = launch.start().await;
    clients::create_topic(&launch.kafka, "t", 2).await;
    let producer = clients::producer(&launch.kafka, &[]);
    for partition in 0..2 {
        let payload = format!("the record of partition {partition}");
        let record = FutureRecord::<(), str>::to("t").partition(partition).payload(&payload);
        producer.send(record, clients::LIMIT).await.expect("it is acknowledged");
    }
    broker.kill().await;
    let store = place.store();
    let mut damaged = None;
    for object in store.list(None).try_collect::<Vec<_>>().await.expect("a list") {
        let mut bytes = store.get(&object.location).await.expect("an object").bytes().await.expect("bytes").to_vec();
        let text = b"the record of partition 0";
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at] ^= 1;
            store.put(&object.location, PutPayload::from(bytes)).await.expect("the object is replaced");
            damaged = Some(object.location);
        }
    }
    let damaged = damaged.expect("the record is in some object");
    let broker = launch.start().await;
    let mut raw = Raw::connect(&launch.kafka).await.expect("a connection");
    let of_damaged = fetch(&mut raw, "t", 0).await;
    assert_eq!(of_damaged.error_code, KAFKA_STORAGE_ERROR);
    assert!(of_damaged.records.is_none_or(|records| records.is_empty()), "what is damaged is not served");
    let name = damaged.filename().expect("an object has a name");
    assert!(broker.log().contains(name), "{damaged} is not named:\n{}", broker.log());
    let of_sound = fetch(&mut raw, "t", 1).await;
    let records = of_sound.records.expect("records");
    assert_eq!(of_sound.error_code, 0);
    assert!(records.windows(9).any(|window| window == b"partition"), "what is sound is served");
}
