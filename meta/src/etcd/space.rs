//! Where our keys are in etcd, and how etcd's entries become ours.
//!
//! `{prefix}/keys/...` holds the store's keys; `{prefix}/commits/{id}` one small key for each process that ever committed.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::store::{KeyValue, LeaseId, Revision};

#[derive(Debug, Clone)]
pub struct Space {
    keys: String,
    commits: String,
}

impl Space {
    pub fn new(prefix: &str) -> Self {
        Self { keys: format!("{prefix}/keys/"), commits: format!("{prefix}/commits/") }
    }

    /// A key of the store, or the beginning of some, as etcd has it.
    pub fn key(&self, key: &str) -> Vec<u8> {
        [self.keys.as_bytes(), key.as_bytes()].concat()
    }

    /// The key that tells which commit of one process was the last.
    pub fn commit(&self, process: u128) -> Vec<u8> {
        format!("{}{process:032x}", self.commits).into_bytes()
    }

    pub fn own_key(&self, key: &[u8]) -> Result<String> {
        let own = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.keys));
        own.map(str::to_owned).ok_or_else(|| Error::Corrupt {
            key: String::from_utf8_lossy(key).into_owned(),
            why: "it is not a key of this metadata store".to_owned(),
        })
    }

    pub fn entry(&self, found: &etcd_client::KeyValue) -> Result<KeyValue> {
        Ok(KeyValue {
            key: self.own_key(found.key())?,
            value: Bytes::copy_from_slice(found.value()),
            create_revision: revision(found.create_revision()),
            mod_revision: revision(found.mod_revision()),
            lease: u64::try_from(found.lease()).ok().filter(|id| *id != 0).map(LeaseId),
        })
    }
}

/// etcd's revisions are positive.
pub fn revision(of_etcd: i64) -> Revision {
    u64::try_from(of_etcd).unwrap_or(0)
}

/// A revision that etcd can never reach stands for one that is too large for it.
pub fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

pub fn etcd_lease(lease: LeaseId) -> i64 {
    i64::try_from(lease.0).unwrap_or(i64::MAX)
}

/// The first key after all that begin with `prefix`, which does not consist of 0xff alone.
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}
