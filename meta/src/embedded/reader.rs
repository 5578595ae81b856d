//! Reads of the journal and the snapshots: with time limits, tried again, and damage on the way told from damage at rest.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectStore, path::Path};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, Result};
use crate::keys::object;
use crate::settled::{Patience, is_refusal};

use super::codec::{self, HEADER_BYTES, Header, Record, Snapshot};

/// Reads of one object before its bytes are believed to be damaged at rest, and not on their way.
const READS_OF_DAMAGED: u32 = 4;

#[derive(Debug, Clone)]
pub struct Reader {
    pub store: Arc<dyn ObjectStore>,
    pub patience: Patience,
}

impl Reader {
    /// The journal record of this number; `None` if there is none.
    pub async fn record(&self, number: u64) -> Result<Option<Record>> {
        self.decoded(&object::journal(number), None, |key, bytes| codec::decode_record(key, number, bytes)).await
    }

    /// Only the header of the journal record of this number.
    pub async fn header(&self, number: u64) -> Result<Option<Header>> {
        let range = GetRange::Bounded(0..HEADER_BYTES as u64);
        self.decoded(&object::journal(number), Some(range), |key, bytes| codec::decode_header(key, bytes)).await
    }

    pub async fn snapshot(&self, number: u64) -> Result<Option<Snapshot>> {
        self.decoded(&object::snapshot(number), None, |key, bytes| codec::decode_snapshot(key, number, bytes)).await
    }

    /// The numbers of the snapshots that are listed, in order.
    pub async fn snapshots(&self) -> Result<Vec<u64>> {
        self.numbers(&object::snapshot_prefix(), None).await
    }

    /// The numbers after `after` that are listed in the journal, in order.
    pub async fn journal_after(&self, after: u64) -> Result<Vec<u64>> {
        self.numbers(&object::journal_prefix(), Some(&object::journal(after))).await
    }

    async fn numbers(&self, prefix: &Path, offset: Option<&Path>) -> Result<Vec<u64>> {
        let listed = self.retry(prefix, || async move {
            let listing = match offset {
                Some(offset) => self.store.list_with_offset(Some(prefix), offset),
                None => self.store.list(Some(prefix)),
            };
            listing.map_ok(|meta| meta.location).try_collect::<Vec<Path>>().await
        });
        // A folder that does not exist yet is an error to some stores.
        let listed = listed.await?.unwrap_or_default();
        let mut numbers: Vec<u64> = listed.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn decoded<T>(
        &self,
        path: &Path,
        range: Option<GetRange>,
        decode: impl Fn(&str, &Bytes) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut reads = 0;
        loop {
            let range = &range;
            let Some(bytes) = self.retry(path, || self.fetch(path, range.clone())).await? else { return Ok(None) };
            reads += 1;
            match decode(path.as_ref(), &bytes) {
                Ok(decoded) => return Ok(Some(decoded)),
                Err(error) if reads == READS_OF_DAMAGED => return Err(error),
                Err(error) => tracing::warn!(%path, %error, "reading a damaged object again"),
            }
        }
    }

    async fn fetch(&self, path: &Path, range: Option<GetRange>) -> Result<Bytes, StoreError> {
        self.store.get_opts(path, GetOptions { range, ..GetOptions::default() }).await?.bytes().await
    }

    /// Calls until an answer or the deadline. `None` means that nothing is there.
    async fn retry<T, F>(&self, path: &Path, call: impl Fn() -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let deadline = Instant::now() + self.patience.deadline;
        let mut backoff = self.patience.backoff;
        loop {
            let limit = self.patience.call_timeout.min(deadline.saturating_duration_since(Instant::now()));
            let error = match timeout(limit, call()).await {
                Ok(Ok(answer)) => return Ok(Some(answer)),
                Ok(Err(StoreError::NotFound { .. })) => return Ok(None),
                Ok(Err(error)) => error,
                Err(_) => StoreError::Generic { store: "metadata", source: "no answer".into() },
            };
            if is_refusal(&error) || Instant::now() + backoff >= deadline {
                return Err(Error::Unavailable { what: path.to_string(), source: Box::new(error) });
            }
            tracing::debug!(%path, %error, "reading again");
            sleep(backoff).await;
            backoff = (backoff * 2).min(self.patience.backoff_max);
        }
    }
}

/// The number that a name is, if it is one: a folder may hold the leavings of unfinished writes, and of anybody.
fn number(path: &Path) -> Option<u64> {
    let name = path.filename()?;
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}
