//! Metadata in etcd, for clusters: the seam on etcd's own revisions, transactions, watches and leases.
//!
//! etcd-client has no time limits, no reconnecting and no keepalives unless told, and an answer that got lost says
//! nothing of what happened. So:
//! - `link` looks after the connection, and gives every call a limit of time;
//! - `commits` settles transactions whose answer was lost: `Unknown` is answered only if etcd could not be asked again in
//!   time;
//! - `watching` continues a watch where its stream broke;
//! - reads are linearizable, and repeated until they are answered or out of time. With etcd away for longer than an
//!   election takes, every call fails at once with a retriable error.
//!
//! Nothing in etcd stops a former owner of a log from committing: that is what `owned` is for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, GetOptions, LeaseGrantOptions};

use crate::error::{Error, Result};
use crate::kv;
use crate::seams::Random;
use crate::store::{KeyValue, LeaseId, Listing, MetaStore, Revision, Txn, TxnOutcome, Watch};

mod target;

mod failure;

mod space;

mod link;

mod commits;

mod watching;

pub use target::{EtcdConfig, EtcdTarget, EtcdTiming, EtcdTls};

use commits::Commits;
use link::Link;
use space::{Space, end_of, etcd_lease, revision};

/// Entries of one answer: with the largest values that etcd takes by default they fit into `PAGE_BYTES_MAX`.
const PAGE: usize = 100;
const PAGE_BYTES_MAX: usize = 256 << 20;

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    link: Link,
    space: Space,
    commits: Commits,
    random: Random,
}

impl EtcdStore {
    /// Connects. Fails with `Invalid` if etcd refuses user, password or certificate, and with `Unavailable` if it cannot
    /// be reached in time.
    pub async fn open(config: EtcdConfig, random: &Random) -> Result<Self> {
        let space = Space::new(&config.target.prefix);
        let commits = Commits::new(&space, random.next_u128());
        let link = Link::open(config).await?;
        Ok(Self { shared: Arc::new(Shared { link, space, commits, random: random.clone() }) })
    }

    /// One page of a listing, from `first` on; with `at` as of that revision.
    async fn page(&self, first: &[u8], end: &[u8], at: i64) -> Result<etcd_client::GetResponse, link::Ended> {
        let call = |client: Client| {
            let options = GetOptions::new().with_range(end).with_limit(PAGE as i64).with_revision(at);
            let first = first.to_vec();
            let mut client = client.kv_client().max_decoding_message_size(PAGE_BYTES_MAX);
            async move { client.get(first, Some(options)).await }
        };
        self.shared.link.repeat("listing metadata", call).await
    }

    /// `None` if the revision was compacted on the way.
    async fn listing(&self, prefix: &str) -> Result<Option<Listing>> {
        let space = &self.shared.space;
        let mut first = space.key(prefix);
        let end = end_of(&first);
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            let page = match self.page(&first, &end, at).await {
                Ok(page) => page,
                Err(ended) if ended.compacted && at > 0 => return Ok(None),
                Err(ended) => return Err(ended.into()),
            };
            if at == 0 {
                at = page.header().map_or(0, |header| header.revision());
            }
            for found in page.kvs() {
                entries.push(space.entry(found)?);
            }
            match page.kvs().last() {
                Some(last) if page.more() => first = [last.key(), b"\0"].concat(),
                _ => return Ok(Some(Listing { revision: revision(at), entries })),
            }
        }
    }
}

#[async_trait]
impl MetaStore for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        let call = |client: Client| {
            let key = self.shared.space.key(key);
            async move { client.kv_client().get(key, None).await }
        };
        let found = self.shared.link.repeat("reading metadata", call).await?;
        found.kvs().first().map(|found| self.shared.space.entry(found)).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        loop {
            if let Some(listing) = self.listing(prefix).await? {
                return Ok(listing);
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome> {
        kv::validate(&txn)?;
        self.shared.commits.commit(&self.shared.link, &self.shared.space, &txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.shared.link.open_or_closed()?;
        Ok(watching::watch(&self.shared.link, &self.shared.space, prefix, from))
    }

    /// In whole seconds, and not less than etcd's own least, which follows from its election timeout.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        if ttl.is_zero() {
            return Err(Error::Invalid { what: "a lease of no duration".to_owned() });
        }
        let seconds = i64::try_from(ttl.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX);
        // Chosen here, so that asking again asks for the same one. Positive, and not 0.
        let lease = LeaseId((self.shared.random.next_u64() >> 1).max(1));
        let call = |client: Client| async move {
            let options = LeaseGrantOptions::new().with_id(etcd_lease(lease));
            client.lease_client().grant(seconds, Some(options)).await
        };
        match self.shared.link.repeat("granting a lease", call).await {
            Ok(_) => Ok(lease),
            // An earlier attempt was heard.
            Err(ended) if ended.doubted && ended.refused_as("already exists") => Ok(lease),
            Err(ended) => Err(ended.into()),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        let call = |client: Client| async move { client.lease_client().keep_alive(etcd_lease(lease)).await };
        Ok(self.shared.link.repeat("keeping a lease alive", call).await.map(|_| ())?)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        let call = |client: Client| async move { client.lease_client().revoke(etcd_lease(lease)).await };
        match self.shared.link.repeat("revoking a lease", call).await {
            Ok(_) => Ok(()),
            Err(ended) if ended.doubted && ended.refused_as("not found") => Ok(()),
            Err(ended) => Err(ended.into()),
        }
    }

    async fn close(&self) {
        self.shared.commits.clear(&self.shared.link).await;
        self.shared.link.close();
    }
}
