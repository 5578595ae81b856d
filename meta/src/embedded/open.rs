//! Opening: read what is there, then take over.
//!
//! LIST is a hint. It says from where to read in parallel, and that a number must exist; that a number does not exist is
//! only ever learnt by creating it.
//!
//! The takeover record goes to the first number that does not exist. "Does not exist" has one trap: the owner may have
//! gone on meanwhile, far enough to write a snapshot and to delete the very number that we are about to create. Then our
//! record is nothing but an orphan below the snapshot, although its creation succeeded. A number is deleted only after
//! a snapshot above it is durable, and the newest snapshot is never deleted. So after the creation we look once more: if
//! there is a newer snapshot than the one we began with, everything is read again from there. For the same reason a gap,
//! or a record that does not follow the one before, is corruption only if there is no newer snapshot.

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::keys::object;
use crate::kv::Kv;
use crate::planted;
use crate::seams::{Incarnation, Random};
use crate::settled::{Settled, Settler};
use crate::watchers::Watchers;

use super::codec::{self, Kind, Record, Stamp};
use super::prepared::Prepared;
use super::reader::Reader;

/// Journal records that are read at once.
const READ_AHEAD: usize = 32;
/// How often a busy owner may outrun us.
const ATTEMPTS_MAX: u32 = 8;

/// The state as of a journal number.
pub struct Loaded {
    pub kv: Kv,
    pub watchers: Watchers,
    /// The number after the last one that was applied.
    pub next: u64,
    /// The nonce of the last one.
    pub last: u64,
    /// The snapshot that this began with; 0 if none.
    pub snapshot: u64,
    /// The numbers after the snapshot that are takeover records.
    pub takeovers: Vec<u64>,
}

impl Loaded {
    fn new(kv: Kv, snapshot: u64, last: u64) -> Self {
        let watchers = Watchers::after(kv.revision());
        Self { kv, watchers, next: snapshot + 1, last, snapshot, takeovers: Vec::new() }
    }

    fn apply(&mut self, record: &Record) -> Result<()> {
        let corrupt = |why: &str| {
            Err(Error::Corrupt { key: object::journal(record.header.number).to_string(), why: why.to_owned() })
        };
        if record.header.number != self.next || record.previous != self.last {
            return corrupt("it does not follow the record before it");
        }
        let batch = self.kv.apply(&record.ops);
        if batch.revision != record.revision {
            return corrupt("it leads to another revision than it says");
        }
        self.watchers.publish(batch);
        if record.header.kind == Kind::Takeover {
            self.takeovers.push(self.next);
        }
        (self.next, self.last) = (self.next + 1, record.header.nonce);
        Ok(())
    }
}

/// Reads everything, takes over, and returns the state that is ours.
pub async fn open(reader: &Reader, settler: &Settler, incarnation: Incarnation, random: &Random) -> Result<Loaded> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(mut loaded) = load(reader).await? else { continue };
        if take_over(&mut loaded, reader, settler, incarnation, random).await? {
            return Ok(loaded);
        }
    }
    Err(outrun())
}

/// Reads everything, and takes nothing over. The state is not older than this call.
pub async fn read(reader: &Reader) -> Result<Loaded> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(loaded) = load(reader).await? else { continue };
        // A number that was deleted looks like one that was never written: see above. (A store whose LIST lags may not
        // have shown that it was there.)
        if newest_snapshot(reader).await? == loaded.snapshot {
            return Ok(loaded);
        }
    }
    Err(outrun())
}

fn outrun() -> Error {
    let source = "its owner writes faster than it can be read".into();
    Error::Unavailable { what: object::journal_prefix().to_string(), source }
}

/// `None` if a newer snapshot has appeared meanwhile.
async fn load(reader: &Reader) -> Result<Option<Loaded>> {
    let newest = newest_snapshot(reader).await?;
    let mut loaded = match newest {
        0 => Loaded::new(Kv::default(), 0, 0),
        newest => match reader.snapshot(newest).await? {
            Some(snapshot) => Loaded::new(Kv::restore(snapshot.revision, snapshot.entries), newest, snapshot.last),
            None => return Ok(None),
        },
    };
    match replay(&mut loaded, reader).await {
        Ok(()) => Ok(Some(loaded)),
        Err(Error::Corrupt { .. }) if newest_snapshot(reader).await? != newest => Ok(None),
        Err(error) => Err(error),
    }
}

async fn newest_snapshot(reader: &Reader) -> Result<u64> {
    Ok(reader.snapshots().await?.last().copied().unwrap_or(0))
}

/// Applies the journal after the snapshot.
async fn replay(loaded: &mut Loaded, reader: &Reader) -> Result<()> {
    let end = reader.journal_after(loaded.snapshot).await?.last().map_or(loaded.next, |last| last + 1);
    let mut records = stream::iter(loaded.next..end).map(|number| reader.record(number)).buffered(READ_AHEAD);
    while let Some(record) = records.try_next().await? {
        let Some(record) = record else {
            let key = object::journal(loaded.next).to_string();
            return Err(Error::Corrupt { key, why: "it is missing, and later ones exist".to_owned() });
        };
        loaded.apply(&record)?;
    }
    // What LIST did not show. Numbers read at once may appear in any order: the first that is absent ends it.
    let mut width = 1;
    loop {
        let numbers = loaded.next..loaded.next + width as u64;
        let found: Vec<_> =
            stream::iter(numbers).map(|number| reader.record(number)).buffered(width).try_collect().await?;
        for record in found {
            let Some(record) = record else { return Ok(()) };
            loaded.apply(&record)?;
        }
        width = READ_AHEAD;
    }
}

/// False if everything must be read again.
async fn take_over(
    loaded: &mut Loaded,
    reader: &Reader,
    settler: &Settler,
    incarnation: Incarnation,
    random: &Random,
) -> Result<bool> {
    let nonce = random.next_u64();
    loop {
        let number = loaded.next;
        // Leases are the business of the process that granted them: with it they are gone, and their keys.
        let keep = planted::bug("leases-survive-takeover");
        let ops = if keep { Vec::new() } else { loaded.kv.drop_all_leased() };
        let revision = loaded.kv.revision() + u64::from(!ops.is_empty());
        let stamp = Stamp { kind: Kind::Takeover, number, incarnation, nonce };
        let record = Prepared::new(stamp, loaded.last, revision, ops)?;
        fail::fail_point!("embedded::before_takeover");
        match record.create(settler, &reader.patience).await {
            Settled::Ours => {}
            Settled::Theirs { .. } => match reader.record(number).await? {
                Some(theirs) => {
                    loaded.apply(&theirs)?;
                    continue;
                }
                None => return Ok(false),
            },
            Settled::Unknown { why } => return Err(Error::Unknown { what: format!("takeover: {why}") }),
        }
        fail::fail_point!("embedded::after_takeover");
        if !planted::bug("takeover-unverified") && newest_snapshot(reader).await? != loaded.snapshot {
            return Ok(false);
        }
        loaded.apply(&codec::decode_record(record.path.as_ref(), number, &record.bytes)?)?;
        return Ok(true);
    }
}
