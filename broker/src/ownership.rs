//! Does this broker still own its log? Re-checked while clients are served, at most once a second, never while idle.
//!
//! Writes need no check: a fence in the log stops them. Reads do, because a fenced broker that never writes would
//! otherwise serve old data for ever. A reply that carries data or offsets is preceded by `confirm`, which is free when
//! the last check began less than `FRESH_FOR` ago. No client requests, no check.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use meta::error::{Error, Result};
use meta::keys::store as keys;
use meta::records::{self, LogRecord, LogState};
use meta::seams::Incarnation;
use meta::store::MetaStore;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long one check lasts.
pub const FRESH_FOR: Duration = Duration::from_secs(1);

/// Why this broker can no longer append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Another broker has taken over.
    #[error("{0}")]
    Fenced(String),
    /// The log's writer gave up: the storage failed, nobody else is known to be the owner.
    #[error("{0}")]
    Failed(String),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Ownership(Arc<Shared>);

struct Shared {
    store: Arc<dyn MetaStore>,
    log: u64,
    incarnation: Incarnation,
    /// A folder is locked by this process: nobody can take it over, so nothing needs to be asked.
    exclusive: bool,
    /// When the last check that succeeded began.
    confirmed: Mutex<Instant>,
    /// One check at a time serves all who wait for it.
    checking: tokio::sync::Mutex<()>,
    lost: watch::Sender<Option<Loss>>,
}

impl Ownership {
    pub fn new(store: Arc<dyn MetaStore>, log: u64, incarnation: Incarnation, exclusive: bool) -> Self {
        Self(Arc::new(Shared {
            store,
            log,
            incarnation,
            exclusive,
            confirmed: Mutex::new(Instant::now()),
            checking: tokio::sync::Mutex::default(),
            lost: watch::Sender::new(None),
        }))
    }

    /// Succeeds if a check that began within the last second found this broker to be the owner; makes one if need be.
    pub async fn confirm(&self) -> Result<()> {
        if self.is_fresh() {
            return Ok(());
        }
        let _turn = self.0.checking.lock().await;
        if self.is_fresh() {
            return Ok(());
        }
        let began = Instant::now();
        match self.check().await {
            Ok(()) => {
                *self.0.confirmed.lock() = began;
                Ok(())
            }
            Err(error) => {
                if matches!(error, Error::Fenced { .. }) {
                    self.declare_lost(Loss::Fenced(error.to_string()));
                }
                Err(error)
            }
        }
    }

    /// For answers that do not depend on it: nobody waits, but whoever is asked for anything learns of a takeover. A broker
    /// that clients only ask who leads would otherwise tell them for ever that it does.
    pub fn confirm_soon(&self) {
        if self.is_fresh() || self.0.checking.try_lock().is_err() {
            return;
        }
        let ownership = self.clone();
        tokio::spawn(async move {
            if let Err(error) = ownership.confirm().await {
                tracing::debug!(%error, "could not confirm that this broker owns its log");
            }
        });
    }

    /// Ownership is lost for good: every later `confirm` fails, and `lost` resolves. The first reason is kept.
    pub fn declare_lost(&self, why: Loss) {
        self.0.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(why);
            first
        });
    }

    /// Resolves once ownership is lost, with the reason.
    pub async fn lost(&self) -> Loss {
        let mut lost = self.0.lost.subscribe();
        loop {
            if let Some(why) = lost.borrow_and_update().clone() {
                return why;
            }
            if lost.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn is_fresh(&self) -> bool {
        if self.0.lost.borrow().is_some() {
            return false;
        }
        self.0.exclusive
            || meta::planted::bug("ownership-never-checked")
            || self.0.confirmed.lock().elapsed() < FRESH_FOR
    }

    async fn check(&self) -> Result<()> {
        let fenced = |owner: String| Error::Fenced { what: format!("log {}", self.0.log), owner };
        if let Some(why) = self.0.lost.borrow().clone() {
            return Err(fenced(why.to_string()));
        }
        let key = keys::log(self.0.log);
        let Some(entry) = self.0.store.get(&key).await? else {
            return Err(Error::Corrupt { key, why: "the record of the open log is gone".to_owned() });
        };
        let record: LogRecord = records::decode(&key, &entry.value)?;
        if record.writer != self.0.incarnation || record.state != LogState::Open {
            return Err(fenced("another broker, which has sealed it".to_owned()));
        }
        Ok(())
    }
}
