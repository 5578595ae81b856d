//! A log store for unit tests of those who only read: a test says what bytes there are, and what goes wrong with them.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use meta::records::LogRecord;
use meta::seams::Incarnation;
use tokio::task::yield_now;

use crate::entry::{FragmentId, FragmentIndex, IndexedEntry, Run};
use crate::error::Result;
use crate::fragment::decode_run_index;
use crate::log::{DurableSink, Log, LogStore};

/// Fragments that a test makes up: a log store whose logs are neither written nor sealed.
#[async_trait]
pub trait Fragments: Send + Sync {
    fn are_remote(&self) -> bool;

    /// These bytes of a fragment, as far as it goes.
    async fn bytes(&self, fragment: FragmentId, range: Range<u64>) -> Result<Bytes>;
}

#[async_trait]
impl<T: Fragments> LogStore for T {
    async fn open(&self, _: u64, _: Incarnation, _: Arc<dyn DurableSink>) -> Result<Arc<dyn Log>> {
        unreachable!("only reads")
    }

    async fn fence(&self, _: u64, _: &LogRecord, _: Incarnation) -> Result<u64> {
        unreachable!("only reads")
    }

    async fn read_indexes(
        &self,
        _: u64,
        _: u32,
        _: u64,
        _: u64,
        _: &mut (dyn FnMut(FragmentIndex) -> Result<()> + Send),
    ) -> Result<()> {
        unreachable!("only reads of single runs")
    }

    async fn read_run_index(&self, run: &Run) -> Result<Vec<IndexedEntry>> {
        let part = self.read(run, run.index_position, run.index_length).await?;
        decode_run_index(run, &part).map_err(|error| error.at(self.key(run.fragment)))
    }

    async fn read(&self, run: &Run, position: u64, length: u32) -> Result<Bytes> {
        let bytes = self.bytes(run.fragment, position..position + u64::from(length)).await?;
        assert_eq!(bytes.len(), length as usize, "{run:?} lies within its fragment");
        Ok(bytes)
    }

    fn is_remote(&self) -> bool {
        self.are_remote()
    }

    async fn read_pieces(
        &self,
        fragment: FragmentId,
        range: Range<u64>,
        piece_bytes: usize,
        each: &mut (dyn FnMut(Bytes) + Send),
    ) -> Result<()> {
        let bytes = self.bytes(fragment, range).await?;
        for begin in (0..bytes.len()).step_by(piece_bytes) {
            each(bytes.slice(begin..bytes.len().min(begin + piece_bytes)));
            yield_now().await;
        }
        Ok(())
    }
}
