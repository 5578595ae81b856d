//! The owner's side: commits, reads that are sure of the ownership, leases. Invariants:
//!
//! - What is applied is in the journal, in order: `state.next` is the number after the last applied record.
//! - `writer` is held from the evaluation of a transaction to its application, so that none is in between.
//! - `state.doubt` is set whenever the last write was left without an outcome, by a deadline or by a caller that went
//!   away. While it is set nobody reads or writes before having settled that write.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::{Error, Result};
use crate::kv::{self, Kv};
use crate::leases::Leases;
use crate::planted;
use crate::seams::{Incarnation, Random};
use crate::settled::{Settled, Settler};
use crate::store::{LeaseId, Op, Txn, TxnOutcome};
use crate::watchers::Watchers;

use super::EmbeddedOptions;
use super::codec::{Kind, Stamp};
use super::open::Loaded;
use super::prepared::Prepared;
use super::reader::Reader;
use super::snapshots::Snapshots;

#[derive(Debug)]
pub struct State {
    pub kv: Kv,
    pub watchers: Watchers,
    pub leases: Leases,
    next: u64,
    doubt: bool,
    expiring: bool,
    /// Why every further call fails: fenced, or closed.
    ended: Option<Ended>,
}

#[derive(Debug, Clone)]
enum Ended {
    Fenced(String),
    Closed,
}

#[derive(Debug)]
struct Writer {
    /// The write that is in flight, or was left without an outcome.
    unsettled: Option<Prepared>,
    /// The nonce of the last applied record.
    last: u64,
}

#[derive(Debug)]
pub struct Owner {
    reader: Reader,
    settler: Settler,
    incarnation: Incarnation,
    random: Random,
    options: EmbeddedOptions,
    state: Mutex<State>,
    writer: AsyncMutex<Writer>,
    snapshots: Arc<Snapshots>,
    fenced: watch::Sender<bool>,
    /// The earliest expiry of a lease may have changed, or the store was closed.
    changed: Arc<Notify>,
}

impl Owner {
    pub fn new(
        reader: Reader,
        settler: Settler,
        incarnation: Incarnation,
        random: Random,
        options: EmbeddedOptions,
        loaded: Loaded,
    ) -> Self {
        let snapshots = Arc::new(Snapshots::new(reader.clone(), settler.clone(), incarnation, options, &loaded));
        let state = State {
            kv: loaded.kv,
            watchers: loaded.watchers,
            leases: Leases::default(),
            next: loaded.next,
            doubt: false,
            expiring: false,
            ended: None,
        };
        let writer = Writer { unsettled: None, last: loaded.last };
        Self {
            reader,
            settler,
            incarnation,
            random,
            options,
            state: Mutex::new(state),
            writer: AsyncMutex::new(writer),
            snapshots,
            fenced: watch::Sender::new(false),
            changed: Arc::default(),
        }
    }

    pub fn fenced(&self) -> watch::Receiver<bool> {
        self.fenced.subscribe()
    }

    /// The state, unless this owner was fenced or closed.
    pub fn with<T>(&self, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        match &state.ended {
            None => call(&mut state),
            Some(Ended::Fenced(owner)) => Err(fenced_by(owner)),
            Some(Ended::Closed) => Err(Error::Closed { what: "the metadata store" }),
        }
    }

    pub async fn commit(&self, txn: Txn) -> Result<TxnOutcome> {
        let mut writer = self.writer.lock().await;
        self.settle(&mut writer).await?;
        let (holds, revision) = self.with(|state| {
            let holds = state.kv.holds(&txn.compares);
            if holds {
                kv::leases_of(&txn).try_for_each(|lease| state.leases.check(lease))?;
            }
            Ok((holds, state.kv.revision()))
        })?;
        if holds && let Some(revision) = self.write(&mut writer, txn.ops).await? {
            return Ok(TxnOutcome::Committed { revision });
        }
        // Nothing is written, so nothing has proved yet that the state is the newest.
        if !planted::bug("conflict-without-ownership-check") {
            self.check_ownership().await?;
        }
        Ok(if holds { TxnOutcome::Committed { revision } } else { TxnOutcome::Conflict { revision } })
    }

    /// Makes operations durable and applies them. `None` if they change nothing.
    async fn write(&self, writer: &mut Writer, ops: Vec<Op>) -> Result<Option<u64>> {
        let prepared = self.with(|state| {
            if !state.kv.changes(&ops) {
                return Ok(None);
            }
            let nonce = self.random.next_u64();
            let stamp = Stamp { kind: Kind::Txn, number: state.next, incarnation: self.incarnation, nonce };
            Prepared::new(stamp, writer.last, state.kv.revision() + 1, ops).map(Some)
        })?;
        if prepared.is_none() {
            return Ok(None);
        }
        fail::fail_point!("embedded::before_commit");
        // Remembered before the first attempt: the caller may go away at any await from here on.
        writer.unsettled = prepared;
        self.settle(writer).await?;
        // Also if the store was closed meanwhile: it is committed.
        Ok(Some(self.state.lock().kv.revision()))
    }

    /// Brings the write that was left without an outcome to one, if there is any.
    async fn settle(&self, writer: &mut Writer) -> Result<()> {
        self.with(|_| Ok(()))?;
        let Some(prepared) = &writer.unsettled else { return Ok(()) };
        let doubt = Doubt(&self.state);
        let outcome = prepared.create(&self.settler, &self.options.patience).await;
        fail::fail_point!("embedded::after_commit");
        match outcome {
            Settled::Ours => {
                self.apply(prepared);
                writer.last = prepared.nonce;
                writer.unsettled = None;
                doubt.resolved();
                self.snapshot_if_due(writer);
                Ok(())
            }
            Settled::Theirs { .. } => {
                let number = self.state.lock().next;
                let owner = self.reader.header(number).await.ok().flatten().map(|header| header.incarnation);
                writer.unsettled = None;
                doubt.resolved();
                Err(self.fence(number, owner))
            }
            Settled::Unknown { why } => {
                if planted::bug("unsettled-commit-forgotten") {
                    writer.unsettled = None;
                    doubt.resolved();
                }
                Err(Error::Unknown { what: why })
            }
        }
    }

