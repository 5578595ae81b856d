//! The start-up probe: does this object store keep the one promise that everything rests on?
//!
//! Servers exist that accept `If-None-Match: *` (`x-goog-if-generation-match: 0` on GCS) and ignore it. On such a store two brokers would both own the log, so it
//! is refused at start. Each round races distinct bodies for one fresh key with create-if-absent; then at most one may
//! have been accepted, what is there must be a contender's and must be the winner's, and a later create must be refused
//! and change nothing. Rounds run at once, so that a probe costs five round trips. Keys carry a fresh random number and
//! are deleted afterwards.
//!
//! Only what the core uses is probed: each promise is one function that runs its own rounds, and `probe` runs them all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use tokio::time::{sleep, timeout};

use crate::error::ErrorKind;
use crate::keys;
use crate::seams::Random;
use crate::settled::is_refusal;

#[cfg(test)]
mod tests;

const ROUNDS: u32 = 3;
const CONTENDERS: usize = 4;
/// A round in which nothing landed at all, or whose reads failed, says nothing: it is held again at another key.
const ATTEMPTS_MAX: u32 = 4;
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF: Duration = Duration::from_millis(100);
/// By its names on the wire: S3's and Azure's, GCS's.
const CONDITION: &str = "the condition of a conditional write (If-None-Match, x-goog-if-generation-match)";

/// Why a store cannot be used, or not now.
#[derive(Debug, thiserror::Error)]
#[error("{store} {reason}")]
pub struct ProbeFailure {
    pub store: String,
    pub reason: Reason,
}

#[derive(Debug)]
pub enum Reason {
    /// It accepted more than one create of one key.
    AcceptedRace { accepted: usize },
    /// It accepted a create of a key that was there already.
    AcceptedSecond,
    /// It refused a create, or accepted it, and held something else afterwards.
    HeldAnother { when: &'static str },
    /// It refuses what the probe needs, for good.
    Refused(Error),
    /// It did not answer, or not conclusively, several times.
    Unreachable(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::AcceptedRace { accepted } => {
                write!(f, "accepted {accepted} of {CONTENDERS} racing creates of one key: it ignores {CONDITION}")
            }
            Reason::AcceptedSecond => write!(f, "accepted a create of a key that exists: it ignores {CONDITION}"),
            Reason::HeldAnother { when } => write!(f, "{when}: its conditional writes cannot be trusted"),
            Reason::Refused(error) => write!(f, "refuses conditional writes: {error}"),
            Reason::Unreachable(why) => write!(f, "could not be probed: {why}"),
        }
    }
}

impl ProbeFailure {
    pub fn kind(&self) -> ErrorKind {
        match self.reason {
            Reason::Unreachable(_) => ErrorKind::Retriable,
            _ => ErrorKind::Invalid,
        }
    }
}

/// Proves that the store can be relied on, or says why not.
pub async fn probe(store: &Arc<dyn ObjectStore>, random: &Random) -> Result<(), ProbeFailure> {
    let nonce = random.next_u128();
    let rounds = join_all((0..ROUNDS).map(|round| create_if_absent(store, random, nonce, round))).await;
    rounds
        .into_iter()
        .collect::<Result<(), Reason>>()
        .map_err(|reason| ProbeFailure { store: store.to_string(), reason })
}

/// One round, held again while it is inconclusive.
async fn create_if_absent(
    store: &Arc<dyn ObjectStore>,
    random: &Random,
    nonce: u128,
    round: u32,
) -> Result<(), Reason> {
    let mut why = String::new();
    for attempt in 0..ATTEMPTS_MAX {
        let path = keys::object::probe(nonce, attempt * ROUNDS + round);
        let outcome = race(store, random, &path).await;
        if let Ok(Err(error)) = timeout(CALL_TIMEOUT, store.delete(&path)).await {
            tracing::debug!(%path, %error, "could not delete a probe object");
        }
        match outcome {
            Ok(()) => return Ok(()),
            Err(Reason::Unreachable(inconclusive)) => why = inconclusive,
            Err(reason) => return Err(reason),
        }
        sleep(BACKOFF * 2u32.pow(attempt)).await;
    }
    Err(Reason::Unreachable(why))
}

