//! The metadata of logs: which exist, who writes them, where their segments end.
//!
//! Invariants, kept by transactions that compare the record they change:
//! - A log goes Open -> Sealing -> Sealed (its own writer may seal it without Sealing), never back.
//! - Only an open log gets new segments, and only from its writer. The next segment is registered in the transaction
//!   that records the previous one's end: at most one segment of a log has an unknown end.
//! - A recorded end never moves.
//! - The ends of recovered logs are recorded in the transaction that registers the next log, or before it.
//!
//! Every function may be called again after any error: an outcome that is unknown is re-read, never guessed.

use meta::error::ErrorKind;
use meta::keys::store as keys;
use meta::planted;
use meta::records::{LogCounterRecord, LogRecord, LogState, SegmentRecord, decode, encode};
use meta::seams::Incarnation;
use meta::store::{MetaStore, Revision, Txn, TxnOutcome};

use crate::entry::FragmentId;
use crate::error::{Error, Result};

/// Conflicts and unknown outcomes in a row after which a change is given up as unknown. Each conflict is another's
/// progress on the same record, of which there are few.
const ATTEMPTS: usize = 32;

/// Every log, in the order of their numbers.
pub async fn logs(meta: &dyn MetaStore) -> Result<Vec<(u64, LogRecord)>> {
    let listing = meta.list(keys::LOGS).await?;
    listing
        .entries
        .iter()
        .map(|entry| {
            let number = entry.key.strip_prefix(keys::LOGS).and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| Error::Corrupt {
                key: entry.key.clone(),
                why: "it does not end with a log's number".to_owned(),
            })?;
            Ok((number, decode(&entry.key, &entry.value)?))
        })
        .collect()
}

/// The record of one log, with its revision.
pub async fn load(meta: &dyn MetaStore, number: u64) -> Result<(LogRecord, Revision)> {
    let key = keys::log(number);
    let found =
        meta.get(&key).await?.ok_or_else(|| Error::Invalid { what: format!("log {number} is not registered") })?;
    let record: LogRecord = decode(&key, &found.value)?;
    check(&key, &record)?;
    Ok((record, found.mod_revision))
}

/// The number of the newest log, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    number: u64,
    revision: Revision,
}

/// Reads it. Whoever takes over does so first, then lists the logs: `register_after` then finds out whether the list was
/// complete.
pub async fn newest(meta: &dyn MetaStore) -> Result<Newest> {
    Ok(match meta.get(keys::LOG_COUNTER).await? {
        None => Newest { number: 0, revision: 0 },
        Some(found) => {
            let number = decode::<LogCounterRecord>(keys::LOG_COUNTER, &found.value)?.newest;
            Newest { number, revision: found.mod_revision }
        }
    })
}

/// Registers a new log for this writer and, in the same transaction, the ends of the logs it has just recovered: each
/// as it shall be, `Sealed`. Returns the new log's number; None if another log was registered since `newest` was read:
/// then that one must be recovered too, before another attempt. (Its writer may be serving.)
///
/// If the outcome stays unknown that other log may turn out to be of this writer: an empty one, which is recovered like
/// any other.
pub async fn register_after(
    meta: &dyn MetaStore,
    newest: Newest,
    writer: Incarnation,
    sealed: &[(u64, LogRecord)],
) -> Result<Option<u64>> {
    let number = newest.number + 1;
    if sealed.iter().any(|(sealed, _)| *sealed >= number) {
        return Ok(None); // listed after `newest` was read
    }
    let record =
        LogRecord { writer, state: LogState::Open, segments: vec![SegmentRecord { end: None }], recover_from: 0 };
    let mut txn = Txn::new()
        .if_revision(keys::LOG_COUNTER, newest.revision)
        .put(keys::LOG_COUNTER, encode(&LogCounterRecord { newest: number }))
        .if_absent(keys::log(number))
        .put(keys::log(number), encode(&record));
    for (number, record) in sealed {
        txn = record_end(meta, txn, *number, record).await?;
    }
    fail::fail_point!("registry::register");
    Ok((committed(meta, txn, "registering a log").await? == Committed::Yes).then_some(number))
}

/// Registers a new log, whichever others there are: for one who knows that nobody writes to them.
pub async fn register(meta: &dyn MetaStore, writer: Incarnation, sealed: &[(u64, LogRecord)]) -> Result<u64> {
    for _ in 0..ATTEMPTS {
        if let Some(number) = register_after(meta, newest(meta).await?, writer, sealed).await? {
            return Ok(number);
        }
    }
    Err(Error::Unknown { what: "registering a log".to_owned() })
}

