//! Transactions whose outcome is known although connections break.
//!
//! Every transaction of this process also compares and puts one key of its own, its *mark*: the compare says "nothing of
//! mine was committed since revision r", the value is the transaction's number. So
//! - a transaction may be sent any number of times, over any connections: at most one attempt is applied, since it
//!   changes what all others compare;
//! - an attempt whose mark compare fails is answered with the mark. If it holds this transaction's number, an earlier
//!   attempt was applied, at the mark's revision. Otherwise something older was: the mark's revision is noted, and the
//!   transaction sent again;
//! - an answer that leaves the mark as it was (a conflict, or nothing to delete) is only given when no earlier attempt
//!   can still be under way to etcd: otherwise the mark is moved first, which no late attempt survives.
//!
//! Transactions of one process therefore follow one another; there are a handful in an hour.

use etcd_client::{Client, Compare as EtcdCompare, CompareOp, GetResponse, PutOptions, Txn as EtcdTxn, TxnOp};
use etcd_client::{TxnOpResponse, TxnResponse};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::planted;
use crate::store::{Compare, Op, Txn, TxnOutcome};

use super::failure::{Failure, unavailable};
use super::link::Link;
use super::space::{Space, etcd_lease, etcd_revision, revision};

const WHAT: &str = "a metadata transaction";

pub struct Commits {
    key: Vec<u8>,
    /// Held from a transaction's first attempt to its outcome.
    mark: Mutex<Mark>,
}

#[derive(Debug, Default)]
struct Mark {
    /// At which revision the mark was last known to be put; 0 if never.
    revision: i64,
    /// Of the last transaction that was begun.
    number: u64,
}

/// What etcd said to one attempt.
enum Answer {
    /// Applied, at this revision, and the mark moved with it.
    Applied(i64),
    /// All comparisons held and there was nothing to change.
    NoEffect(i64),
    /// A comparison of the transaction did not hold. The mark's did.
    Conflict(i64),
    /// The mark is at another revision.
    Moved { to: i64, number: Option<u64> },
}

impl Commits {
    pub fn new(space: &Space, process: u128) -> Self {
        Self { key: space.commit(process), mark: Mutex::default() }
    }

    pub async fn commit(&self, link: &Link, space: &Space, txn: &Txn) -> Result<TxnOutcome> {
        if txn.ops.is_empty() {
            return self.look(link, space, txn).await;
        }
        let mut mark = self.mark.lock().await;
        mark.number += 1;
        let deadline = link.deadline();
        // Whether an attempt at this transaction may have been, or may yet be, applied.
        let mut doubted = false;
        loop {
            let attempt = self.transaction(space, txn, &mark);
            match self.attempt(link, attempt, mark.revision, deadline).await {
                Ok(Answer::Applied(at)) => return Ok(mark.committed(at)),
                Ok(Answer::Moved { to, number }) if number == Some(mark.number) => return Ok(mark.committed(to)),
                Ok(Answer::Moved { to, .. }) => mark.moved(to),
                Ok(Answer::NoEffect(at) | Answer::Conflict(at)) if doubted => {
                    tracing::debug!(at, "an attempt may be under way still, moving the mark first");
                    if let Some(to) = self.move_mark(link, &mut mark, deadline).await? {
                        return Ok(mark.committed(to));
                    }
                    doubted = false;
                }
                Ok(Answer::NoEffect(at)) => return Ok(TxnOutcome::Committed { revision: revision(at) }),
                Ok(Answer::Conflict(at)) => return Ok(TxnOutcome::Conflict { revision: revision(at) }),
                Err(Failure::Unknown(why)) => {
                    doubted = true;
                    if planted::bug("etcd-lost-answer-is-failure") {
                        return Err(unavailable(WHAT, &why));
                    }
                    tracing::warn!(why, "the outcome of a metadata transaction is not known yet");
                    self.pause(link, deadline, true, &why).await?;
                }
                Err(Failure::NotDone(why)) => self.pause(link, deadline, doubted, &why).await?,
                Err(failure) if doubted => return Err(unknown(failure.why())),
                Err(failure) => return Err(failure.into_error(WHAT)),
            }
        }
    }

