//! One seed: faults strike while clients work, then everything heals, then every promise is checked.

use std::cell::RefCell;
use std::sync::{Arc, Once};
use std::time::Duration;

use meta::faults::FaultStore;
use object_store::memory::InMemory;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::admin::{self, AUTO, AUTO_PARTITIONS, MADE, MADE_PARTITIONS};
use super::chaos::{self, Mood};
use super::cluster::{self, Boot, Cluster, MACHINES};
use super::dice::Dice;
use super::group_member::{self, Group};
use super::group_model::GroupModel;
use super::model::Model;
use super::net::Net;
use super::probing::Prober;
use super::producer::Producer;
use super::reader::{self, Reader};
use super::session::{Clients, Phase};
use super::shrinking::Shrinking;
use super::stores::AuditStore;
use super::trace::Trace;
use crate::checker::{Partition, partition};

/// Within this time of the end of all faults everything must work again.
const RECOVERY: Duration = Duration::from_secs(60);
/// Requests that were under way when the producers stopped have had their effect, or will never have it.
const SETTLING: Duration = Duration::from_secs(20);

/// What one seed showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub hash: u64,
    pub events: u64,
    pub simulated_ms: u64,
    pub acknowledged: usize,
    pub unknown: usize,
    pub hosts: u32,
    /// Offsets that members of groups committed, one for each partition.
    pub commits: usize,
    /// Assignments that they were told.
    pub assignments: usize,
    pub violations: Vec<String>,
    /// Only if asked for.
    pub lines: Vec<String>,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A task's panic does not end the others: it is noted here, and reported with the seed.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if tokio::runtime::Handle::try_current().is_ok() {
                PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            } else {
                earlier(panic);
            }
        }));
    });
}

/// Runs one seed. The trace's text is kept if `keep_lines`.
pub fn run_seed(seed: u64, boot: Boot, keep_lines: bool) -> Report {
    note_panics();
    PANICS.with_borrow_mut(Vec::clear);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let mut report = match runtime {
        Ok(runtime) => runtime.block_on(simulate(seed, boot, keep_lines)),
        Err(error) => Report { violations: vec![format!("no runtime: {error}")], ..Report::empty(seed) },
    };
    let panics = PANICS.with_borrow_mut(std::mem::take);
    report.violations.extend(panics.into_iter().map(|panic| format!("panic: {panic}")));
    report
}

impl Report {
    fn empty(seed: u64) -> Self {
        Self {
            seed,
            hash: 0,
            events: 0,
            simulated_ms: 0,
            acknowledged: 0,
            unknown: 0,
            hosts: 0,
            commits: 0,
            assignments: 0,
            violations: Vec::new(),
            lines: Vec::new(),
        }
    }
}

async fn simulate(seed: u64, boot: Boot, keep_lines: bool) -> Report {
    let trace = Arc::new(Trace::new(keep_lines));
    let net = Net::new(Dice::new(seed, "net"));
    let bucket = Arc::new(AuditStore::new(Arc::new(InMemory::new()), Arc::clone(&trace)));
    let dice = Dice::new(seed, "schedule");
    let mood = Mood::draw(&dice);
    trace.note(format_args!("seed {seed}: {mood:?}"));
    let store = FaultStore::new(bucket, Dice::new(seed, "store").random(), mood.sound_plan());
    let groups = if boot.has_groups { group_member::groups(seed, &lasting_partitions()) } else { Vec::new() };
    let cast = Cast { seed, groups, deletes: boot.has_groups };
    let cluster = Cluster::new(net.clone(), store, Arc::clone(&trace), seed, boot);
    let (phase, phases) = watch::channel(Phase::Faults);
    let clients = Arc::new(Clients {
        net,
        trace: Arc::clone(&trace),
        model: Model::new(Arc::clone(&trace)),
        groups: GroupModel::new(Arc::clone(&trace)),
        addresses: (0..MACHINES).map(cluster::address).collect(),
        phase: phases,
    });
    let (stop, stopped) = watch::channel(false);
    let supervisor = tokio::spawn(Arc::clone(&cluster).supervise(stopped));
    let story = tell(&cast, &cluster, &clients, &phase, &dice, &mood);
    if timeout(Duration::from_secs(3600), story).await.is_err() {
        trace.violation("heals", format_args!("an hour was not enough"));
    }
    stop.send_replace(true);
    let _ = supervisor.await;
    clients.model.judge();
    let (hash, events) = trace.digest();
    let (acknowledged, unknown) = clients.model.counts();
    let (commits, assignments) = clients.groups.counts();
    Report {
        hash,
        events,
        simulated_ms: trace.elapsed_ms(),
        acknowledged,
        unknown,
        hosts: cluster.count(),
        commits,
        assignments,
        violations: trace.violations(),
        lines: trace.take_lines(),
        ..Report::empty(seed)
    }
}

/// Who takes part, beside those that always do.
struct Cast {
    seed: u64,
    groups: Vec<Group>,
    /// Some of the topics lose records.
    deletes: bool,
}

