//! Leases of one process, on tokio's clock: who must be heard of by when. What expiry does is the backend's business.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::store::LeaseId;

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl: Duration,
    expires: Instant,
}

#[derive(Debug, Default)]
pub struct Leases {
    newest: u64,
    live: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    pub fn grant(&mut self, ttl: Duration) -> Result<LeaseId> {
        if ttl.is_zero() {
            return Err(Error::Invalid { what: "a lease of no duration".to_owned() });
        }
        self.newest += 1;
        let id = LeaseId(self.newest);
        self.live.insert(id, Lease { ttl, expires: Instant::now() + ttl });
        Ok(id)
    }

    pub fn keep_alive(&mut self, id: LeaseId) -> Result<()> {
        self.check(id)?;
        if let Some(lease) = self.live.get_mut(&id) {
            lease.expires = Instant::now() + lease.ttl;
        }
        Ok(())
    }

    /// Fails unless the lease is alive.
    pub fn check(&self, id: LeaseId) -> Result<()> {
        match self.live.get(&id) {
            Some(lease) if Instant::now() < lease.expires => Ok(()),
            _ => Err(Error::Invalid { what: format!("lease {} has expired or was never granted", id.0) }),
        }
    }

    /// Ends it now, whoever keeps it alive. Its keys remain to be deleted.
    pub fn end(&mut self, id: LeaseId) {
        if let Some(lease) = self.live.get_mut(&id) {
            (lease.ttl, lease.expires) = (Duration::ZERO, Instant::now());
        }
    }

    /// Its keys are deleted.
    pub fn forget(&mut self, id: LeaseId) {
        self.live.remove(&id);
    }

    /// Leases whose keys are to be deleted by now.
    pub fn expired(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        self.live.iter().filter(|(_, lease)| lease.expires <= now).map(|(id, _)| *id).collect()
    }

    pub fn next_expiry(&self) -> Option<Instant> {
        self.live.values().map(|lease| lease.expires).min()
    }
}
