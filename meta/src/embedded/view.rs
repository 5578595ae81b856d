//! Looking at the journal without taking it over: nothing is written, and its owner notices nothing.
//!
//! The owner goes on meanwhile, writes snapshots and deletes what they make superfluous. So what was read counts only if
//! no newer snapshot has appeared by the end: then nothing at or after the number that ended the reading was deleted, and
//! that number did not exist. Else everything is read again from the newer snapshot.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use object_store::ObjectStore;

use crate::error::{Error, Result};
use crate::frozen::{Freeze, Frozen};
use crate::seams::Incarnation;
use crate::settled::Patience;
use crate::store::Listing;

use super::codec::Kind;
use super::open;
use super::reader::Reader;

/// Objects that are read at once by an audit.
const READS: usize = 16;

/// The metadata in a storage, looked at from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EmbeddedView {
    reader: Reader,
}

/// The state of the journal at a moment.
#[derive(Debug, Clone)]
pub struct Look {
    pub frozen: Frozen,
    /// The first number that did not exist.
    pub next: u64,
    /// The snapshot that reading began with; 0 if there is none.
    pub snapshot: u64,
    /// Who wrote the last record.
    pub owner: Option<Incarnation>,
}

/// What there is of journal and snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub records: u64,
    pub takeovers: u64,
    pub snapshots: u64,
    /// Records and snapshots that the newest snapshot stands for. The owner keeps one snapshot, and the journal since, in
    /// reserve, and trims the rest.
    pub superfluous: u64,
    /// The key of each object that is not what was written there, and why not.
    pub damaged: Vec<(String, String)>,
}

impl EmbeddedView {
    pub fn new(store: Arc<dyn ObjectStore>, patience: Patience) -> Self {
        Self { reader: Reader { store, patience } }
    }

    /// `Corrupt`, by key, if the journal cannot be read to its end.
    pub async fn look(&self) -> Result<Look> {
        let loaded = open::read(&self.reader).await?;
        let owner = match loaded.next {
            1 => None,
            next => self.reader.header(next - 1).await?.map(|header| header.incarnation),
        };
        let entries = loaded.kv.entries().cloned().collect();
        let frozen = Frozen::new(Listing { revision: loaded.kv.revision(), entries });
        Ok(Look { frozen, next: loaded.next, snapshot: loaded.snapshot, owner })
    }

    /// Reads every object of the journal and every snapshot, those that nobody needs included. What is deleted meanwhile
    /// is left out.
    pub async fn audit(&self) -> Result<Audit> {
        let mut audit = Audit::default();
        let snapshots = self.reader.snapshots().await?;
        let newest = snapshots.last().copied().unwrap_or(0);
        let mut read = stream::iter(snapshots).map(|number| self.snapshot(number)).buffered(READS);
        while let Some(found) = read.next().await {
            let Some(number) = audit.take(found)? else { continue };
            audit.snapshots += 1;
            audit.superfluous += u64::from(number < newest);
        }
        drop(read);
        let records = self.reader.journal_after(0).await?;
        let mut read = stream::iter(records).map(|number| self.record(number)).buffered(READS);
        while let Some(found) = read.next().await {
            let Some((number, kind)) = audit.take(found)? else { continue };
            audit.records += 1;
            audit.takeovers += u64::from(kind == Kind::Takeover);
            audit.superfluous += u64::from(number <= newest && kind != Kind::Takeover);
        }
        Ok(audit)
    }

    async fn snapshot(&self, number: u64) -> Result<Option<u64>> {
        Ok(self.reader.snapshot(number).await?.map(|_| number))
    }

    async fn record(&self, number: u64) -> Result<Option<(u64, Kind)>> {
        Ok(self.reader.record(number).await?.map(|record| (number, record.header.kind)))
    }
}

impl Audit {
    /// What was found, if it is there and intact.
    fn take<T>(&mut self, found: Result<Option<T>>) -> Result<Option<T>> {
        match found {
            Err(Error::Corrupt { key, why }) => {
                self.damaged.push((key, why));
                Ok(None)
            }
            other => other,
        }
    }
}

#[async_trait]
impl Freeze for EmbeddedView {
    async fn freeze(&self) -> Result<Frozen> {
        Ok(self.look().await?.frozen)
    }
}

#[cfg(test)]
mod tests;
