//! The task that writes a log into object storage: it alone decides what is flushed, when, and what became of it.
//!
//! - Leading edge, rate limited: a flush begins at once if `flush_interval` has passed since the last one began, else
//!   when it has; full batches do not wait. A budget of PUTs may widen the interval (`pace`). At most `max_in_flight` fragments are begun and not yet acknowledged.
//! - A fragment's bytes are fixed before its first attempt; every attempt sends the same ones.
//! - Acknowledgements leave in the order of the fragments: first the sink, then the appends.
//! - A lowest fragment that is another's ends the log for this writer: nothing above it is ever acknowledged, though it
//!   be in the store.
//! - A lowest fragment of which nothing is known is fenced by the writer itself. If the fence wins, that number and
//!   everything above it are not part of the log: once the metadata says so, their entries go out again, with the same
//!   offsets, in a new segment. If the fragment turns out to be there, it is durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meta::error::ErrorKind;
use meta::keys::object;
use meta::planted;
use meta::settled::{Identity, Patience, Settled, Settler};
use meta::store::MetaStore;
use object_store::PutPayload;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::fence::fence_object;
use super::gets::Gets;
use super::options::WriterOptions;
use super::pace::Pace;
use super::window::{Head, Window};
use super::writer::{Batch, Command, Identified, ObjectLog, Shared, Stop};
use crate::entry::{Entry, FragmentId, FragmentIndex};
use crate::error::Result;
use crate::fragment::{FragmentBuilder, FragmentHeader};
use crate::log::{DurableFragment, DurableSink, Fate, Log, Outcome};
use crate::registry;

/// Pause before something that failed altogether is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Starts the task that writes a log with one empty segment.
pub(super) fn start(
    id: Identified,
    settler: Settler,
    gets: Gets,
    meta: Arc<dyn MetaStore>,
    options: WriterOptions,
    sink: Arc<dyn DurableSink>,
) -> Arc<dyn Log> {
    let shared = Arc::new(Shared::new(id, sink, options.flush_bytes));
    let (commands, inbox) = mpsc::channel(1);
    let flusher = Flusher {
        id,
        shared: shared.clone(),
        settler,
        meta: meta.clone(),
        options,
        patience: options.patience(),
        inbox,
        command: None,
        segment: 0,
        window: Window::new(),
        flights: JoinSet::new(),
        again: VecDeque::new(),
        pace: Pace::new(options.flush_interval, options.puts_per_s),
        finished: false,
    };
    let task = tokio::spawn(flusher.run());
    let check_limit = options.call_timeout;
    Arc::new(ObjectLog { shared, meta, commands, gets, check_limit, flusher: task.abort_handle() })
}

/// A fragment in flight.
struct Flight {
    identity: Identity,
    index: FragmentIndex,
    entries: Vec<Entry>,
    fate: Arc<Fate>,
}

struct Flusher {
    id: Identified,
    shared: Arc<Shared>,
    settler: Settler,
    meta: Arc<dyn MetaStore>,
    options: WriterOptions,
    patience: Patience,
    inbox: mpsc::Receiver<Command>,
    /// Waits until nothing is in flight.
    command: Option<Command>,
    segment: u32,
    window: Window<Flight>,
    flights: JoinSet<(u64, Settled)>,
    /// What has to go out again, in a new segment, before anything else.
    again: VecDeque<Batch>,
    pace: Pace,
    finished: bool,
}

/// What there is to flush.
enum Due {
    Now(Batch),
    At(Instant),
    Nothing,
}

impl Flusher {
    async fn run(mut self) {
        while !self.finished {
            if let Err(stop) = self.step().await {
                self.end(stop);
            }
        }
    }

    /// Does the first thing that can be done, or waits until there is one.
    async fn step(&mut self) -> Result<(), Stop> {
        match self.window.head() {
            Head::Durable { item, .. } => {
                self.acknowledge(item);
                return Ok(());
            }
            Head::Foreign { .. } if planted::bug("reack-after-fence") => {
                self.window.drop_head();
                return Ok(());
            }
            Head::Foreign { fragment, found } => return Err(self.lost_to(fragment, &found)),
            Head::Unsettled { fragment, why } => return self.settle_head(fragment, why).await,
            Head::Flying => {}
            Head::Empty => {
                if self.again.is_empty()
                    && let Some(Command::Roll(_)) = self.command
                {
                    return self.roll().await;
                }
            }
        }
        match self.due() {
            Due::Now(batch) => {
                self.launch(batch);
                Ok(())
            }
            Due::Nothing if self.window.is_empty() && matches!(self.command, Some(Command::Close(_))) => {
                self.close();
                Ok(())
            }
            Due::Nothing => self.wait(None).await,
            Due::At(when) => self.wait(Some(when)).await,
        }
    }

