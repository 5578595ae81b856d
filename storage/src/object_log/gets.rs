//! Ranged reads of objects that give exactly what was asked for, or say why not.
//!
//! A reply that ends early, a flipped bit and a passing error look alike from here: all are tried again a few times.
//! Nothing that fails its checks is ever handed on.
//!
//! An object's end can be asked for without knowing its length, but not on Azure. There the beginning is read instead,
//! which is the whole of a small object and tells the length of a larger one, whose end is then read by its position. A
//! store says by itself that it is like that: the client refuses such a range before anything is sent.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::{GetOptions, GetRange, ObjectStore, path::Path};
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result};
use crate::fragment::DecodeError;

const ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(20);

/// What one read gave: as many bytes as the range and the object's size promise.
#[derive(Debug)]
pub(crate) struct Got {
    pub bytes: Bytes,
    /// Of the whole object.
    pub size: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Gets {
    store: Arc<dyn ObjectStore>,
    call_timeout: Duration,
    /// The store has refused to be asked for an object's end.
    lacks_suffix: Arc<AtomicBool>,
}

/// Why one attempt failed.
enum Failure {
    Missing,
    Store(Box<dyn std::error::Error + Send + Sync>),
}

impl Failure {
    fn of(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            error => Self::Store(Box::new(error)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("it was not tried")]
    NotTried,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the reply has {found} bytes, not {wanted}")]
    Length { found: u64, wanted: u64 },
}

impl Gets {
    pub fn new(store: Arc<dyn ObjectStore>, call_timeout: Duration) -> Self {
        Self { store, call_timeout, lacks_suffix: Arc::default() }
    }

    /// Reads a range and decodes it. `Missing` if there is no such object; `Corrupt` if the same undecodable bytes come
    /// twice: damage on the way would differ.
    pub async fn get<T>(
        &self,
        key: &Path,
        range: GetRange,
        decode: impl Fn(Got) -> Result<T, DecodeError> + Send,
    ) -> Result<T> {
        let mut backoff = BACKOFF;
        let mut damaged: Option<Bytes> = None;
        let mut failed: Box<dyn std::error::Error + Send + Sync> = Box::new(Broken::NotTried);
        for _ in 0..ATTEMPTS {
            match self.fetch(key, range.clone()).await {
                Ok(got) => {
                    let bytes = got.bytes.clone();
                    match decode(got) {
                        Ok(value) => return Ok(value),
                        Err(error @ DecodeError::FutureVersion { .. }) => return Err(error.at(key)),
                        Err(error) if damaged.as_ref() == Some(&bytes) => return Err(error.at(key)),
                        Err(error) => {
                            damaged = Some(bytes);
                            failed = Box::new(error);
                        }
                    }
                }
                Err(Failure::Missing) => return Err(Error::Missing { key: key.to_string() }),
                Err(Failure::Store(error)) => failed = error,
            }
            tracing::debug!(%key, error = %failed, "reading again");
            sleep(backoff).await;
            backoff *= 2;
        }
        Err(Error::Unavailable { what: format!("reading {key}"), source: failed })
    }

    /// Exactly these bytes of an object that must reach so far.
    pub async fn exactly<T>(
        &self,
        key: &Path,
        position: u64,
        length: u64,
        decode: impl Fn(Bytes) -> Result<T, DecodeError> + Send,
    ) -> Result<T> {
        self.get(key, GetRange::Bounded(position..position + length), move |got| {
            if got.bytes.len() as u64 != length {
                return Err(DecodeError::Damaged("the object is too short"));
            }
            decode(got.bytes)
        })
        .await
    }

