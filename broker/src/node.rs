//! A broker's life: take over, recover, serve, and end.
//!
//! The order is the safety argument. Every log that is not sealed is fenced, which stops its writer from acknowledging
//! anything, and from reading within a second; then its end is recorded together with our own new log, in one
//! transaction, which also requires that no other log was registered since ours were listed. From that transaction on the
//! previous owner changes no metadata: what it committed before it we read afterwards. Then partitions are rebuilt from
//! all logs in the order of their numbers, producer state included. Only then is anything served.
//!
//! Embedded metadata is taken over before all this, and its previous owner fenced with that. In etcd everybody may write:
//! there the comparisons of each transaction alone keep the order (`storage::registry`, `meta::owned`).

pub mod binding;

mod recovery;

mod running;

use std::sync::Arc;

use meta::error::ErrorKind;
use meta::seams::{Incarnation, Random, WallClock};
use meta::store::MetaStore;
use object_store::ObjectStore;
use storage::folder::Folder;
use storage::metered::StoreCounters;
use storage::tiered::TieredObjects;

use crate::config::BrokerConfig;
use crate::listener::Listener;
use crate::metrics::Metrics;

pub use running::Node;

/// How a broker's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// As asked: everything was made durable and the log sealed.
    Drained,
    /// Another broker has taken over. It must not be started again by a supervisor: the two would fight for ever.
    Fenced(String),
    Failed(String),
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("another broker took over while this one was starting: {0}")]
    Fenced(String),
    /// This storage and this metadata are not each other's.
    #[error("{0}")]
    Mismatch(String),
    #[error(transparent)]
    Storage(#[from] storage::error::Error),
}

impl From<meta::error::Error> for StartError {
    fn from(error: meta::error::Error) -> Self {
        Self::from_storage(error.into())
    }
}

impl StartError {
    fn from_storage(error: storage::error::Error) -> Self {
        match error.kind() {
            ErrorKind::Fenced => Self::Fenced(error.to_string()),
            _ => Self::Storage(error),
        }
    }

    /// How the process ends because of it.
    pub fn ended(&self) -> Ended {
        match self {
            Self::Fenced(_) => Ended::Fenced(self.to_string()),
            _ => Ended::Failed(self.to_string()),
        }
    }
}

/// Where metadata is kept.
#[derive(Clone)]
pub enum Metadata {
    /// In the storage itself, by one broker at a time.
    Embedded,
    /// In a store of its own, which other brokers may change at the same time.
    Shared(Arc<dyn MetaStore>),
}

/// Everything a broker is made of that a test may want to replace.
pub struct NodeParts {
    pub config: BrokerConfig,
    pub metadata: Metadata,
    /// Of this start. A locked folder has been signed with it.
    pub incarnation: Incarnation,
    pub store: Arc<dyn ObjectStore>,
    pub counters: Arc<StoreCounters>,
    /// The locked folder, if the storage is one: then logs are files in it, and nobody can take over.
    pub folder: Option<Arc<Folder>>,
    pub random: Random,
    pub clock: Arc<dyn WallClock>,
    pub listener: Box<dyn Listener>,
    pub metrics: Arc<Metrics>,
}

impl NodeParts {
    /// Where tiered objects and manifests are.
    fn tiered(&self) -> TieredObjects {
        TieredObjects::new(self.store.clone())
    }
}
