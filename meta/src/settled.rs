//! The settled conditional write: create an object exactly once and know whether it was us.
//!
//! Every ownership decision of the system is a create-if-absent of fixed bytes at a fixed key. Object stores answer it
//! ambiguously, so an answer other than success is never believed: the object is read back and its identity compared.
//!
//! | the PUT answers                   | what may be at the key        | what is done                                    |
//! |-----------------------------------|-------------------------------|-------------------------------------------------|
//! | success                           | our bytes                     | `Ours`                                          |
//! | already exists                    | our bytes: an earlier attempt landed and its reply was lost |                   |
//! |                                   | somebody else's bytes         |                                                 |
//! |                                   | nothing: a 409 for a race that somebody else then lost as well |                |
//! | any other error, or no answer     | all of the above, and our bytes may still land at any later time |              |
//!
//! | the read-back finds               | it means                                                                        |
//! |-----------------------------------|---------------------------------------------------------------------------------|
//! | our identity                      | `Ours`                                                                          |
//! | another identity, twice the same  | `Theirs` (twice: one reply could be damaged on its way)                         |
//! | an object that ends too early     | `Theirs`: ours would reach to the end of the identity range                     |
//! | nothing                           | nothing! The write may still land. The same bytes are sent to the same key again |
//! | an error, or fewer bytes than asked for | nothing: wait and read again                                              |
//!
//! Sending again is safe because the bytes are fixed: whichever attempt lands, it is the same object. Only success or a
//! read-back ends it, or the deadline: `Unknown`. A store that refuses for good (no permission, not implemented) is
//! given up on after a few refusals, also as `Unknown`, since an earlier attempt may have been let through.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::{Error, GetOptions, GetRange, ObjectStore, PutMode, PutOptions, PutPayload, path::Path};
use tokio::time::{Instant, sleep, timeout};

use crate::planted;

#[cfg(test)]
mod tests;

/// How a create-if-absent ended, once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Our bytes are durable at the key, by this or an earlier attempt.
    Ours,
    /// Somebody else's object is there. `found` holds its bytes within the identity range, fewer if it ends earlier.
    Theirs { found: Bytes },
    /// Neither could be established before the deadline. Our bytes may still land at any later time.
    Unknown { why: String },
}

/// Which bytes of an object tell one writer's attempt from any other's: they must hold a put-id (writer incarnation and
/// a checksum of the content, or a random number), so that two different attempts never share them.
#[derive(Debug, Clone)]
pub struct Identity {
    pub range: Range<u64>,
    pub bytes: Bytes,
}

/// Retries and time limits of one settled write.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Gives up, with `Unknown` if any attempt may have landed, once this much time has passed.
    pub deadline: Duration,
    /// Limit of every single call to the store: a call that hangs must not use up the whole deadline.
    pub call_timeout: Duration,
    /// Pause after the first failed attempt; doubles up to `backoff_max`.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            call_timeout: Duration::from_secs(5),
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// What one settled write took, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    pub puts: u32,
    pub reads: u32,
    pub elapsed: Duration,
}

/// Is told of every settled write when it has ended.
pub trait Observer: Send + Sync {
    fn settled(&self, path: &Path, effort: Effort, outcome: &Settled);
}

/// Permanent refusals in a row after which trying again is given up.
const REFUSALS_MAX: u32 = 3;

/// Makes settled writes in one object store. Cheap to clone.
#[derive(Clone)]
pub struct Settler {
    store: Arc<dyn ObjectStore>,
    observer: Option<Arc<dyn Observer>>,
}

impl std::fmt::Debug for Settler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Settler").field(&self.store).finish()
    }
}

impl Settler {
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, observer: None }
    }

    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Creates the object at `path`, which must hold `identity.bytes` at `identity.range`, and settles the outcome.
    ///
    /// May be called again with the very same arguments after `Unknown`, or after its future was dropped.
    pub async fn create(&self, path: &Path, payload: PutPayload, identity: &Identity, patience: &Patience) -> Settled {
        debug_assert!(carries(&payload, identity), "the payload for {path} does not carry its identity");
        let began = Instant::now();
        let mut attempt = Attempt {
            store: self.store.as_ref(),
            path,
            identity,
            patience,
            deadline: began + patience.deadline,
            backoff: patience.backoff,
            refusals: 0,
            puts: 0,
            reads: 0,
            why: String::from("no attempt was made before the deadline"),
        };
        let outcome = attempt.run(payload).await;
        let effort = Effort { puts: attempt.puts, reads: attempt.reads, elapsed: began.elapsed() };
        if let Some(observer) = &self.observer {
            observer.settled(path, effort, &outcome);
        }
        outcome
    }
}

/// What one read-back established.
enum Found {
    Ours,
    Theirs(Bytes),
    Nothing,
    Unclear,
}