/// Adds to a transaction that a recovered log is sealed as this record says.
async fn record_end(meta: &dyn MetaStore, txn: Txn, number: u64, sealed: &LogRecord) -> Result<Txn> {
    let key = keys::log(number);
    if sealed.state != LogState::Sealed {
        return Err(Error::Invalid { what: format!("{key} is to be recorded as sealed, and is not") });
    }
    check(&key, sealed)?;
    let (current, revision) = load(meta, number).await?;
    let txn = txn.if_revision(&key, revision);
    if current == *sealed {
        return Ok(txn);
    }
    if current.state == LogState::Open {
        return Err(Error::Invalid { what: format!("{key} is still open: it must be marked as sealing first") });
    }
    check_change(&key, &current, sealed)?;
    Ok(txn.put(key, encode(sealed)))
}

/// Adds to a transaction that recovery need not look at fragments before this position, if it is in the last segment of this
/// log. (Segments before the last have ends.) `Fenced` if somebody is sealing the log: they look from where they were told
/// to, and what they look for must not be deleted.
pub async fn raise_recover_from(meta: &dyn MetaStore, txn: Txn, number: u64, position: FragmentId) -> Result<Txn> {
    if position.log != number {
        return Ok(txn);
    }
    let (current, revision) = load(meta, number).await?;
    if current.state != LogState::Open && !planted::bug("recover-from-raised-while-sealing") {
        return Err(fenced(number, "whoever is sealing it"));
    }
    let key = keys::log(number);
    let txn = txn.if_revision(&key, revision);
    let in_last = current.segments.len() == position.segment as usize + 1;
    if !in_last || current.recover_from >= position.fragment {
        return Ok(txn);
    }
    let next = LogRecord { recover_from: position.fragment, ..current };
    Ok(txn.put(key, encode(&next)))
}

/// Marks a log as being sealed: from now on it gets no new segments. Returns its record, which may already be `Sealed`.
pub async fn begin_sealing(meta: &dyn MetaStore, number: u64) -> Result<LogRecord> {
    change(meta, number, |current| {
        let sealing = LogRecord { state: LogState::Sealing, ..current.clone() };
        Ok((current.state == LogState::Open).then_some(sealing))
    })
    .await
}

/// Records where this writer's segment ends and registers the next one. Returns the next one's number. `Fenced` if
/// the log is not open, or not this writer's; `Retriable` only if nothing was changed.
pub async fn next_segment(
    meta: &dyn MetaStore,
    number: u64,
    writer: Incarnation,
    segment: u32,
    end: u64,
) -> Result<u32> {
    change(meta, number, |current| {
        check_own(number, current, writer)?;
        if current.state != LogState::Open {
            return Err(fenced(number, "whoever is sealing it"));
        }
        let place = segment as usize;
        if current.segments.len() == place + 2 && current.segments[place].end == Some(end) {
            return Ok(None); // an earlier attempt of ours landed
        }
        if current.segments.len() != place + 1 {
            return Err(moved(number, &format!("segment {segment} is not the last")));
        }
        let mut next = current.clone();
        next.segments[place].end = Some(end);
        next.segments.push(SegmentRecord { end: None });
        next.recover_from = 0;
        Ok(Some(next))
    })
    .await?;
    Ok(segment + 1)
}

/// Records the end of a log that was marked as sealing and has been fenced.
pub async fn seal(meta: &dyn MetaStore, number: u64, end: u64) -> Result<LogRecord> {
    change(meta, number, |current| {
        if current.state == LogState::Open {
            return Err(Error::Invalid { what: format!("log {number} is still open: it must be marked as sealing") });
        }
        seal_at(number, current, end)
    })
    .await
}

/// Records the end of a log by its own writer, which has stopped: nothing of it is in flight.
pub async fn seal_own(
    meta: &dyn MetaStore,
    number: u64,
    writer: Incarnation,
    segment: u32,
    end: u64,
) -> Result<LogRecord> {
    change(meta, number, |current| {
        check_own(number, current, writer)?;
        if current.segments.len() != segment as usize + 1 {
            return Err(moved(number, &format!("segment {segment} is not the last")));
        }
        seal_at(number, current, end)
    })
    .await
}

/// The record of a log that was fenced at `end`, as `register` records it.
pub fn sealed(record: &LogRecord, end: u64) -> LogRecord {
    let mut sealed = LogRecord { state: LogState::Sealed, ..record.clone() };
    if let Some(last) = sealed.segments.last_mut() {
        last.end = Some(end);
    }
    sealed
}

