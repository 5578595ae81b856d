//! Snapshots, and the deletion of what they make superfluous. Runs beside the commits and never fails one.
//!
//! After snapshot n, with p the snapshot before it, the journal up to p is deleted except for takeover records, and then
//! the snapshots before p: should n be damaged, p and the journal after it remain for whoever repairs it. The snapshots
//! go last, so that the oldest one listed tells how far an interrupted deletion may have come.
//!
//! A fenced owner that does not know it yet may do all of this: its state up to n is what everybody's is, and what it
//! deletes is superfluous to everybody.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};
use object_store::Error as StoreError;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::keys::object;
use crate::kv::Kv;
use crate::planted;
use crate::seams::Incarnation;
use crate::settled::{Settled, Settler};

use super::EmbeddedOptions;
use super::codec::{self, Kind, Stamp};
use super::open::Loaded;
use super::prepared;
use super::reader::Reader;

#[derive(Debug)]
pub struct Snapshots {
    reader: Reader,
    settler: Settler,
    incarnation: Incarnation,
    options: EmbeddedOptions,
    /// Records after this number were read or written by us: whether they are takeovers is known.
    known_after: u64,
    /// The takeover records after `known_after`.
    takeovers: BTreeSet<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: bool,
    /// The number of the last snapshot that was begun or found.
    newest: u64,
    /// Journal records up to here may be gone.
    deleted: u64,
}

impl Snapshots {
    pub fn new(
        reader: Reader,
        settler: Settler,
        incarnation: Incarnation,
        options: EmbeddedOptions,
        loaded: &Loaded,
    ) -> Self {
        let state = State { running: false, newest: loaded.snapshot, deleted: 0 };
        Self {
            reader,
            settler,
            incarnation,
            options,
            known_after: loaded.snapshot,
            takeovers: loaded.takeovers.iter().copied().collect(),
            state: Mutex::new(state),
        }
    }

    /// Could an absent journal record of this number have been deleted by us?
    pub fn may_have_deleted(&self, number: u64) -> bool {
        number <= self.state.lock().deleted
    }

    /// True if a snapshot at this number is due; the caller then runs it.
    pub fn begin(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        if state.running || number < state.newest + self.options.snapshot_every.max(1) {
            return false;
        }
        (state.running, state.newest) = (true, number);
        true
    }

    /// Writes the snapshot of `kv` as of journal record `number`, whose nonce is `last`; then deletes.
    pub async fn run(self: std::sync::Arc<Self>, kv: Kv, number: u64, last: u64) {
        match self.write(&kv, number, last).await {
            Ok(()) => {
                tracing::info!(number, keys = kv.entries().len(), "wrote a metadata snapshot");
                fail::fail_point!("embedded::after_snapshot");
                if let Err(error) = self.delete_before(number).await {
                    tracing::warn!(number, %error, "could not delete superfluous metadata; the next snapshot will");
                }
            }
            Err(error) => tracing::warn!(number, %error, "could not write a metadata snapshot; a later one will do"),
        }
        self.state.lock().running = false;
    }

    async fn write(&self, kv: &Kv, number: u64, last: u64) -> Result<()> {
        // The state after a record is the same whoever writes it down, so the nonce of the record identifies it enough.
        let stamp = Stamp { kind: Kind::Snapshot, number, incarnation: self.incarnation, nonce: last };
        let bytes = codec::encode_snapshot(stamp, last, kv.revision(), kv.entries())?;
        let path = object::snapshot(number);
        match prepared::create(&self.settler, &self.options.patience, &path, &bytes).await {
            Settled::Ours | Settled::Theirs { .. } => Ok(()),
            Settled::Unknown { why } => Err(Error::Unknown { what: why }),
        }
    }

    async fn delete_before(&self, number: u64) -> Result<()> {
        let snapshots = self.reader.snapshots().await?;
        let Some(previous) = snapshots.iter().copied().rfind(|snapshot| *snapshot < number) else { return Ok(()) };
        let older: Vec<u64> = snapshots.into_iter().filter(|snapshot| *snapshot < previous).collect();
        let floor = older.first().copied().unwrap_or(0);
        self.state.lock().deleted = previous;
        let mut superfluous = Vec::new();
        for record in self.reader.journal_after(floor).await? {
            if record > previous {
                break;
            }
            if planted::bug("takeover-record-trimmed") || !self.is_takeover(record).await? {
                superfluous.push(object::journal(record));
            }
        }
        self.delete(superfluous).await?;
        fail::fail_point!("embedded::after_journal_deleted");
        self.delete(older.into_iter().map(object::snapshot).collect()).await
    }

    /// Unknown ones are looked at: they lie between the last two snapshots before we took over.
    async fn is_takeover(&self, number: u64) -> Result<bool> {
        if number > self.known_after {
            return Ok(self.takeovers.contains(&number));
        }
        let header = self.reader.header(number).await?;
        Ok(header.is_none_or(|header| header.kind == Kind::Takeover))
    }

    /// Succeeds only if all of them are gone.
    async fn delete(&self, paths: Vec<Path>) -> Result<()> {
        let unavailable = |source| Error::Unavailable { what: "deletion of superfluous metadata".to_owned(), source };
        let mut deleted = self.reader.store.delete_stream(stream::iter(paths).map(Ok).boxed());
        loop {
            match timeout(self.options.patience.deadline, deleted.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_) | Err(StoreError::NotFound { .. }))) => {}
                Ok(Some(Err(error))) => return Err(unavailable(error.into())),
                Err(_) => return Err(unavailable("no answer".into())),
            }
        }
    }
}
