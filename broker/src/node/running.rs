//! A broker that serves: what it consists of, how it is stopped, how it ends.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock, Weak};

use meta::store::MetaStore;
use storage::budget::{Budget, Reclaim};
use storage::folder::Folder;
use storage::log::{DurableSink, Log};
use storage::manifest::ManifestStore;
use storage::reader::{Lane, Reader, ReaderOptions};
use storage::tail::Tail;
use tokio::sync::{Semaphore, watch};

use crate::api::Table;
use crate::broker::{Broker, RECOMPRESSIONS};
use crate::coordinator::{Coordinator, CoordinatorParts};
use crate::listener::{Server, ServerOptions};
use crate::metrics::{Metrics, Sample, SampleKind};
use crate::ownership::{Loss, Ownership};
use crate::partitions::Partitions;
use crate::producer_ids::ProducerIds;
use crate::topics::Topics;
use crate::upkeep::{Found, Upkeep, UpkeepParts};
use crate::wire::memory::ReceiveMemory;

use super::recovery::{TakenOver, replay, take_over};
use super::{Ended, NodeParts, StartError};

/// A running broker. Dropping it without `shut_down` is like a crash, but for the tasks that its runtime still holds.
pub struct Node {
    broker: Arc<Broker>,
    log: Arc<dyn Log>,
    meta: Arc<dyn MetaStore>,
    /// Becomes true when the metadata refuses us because somebody has taken over.
    meta_fenced: watch::Receiver<bool>,
    server: Server,
    upkeep: Upkeep,
    /// Keeps the folder locked for as long as anything here may write to it.
    _folder: Option<Arc<Folder>>,
}

