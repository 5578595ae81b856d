//! Is this log still ours? Asked of the log itself, by a writer that has to be sure before it lets clients read.
//!
//! Whoever takes over first marks the log as sealing, so that it gets no more segments, then fences its last segment, and
//! serves only after that. Its fence is at E, the lowest number that is absent when it looks. Suppose it serves before
//! our call begins. When the call begins, let s be our segment, d the first fragment not known to be durable, and n above
//! every fragment that we ever sent in s.
//! - s is the log's last segment: we are not registering another one, and nobody else does.
//! - E is not below d, for there our own fragments are; not above n, for there was nothing when it looked.
//! - Everything from d to E - 1 is ours, or was deleted since; at E is the fence, for ever.
//!
//! So a look at all of d, d + 1, ... n meets the fence, if there is one that matters. Read the other way round: nothing but
//! our own fragments found up to n proves that nobody else served when the call began. It costs one read while nothing is
//! in flight.
//!
//! Two things prove nothing: a fence of our own, for the other one may have found it and taken it for the end; and
//! anything seen while we register the next segment. Both pass: then the look begins anew, for the time of the call.

use std::time::Duration;

use meta::keys::object;
use meta::planted;
use meta::seams::Incarnation;
use object_store::GetRange;
use tokio::time::{sleep, timeout};

use super::gets::Gets;
use crate::entry::FragmentId;
use crate::error::{Error, Result};
use crate::fragment::{DecodeError, FragmentHeader, HEADER_BYTES};

/// Between two looks of which the first proved nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the writer stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// The first fragment that is not known to be durable.
    pub durable_end: FragmentId,
    /// Above every fragment of that segment that was ever sent.
    pub next: u64,
    /// The next segment is being registered.
    pub rolling: bool,
}

/// What one look found.
enum Seen {
    NoFence,
    Nothing,
}

/// Succeeds if nobody else had fenced the log when this began. `standing` fails once the writer has stopped.
pub(super) async fn confirm(
    gets: &Gets,
    writer: Incarnation,
    limit: Duration,
    standing: impl Fn() -> Result<Standing>,
) -> Result<()> {
    let looking = async {
        loop {
            let standing = standing()?;
            let rolling = standing.rolling && !planted::bug("unfenced-while-rolling");
            if !rolling && let Seen::NoFence = look(gets, writer, standing).await? {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    };
    timeout(limit, looking).await.unwrap_or_else(|_| {
        let what = "the check that nobody has fenced the log".to_owned();
        Err(Error::Unavailable { what, source: "it could not be made in time".into() })
    })
}

async fn look(gets: &Gets, writer: Incarnation, standing: Standing) -> Result<Seen> {
    for fragment in standing.durable_end.fragment..=standing.next {
        let id = FragmentId { fragment, ..standing.durable_end };
        // Absent proves nothing: whoever took over may have tiered and deleted it already. The fence stays.
        let Some(header) = header(gets, id).await? else { continue };
        if header.writer != writer {
            let what = format!("log {}, at fragment {id}", id.log);
            return Err(Error::Fenced { what, owner: header.writer.to_string() });
        }
        if header.is_fence() {
            let proven = planted::bug("own-fence-proves-nothing-lost");
            return Ok(if proven { Seen::NoFence } else { Seen::Nothing });
        }
    }
    Ok(Seen::NoFence)
}

/// None if there is nothing at its key.
async fn header(gets: &Gets, id: FragmentId) -> Result<Option<FragmentHeader>> {
    let key = object::fragment(id.log, id.segment, id.fragment);
    let read = gets.get(&key, GetRange::Bounded(0..HEADER_BYTES as u64), |got| {
        let header = FragmentHeader::decode(&got.bytes)?;
        match header.id == id {
            true => Ok(header),
            false => Err(DecodeError::Damaged("its header names another fragment")),
        }
    });
    match read.await {
        Ok(header) => Ok(Some(header)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