    /// Waits a little before the next attempt, unless it is too late for one.
    async fn pause(&self, link: &Link, deadline: Instant, doubted: bool, why: &str) -> Result<()> {
        let pause = link.config().timing.backoff;
        if Instant::now() + pause >= deadline {
            return Err(if doubted { unknown(why) } else { unavailable(WHAT, why) });
        }
        sleep(pause).await;
        match link.connection(WHAT, deadline).await {
            Err(Error::Unavailable { source, .. }) if doubted => Err(unknown(&source.to_string())),
            Err(Error::Closed { .. }) if doubted => Err(unknown("the metadata store was closed")),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Sends it once. `compared` is where the transaction takes the mark to be.
    async fn attempt(&self, link: &Link, txn: EtcdTxn, compared: i64, deadline: Instant) -> Result<Answer, Failure> {
        let connection = link.connection(WHAT, deadline).await.map_err(|error| Failure::NotDone(error.to_string()))?;
        fail::fail_point!("etcd::before_commit");
        let mut client = connection.client.kv_client();
        let response = link.once(&connection, async move { client.txn(txn).await }).await?;
        fail::fail_point!("etcd::after_commit");
        self.answer(&response, compared)
    }

    fn answer(&self, response: &TxnResponse, compared: i64) -> Result<Answer, Failure> {
        let at = response.header().map_or(0, |header| header.revision());
        for answer in response.op_responses() {
            match answer {
                TxnOpResponse::Get(found) if !response.succeeded() => return Ok(self.refused(at, compared, &found)),
                // The part that only deletes: it holds if there is nothing to delete.
                TxnOpResponse::Txn(inner) if response.succeeded() && inner.succeeded() => {
                    return Ok(Answer::NoEffect(at));
                }
                _ => {}
            }
        }
        match response.succeeded() {
            true => Ok(Answer::Applied(at)),
            false => Err(Failure::Unknown("an answer without what was asked for".to_owned())),
        }
    }

    fn refused(&self, at: i64, compared: i64, found: &GetResponse) -> Answer {
        let mark = found.kvs().iter().find(|entry| entry.key() == self.key);
        match mark.map_or(0, |entry| entry.mod_revision()) {
            // The mark is where it was compared to be: it was another comparison that failed.
            to if to == compared => Answer::Conflict(at),
            to => {
                let number = mark.and_then(|entry| std::str::from_utf8(entry.value()).ok()?.parse().ok());
                Answer::Moved { to, number }
            }
        }
    }

    /// After this, nothing that was sent before will ever be applied. `Some` if it turns out that it was.
    async fn move_mark(&self, link: &Link, mark: &mut Mark, deadline: Instant) -> Result<Option<i64>> {
        loop {
            let moved = EtcdTxn::new()
                .when([EtcdCompare::mod_revision(self.key.clone(), CompareOp::Equal, mark.revision)])
                .and_then([TxnOp::put(self.key.clone(), "moved", None)])
                .or_else([TxnOp::get(self.key.clone(), None)]);
            match self.attempt(link, moved, mark.revision, deadline).await {
                Ok(Answer::Moved { to, number }) => {
                    let applied = number == Some(mark.number);
                    mark.moved(to);
                    return Ok(applied.then_some(to));
                }
                Ok(Answer::Applied(at) | Answer::NoEffect(at) | Answer::Conflict(at)) => {
                    mark.moved(at);
                    return Ok(None);
                }
                Err(Failure::Unknown(why) | Failure::NotDone(why)) => self.pause(link, deadline, true, &why).await?,
                Err(failure) => return Err(unknown(failure.why())),
            }
        }
    }

    /// The transaction as etcd gets it.
    fn transaction(&self, space: &Space, txn: &Txn, mark: &Mark) -> EtcdTxn {
        let mut compares: Vec<EtcdCompare> = txn.compares.iter().map(|compare| etcd_compare(space, compare)).collect();
        compares.push(EtcdCompare::mod_revision(self.key.clone(), CompareOp::Equal, mark.revision));
        let mut ops: Vec<TxnOp> = txn.ops.iter().map(|op| etcd_op(space, op)).collect();
        ops.push(TxnOp::put(self.key.clone(), mark.number.to_string(), None));
        // A put of the mark alone would be a change: where there is nothing to delete, nothing is put.
        if txn.ops.iter().all(|op| matches!(op, Op::Delete { .. })) {
            let absent = |op: &Op| {
                let (Op::Put { key, .. } | Op::Delete { key }) = op;
                EtcdCompare::mod_revision(space.key(key), CompareOp::Equal, 0)
            };
            let nothing: Vec<EtcdCompare> = txn.ops.iter().map(absent).collect();
            ops = vec![TxnOp::txn(EtcdTxn::new().when(nothing).or_else(ops))];
        }
        EtcdTxn::new().when(compares).and_then(ops).or_else([TxnOp::get(self.key.clone(), None)])
    }

    /// A transaction that changes nothing.
    async fn look(&self, link: &Link, space: &Space, txn: &Txn) -> Result<TxnOutcome> {
        let compares: Vec<EtcdCompare> = txn.compares.iter().map(|compare| etcd_compare(space, compare)).collect();
        let call = |client: Client| {
            // A transaction without any read is answered by a member from what it happens to know.
            let read = TxnOp::get(self.key.clone(), None);
            let txn = EtcdTxn::new().when(compares.clone()).and_then([read.clone()]).or_else([read]);
            async move { client.kv_client().txn(txn).await }
        };
        let response = link.repeat(WHAT, call).await?;
        let revision = revision(response.header().map_or(0, |header| header.revision()));
        Ok(match response.succeeded() {
            true => TxnOutcome::Committed { revision },
            false => TxnOutcome::Conflict { revision },
        })
    }

    /// Leaves nothing behind: nothing more will be committed. What may still be under way compares the mark to be where it
    /// then is not, unless it was never put.
    pub async fn clear(&self, link: &Link) {
        let mark = self.mark.lock().await;
        if mark.revision == 0 {
            return;
        }
        let Ok(connection) = link.connection(WHAT, Instant::now()).await else { return };
        let mut client = connection.client.kv_client();
        let key = self.key.clone();
        if let Err(failure) = link.once(&connection, async move { client.delete(key, None).await }).await {
            tracing::debug!(why = failure.why(), "could not delete the mark of this process");
        }
    }
}

impl Mark {
    fn committed(&mut self, at: i64) -> TxnOutcome {
        self.moved(at);
        TxnOutcome::Committed { revision: revision(at) }
    }

    fn moved(&mut self, to: i64) {
        self.revision = to;
    }
}

fn unknown(why: &str) -> Error {
    Error::Unknown { what: format!("{WHAT}: {why}") }
}

fn etcd_compare(space: &Space, compare: &Compare) -> EtcdCompare {
    match compare {
        Compare::ModRevision { key, revision } => {
            EtcdCompare::mod_revision(space.key(key), CompareOp::Equal, etcd_revision(*revision))
        }
        Compare::Value { key, value } => EtcdCompare::value(space.key(key), CompareOp::Equal, value.to_vec()),
    }
}

fn etcd_op(space: &Space, op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(etcd_lease(lease)));
            TxnOp::put(space.key(key), value.to_vec(), options)
        }
        Op::Delete { key } => TxnOp::delete(space.key(key), None),
    }
}