impl Node {
    /// Takes over, recovers, and begins to serve.
    pub async fn start(mut parts: NodeParts) -> Result<Self, StartError> {
        let taken = take_over(&parts).await?;
        let config = Arc::new(parts.config.clone());
        let topics = Topics::load(taken.meta.clone(), parts.random.clone(), &config).await?;

        let budget = Budget::new(ReceiveMemory::main_bytes(config.memory_bytes, config.request_max_bytes));
        let tail = Arc::new(Tail::new(config.tail_bytes));
        let options = ReaderOptions::of_memory(config.memory_bytes);
        let reader = Reader::new(tail.clone(), taken.logs.clone(), budget.clone(), options);
        parts.metrics.show_reads(Lane::ALL.map(|lane| (lane.name(), reader.chunks(lane).clone())));
        let writing = Arc::new(OnceLock::<Weak<dyn Log>>::new());
        budget.on_shortage(give_memory_back(&reader, writing.clone()));

        let ownership = Ownership::new();
        let partitions = Arc::new(Partitions::new(config.clone(), reader, ownership.clone()));
        show_untiered(&parts.metrics, &partitions);
        let found = replay(&taken, &parts.tiered(), &topics, &partitions).await?;

        let sink: Arc<dyn DurableSink> = partitions.clone();
        let coordinator = Coordinator::new(CoordinatorParts {
            config: config.clone(),
            topics: topics.clone(),
            partitions: partitions.clone(),
            budget: budget.clone(),
            clock: parts.clock.clone(),
            random: parts.random.clone(),
        });
        partitions.add_listener(coordinator.listener());

        let log = taken.logs.open(taken.log, taken.incarnation, sink).await.map_err(StartError::from_storage)?;
        ownership.guard(&log);
        let _first = writing.set(Arc::downgrade(&log));
        let leader_epoch = i32::try_from(taken.log).unwrap_or(i32::MAX);
        partitions.become_leader(log.clone(), leader_epoch);
        let upkeep = upkeep(&parts, &taken, found, topics.clone(), partitions.clone(), &budget).await?;

        let broker = Arc::new(Broker {
            config,
            cluster_id: taken.cluster_id,
            leader_epoch,
            topics,
            partitions,
            coordinator,
            producer_ids: ProducerIds::new(taken.meta.clone()),
            ownership,
            budget: budget.clone(),
            clock: parts.clock,
            random: parts.random,
            metrics: parts.metrics.clone(),
            recompressions: Semaphore::new(RECOMPRESSIONS),
        });
        let service = Arc::new(Table::new(broker.clone()));
        let options = ServerOptions::from(&*broker.config);
        let server = Server::start(parts.listener, service, budget, parts.metrics, options);
        let (meta, meta_fenced) = (taken.meta, taken.meta_fenced);
        Ok(Self { broker, log, meta, meta_fenced, server, upkeep, _folder: parts.folder.take() })
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Serves until it is told to stop or has lost its log.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Ended {
        let (mut meta_fenced, ownership) = (self.meta_fenced.clone(), self.broker.ownership.clone());
        let refused_by_metadata = async {
            // An error means that the store is gone, and with it whatever it could have refused.
            if meta_fenced.wait_for(|fenced| *fenced).await.is_ok() {
                ownership.declare_lost(Loss::Fenced("fenced: another broker has taken over the metadata".to_owned()));
            }
            std::future::pending::<Infallible>().await
        };
        let asked = async {
            // An error means that nobody is left who could ask.
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            why = self.broker.ownership.lost() => {
                tracing::error!(%why, "this broker acknowledges nothing any more");
                self.server.abort().await;
                match why {
                    Loss::Fenced(why) => Ended::Fenced(why),
                    Loss::Failed(why) => Ended::Failed(why),
                }
            }
            never = refused_by_metadata => match never {},
            () = asked => self.shut_down().await,
        }
    }

    /// Finishes what clients have begun, makes it durable, seals the log. What upkeep has begun goes on at the next start.
    async fn shut_down(self) -> Ended {
        tracing::info!("draining");
        // Members of groups would wait for each other for longer than anybody wants to wait for them.
        self.broker.coordinator.shut_down();
        tokio::join!(self.server.drain(), self.upkeep.end());
        self.broker.partitions.resign("the broker is shutting down");
        let closed = self.log.close().await;
        self.meta.close().await;
        match closed {
            Ok(()) => Ended::Drained,
            Err(error) if error.kind() == meta::error::ErrorKind::Fenced => Ended::Fenced(error.to_string()),
            Err(error) => Ended::Failed(format!("could not seal the log: {error}")),
        }
    }
}

/// What to do when memory is short: what old data left in memory goes before what recent data did.
fn give_memory_back(reader: &Reader, writing: Arc<OnceLock<Weak<dyn Log>>>) -> Arc<Reclaim> {
    let tail = Arc::downgrade(reader.tail());
    let lanes = [Lane::Cold, Lane::Near].map(|lane| reader.chunks(lane).downgrade());
    Arc::new(move || {
        let has_given = lanes.iter().any(|lane| lane.upgrade().is_some_and(|chunks| chunks.evict_oldest()))
            || tail.upgrade().is_some_and(|tail| tail.evict_oldest());
        if !has_given && let Some(log) = writing.get().and_then(Weak::upgrade) {
            log.memory_is_short();
        }
        has_given
    })
}

/// Shows how far upkeep is behind.
fn show_untiered(metrics: &Metrics, partitions: &Arc<Partitions>) {
    let partitions = Arc::downgrade(partitions);
    let bytes = move || partitions.upgrade().map_or(0, |partitions| partitions.backlog().bytes());
    metrics.sampled(
        "untiered_bytes",
        "Bytes of record batches that the manifest does not have yet",
        SampleKind::Gauge,
        move || vec![Sample { labels: Vec::new(), value: bytes() }],
    );
}

/// Begins to look after what was and will be acknowledged.
async fn upkeep(
    parts: &NodeParts,
    taken: &TakenOver,
    found: Found,
    topics: Topics,
    partitions: Arc<Partitions>,
    budget: &Budget,
) -> Result<Upkeep, StartError> {
    let objects = parts.tiered();
    let manifest = ManifestStore::open(taken.meta.clone(), objects.clone(), taken.log, taken.incarnation).await;
    Ok(Upkeep::start(UpkeepParts {
        config: Arc::new(parts.config.clone()),
        topics,
        partitions,
        logs: taken.logs.clone(),
        objects,
        budget: budget.clone(),
        manifest: manifest.map_err(StartError::from_storage)?,
        clock: parts.clock.clone(),
        random: parts.random.clone(),
        log: taken.log,
        incarnation: taken.incarnation,
        in_place: parts.folder.is_some(),
        found,
    }))
}