    /// The same for many bytes: each piece, of `piece_bytes` but for the last, is handed over as soon as it is there, in an
    /// allocation of its own. Ends early, without an error, where the object ends. What was handed over before a failure
    /// is good as far as can be told from here, and is not asked for again.
    pub async fn pieces(
        &self,
        key: &Path,
        range: Range<u64>,
        piece_bytes: usize,
        each: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<()> {
        let mut backoff = BACKOFF;
        let mut failed: Box<dyn std::error::Error + Send + Sync> = Box::new(Broken::NotTried);
        let mut at = range.start;
        for _ in 0..ATTEMPTS {
            match self.stream(key, &mut at, range.end, piece_bytes, each).await {
                Ok(()) => return Ok(()),
                Err(Failure::Missing) => return Err(Error::Missing { key: key.to_string() }),
                Err(Failure::Store(error)) => failed = error,
            }
            tracing::debug!(%key, error = %failed, "reading on");
            sleep(backoff).await;
            backoff *= 2;
        }
        Err(Error::Unavailable { what: format!("reading {key}"), source: failed })
    }

    /// One attempt: moves `at` to behind what was handed over.
    async fn stream(
        &self,
        key: &Path,
        at: &mut u64,
        end: u64,
        piece_bytes: usize,
        each: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<(), Failure> {
        let options = GetOptions { range: Some(GetRange::Bounded(*at..end)), ..GetOptions::default() };
        let reply = match timeout(self.call_timeout, self.store.get_opts(key, options)).await {
            Ok(reply) => reply.map_err(Failure::of)?,
            Err(_) => return Err(Failure::Store(Box::new(Broken::TimedOut(self.call_timeout)))),
        };
        let end = end.min(reply.meta.size);
        let room = |at: u64| BytesMut::with_capacity(piece_bytes.min(end.saturating_sub(at) as usize));
        let mut body = reply.into_stream();
        let mut piece = room(*at);
        while *at < end {
            let mut part = match timeout(self.call_timeout, body.next()).await {
                Ok(Some(part)) => part.map_err(Failure::of)?,
                Ok(None) => {
                    let wanted = (end - *at).min(piece_bytes as u64);
                    return Err(Failure::Store(Box::new(Broken::Length { found: piece.len() as u64, wanted })));
                }
                Err(_) => return Err(Failure::Store(Box::new(Broken::TimedOut(self.call_timeout)))),
            };
            while !part.is_empty() && *at < end {
                let wanted = piece_bytes.min((end - *at) as usize);
                piece.extend_from_slice(&part.split_to(part.len().min(wanted - piece.len())));
                if piece.len() == wanted {
                    *at += wanted as u64;
                    each(std::mem::replace(&mut piece, room(*at)).freeze());
                }
            }
        }
        Ok(())
    }

    /// The length of an object.
    pub async fn length(&self, key: &Path) -> Result<u64> {
        let mut backoff = BACKOFF;
        let mut failed: Box<dyn std::error::Error + Send + Sync> = Box::new(Broken::NotTried);
        for _ in 0..ATTEMPTS {
            let options = GetOptions { head: true, ..GetOptions::default() };
            match timeout(self.call_timeout, self.store.get_opts(key, options)).await {
                Ok(Ok(reply)) => return Ok(reply.meta.size),
                Ok(Err(object_store::Error::NotFound { .. })) => return Err(Error::Missing { key: key.to_string() }),
                Ok(Err(error)) => failed = Box::new(error),
                Err(_) => failed = Box::new(Broken::TimedOut(self.call_timeout)),
            }
            sleep(backoff).await;
            backoff *= 2;
        }
        Err(Error::Unavailable { what: format!("the length of {key}"), source: failed })
    }

    async fn fetch(&self, key: &Path, range: GetRange) -> Result<Got, Failure> {
        let got = match timeout(self.call_timeout, self.ask(key, &range)).await {
            Ok(Ok(got)) => got,
            Ok(Err(error)) => return Err(Failure::of(error)),
            Err(_) => return Err(Failure::Store(Box::new(Broken::TimedOut(self.call_timeout)))),
        };
        let wanted = match range {
            GetRange::Bounded(range) => range.end.min(got.size).saturating_sub(range.start),
            GetRange::Offset(from) => got.size.saturating_sub(from),
            GetRange::Suffix(length) => length.min(got.size),
        };
        if got.bytes.len() as u64 != wanted {
            let found = got.bytes.len() as u64;
            return Err(Failure::Store(Box::new(Broken::Length { found, wanted })));
        }
        Ok(got)
    }

    async fn ask(&self, key: &Path, range: &GetRange) -> object_store::Result<Got> {
        let GetRange::Suffix(length) = *range else { return self.request(key, range.clone()).await };
        if !self.lacks_suffix.load(Ordering::Relaxed) {
            match self.request(key, range.clone()).await {
                Err(object_store::Error::NotSupported { .. }) => self.lacks_suffix.store(true, Ordering::Relaxed),
                answer => return answer,
            }
        }
        let beginning = self.request(key, GetRange::Bounded(0..length)).await?;
        match beginning.size > length {
            true => self.request(key, GetRange::Bounded(beginning.size - length..beginning.size)).await,
            false => Ok(beginning),
        }
    }

    async fn request(&self, key: &Path, range: GetRange) -> object_store::Result<Got> {
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let reply = self.store.get_opts(key, options).await?;
        let size = reply.meta.size;
        Ok(Got { bytes: reply.bytes().await?, size })
    }
}
