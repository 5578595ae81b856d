//! Logs in a folder: one file a segment, fragments one after another, each appended with one write and one fdatasync.
//!
//! One thread per open log writes (`writer`); while it syncs, new entries gather (`queue`). The folder's lock keeps
//! every other process out, so sealing needs no fence objects: the writer is stopped if it is one of this process, and
//! the end is found by reading the file (`scan`).

mod queue;
mod roller;
mod segment;

mod scan;

mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use meta::keys::object;
use meta::records::{LogRecord, LogState};
use meta::seams::Incarnation;
use meta::store::MetaStore;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use self::queue::{End, Queue};
use self::roller::Roller;
use self::scan::{Cursor, Scan, unavailable};
use self::segment::path;
use self::writer::{Finished, Writer};
use crate::entry::{Entry, FragmentId, FragmentIndex, IndexedEntry, Run};
use crate::error::{Error, Result};
use crate::files::{SegmentFile, SegmentFiles, read_exact_at};
use crate::fragment::decode_run_index;
use crate::log::{DurableSink, Log, LogStore, Outcome, Pending};
use crate::read_pool::ReadPool;
use crate::registry;
use crate::tiered::TieredObjects;

/// Files kept open for reading.
const OPEN_FILES: usize = 256;

#[derive(Debug, Clone, Copy)]
pub struct FileLogOptions {
    /// A fragment takes everything that is waiting, up to this; a larger entry gets a fragment of its own.
    pub max_fragment_bytes: usize,
    /// A segment that has reached this length is followed by the next.
    pub segment_bytes: u64,
    /// Threads that read.
    pub reader_threads: usize,
}

impl Default for FileLogOptions {
    fn default() -> Self {
        Self { max_fragment_bytes: 8 << 20, segment_bytes: 1 << 30, reader_threads: 4 }
    }
}

/// The logs in one folder.
pub struct FileLogStore {
    files: Arc<dyn SegmentFiles>,
    meta: Arc<dyn MetaStore>,
    options: FileLogOptions,
    pool: ReadPool,
    /// Writers of this process, by the log's number.
    writers: Mutex<BTreeMap<u64, OpenWriter>>,
    /// Where tiered objects are.
    tiered: TieredObjects,
    /// Files open for reading, by log and segment.
    readable: Mutex<BTreeMap<(u64, u32), Arc<dyn SegmentFile>>>,
}

#[derive(Clone)]
struct OpenWriter {
    /// Dead when the thread and all handles are gone.
    queue: Weak<Queue>,
    finished: watch::Receiver<Option<Finished>>,
}

struct FileLog {
    number: u64,
    incarnation: Incarnation,
    meta: Arc<dyn MetaStore>,
    queue: Arc<Queue>,
    finished: watch::Receiver<Option<Finished>>,
}

impl FileLogStore {
    /// `tiered` is in the same folder.
    pub fn new(
        files: Arc<dyn SegmentFiles>,
        meta: Arc<dyn MetaStore>,
        tiered: TieredObjects,
        options: FileLogOptions,
    ) -> Result<Self> {
        assert!(options.max_fragment_bytes > 0 && options.segment_bytes > 0 && options.reader_threads > 0);
        let pool = ReadPool::start(options.reader_threads)?;
        Ok(Self { files, meta, options, pool, writers: Mutex::default(), tiered, readable: Mutex::default() })
    }

