//! Reads the indexes of fragments, many at once, in order.

use bytes::Bytes;
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use meta::keys::object;
use object_store::GetRange;

use super::gets::{Gets, Got};
use crate::entry::{FragmentId, FragmentIndex};
use crate::error::{Error, Result};
use crate::fragment::{DecodeError, FragmentHeader, HEADER_BYTES, decode_footer};

/// Footers read at once.
const READS: usize = 64;
/// What is read of an object's end, in the hope that the footer is no longer.
const GUESS_BYTES: u64 = 64 << 10;
/// Footers longer than that, in memory at once.
const LARGE_READS: usize = 8;

/// What the end of an object told.
enum Tail {
    Fence(FragmentHeader),
    Whole(FragmentHeader, FragmentIndex),
    /// The footer is longer than what was read.
    Large(FragmentHeader),
}

/// What stands at a fragment's key.
#[derive(Debug)]
pub(crate) enum Stored {
    Fence(FragmentHeader),
    Data(FragmentHeader, FragmentIndex),
}

/// Looks at one key. `Missing` if nothing is there.
pub(crate) async fn read_stored(gets: &Gets, id: FragmentId) -> Result<Stored> {
    Ok(match read_tail(gets, id).await? {
        Tail::Fence(header) => Stored::Fence(header),
        Tail::Whole(header, index) => Stored::Data(header, index),
        Tail::Large(header) => Stored::Data(header, read_footer(gets, header).await?),
    })
}

/// The indexes of `fragments`, which all exist: any that does not, or is a fence, is a hole in the log.
pub(super) async fn read_indexes(
    gets: &Gets,
    fragments: impl Iterator<Item = FragmentId> + Send,
    each: &mut (dyn FnMut(FragmentIndex) -> Result<()> + Send),
) -> Result<()> {
    let mut indexes = stream::iter(fragments)
        .map(|id| async move { present(read_tail(gets, id).await) })
        .buffered(READS)
        .map(|tail| async move {
            match tail? {
                Tail::Whole(_, index) => Ok(index),
                Tail::Large(header) => present(read_footer(gets, header).await),
                Tail::Fence(fence) => {
                    Err(DecodeError::Damaged("a fence lies below the segment's end").at(fence.id.key()))
                }
            }
        })
        .buffered(LARGE_READS);
    while let Some(index) = indexes.try_next().await? {
        each(index)?;
    }
    Ok(())
}

async fn read_tail(gets: &Gets, id: FragmentId) -> Result<Tail> {
    let key = object::fragment(id.log, id.segment, id.fragment);
    gets.get(&key, GetRange::Suffix(GUESS_BYTES), |got| decode_tail(id, got)).await
}

async fn read_footer(gets: &Gets, header: FragmentHeader) -> Result<FragmentIndex> {
    let id = header.id;
    let key = object::fragment(id.log, id.segment, id.fragment);
    let length = u64::from(header.footer_length);
    gets.exactly(&key, header.footer_position(), length, |footer: Bytes| decode_footer(&header, &footer)).await
}

fn decode_tail(id: FragmentId, got: Got) -> Result<Tail, DecodeError> {
    let bytes = &got.bytes;
    let trailer = bytes.len().checked_sub(HEADER_BYTES).ok_or(DecodeError::Damaged("it is shorter than a header"))?;
    let header = FragmentHeader::decode(&bytes[trailer..])?;
    if header.id != id {
        return Err(DecodeError::Damaged("its trailer names another fragment"));
    }
    if header.total_length() != got.size {
        return Err(DecodeError::Damaged("the object is not as long as its trailer says"));
    }
    if bytes.len() as u64 == got.size && bytes[..HEADER_BYTES] != bytes[trailer..] {
        return Err(DecodeError::Damaged("its header and its trailer differ"));
    }
    if header.is_fence() {
        return Ok(Tail::Fence(header));
    }
    match bytes.len().checked_sub(header.footer_length as usize) {
        Some(begin) => Ok(Tail::Whole(header, decode_footer(&header, &bytes[begin..])?)),
        None => Ok(Tail::Large(header)),
    }
}

/// What lies below the end exists: nothing was ever deleted there.
fn present<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::Missing { key } => Error::Corrupt { key, why: "it is missing below the segment's end".to_owned() },
        error => error,
    })
}
