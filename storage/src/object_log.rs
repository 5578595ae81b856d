//! Logs in object storage: one object a fragment, written by create-if-absent at a fixed key.
//!
//! The rules of the writer (`flusher`) and of recovery (`fence`) meet at single keys: fragment n of a segment is either
//! the writer's or a fence, whoever is first. The writer acknowledges n only when n and everything below are its own;
//! a recoverer ends the segment at the lowest n that is not the writer's. Neither believes an error: every conditional
//! write is settled by reading back (`meta::settled`).

mod options;

pub(crate) mod gets;

mod fence;
pub(crate) mod indexes;

mod window;

mod unfenced;

mod pace;

mod writer;

mod flusher;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use meta::keys::object;
use meta::records::{LogRecord, LogState};
use meta::seams::Incarnation;
use meta::settled::Settler;
use meta::store::MetaStore;

use self::fence::Recovery;
use self::gets::Gets;
pub use self::options::WriterOptions;
use crate::entry::{FragmentId, FragmentIndex, IndexedEntry, Run};
use crate::error::{Error, Result};
use crate::fragment::decode_run_index;
use crate::log::{DurableSink, Log, LogStore};
use crate::registry;

/// The logs in one object store.
#[derive(Clone)]
pub struct ObjectLogStore {
    settler: Settler,
    meta: Arc<dyn MetaStore>,
    options: WriterOptions,
    gets: Gets,
}

impl ObjectLogStore {
    /// `settler` brings the store with it.
    pub fn new(settler: Settler, meta: Arc<dyn MetaStore>, options: WriterOptions) -> Self {
        options.check();
        let gets = Gets::new(settler.store().clone(), options.call_timeout);
        Self { settler, meta, options, gets }
    }
}

#[async_trait]
impl LogStore for ObjectLogStore {
    async fn open(&self, number: u64, writer: Incarnation, sink: Arc<dyn DurableSink>) -> Result<Arc<dyn Log>> {
        let (record, _) = registry::load(self.meta.as_ref(), number).await?;
        if record.writer != writer || record.state != LogState::Open {
            let owner = format!("writer {}, state {:?}", record.writer, record.state);
            return Err(Error::Fenced { what: format!("log {number}"), owner });
        }
        if record.segments.len() != 1 || record.recover_from != 0 {
            return Err(Error::Invalid { what: format!("log {number} was written before: it can only be sealed") });
        }
        let writer = writer::Identified { number, incarnation: writer };
        Ok(flusher::start(writer, self.settler.clone(), self.gets.clone(), self.meta.clone(), self.options, sink))
    }

    async fn fence(&self, number: u64, record: &LogRecord, sealer: Incarnation) -> Result<u64> {
        let patience = self.options.patience();
        Recovery { gets: &self.gets, settler: &self.settler, patience, number, record, sealer }.fence().await
    }

    async fn read_indexes(
        &self,
        number: u64,
        segment: u32,
        from: u64,
        end: u64,
        each: &mut (dyn FnMut(FragmentIndex) -> Result<()> + Send),
    ) -> Result<()> {
        let fragments = (from..end).map(|fragment| FragmentId { log: number, segment, fragment });
        indexes::read_indexes(&self.gets, fragments, each).await
    }

    async fn read_run_index(&self, run: &Run) -> Result<Vec<IndexedEntry>> {
        let FragmentId { log, segment, fragment } = run.fragment;
        let key = object::fragment(log, segment, fragment);
        let length = u64::from(run.index_length);
        self.gets.exactly(&key, run.index_position, length, |part| decode_run_index(run, &part)).await
    }

    async fn read(&self, run: &Run, position: u64, length: u32) -> Result<Bytes> {
        let end = position.checked_add(u64::from(length));
        if position < run.position || end.is_none_or(|end| end > run.position + u64::from(run.length)) {
            let what = format!("{length} bytes at {position} are not in the run of fragment {}", run.fragment);
            return Err(Error::Invalid { what });
        }
        let FragmentId { log, segment, fragment } = run.fragment;
        let key = object::fragment(log, segment, fragment);
        if length == 0 {
            return Ok(Bytes::new());
        }
        self.gets.exactly(&key, position, u64::from(length), Ok).await
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn read_pieces(
        &self,
        fragment: FragmentId,
        range: Range<u64>,
        piece_bytes: usize,
        each: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<()> {
        self.gets.pieces(&fragment.key(), range, piece_bytes, each).await
    }
}

#[cfg(test)]
mod tests;