struct Attempt<'a> {
    store: &'a dyn ObjectStore,
    path: &'a Path,
    identity: &'a Identity,
    patience: &'a Patience,
    deadline: Instant,
    backoff: Duration,
    refusals: u32,
    puts: u32,
    reads: u32,
    /// The last thing that went wrong.
    why: String,
}

impl Attempt<'_> {
    async fn run(&mut self, payload: PutPayload) -> Settled {
        while Instant::now() < self.deadline {
            self.puts += 1;
            match self.call(self.store.put_opts(self.path, payload.clone(), PutOptions::from(PutMode::Create))).await {
                Ok(_) => return Settled::Ours,
                Err(Error::AlreadyExists { .. }) if planted::bug("already-exists-is-mine") => return Settled::Ours,
                Err(error) => self.note("put", &error),
            }
            fail::fail_point!("settled::unclear");
            match self.read_back().await {
                Found::Ours => return Settled::Ours,
                Found::Theirs(found) => return Settled::Theirs { found },
                Found::Nothing if planted::bug("not-found-means-never-landed") => {
                    return Settled::Theirs { found: Bytes::new() };
                }
                // Not yet, or never: the same bytes once more tell which.
                Found::Nothing | Found::Unclear if self.refusals >= REFUSALS_MAX => break,
                Found::Nothing | Found::Unclear => self.pause().await,
            }
        }
        Settled::Unknown { why: std::mem::take(&mut self.why) }
    }

    /// Reads until the store answers with something that can be judged.
    async fn read_back(&mut self) -> Found {
        let mut seen: Option<Bytes> = None;
        while Instant::now() < self.deadline {
            self.reads += 1;
            match self.read_identity().await {
                Ok(found) if found == self.identity.bytes => return Found::Ours,
                Ok(found) if seen.as_ref() == Some(&found) => return Found::Theirs(found),
                Ok(found) => seen = Some(found),
                Err(Error::NotFound { .. }) => return Found::Nothing,
                Err(error) => {
                    self.note("read back", &error);
                    if self.refusals >= REFUSALS_MAX {
                        break;
                    }
                    self.pause().await;
                }
            }
        }
        Found::Unclear
    }

    /// The object's bytes within the identity range; fewer only if the object really ends there.
    async fn read_identity(&mut self) -> Result<Bytes, Error> {
        let range = self.identity.range.clone();
        let wanted = range.end - range.start;
        let (size, found) = match self.call(read(self.store, self.path, range.clone())).await {
            // A range past the end is an error in every store, and in every store another one: ask for the size.
            Err(error @ (Error::Generic { .. } | Error::Precondition { .. })) => {
                let head = GetOptions { head: true, ..GetOptions::default() };
                let size = self.call(self.store.get_opts(self.path, head)).await?.meta.size;
                if size > range.start {
                    return Err(error);
                }
                (size, Bytes::new())
            }
            answer => answer?,
        };
        if found.len() as u64 == wanted || (size < range.end && found.len() as u64 == size.saturating_sub(range.start))
        {
            return Ok(found);
        }
        Err(generic(format!("{} of {wanted} bytes, of an object of {size}", found.len())))
    }

    /// One call to the store, within its time limit and the deadline.
    async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let limit = self.patience.call_timeout.min(self.deadline.saturating_duration_since(Instant::now()));
        match timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => Err(generic(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    fn note(&mut self, what: &str, error: &Error) {
        match error {
            Error::AlreadyExists { .. } => {}
            _ if is_refusal(error) => self.refusals += 1,
            _ => self.refusals = 0,
        }
        tracing::debug!(path = %self.path, what, %error, "a conditional write is not settled yet");
        self.why = format!("{what} of {}: {error}", self.path);
    }

    async fn pause(&mut self) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        sleep(self.backoff.min(left)).await;
        self.backoff = (self.backoff * 2).min(self.patience.backoff_max);
    }
}

/// Reads a range; answers with the object's whole size beside it.
async fn read(store: &dyn ObjectStore, path: &Path, range: Range<u64>) -> Result<(u64, Bytes), Error> {
    let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    let answer = store.get_opts(path, options).await?;
    let size = answer.meta.size;
    Ok((size, answer.bytes().await?))
}

/// Would the same request be refused again?
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::UnknownConfigurationKey { .. }
    )
}

fn generic(what: String) -> Error {
    Error::Generic { store: "settled write", source: what.into() }
}

/// Does the payload hold the identity's bytes at the identity's range?
fn carries(payload: &PutPayload, identity: &Identity) -> bool {
    let (start, length) = (identity.range.start as usize, (identity.range.end - identity.range.start) as usize);
    length > 0
        && payload.content_length() >= start + length
        && payload.iter().flatten().skip(start).take(length).eq(identity.bytes.iter())
}
