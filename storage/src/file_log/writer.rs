//! A log's writer: one thread that writes fragments, one after another, each with one write and one sync.
//!
//! Invariants:
//! - The order of things: write, sync, tell the sink, decide the fate. Nothing overtakes.
//! - A fragment that failed is written again in the next segment, with the same entries and offsets, after the end of
//!   the old segment was recorded below it: whatever of it is in the old file is not part of the log.
//! - If that fails as well, the log has ended, and nothing later becomes durable.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use meta::error::ErrorKind;
use meta::seams::Incarnation;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::queue::{Batch, End, Queue, Work};
use super::roller::Roller;
use super::segment::{Segment, path};
use crate::entry::FragmentId;
use crate::error::{Error, Result};
use crate::files::SegmentFiles;
use crate::fragment::{self, EncodedFragment, FragmentBuilder};
use crate::log::{DurableFragment, DurableSink, Fate, Outcome};

/// Pause before another attempt to begin a segment that could not be registered.
const ROLL_PAUSE: Duration = Duration::from_secs(2);

/// How a writer's thread ended.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    /// The first fragment that is not durable.
    pub at: FragmentId,
    /// None if it was closed in good order.
    pub end: Option<End>,
}

pub(super) struct Writer {
    pub log: u64,
    pub incarnation: Incarnation,
    pub segment_bytes: u64,
    pub queue: Arc<Queue>,
    pub files: Arc<dyn SegmentFiles>,
    pub sink: Arc<dyn DurableSink>,
    pub roller: Roller,
    pub finished: watch::Sender<Option<Finished>>,
}

/// A writer at work in a segment.
struct Running {
    writer: Writer,
    segment: Segment,
    /// Of the entries that are being written.
    in_flight: Option<Arc<Fate>>,
    /// When to try again to begin the next segment, after it was not possible.
    roll_at: Option<Instant>,
}

impl Writer {
    /// The thread. `started` is told whether the first segment's file could be created.
    pub fn run(self, started: oneshot::Sender<Result<()>>) {
        let segment = match create_segment(&*self.files, self.log, 0) {
            Ok(segment) => segment,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        // If nobody waits any more, the queue has been told to stop.
        let _ = started.send(Ok(()));
        let mut running = Running { writer: self, segment, in_flight: None, roll_at: None };
        let end = running.work();
        running.finish(end);
    }
}

fn create_segment(files: &dyn SegmentFiles, log: u64, number: u32) -> Result<Segment> {
    Segment::create(files, log, number).map_err(|source| {
        let what = files.name(&path(log, number));
        match source.kind() {
            io::ErrorKind::AlreadyExists => Error::Invalid { what: format!("{what} exists: it was written before") },
            _ => Error::Unavailable { what, source: Box::new(source) },
        }
    })
}

impl Running {
    /// Works until the end, and says why it came before its time.
    fn work(&mut self) -> Option<End> {
        loop {
            let done = match self.writer.queue.next() {
                Work::Write(batch) => self.write(batch),
                Work::Roll(answer) => self.roll(answer),
                Work::Close => return None,
                Work::End(end) => Err(end),
            };
            if let Err(end) = done {
                return Some(end);
            }
        }
    }

    fn write(&mut self, batch: Batch) -> Result<(), End> {
        self.in_flight = Some(batch.fate);
        if self.segment.position >= self.writer.segment_bytes && self.roll_at.is_none_or(|at| at <= Instant::now()) {
            self.next_segment_if_possible().map_err(|error| ended_by(&error))?;
        }
        let mut encoded = self.encode(batch.entries);
        let position = match self.segment.append(&encoded.parts, encoded.total_length()) {
            Ok(position) => position,
            Err(error) => {
                let file = self.writer.files.name(&path(self.writer.log, self.segment.number));
                tracing::warn!(%error, file, position = self.segment.position, "write failed, going on in a new file");
                // Its bytes may have landed: from here on a failure leaves its outcome unknown.
                encoded = self.write_again(encoded).map_err(|next| End::unknown(format!("{error}; then {next}")))?;
                0
            }
        };
        self.durable(encoded, position);
        Ok(())
    }