    fn due(&mut self) -> Due {
        if self.window.len() >= self.options.max_in_flight {
            return Due::Nothing;
        }
        if let Some(batch) = self.again.pop_front() {
            return Due::Now(batch);
        }
        if let Some(Command::Roll(_)) = self.command {
            return Due::Nothing; // the next segment's
        }
        let mut queue = self.shared.queue.lock();
        if let Some(batch) = queue.full.pop_front() {
            return Due::Now(batch);
        }
        if queue.open.entries.is_empty() {
            return Due::Nothing;
        }
        match self.pace.next(self.shared.memory_is_short.load(Ordering::Relaxed)) {
            Some(when) if when > Instant::now() && !matches!(self.command, Some(Command::Close(_))) => Due::At(when),
            _ => Due::Now(queue.take_open()),
        }
    }

    /// Fixes the bytes of the next fragment and begins to write it.
    fn launch(&mut self, batch: Batch) {
        let id = self.fragment_id(self.window.next());
        let durable_through = self.window.durable_end().checked_sub(1);
        let encoded = batch.entries.finish(id, self.id.incarnation, durable_through);
        self.pace.began(Instant::now());
        self.shared.memory_is_short.store(false, Ordering::Relaxed);
        self.shared.queue.lock().next_fragment = id.fragment + 1;
        tracing::debug!(fragment = %id, bytes = encoded.total_length(), entries = encoded.entries.len(), "flushing");
        self.put(id, encoded.parts.into_iter().collect(), encoded.identity.clone());
        let (identity, index, entries) = (encoded.identity, encoded.index, encoded.entries);
        let launched = self.window.launch(Flight { identity, index, entries, fate: batch.fate });
        assert_eq!(launched, id.fragment, "a fragment is written under the number that it waits for");
        if planted::bug("ack-before-durable")
            && let Some(flight) = self.window.drop_head()
        {
            self.flights.detach_all();
            self.acknowledge(flight);
        }
    }

    fn put(&mut self, id: FragmentId, payload: PutPayload, identity: Identity) {
        let (settler, patience) = (self.settler.clone(), self.patience);
        self.flights.spawn(async move {
            let key = object::fragment(id.log, id.segment, id.fragment);
            fail::fail_point!("object_log::put");
            (id.fragment, settler.create(&key, payload, &identity, &patience).await)
        });
    }