async fn race(store: &Arc<dyn ObjectStore>, random: &Random, path: &Path) -> Result<(), Reason> {
    let bodies: Vec<Bytes> = (0..CONTENDERS).map(|_| body(random)).collect();
    let answers = join_all(bodies.iter().map(|body| create(store, path, body))).await;
    let mut winners = Vec::new();
    let mut why = String::from("nothing landed");
    for (body, answer) in bodies.iter().zip(answers) {
        match answer {
            Ok(()) => winners.push(body),
            Err(error) if is_refusal(&error) => return Err(Reason::Refused(error)),
            Err(error) => why = error.to_string(),
        }
    }
    if winners.len() > 1 {
        return Err(Reason::AcceptedRace { accepted: winners.len() });
    }
    // None may be told that it won: a lost reply, then a refusal of the client's own second attempt.
    let Some(held) = read(store, path, &bodies).await? else {
        return Err(match winners.is_empty() {
            true => Reason::Unreachable(why),
            false => Reason::HeldAnother { when: "accepted a create and then held nothing" },
        });
    };
    if !bodies.contains(&held) || winners.first().is_some_and(|winner| **winner != held) {
        return Err(Reason::HeldAnother { when: "accepted one create and then held the bytes of another" });
    }
    match create(store, path, &body(random)).await {
        Ok(()) => return Err(Reason::AcceptedSecond),
        Err(error) if is_refusal(&error) => return Err(Reason::Refused(error)),
        Err(_) => {}
    }
    match read(store, path, std::slice::from_ref(&held)).await? {
        Some(now) if now == held => Ok(()),
        _ => Err(Reason::HeldAnother { when: "refused a create and yet changed the object" }),
    }
}

fn body(random: &Random) -> Bytes {
    Bytes::from(format!("probe {:032x}", random.next_u128()))
}

async fn create(store: &Arc<dyn ObjectStore>, path: &Path, body: &Bytes) -> Result<(), Error> {
    let put = store.put_opts(path, PutPayload::from_bytes(body.clone()), PutOptions::from(PutMode::Create));
    match timeout(CALL_TIMEOUT, put).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(Error::Generic { store: "probe", source: "no answer to a create".into() }),
    }
}

/// What is there. Anything unexpected counts only if it is read twice: one reply could be damaged on its way.
async fn read(store: &Arc<dyn ObjectStore>, path: &Path, expected: &[Bytes]) -> Result<Option<Bytes>, Reason> {
    let mut why = String::from("its reads differ");
    let mut seen: Option<Option<Bytes>> = None;
    for attempt in 0..2 * ATTEMPTS_MAX {
        let found = match timeout(CALL_TIMEOUT, get(store, path)).await {
            Ok(Ok(bytes)) if expected.contains(&bytes) => return Ok(Some(bytes)),
            Ok(Ok(bytes)) => Some(bytes),
            Ok(Err(Error::NotFound { .. })) => None,
            Ok(Err(error)) if is_refusal(&error) => return Err(Reason::Refused(error)),
            Ok(Err(error)) => {
                why = error.to_string();
                sleep(BACKOFF * (attempt + 1)).await;
                continue;
            }
            Err(_) => {
                why = "no answer to a read".to_owned();
                continue;
            }
        };
        if seen.as_ref() == Some(&found) {
            return Ok(found);
        }
        seen = Some(found);
    }
    Err(Reason::Unreachable(why))
}

/// A whole object.
async fn get(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Bytes, Error> {
    let answer = store.get(path).await?;
    let size = answer.meta.size;
    let bytes = answer.bytes().await?;
    if bytes.len() as u64 == size {
        return Ok(bytes);
    }
    Err(Error::Generic { store: "probe", source: format!("{} of {size} bytes", bytes.len()).into() })
}
