//! Recovery of a log's end: creates the fence that ends its last segment, or finds the one that does.
//!
//! Fragment numbers are tried upwards from `recover_from`. What exists is content, as far as the first number that does
//! not: there the fence is created, conditionally, since the writer may be alive and about to write that very number.
//! Whoever comes second reads what the first one wrote: a fragment moves the search on, any fence ends it. So writer
//! and any number of recoverers agree, however often each of them dies on the way: the end is the lowest fence.
//! What lies above it does not exist, whatever LIST shows.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use meta::keys::object;
use meta::planted;
use meta::records::{LogRecord, LogState};
use meta::seams::Incarnation;
use meta::settled::{Identity, Patience, Settled, Settler};
use object_store::{GetRange, PutPayload};

use super::gets::Gets;
use crate::entry::FragmentId;
use crate::error::{Error, Result};
use crate::fragment::{DecodeError, FragmentHeader, HEADER_BYTES};

/// Headers read at once, ahead of knowing that they exist.
const READS_AHEAD: usize = 64;

/// What is needed to write a fence: its key, bytes and identity.
pub(super) fn fence_object(id: FragmentId, sealer: Incarnation) -> (object_store::path::Path, PutPayload, Identity) {
    // Nothing in it depends on what the sealer knows, so that every attempt of one sealer has the same bytes.
    let header = FragmentHeader::fence(id, sealer, None);
    let bytes = Bytes::copy_from_slice(&header.encode());
    let identity = Identity { range: 0..HEADER_BYTES as u64, bytes: bytes.clone() };
    (object::fragment(id.log, id.segment, id.fragment), PutPayload::from(bytes), identity)
}

pub(super) struct Recovery<'a> {
    pub gets: &'a Gets,
    pub settler: &'a Settler,
    pub patience: Patience,
    pub number: u64,
    pub record: &'a LogRecord,
    pub sealer: Incarnation,
}

impl Recovery<'_> {
    /// The end of the log's last segment, final. Any error leaves everything as it was, or one step further.
    pub async fn fence(&self) -> Result<u64> {
        let Some(last) = self.record.segments.last() else {
            return Err(Error::Invalid { what: format!("log {} has no segment", self.number) });
        };
        match (self.record.state, last.end) {
            (LogState::Sealed, Some(end)) => return Ok(end),
            (LogState::Sealing, None) => {}
            _ => return Err(Error::Invalid { what: format!("log {} is not marked as sealing", self.number) }),
        }
        if planted::bug("recovery-trusts-list") {
            return self.highest_listed().await;
        }
        match self.skip_existing(self.record.recover_from).await? {
            Found::Fence(end) => Ok(end),
            Found::Absent(fragment) => self.end_from_absent(fragment).await,
        }
    }

    /// The end, which is not below a number that was just seen to be absent.
    pub async fn end_from_absent(&self, mut absent: u64) -> Result<u64> {
        loop {
            fail::fail_point!("fence::found_absent");
            let next = match self.create(absent).await? {
                Found::Fence(end) => {
                    tracing::info!(log = self.number, segment = self.id(end).segment, end, "fenced");
                    return Ok(end);
                }
                Found::Absent(next) => next,
            };
            absent = match self.skip_existing(next).await? {
                Found::Fence(end) => return Ok(end),
                Found::Absent(fragment) => fragment,
            };
        }
    }

    /// The first number from `next` on at which there is no fragment.
    async fn skip_existing(&self, next: u64) -> Result<Found> {
        let mut headers = stream::iter(next..u64::MAX)
            .map(|fragment| async move { (fragment, self.header(self.id(fragment)).await) })
            .buffered(READS_AHEAD);
        while let Some((fragment, header)) = headers.next().await {
            match header? {
                None => return Ok(Found::Absent(fragment)),
                Some(header) if header.is_fence() => return Ok(Found::Fence(fragment)),
                Some(_) => {}
            }
        }
        Err(Error::Invalid { what: format!("log {} has no end", self.number) })
    }

    /// Creates the fence at a number that was absent; `Absent(n + 1)` if a fragment was there first.
    async fn create(&self, fragment: u64) -> Result<Found> {
        let id = self.id(fragment);
        let (key, payload, identity) = fence_object(id, self.sealer);
        match self.settler.create(&key, payload, &identity, &self.patience).await {
            Settled::Ours => Ok(Found::Fence(fragment)),
            Settled::Theirs { .. } if planted::bug("fence-skips-read-back") => Ok(Found::Fence(fragment)),
            Settled::Theirs { found } => {
                let header = FragmentHeader::decode(&found)
                    .and_then(|header| self.check(id, header))
                    .map_err(|error| error.at(&key))?;
                Ok(if header.is_fence() { Found::Fence(fragment) } else { Found::Absent(fragment + 1) })
            }
            // It may still land; the next attempt finds out.
            Settled::Unknown { why } => Err(Error::Unavailable { what: format!("fencing {key}"), source: why.into() }),
        }
    }

    async fn header(&self, id: FragmentId) -> Result<Option<FragmentHeader>> {
        let key = object::fragment(id.log, id.segment, id.fragment);
        let range = GetRange::Bounded(0..HEADER_BYTES as u64);
        let header = self.gets.get(&key, range, |got| {
            let header = self.check(id, FragmentHeader::decode(&got.bytes)?)?;
            match header.total_length() == got.size {
                true => Ok(header),
                false => Err(DecodeError::Damaged("the object is not as long as its header says")),
            }
        });
        match header.await {
            Ok(header) => Ok(Some(header)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check(&self, id: FragmentId, header: FragmentHeader) -> Result<FragmentHeader, DecodeError> {
        if header.id != id {
            return Err(DecodeError::Damaged("its header names another fragment"));
        }
        if !header.is_fence() && header.writer != self.record.writer {
            return Err(DecodeError::Damaged("it is not by the log's writer"));
        }
        Ok(header)
    }

    fn id(&self, fragment: u64) -> FragmentId {
        // Lossless: a record lists its segments, of which there are few.
        FragmentId { log: self.number, segment: (self.record.segments.len() - 1) as u32, fragment }
    }

    /// A planted bug: believes LIST, which shows what lies above the fence and hides nothing that lies below a gap.
    async fn highest_listed(&self) -> Result<u64> {
        let first = object::fragment(self.number, self.id(0).segment, 0);
        let prefix = first.to_string().rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default();
        let prefix = object_store::path::Path::from(prefix);
        let listed: Vec<_> = self.settler.store().list(Some(&prefix)).collect().await;
        Ok(listed.iter().filter(|object| object.as_ref().is_ok_and(|object| object.size > HEADER_BYTES as u64)).count()
            as u64)
    }
}

enum Found {
    /// The segment ends here.
    Fence(u64),
    /// The lowest number at which nothing was found yet.
    Absent(u64),
}
