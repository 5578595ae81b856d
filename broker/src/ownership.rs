//! Does this broker still own its log? Re-checked while clients are served, at most once a second, never while idle.
//!
//! Writes need no check: a fence in the log stops them. Reads do, because a fenced broker that never writes would
//! otherwise serve old data for ever. A reply that carries data or offsets is preceded by `confirm`, which is free when
//! the last check began less than `FRESH_FOR` ago. No client requests, no check.
//!
//! The check looks into the log itself (`Log::confirm_unfenced`): a broker that takes over serves nothing before its
//! fence is there. So reading goes on, as safely as ever, while the metadata store cannot be reached; and whoever can
//! reach the storage needs nothing else to know that it owns its log. In a locked folder the check costs nothing.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::Duration;

use meta::error::ErrorKind;
use parking_lot::Mutex;
use storage::error::{Error, Result};
use storage::log::Log;
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
    /// Weak: the log hands what becomes durable to the partitions, and they ask here.
    log: Mutex<Option<Weak<dyn Log>>>,
    /// When the last check that succeeded began.
    confirmed: Mutex<Option<Instant>>,
    /// One check at a time serves all who wait for it.
    checking: tokio::sync::Mutex<()>,
    lost: watch::Sender<Option<Loss>>,
}

impl Default for Ownership {
    fn default() -> Self {
        Self::new()
    }
}

impl Ownership {
    /// Of no log yet: nothing is confirmed.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            log: Mutex::default(),
            confirmed: Mutex::default(),
            checking: tokio::sync::Mutex::default(),
            lost: watch::Sender::new(None),
        }))
    }

    /// Of this log, from now on, for as long as it exists.
    pub fn guard(&self, log: &Arc<dyn Log>) {
        *self.0.log.lock() = Some(Arc::downgrade(log));
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
                *self.0.confirmed.lock() = Some(began);
                Ok(())
            }
            Err(error) => {
                if error.kind() == ErrorKind::Fenced {
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
        let fresh = self.0.confirmed.lock().is_some_and(|began| began.elapsed() < FRESH_FOR);
        fresh || meta::planted::bug("ownership-never-checked")
    }

    async fn check(&self) -> Result<()> {
        if let Some(why) = self.0.lost.borrow().clone() {
            return Err(Error::Fenced { what: "the log".to_owned(), owner: why.to_string() });
        }
        let log = self.0.log.lock().as_ref().and_then(Weak::upgrade);
        match log {
            Some(log) => log.confirm_unfenced().await,
            None => Err(Error::Closed { what: "the log" }),
        }
    }
}