fn seal_at(number: u64, current: &LogRecord, end: u64) -> Result<Option<LogRecord>> {
    let last = current.segments.last().and_then(|last| last.end);
    if current.state == LogState::Sealed && !planted::bug("seal-end-moves") {
        return match last == Some(end) {
            true => Ok(None),
            false => Err(moved(number, &format!("it was sealed at {last:?} and is to be sealed at {end}"))),
        };
    }
    Ok(Some(sealed(current, end)))
}

/// Changes one log's record by compare-and-swap. `decide` sees the current one and answers with the next, or None if
/// nothing is left to do. After a `Retriable` error nothing was changed; if that is not certain it is `Unknown`.
async fn change(
    meta: &dyn MetaStore,
    number: u64,
    decide: impl Fn(&LogRecord) -> Result<Option<LogRecord>> + Send,
) -> Result<LogRecord> {
    let key = keys::log(number);
    let mut doubted = false;
    let certain = |error: Error, doubted: bool| match error.kind() {
        ErrorKind::Retriable if doubted => Error::Unknown { what: format!("changing {key}, then {error}") },
        _ => error,
    };
    for _ in 0..ATTEMPTS {
        let (current, revision) = load(meta, number).await.map_err(|error| certain(error, doubted))?;
        let Some(next) = decide(&current)? else {
            return Ok(current);
        };
        check_change(&key, &current, &next)?;
        fail::fail_point!("registry::change");
        let txn = Txn::new().if_revision(&key, revision).put(&key, encode(&next));
        match committed(meta, txn, "changing a log's record").await.map_err(|error| certain(error, doubted))? {
            Committed::Yes => return Ok(next),
            Committed::No => {}
            Committed::Perhaps => doubted = true,
        }
    }
    Err(Error::Unknown { what: format!("changing the record of log {number}") })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    Yes,
    /// Somebody else was first: it has to be read again.
    No,
    /// It has to be read again.
    Perhaps,
}

async fn committed(meta: &dyn MetaStore, txn: Txn, what: &str) -> Result<Committed> {
    match meta.commit(txn).await {
        Ok(TxnOutcome::Committed { .. }) => Ok(Committed::Yes),
        Ok(TxnOutcome::Conflict { .. }) => Ok(Committed::No),
        Err(error) if error.kind() == ErrorKind::Unknown => {
            tracing::warn!(%error, what, "outcome unknown, reading back");
            Ok(Committed::Perhaps)
        }
        Err(error) => Err(error.into()),
    }
}

/// What holds for every record by itself.
fn check(key: &str, record: &LogRecord) -> Result<()> {
    let Some((last, earlier)) = record.segments.split_last() else {
        return Err(Error::Corrupt { key: key.to_owned(), why: "it has no segment".to_owned() });
    };
    let ends_are_known = earlier.iter().all(|segment| segment.end.is_some());
    if !ends_are_known || last.end.is_some() != (record.state == LogState::Sealed) {
        return Err(Error::Corrupt { key: key.to_owned(), why: "its segments' ends do not fit its state".to_owned() });
    }
    Ok(())
}

/// What holds between a record and its successor.
fn check_change(key: &str, current: &LogRecord, next: &LogRecord) -> Result<()> {
    check(key, next)?;
    let moved = current.segments.iter().enumerate().any(|(place, segment)| {
        segment.end.is_some() && next.segments.get(place).map(|next| next.end) != Some(segment.end)
    });
    if moved && !planted::bug("seal-end-moves") {
        return Err(Error::Corrupt { key: key.to_owned(), why: "a recorded end of a segment would move".to_owned() });
    }
    assert!(next.segments.len() >= current.segments.len(), "{key}: segments are never forgotten");
    assert_eq!(next.writer, current.writer, "{key}: a log keeps its writer");
    Ok(())
}

fn check_own(number: u64, record: &LogRecord, writer: Incarnation) -> Result<()> {
    if record.writer == writer { Ok(()) } else { Err(fenced(number, &format!("writer {}", record.writer))) }
}

fn fenced(number: u64, owner: &str) -> Error {
    Error::Fenced { what: format!("log {number}"), owner: owner.to_owned() }
}

fn moved(number: u64, why: &str) -> Error {
    Error::Corrupt { key: keys::log(number), why: why.to_owned() }
}

#[cfg(test)]
mod tests;