    /// Starts the thread that writes a log, and waits until its first file is there.
    async fn start(&self, number: u64, incarnation: Incarnation, sink: Arc<dyn DurableSink>) -> Result<FileLog> {
        let queue = Arc::new(Queue::new(number, self.options.max_fragment_bytes));
        let (finish, finished) = watch::channel(None);
        let open = OpenWriter { queue: Arc::downgrade(&queue), finished: finished.clone() };
        {
            let mut writers = self.writers.lock();
            writers.retain(|_, writer| writer.queue.strong_count() > 0);
            if writers.contains_key(&number) {
                return Err(Error::Invalid { what: format!("log {number} is being written by this process already") });
            }
            writers.insert(number, open);
        }
        // Dropped on every way out but the last: that stops the thread.
        let log = FileLog { number, incarnation, meta: self.meta.clone(), queue: queue.clone(), finished };
        let writer = Writer {
            log: number,
            incarnation,
            segment_bytes: self.options.segment_bytes,
            queue,
            files: self.files.clone(),
            sink,
            roller: Roller::start(self.meta.clone(), number, incarnation),
            finished: finish,
        };
        let (started, answer) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("log-{number}"))
            .spawn(move || writer.run(started))
            .map_err(|error| unavailable("the log writer's thread", error))?;
        answer.await.map_err(|_| Error::Closed { what: "the log writer's thread" })??;
        Ok(log)
    }

    /// A segment's file, for reading. At most `OPEN_FILES` stay open.
    async fn file(&self, fragment: FragmentId) -> Result<Arc<dyn SegmentFile>> {
        let key = (fragment.log, fragment.segment);
        if let Some(file) = self.readable.lock().get(&key) {
            return Ok(file.clone());
        }
        let (files, path) = (self.files.clone(), path(fragment.log, fragment.segment));
        let file = self.pool.run(move || files.open(&path)).await?;
        let file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { key: self.key(fragment) },
            _ => unavailable(&self.key(fragment), error),
        })?;
        let mut readable = self.readable.lock();
        if readable.len() >= OPEN_FILES {
            readable.pop_first();
        }
        readable.insert(key, file.clone());
        Ok(file)
    }

    /// Bytes of a fragment.
    async fn read_part(&self, run: &Run, position: u64, length: u32) -> Result<Bytes> {
        let file = self.file(run.fragment).await?;
        let begin = run.file_position + position;
        let read = move || {
            let mut bytes = vec![0; length as usize];
            read_exact_at(&*file, &mut bytes, begin).map(|()| Bytes::from(bytes))
        };
        self.pool.run(read).await?.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::Corrupt { key: self.key(run.fragment), why: format!("it ends within the data at {begin}") }
            }
            _ => unavailable(&self.key(run.fragment), error),
        })
    }
}

#[async_trait]
impl LogStore for FileLogStore {
    async fn open(&self, number: u64, writer: Incarnation, sink: Arc<dyn DurableSink>) -> Result<Arc<dyn Log>> {
        let (record, _) = registry::load(&*self.meta, number).await?;
        if record.writer != writer || record.state != LogState::Open {
            let owner = format!("writer {}, state {:?}", record.writer, record.state);
            return Err(Error::Fenced { what: format!("log {number}"), owner });
        }
        if record.segments.len() != 1 {
            return Err(Error::Invalid { what: format!("log {number} was written before: it can only be sealed") });
        }
        Ok(Arc::new(self.start(number, writer, sink).await?))
    }

    async fn fence(&self, number: u64, record: &LogRecord, sealer: Incarnation) -> Result<u64> {
        if record.state == LogState::Open {
            return Err(Error::Invalid { what: format!("log {number} is to be fenced, and is still open") });
        }
        let writer = self.writers.lock().get(&number).cloned();
        if let Some(OpenWriter { queue, mut finished }) = writer {
            if let Some(queue) = queue.upgrade() {
                queue.stop_now(End { outcome: Outcome::Fenced, why: format!("sealed by {sealer}") });
            }
            // An error means that the thread is gone without having begun.
            let _ = finished.wait_for(Option::is_some).await;
        }
        let segment = record.segments.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        let segment = segment.ok_or_else(|| Error::Invalid { what: format!("log {number} has no segment") })?;
        if let Some(end) = record.segments[segment as usize].end {
            return Ok(end);
        }
        let (files, writer, known_durable) = (self.files.clone(), record.writer, record.recover_from);
        self.pool.run(move || scan::find_end(&*files, number, segment, writer, known_durable)).await?
    }

