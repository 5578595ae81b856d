//! Brokers that start at once, or one after the other, on one shared metadata store: each sees and seals every log before
//! its own, and whoever came last is the only one who appends, reads or changes metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use meta::error::ErrorKind;
use meta::faults::{FaultPlan, FaultStore};
use meta::memory::MemoryStore;
use meta::store::{KeyValue, LeaseId, Listing, Revision, Watch};
use parking_lot::Mutex;
use storage::log::{Log, Outcome};
use storage::samples::{RecordingSink, entry, partition};
use tokio::time::sleep;

use super::*;

/// A metadata store at the other end of a network: every call takes a random time there and back.
#[derive(Clone)]
struct Far {
    inner: MemoryStore,
    random: Random,
}

impl Far {
    async fn way(&self) {
        sleep(Duration::from_millis(self.random.next_u64() % 40)).await;
    }

    async fn there_and_back<T>(&self, call: impl Future<Output = T>) -> T {
        self.way().await;
        let answer = call.await;
        self.way().await;
        answer
    }
}

#[async_trait::async_trait]
impl MetaStore for Far {
    async fn get(&self, key: &str) -> MetaResult<Option<KeyValue>> {
        self.there_and_back(self.inner.get(key)).await
    }

    async fn list(&self, prefix: &str) -> MetaResult<Listing> {
        self.there_and_back(self.inner.list(prefix)).await
    }

    async fn commit(&self, txn: Txn) -> MetaResult<TxnOutcome> {
        self.there_and_back(self.inner.commit(txn)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> MetaResult<Watch> {
        self.inner.watch(prefix, from).await
    }

    async fn grant_lease(&self, ttl: Duration) -> MetaResult<LeaseId> {
        self.inner.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> MetaResult<()> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> MetaResult<()> {
        self.inner.revoke_lease(lease).await
    }

    async fn close(&self) {}
}

#[derive(Clone)]
struct World {
    objects: FaultStore,
    meta: Far,
    /// Topics by name, as whoever was told that it had created them.
    created: Arc<Mutex<Vec<String>>>,
    /// Which log each append that was acknowledged is in, and its fragment.
    acknowledged: Arc<Mutex<BTreeMap<u64, Vec<u64>>>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let plan = FaultPlan::slow(Duration::from_millis(1)..=Duration::from_millis(60));
        let objects = FaultStore::new(Arc::new(object_store::memory::InMemory::new()), Random::from_seed(seed), plan);
        let meta = Far { inner: MemoryStore::new(), random: Random::from_seed(seed + 1) };
        Self { objects, meta, created: Arc::default(), acknowledged: Arc::default() }
    }

    fn logs(&self) -> Arc<dyn LogStore> {
        let meta: Arc<dyn MetaStore> = Arc::new(self.meta.clone());
        Arc::new(ObjectLogStore::new(Settler::new(Arc::new(self.objects.handle())), meta, WriterOptions::default()))
    }

    /// One broker: takes over, then appends, creates topics and looks for fences until it has lost its log.
    async fn live(self, incarnation: Incarnation) {
        let logs = self.logs();
        let (number, history) = own_log(&self.meta, &*logs, incarnation).await.unwrap();
        let seen: Vec<u64> = history.iter().map(|(number, _)| *number).collect();
        assert_eq!(seen, (1..number).collect::<Vec<_>>(), "it has seen every log before its own");
        assert!(history.iter().all(|(_, record)| record.state == LogState::Sealed), "and sealed it");
        let log = match logs.open(number, incarnation, RecordingSink::new()).await {
            Ok(log) => log,
            Err(error) => return assert_eq!(error.kind(), ErrorKind::Fenced, "{error}"),
        };
        let owned = OwnedStore::new(Arc::new(self.meta.clone()), number);
        for step in 0.. {
            self.create_topic(&owned, &format!("topics/{number}-{step}")).await;
            if self.append(&log, step).await == Outcome::Fenced {
                break;
            }
            let registered = registry::logs(&self.meta.inner).await.unwrap().len() as u64;
            if log.confirm_unfenced().await.is_ok() {
                assert_eq!(registered, number, "whoever registered a later log had fenced this one before");
            }
        }
        assert_eq!(log.confirm_unfenced().await.unwrap_err().kind(), ErrorKind::Fenced);
    }

    async fn append(&self, log: &Arc<dyn Log>, step: i64) -> Outcome {
        let fragment = log.durable_end().fragment;
        let outcome = log.enqueue(entry(partition(1, 0), step, 1, 20)).resolved().await;
        if outcome == Outcome::Durable {
            self.acknowledged.lock().entry(log.number()).or_default().push(fragment);
        }
        outcome
    }

    async fn create_topic(&self, owned: &OwnedStore, key: &str) {
        match owned.commit(Txn::new().if_absent(key).put(key, "")).await {
            Ok(outcome) => {
                assert!(matches!(outcome, TxnOutcome::Committed { .. }));
                self.created.lock().push(key.to_owned());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced, "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn brokers_that_start_at_once_agree_who_owns_what() {
    for seed in 0..60 {
        let world = World::new(seed);
        let random = Random::from_seed(seed + 2);
        let brokers: Vec<_> = (1..=4)
            .map(|broker: u128| {
                let (world, random) = (world.clone(), random.clone());
                tokio::spawn(async move {
                    // All at once, or some while others serve.
                    sleep(Duration::from_millis(random.next_u64() % (1 + 400 * (seed % 3)))).await;
                    world.live(Incarnation(broker)).await;
                })
            })
            .collect();
        sleep(Duration::from_secs(20)).await;
        // Whoever serves now is taken over from.
        let topics_before = world.meta.list(keys::TOPICS).await.unwrap().entries.len();
        let logs = world.logs();
        let (number, history) = own_log(&world.meta, &*logs, Incarnation(9)).await.unwrap();
        for broker in brokers {
            broker.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        assert_eq!(number, history.len() as u64 + 1, "seed {seed}");
        let topics = world.meta.list(keys::TOPICS).await.unwrap().entries;
        let created = world.created.lock().clone();
        assert_eq!(topics.len(), created.len(), "seed {seed}: every creation was told, and no other happened");
        assert!(topics.len() >= topics_before);
        for (log, fragments) in &*world.acknowledged.lock() {
            let (_, record) = &history[*log as usize - 1];
            let end = record.segments.last().and_then(|last| last.end).unwrap();
            assert!(fragments.iter().all(|fragment| *fragment < end), "seed {seed}: lost from log {log}");
        }
    }
}