    async fn wait(&mut self, until: Option<Instant>) -> Result<(), Stop> {
        let shared = self.shared.clone();
        let alarm = async {
            match until {
                Some(when) => sleep_until(when).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(settled) = self.flights.join_next(), if !self.flights.is_empty() => self.settled(settled),
            Some(command) = self.inbox.recv(), if self.command.is_none() => {
                self.command = Some(command);
                Ok(())
            }
            () = alarm => Ok(()),
            () = shared.wake.notified() => Ok(()),
        }
    }

    fn settled(&mut self, settled: Result<(u64, Settled), JoinError>) -> Result<(), Stop> {
        match settled {
            Ok((fragment, settled)) if self.window.get(fragment).is_some() => {
                self.window.settle(fragment, settled);
                Ok(())
            }
            Ok(_) if planted::bug("ack-before-durable") || planted::bug("reack-after-fence") => Ok(()),
            Ok((fragment, _)) => unreachable!("fragment {fragment} settled, and is not in flight"),
            Err(error) => Err(Stop { outcome: Outcome::Unknown, why: format!("a write ended abnormally: {error}") }),
        }
    }

    /// Hands over a durable fragment: to the sink, then to those who wait for it.
    fn acknowledge(&mut self, flight: Flight) {
        let Flight { index, entries, fate, .. } = flight;
        let bytes: usize = entries.iter().map(Entry::len).sum();
        {
            let mut queue = self.shared.queue.lock();
            queue.durable_end = self.fragment_id(self.window.durable_end());
            queue.pending_bytes -= bytes;
        }
        fail::fail_point!("object_log::durable");
        self.shared.sink.fragment_durable(DurableFragment { index, entries });
        fate.decide(Outcome::Durable);
    }

    /// The lowest fragment in flight is unknown: fences it, and finds out.
    async fn settle_head(&mut self, fragment: u64, why: String) -> Result<(), Stop> {
        let id = self.fragment_id(fragment);
        tracing::warn!(fragment = %id, why, "outcome unknown, fencing it");
        if planted::bug("bytes-change-on-retry") {
            return self.send_other_bytes(fragment);
        }
        let (key, payload, identity) = fence_object(id, self.id.incarnation);
        loop {
            match self.settler.create(&key, payload.clone(), &identity, &self.patience).await {
                Settled::Ours => break,
                Settled::Theirs { found } => {
                    let ours = self.window.get(fragment).is_some_and(|flight| flight.identity.bytes == found);
                    self.window.settle(fragment, if ours { Settled::Ours } else { Settled::Theirs { found } });
                    return Ok(());
                }
                Settled::Unknown { why } => tracing::warn!(fragment = %id, why, "could not fence it yet"),
            }
            sleep(RETRY_PAUSE).await;
        }
        fail::fail_point!("object_log::self_fenced");
        self.next_segment(fragment).await
    }

    /// Goes on in a new segment, beginning with what was in flight. The current one ends at `end`.
    async fn next_segment(&mut self, end: u64) -> Result<(), Stop> {
        let Identified { number, incarnation } = self.id;
        self.shared.queue.lock().rolling = true;
        loop {
            match registry::next_segment(self.meta.as_ref(), number, incarnation, self.segment, end).await {
                Ok(next) => {
                    tracing::info!(log = number, ended = self.segment, end, next, "rolled to a new segment");
                    self.segment = next;
                    break;
                }
                Err(error) => match error.kind() {
                    ErrorKind::Retriable | ErrorKind::Unknown => {
                        tracing::warn!(log = number, %error, "could not register a segment yet");
                        sleep(RETRY_PAUSE).await;
                    }
                    ErrorKind::Fenced => return Err(Stop { outcome: Outcome::Fenced, why: error.to_string() }),
                    _ => return Err(Stop { outcome: Outcome::Unknown, why: error.to_string() }),
                },
            }
        }
        // Attempts of the old segment may still land there, above its end: they are not part of it.
        self.flights = JoinSet::new();
        for flight in self.window.restart().into_iter().rev() {
            let entries: FragmentBuilder = flight.entries.into_iter().collect();
            self.again.push_front(Batch { entries, fate: flight.fate });
        }
        let mut queue = self.shared.queue.lock();
        (queue.durable_end, queue.next_fragment, queue.rolling) = (self.fragment_id(0), 0, false);
        Ok(())
    }

    async fn roll(&mut self) -> Result<(), Stop> {
        self.next_segment(self.window.durable_end()).await?;
        if let Some(Command::Roll(answer)) = self.command.take() {
            self.answer(answer, Ok(()));
        }
        Ok(())
    }

    /// Everything enqueued is durable: stops, so that the log can be sealed at this end.
    fn close(&mut self) {
        let end = self.fragment_id(self.window.durable_end());
        self.shared.queue.lock().closed_at = Some(end);
        self.finished = true;
        if let Some(Command::Close(answer)) = self.command.take() {
            self.answer(answer, Ok(end));
        }
    }

    /// The object at the lowest fragment's key is not ours.
    fn lost_to(&self, fragment: u64, found: &[u8]) -> Stop {
        let id = self.fragment_id(fragment);
        match FragmentHeader::decode(found) {
            Ok(header) => {
                let what = if header.is_fence() { "a fence" } else { "a fragment" };
                Stop { outcome: Outcome::Fenced, why: format!("{what} by {} at {id}", header.writer) }
            }
            // Our bytes will never be there, but recovery will not get past it either.
            Err(error) => Stop { outcome: Outcome::Unknown, why: error.at(id).to_string() },
        }
    }

    /// Ends the log for this writer: everything that is not acknowledged yet, or enqueued later, has this outcome.
    fn end(&mut self, stop: Stop) {
        self.finished = true;
        self.flights.abort_all();
        let later = Fate::new();
        let mut fates: Vec<Arc<Fate>> = self.window.restart().into_iter().map(|flight| flight.fate).collect();
        {
            let mut queue = self.shared.queue.lock();
            queue.ended.get_or_insert(later.clone());
            queue.stop = Some(stop.clone());
            queue.pending_bytes = 0;
            fates.extend(self.again.drain(..).map(|batch| batch.fate));
            fates.extend(queue.full.drain(..).map(|batch| batch.fate));
            fates.push(queue.take_open().fate);
        }
        tracing::error!(log = self.id.number, outcome = ?stop.outcome, why = stop.why, "the log has ended for this writer");
        self.shared.sink.log_ended(stop.outcome, &stop.why);
        fates.push(later);
        for fate in fates {
            fate.decide(stop.outcome);
        }
        match self.command.take() {
            Some(Command::Roll(answer)) => self.answer(answer, Err(stop.error(self.id.number))),
            Some(Command::Close(answer)) => self.answer(answer, Err(stop.error(self.id.number))),
            None => {}
        }
    }

    fn answer<T>(&self, to: oneshot::Sender<Result<T>>, answer: Result<T>) {
        if to.send(answer).is_err() {
            tracing::debug!(log = self.id.number, "nobody waits for the answer any more");
        }
    }

    fn fragment_id(&self, fragment: u64) -> FragmentId {
        FragmentId { log: self.id.number, segment: self.segment, fragment }
    }

    /// A planted bug: the same number once more, with other bytes.
    fn send_other_bytes(&mut self, fragment: u64) -> Result<(), Stop> {
        let id = self.fragment_id(fragment);
        let Some(flight) = self.window.get(fragment) else {
            return Ok(());
        };
        let entries: FragmentBuilder = flight.entries.iter().cloned().collect();
        let encoded = entries.finish(FragmentId { log: id.log + 1, ..id }, self.id.incarnation, None);
        self.put(id, encoded.parts.into_iter().collect(), encoded.identity);
        self.window.forget(fragment);
        Ok(())
    }
}

impl Drop for Flusher {
    /// Stopped from outside, or by a panic: nobody may wait for ever.
    fn drop(&mut self) {
        if !self.finished {
            self.end(Stop { outcome: Outcome::Unknown, why: "the writer was stopped".to_owned() });
        }
    }
}