    async fn read_indexes(
        &self,
        number: u64,
        segment: u32,
        from: u64,
        end: u64,
        each: &mut (dyn FnMut(FragmentIndex) -> Result<()> + Send),
    ) -> Result<()> {
        if from >= end {
            return Ok(());
        }
        let files = self.files.clone();
        let scan = self.pool.run(move || Scan::open(&*files, number, segment)).await??;
        let scan = scan.ok_or_else(|| Error::Missing { key: self.files.name(&path(number, segment)) })?;
        let mut at = Cursor::default();
        while at.fragment < end {
            let scan = scan.clone();
            let (indexes, next) = self.pool.run(move || scan.next_indexes(at, from, end)).await??;
            at = next;
            indexes.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    async fn read_run_index(&self, run: &Run) -> Result<Vec<IndexedEntry>> {
        if run.fragment.is_tiered() {
            return self.tiered.read_run_index(run).await;
        }
        let part = self.read_part(run, run.index_position, run.index_length).await?;
        decode_run_index(run, &part).map_err(|error| {
            let position = run.file_position + run.index_position;
            error.at(format_args!("{}, an index at position {position}", self.key(run.fragment)))
        })
    }

    fn key(&self, fragment: FragmentId) -> String {
        if fragment.is_tiered() {
            return fragment.key().to_string();
        }
        self.files.name(&path(fragment.log, fragment.segment))
    }

    async fn read(&self, run: &Run, position: u64, length: u32) -> Result<Bytes> {
        let end = position.checked_add(u64::from(length));
        if position < run.position || end.is_none_or(|end| end > run.position + u64::from(run.length)) {
            let what = format!("{length} bytes at {position} are not in the run of fragment {}", run.fragment);
            return Err(Error::Invalid { what });
        }
        if run.fragment.is_tiered() {
            return self.tiered.read(run.fragment, position, length).await;
        }
        self.read_part(run, position, length).await
    }

    fn unit(&self, fragment: FragmentId) -> FragmentId {
        if fragment.is_tiered() { fragment } else { FragmentId { fragment: 0, ..fragment } }
    }

    fn unit_key(&self, unit: FragmentId) -> Path {
        if unit.is_tiered() { unit.key() } else { object::segment_file(unit.log, unit.segment) }
    }

    fn forget(&self, unit: FragmentId) {
        self.readable.lock().remove(&(unit.log, unit.segment));
    }
}

impl FileLog {
    async fn finished(&self) -> Result<Finished> {
        let gone = || Error::Closed { what: "the log writer's thread" };
        let mut finished = self.finished.clone();
        let finished = finished.wait_for(Option::is_some).await.map_err(|_| gone())?;
        finished.clone().ok_or_else(gone)
    }
}

#[async_trait]
impl Log for FileLog {
    fn number(&self) -> u64 {
        self.number
    }

    fn enqueue(&self, entry: Entry) -> Pending {
        self.queue.enqueue(entry)
    }

    fn pending_bytes(&self) -> usize {
        self.queue.pending_bytes()
    }

    async fn roll(&self) -> Result<()> {
        let answered = self.queue.roll()?;
        answered.await.map_err(|_| Error::Closed { what: "the log's writer" })?
    }

    async fn close(&self) -> Result<()> {
        self.queue.close();
        let finished = self.finished().await?;
        if let Some(end) = finished.end {
            return Err(end.error(self.number));
        }
        let FragmentId { segment, fragment, .. } = finished.at;
        registry::seal_own(&*self.meta, self.number, self.incarnation, segment, fragment).await?;
        Ok(())
    }

    fn durable_end(&self) -> FragmentId {
        self.queue.durable_end()
    }

    /// The folder is locked by this process: nobody else can have fenced what is in it.
    async fn confirm_unfenced(&self) -> Result<()> {
        match &*self.finished.borrow() {
            None => Ok(()),
            Some(Finished { end: Some(end), .. }) => Err(end.error(self.number)),
            Some(Finished { end: None, .. }) => Err(Error::Closed { what: "the log" }),
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.queue.stop_now(End::unknown("the log was dropped without being closed"));
    }
}

#[cfg(test)]
mod tests;
