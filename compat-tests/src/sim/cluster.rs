//! The brokers of a simulation: machines on which one incarnation after another runs, all on one bucket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures::future::BoxFuture;
use meta::faults::FaultStore;
use meta::seams::{Random, WallClock};
use meta::store::MetaStore;
use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep};

use super::dice::Dice;
use super::net::{HostId, Net, SimListener};
use super::shared::{HostMeta, SharedMeta};
use super::stores::{HostStore, Life};
use super::trace::Trace;

pub const MACHINES: usize = 2;

/// How an incarnation ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Drained,
    Fenced(String),
    Failed(String),
}

/// Wall-clock time that jumps: nothing may depend on it.
pub struct JumpingClock {
    start: Instant,
    jump_ms: AtomicI64,
}

impl WallClock for JumpingClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.start.elapsed().as_millis() as i64 + self.jump_ms.load(Ordering::SeqCst)
    }
}

/// What one incarnation is made of.
pub struct Host {
    pub id: HostId,
    pub machine: usize,
    pub life: Arc<Life>,
    pub clock: Arc<JumpingClock>,
    /// Asks it to drain.
    pub drain: watch::Sender<bool>,
    pub exit: Mutex<Option<Exit>>,
}

/// What incarnations are.
#[derive(Clone)]
pub struct Boot {
    /// Runs one to its end.
    pub run: Arc<dyn Fn(Parts) -> BoxFuture<'static, Exit> + Send + Sync>,
    /// It coordinates groups.
    pub has_groups: bool,
}

/// What a `Boot` gets to start a broker.
pub struct Parts {
    pub address: (String, u16),
    pub store: Arc<dyn ObjectStore>,
    /// Where metadata is kept, if not in the bucket.
    pub metadata: Option<Arc<dyn MetaStore>>,
    pub random: Random,
    pub clock: Arc<dyn WallClock>,
    pub listener: SimListener,
    pub drain: watch::Receiver<bool>,
    pub dice: Dice,
}

pub struct Cluster {
    pub net: Net,
    pub store: FaultStore,
    /// Metadata that is kept elsewhere than in the bucket: in every fourth seed.
    pub shared: Option<SharedMeta>,
    pub trace: Arc<Trace>,
    pub dice: Dice,
    /// Faults have stopped for good.
    pub healed: AtomicBool,
    seed: u64,
    boot: Boot,
    hosts: Mutex<BTreeMap<HostId, Arc<Host>>>,
}

pub fn address(machine: usize) -> String {
    format!("b{machine}:9092")
}

impl Cluster {
    pub fn new(net: Net, store: FaultStore, trace: Arc<Trace>, seed: u64, boot: Boot) -> Arc<Self> {
        let dice = Dice::new(seed, "cluster");
        let healed = AtomicBool::new(false);
        let shared = (seed % 4 == 3).then(SharedMeta::default);
        Arc::new(Self { net, store, shared, trace, dice, healed, seed, boot, hosts: Mutex::default() })
    }

    /// Starts a new incarnation on a machine. One that still runs there goes on without its address.
    pub fn start(self: &Arc<Self>, machine: usize) -> Arc<Host> {
        let id = self.hosts.lock().len() as HostId + 1;
        let clock = Arc::new(JumpingClock { start: Instant::now(), jump_ms: AtomicI64::new(0) });
        let life = Arc::new(Life::default());
        let (drain, draining) = watch::channel(false);
        let host = Arc::new(Host { id, machine, life, clock, drain, exit: Mutex::new(None) });
        self.hosts.lock().insert(id, Arc::clone(&host));
        self.trace.note(format_args!("host {id} starts on machine {machine}"));
        let dice = Dice::new(self.seed, &format!("host {id}"));
        let metadata = self.shared.clone().map(|shared| {
            let dice = Dice::new(self.seed, &format!("host {id}'s metadata"));
            Arc::new(HostMeta { shared, life: Arc::clone(&host.life), dice }) as Arc<dyn MetaStore>
        });
        let store = HostStore { inner: Arc::new(self.store.handle()), life: Arc::clone(&host.life) };
        let parts = Parts {
            address: (format!("b{machine}"), 9092),
            store: Arc::new(store),
            metadata,
            random: dice.random(),
            clock: Arc::clone(&host.clock) as Arc<dyn WallClock>,
            listener: self.net.listen(id, &address(machine)),
            drain: draining,
            dice,
        };
        let (cluster, running) = (Arc::clone(self), Arc::clone(&host));
        tokio::spawn(async move {
            let exit = (cluster.boot.run)(parts).await;
            cluster.ended(&running, exit);
        });
        host
    }

    /// An incarnation has ended by itself. If it was killed before, nobody hears of it.
    fn ended(&self, host: &Host, exit: Exit) {
        if !host.life.is_alive() {
            return;
        }
        self.trace.note(format_args!("host {} ended: {exit:?}", host.id));
        host.life.kill(false);
        self.net.close(host.id);
        *host.exit.lock() = Some(exit);
    }

    pub fn kill(&self, host: &Host) {
        let (reset, with_requests) = (self.dice.chance(70), self.dice.chance(50));
        self.trace.note(format_args!("host {} is killed (reset {reset}, requests lost {with_requests})", host.id));
        host.life.kill(with_requests);
        self.net.kill(host.id, reset);
    }

    pub fn set_frozen(&self, host: &Host, frozen: bool) {
        self.trace.note(format_args!("host {} frozen: {frozen}", host.id));
        host.life.set_frozen(frozen);
        self.net.set_frozen(host.id, frozen);
    }

    pub fn set_cut(&self, host: &Host, cut_in: bool, cut_out: bool) {
        self.trace.note(format_args!("host {} cut: in {cut_in}, out {cut_out}", host.id));
        self.net.set_cut(host.id, cut_in, cut_out);
    }

    pub fn jump_clock(&self, host: &Host, by_ms: i64) {
        self.trace.note(format_args!("host {} clock jumps by {by_ms} ms", host.id));
        host.clock.jump_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Those that run, oldest first.
    pub fn alive(&self) -> Vec<Arc<Host>> {
        self.hosts.lock().values().filter(|host| host.life.is_alive()).cloned().collect()
    }

    /// Incarnations so far.
    pub fn count(&self) -> u32 {
        self.hosts.lock().len() as u32
    }

    /// Lifts everything that holds hosts back.
    pub fn heal(&self) {
        self.trace.note(format_args!("faults stop"));
        self.healed.store(true, Ordering::SeqCst);
        self.store.set_down(false);
        if let Some(shared) = &self.shared {
            shared.heal();
        }
        for host in self.alive() {
            self.set_frozen(&host, false);
            self.set_cut(&host, false, false);
        }
    }

    /// A supervisor: whenever nobody runs, somebody starts again, after a while.
    pub async fn supervise(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            if self.alive().is_empty() {
                sleep(self.dice.ms(10..=1500)).await;
                if self.alive().is_empty() && !*stop.borrow() {
                    self.start(self.dice.below(MACHINES as u64) as usize);
                }
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
    }
}