async fn tell(
    cast: &Cast,
    cluster: &Arc<Cluster>,
    clients: &Arc<Clients>,
    phase: &watch::Sender<Phase>,
    dice: &Dice,
    mood: &Mood,
) {
    let (seed, groups) = (cast.seed, &cast.groups[..]);
    cluster.start(0);
    // Half of the seeds begin in trouble.
    let setup = admin::create(clients, dice, MADE, MADE_PARTITIONS, Phase::Drain);
    if dice.chance(50) {
        setup.await;
    } else {
        cluster.store.set_plan(mood.plan());
        setup.await;
    }
    let (producers, readers) = start_clients(seed, clients);
    let mut members = JoinSet::new();
    groups.iter().for_each(|group| group_member::start(seed, clients, group, &mut members));
    let mut shrinking = start_shrinking(cast, clients);
    chaos::strike(cluster, dice, mood).await;
    cluster.store.set_plan(mood.sound_plan());
    cluster.heal();
    phase.send_replace(Phase::Healed);
    sleep(Duration::from_secs(5)).await;
    phase.send_replace(Phase::Drain);
    if timeout(RECOVERY, finish(producers)).await.is_err() {
        clients.trace.violation("heals", format_args!("producers did not get through within {RECOVERY:?}"));
    }
    let mut shrunk = Vec::new();
    while let Ok(Some(one)) = timeout(RECOVERY, shrinking.join_next()).await {
        shrunk.extend(one.ok());
    }
    if !shrinking.is_empty() {
        clients.trace.violation("heals", format_args!("clients of topics that shrink did not get through"));
    }
    await_groups(clients, groups).await;
    phase.send_replace(Phase::Stop);
    let _ = timeout(RECOVERY, finish(readers)).await;
    let _ = timeout(RECOVERY, finish(members)).await;
    sleep(SETTLING).await;
    let partitions = lasting_partitions();
    read_everything(clients, dice, &partitions, groups).await;
    read_shrunk(clients, &mut shrunk).await;
    // What a new incarnation finds is the same, however often one starts.
    for _ in 0..1 + dice.below(2) {
        cluster.start(dice.below(MACHINES as u64) as usize);
        sleep(dice.ms(0..=3000)).await;
        read_everything(clients, dice, &partitions, groups).await;
        read_shrunk(clients, &mut shrunk).await;
    }
}

fn lasting_partitions() -> Vec<Partition> {
    let made = (0..MADE_PARTITIONS).map(|index| partition(MADE, index));
    made.chain((0..AUTO_PARTITIONS).map(|index| partition(AUTO, index))).collect()
}

/// Members that live, with a broker that is sound, come to terms.
async fn await_groups(clients: &Clients, groups: &[Group]) {
    if timeout(RECOVERY, group_member::settled(clients, groups)).await.is_err() {
        let standings: String = groups.iter().map(|group| clients.groups.describe(&group.name)).collect();
        clients.trace.violation("heals", format_args!("groups did not settle within {RECOVERY:?}: {standings}"));
    }
}

async fn read_everything(clients: &Arc<Clients>, dice: &Dice, partitions: &[Partition], groups: &[Group]) {
    let missing = reader::read_back(clients, dice, partitions, -1, RECOVERY).await;
    if !missing.is_empty() {
        clients.trace.violation("heals", format_args!("{missing:?} could not be read within {RECOVERY:?}"));
    }
    let silent = group_member::read_offsets(clients, dice, groups, RECOVERY).await;
    if !silent.is_empty() {
        clients.trace.violation("heals", format_args!("offsets of {silent:?} could not be read within {RECOVERY:?}"));
    }
}

async fn read_shrunk(clients: &Clients, shrunk: &mut [Shrinking]) {
    for one in shrunk {
        if !one.read_back(RECOVERY).await {
            clients
                .trace
                .violation("heals", format_args!("a topic that shrinks could not be read within {RECOVERY:?}"));
        }
    }
}

fn start_shrinking(cast: &Cast, clients: &Arc<Clients>) -> JoinSet<Shrinking> {
    let mut tasks = JoinSet::new();
    for number in 0..if cast.deletes { 2 } else { 0 } {
        let role = Dice::new(cast.seed, &format!("shrinking {number}"));
        if role.chance(60) {
            tasks.spawn(Shrinking::new(clients, role, number).run());
        }
    }
    tasks
}

async fn finish(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// (those that write, those that read)
fn start_clients(seed: u64, clients: &Arc<Clients>) -> (JoinSet<()>, JoinSet<()>) {
    let dice = Dice::new(seed, "clients");
    let all: Vec<(String, i32)> =
        lasting_partitions().into_iter().map(|partition| (partition.topic, partition.index)).collect();
    let mut producers = JoinSet::new();
    for id in 0..2 + dice.below(3) as u32 {
        let role = Dice::new(seed, &format!("producer {id}"));
        let lanes: Vec<(String, i32)> = all.iter().filter(|_| role.chance(50)).cloned().collect();
        let lanes = if lanes.is_empty() { vec![all[0].clone()] } else { lanes };
        let idempotent = id != 1;
        producers.spawn(Producer::new(clients, id, role, idempotent, &lanes).run());
    }
    let role = Dice::new(seed, "prober");
    let (topic, index) = role.pick(&all).clone();
    producers.spawn(Prober::new(clients, 500, role, &topic, index).run());
    if dice.chance(40) {
        producers.spawn(admin::churn(Arc::clone(clients), Dice::new(seed, "churn")));
    }
    let mut readers = JoinSet::new();
    for id in 0..1 + dice.below(3) as u32 {
        let role = Dice::new(seed, &format!("reader {id}"));
        let partitions = lasting_partitions();
        readers.spawn(Reader::new(clients, 1000 + id, role, &partitions, id > 0).run());
    }
    (producers, readers)
}