    fn encode(&self, entries: FragmentBuilder) -> EncodedFragment {
        let durable_through = self.segment.next_fragment.checked_sub(1);
        entries.finish(self.next_id(), self.writer.incarnation, durable_through)
    }

    fn next_id(&self) -> FragmentId {
        FragmentId { log: self.writer.log, segment: self.segment.number, fragment: self.segment.next_fragment }
    }

    fn write_again(&mut self, failed: EncodedFragment) -> Result<EncodedFragment> {
        self.next_segment()?;
        let encoded = self.encode(failed.entries.into_iter().collect());
        match self.segment.append(&encoded.parts, encoded.total_length()) {
            Ok(_) => Ok(encoded),
            Err(source) => {
                let what = self.writer.files.name(&path(self.writer.log, self.segment.number));
                Err(Error::Unavailable { what, source: Box::new(source) })
            }
        }
    }

    fn durable(&mut self, encoded: EncodedFragment, position: u64) {
        let EncodedFragment { header, mut index, entries, parts, .. } = encoded;
        drop(parts);
        fragment::place(&mut index, position);
        self.writer.sink.fragment_durable(DurableFragment { index, entries });
        fail::fail_point!("file_log::told");
        // Lossless: these bytes were in memory.
        self.writer.queue.durable(self.next_id(), header.data_length as usize);
        if let Some(fate) = self.in_flight.take() {
            fate.decide(Outcome::Durable);
        }
    }

    fn roll(&mut self, answer: oneshot::Sender<Result<()>>) -> Result<(), End> {
        let rolled = self.next_segment();
        let end = rolled.as_ref().err().map(ended_by);
        // Whoever asked may have stopped waiting.
        let _ = answer.send(rolled);
        end.map_or(Ok(()), Err)
    }

    /// Goes on in a new file, unless the metadata store cannot be reached: a segment may be longer than it should.
    fn next_segment_if_possible(&mut self) -> Result<()> {
        let Segment { number, next_fragment, .. } = self.segment;
        match self.writer.roller.next_segment_if_possible(number, next_fragment)? {
            Some(next) => self.begin(next),
            None => {
                self.roll_at = Some(Instant::now() + ROLL_PAUSE);
                Ok(())
            }
        }
    }

    /// Goes on in a new file. After an error nothing may be written any more: the old segment's end may be recorded.
    fn next_segment(&mut self) -> Result<()> {
        let number = self.writer.roller.next_segment(self.segment.number, self.segment.next_fragment)?;
        self.begin(number)
    }

    fn begin(&mut self, number: u32) -> Result<()> {
        fail::fail_point!("file_log::registered");
        self.segment = create_segment(&*self.writer.files, self.writer.log, number)?;
        self.roll_at = None;
        self.writer.queue.durable(self.next_id(), 0);
        Ok(())
    }

    fn finish(&mut self, end: Option<End>) {
        if self.writer.finished.borrow().is_some() {
            return;
        }
        if let Some(end) = &end {
            let mut fates = self.writer.queue.give_up(end, self.writer.log);
            fates.extend(self.in_flight.take());
            tracing::error!(log = self.writer.log, outcome = ?end.outcome, why = end.why, "the log's writer has ended");
            self.writer.sink.log_ended(end.outcome, &end.why);
            for fate in fates {
                fate.decide(end.outcome);
            }
        }
        self.writer.finished.send_replace(Some(Finished { at: self.next_id(), end }));
    }
}

/// What a failure to begin a new segment means for entries that were not written yet.
fn ended_by(error: &Error) -> End {
    match error.kind() {
        ErrorKind::Fenced => End { outcome: Outcome::Fenced, why: error.to_string() },
        _ => End::unknown(error.to_string()),
    }
}

impl Drop for Running {
    /// Only a panic leaves it unfinished: nobody must wait for ever because of that.
    fn drop(&mut self) {
        self.finish(Some(End::unknown("the writer's thread has died")));
    }
}