    fn apply(&self, prepared: &Prepared) {
        let mut state = self.state.lock();
        let batch = state.kv.apply(&prepared.ops);
        state.watchers.publish(batch);
        state.next += 1;
    }

    fn snapshot_if_due(&self, writer: &Writer) {
        let state = self.state.lock();
        if self.snapshots.begin(state.next - 1) {
            let (kv, number, last) = (state.kv.clone(), state.next - 1, writer.last);
            tokio::spawn(self.snapshots.clone().run(kv, number, last));
        }
    }

    /// Makes sure, for a read, that nobody had taken over when it began, and that no outcome is open.
    pub async fn confirm(&self) -> Result<()> {
        let (doubt, next) = self.with(|state| Ok((state.doubt, state.next)))?;
        if planted::bug("stale-read-after-takeover") || (self.options.exclusive && !doubt) {
            return Ok(());
        }
        if !doubt && self.reader.header(next).await?.is_none() && !self.snapshots.may_have_deleted(next) {
            return Ok(());
        }
        // The number exists: it is our own write in flight, or a takeover. Or it is in doubt.
        let mut writer = self.writer.lock().await;
        match self.settle(&mut writer).await {
            Ok(()) => self.check_ownership().await,
            // The read itself has done nothing.
            Err(Error::Unknown { what }) => Err(Error::Unavailable { what, source: "an earlier write is open".into() }),
            Err(error) => Err(error),
        }
    }

    /// With the writer held and nothing in doubt: whatever is at the next number is somebody else's.
    async fn check_ownership(&self) -> Result<()> {
        if self.options.exclusive {
            return Ok(());
        }
        let next = self.with(|state| Ok(state.next))?;
        match self.reader.header(next).await? {
            None => Ok(()),
            Some(header) => Err(self.fence(next, Some(header.incarnation))),
        }
    }

    fn fence(&self, number: u64, owner: Option<Incarnation>) -> Error {
        let owner = owner.map_or_else(|| "somebody".to_owned(), |owner| owner.to_string());
        tracing::error!(number, owner, "fenced: the metadata was taken over");
        self.end(Ended::Fenced(owner.clone()), || fenced_by(&owner));
        self.fenced.send_replace(true);
        fenced_by(&owner)
    }

    fn end(&self, how: Ended, why: impl Fn() -> Error) {
        let mut state = self.state.lock();
        if !matches!(state.ended, Some(Ended::Fenced(_))) {
            state.ended = Some(how);
        }
        state.watchers.end(why);
        drop(state);
        self.changed.notify_one();
    }

    pub async fn close(&self, why: impl Fn() -> Error) {
        self.end(Ended::Closed, why);
        // What is in flight ends first; what waits finds the store closed.
        drop(self.writer.lock().await);
    }

    /// Deletes a lease's keys.
    pub async fn drop_lease(&self, lease: LeaseId) -> Result<()> {
        let mut writer = self.writer.lock().await;
        self.settle(&mut writer).await?;
        let keys = self.with(|state| Ok(state.kv.leased(lease)))?;
        self.write(&mut writer, keys.into_iter().map(|key| Op::Delete { key }).collect()).await?;
        self.with(|state| {
            state.leases.forget(lease);
            Ok(())
        })
    }

    /// Starts the task that expires leases, if it does not run yet, and tells it of a new one.
    pub fn expire_leases(self: &Arc<Self>) {
        if !std::mem::replace(&mut self.state.lock().expiring, true) {
            tokio::spawn(expire(Arc::downgrade(self), self.changed.clone()));
        }
        self.changed.notify_one();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.state.get_mut().watchers.end(|| Error::Closed { what: "the metadata store" });
    }
}

fn fenced_by(owner: &str) -> Error {
    Error::Fenced { what: "metadata journal".to_owned(), owner: owner.to_owned() }
}

/// Leaves the state in doubt unless resolved: also if the future that holds it is dropped.
struct Doubt<'a>(&'a Mutex<State>);

impl Doubt<'_> {
    fn resolved(self) {
        self.0.lock().doubt = false;
        std::mem::forget(self);
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.lock().doubt = true;
    }
}

/// Deletes the keys of leases when they expire, for as long as the store exists.
async fn expire(owner: Weak<Owner>, changed: Arc<Notify>) {
    // How soon the task notices that the store was dropped without `close`.
    const IDLE: Duration = Duration::from_secs(60);
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        let next = {
            let Some(owner) = owner.upgrade() else { return };
            let Ok(expired) = owner.with(|state| Ok(state.leases.expired())) else { return };
            for lease in expired {
                tracing::info!(lease = lease.0, "a lease expired");
                if let Err(error) = owner.drop_lease(lease).await {
                    tracing::warn!(lease = lease.0, %error, "could not delete the keys of an expired lease yet");
                    sleep(RETRY).await;
                }
            }
            let idle = Instant::now() + IDLE;
            let Ok(next) = owner.with(|state| Ok(state.leases.next_expiry())) else { return };
            next.map_or(idle, |next| next.min(idle))
        };
        tokio::select! {
            biased;
            () = changed.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}
