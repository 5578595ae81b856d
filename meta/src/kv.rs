//! The state machine of the metadata: an ordered map with revisions, as etcd has it. Pure: no time, no I/O.
//!
//! Both backends that are not etcd apply their transactions to it, so that there is one meaning of a transaction.
//! Invariants: the revision grows by one with every transaction that changes anything; an entry's `mod_revision` is the
//! revision of the last transaction that put it; the lease index names exactly the entries that carry a lease.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::store::{Compare, Event, KeyValue, LeaseId, Listing, Op, Revision, Txn, WatchBatch};

#[cfg(test)]
mod tests;

/// Longest key, in bytes. Topic names end at 249.
pub const KEY_BYTES_MAX: usize = 1024;
/// Most operations of one transaction; etcd's default is lower, and configurable.
pub const OPS_MAX: usize = 10_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kv {
    revision: Revision,
    entries: BTreeMap<String, KeyValue>,
    leased: BTreeMap<LeaseId, BTreeSet<String>>,
}

impl Kv {
    /// The state as a snapshot recorded it.
    pub fn restore(revision: Revision, entries: impl IntoIterator<Item = KeyValue>) -> Self {
        let mut kv = Self { revision, ..Self::default() };
        for entry in entries {
            kv.index_lease(&entry);
            kv.entries.insert(entry.key.clone(), entry);
        }
        kv
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn entries(&self) -> impl ExactSizeIterator<Item = &KeyValue> {
        self.entries.values()
    }

    pub fn get(&self, key: &str) -> Option<KeyValue> {
        self.entries.get(key).cloned()
    }

    pub fn list(&self, prefix: &str) -> Listing {
        let range = self.entries.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        let entries = range.map(|(_, entry)| entry).take_while(|entry| entry.key.starts_with(prefix));
        Listing { revision: self.revision, entries: entries.cloned().collect() }
    }

    /// The keys that would go with a lease.
    pub fn leased(&self, lease: LeaseId) -> Vec<String> {
        self.leased.get(&lease).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// The operations that delete every key that carries any lease.
    pub fn drop_all_leased(&self) -> Vec<Op> {
        self.leased.values().flatten().map(|key| Op::Delete { key: key.clone() }).collect()
    }

    pub fn holds(&self, compares: &[Compare]) -> bool {
        compares.iter().all(|compare| match compare {
            Compare::ModRevision { key, revision } => {
                self.entries.get(key).map_or(0, |entry| entry.mod_revision) == *revision
            }
            Compare::Value { key, value } => self.entries.get(key).is_some_and(|entry| entry.value == *value),
        })
    }

    /// Would these operations change anything? Any put does; a delete of a key that is not there does not.
    pub fn changes(&self, ops: &[Op]) -> bool {
        ops.iter().any(|op| match op {
            Op::Put { .. } => true,
            Op::Delete { key } => self.entries.contains_key(key),
        })
    }

    /// Applies the operations of one transaction. Without effect the revision stays, and the batch is empty.
    pub fn apply(&mut self, ops: &[Op]) -> WatchBatch {
        let mut events = BTreeMap::new();
        if self.changes(ops) {
            self.revision += 1;
        }
        for op in ops {
            if let Some(event) = self.apply_one(op) {
                let (Op::Put { key, .. } | Op::Delete { key }) = op;
                events.insert(key.clone(), event);
            }
        }
        WatchBatch { revision: self.revision, events: events.into_values().collect() }
    }

    fn apply_one(&mut self, op: &Op) -> Option<Event> {
        match op {
            Op::Put { key, value, lease } => {
                let before = self.remove(key);
                let entry = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: before.map_or(self.revision, |entry| entry.create_revision),
                    mod_revision: self.revision,
                    lease: *lease,
                };
                self.index_lease(&entry);
                self.entries.insert(key.clone(), entry.clone());
                Some(Event::Put(entry))
            }
            Op::Delete { key } => {
                self.remove(key).map(|entry| Event::Delete { key: entry.key, mod_revision: self.revision })
            }
        }
    }

    fn remove(&mut self, key: &str) -> Option<KeyValue> {
        let entry = self.entries.remove(key)?;
        if let Some(lease) = entry.lease
            && let Some(keys) = self.leased.get_mut(&lease)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.leased.remove(&lease);
            }
        }
        Some(entry)
    }

    fn index_lease(&mut self, entry: &KeyValue) {
        if let Some(lease) = entry.lease {
            self.leased.entry(lease).or_default().insert(entry.key.clone());
        }
    }
}

/// Refuses transactions that no backend could take.
pub fn validate(txn: &Txn) -> Result<()> {
    if txn.ops.len() > OPS_MAX {
        return Err(Error::Invalid { what: format!("{} operations in one transaction", txn.ops.len()) });
    }
    let mut seen = BTreeSet::new();
    for op in &txn.ops {
        let (Op::Put { key, .. } | Op::Delete { key }) = op;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Error::Invalid { what: format!("a key of {} bytes", key.len()) });
        }
        if !seen.insert(key) {
            return Err(Error::Invalid { what: format!("{key} occurs in two operations of one transaction") });
        }
    }
    Ok(())
}

/// The leases that a transaction attaches keys to.
pub fn leases_of(txn: &Txn) -> impl Iterator<Item = LeaseId> {
    txn.ops.iter().filter_map(|op| match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete { .. } => None,
    })
}
