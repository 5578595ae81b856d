//! Reads a run from its first entry to its last, for whoever moves it elsewhere.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{EntryIndex, Reader, Want, read_tail};
use crate::budget::Permit;
use crate::entry::{IndexedEntry, Run, TopicPartition};
use crate::error::{Error, Result};

/// A run's entries, each with its bytes in as many pieces as they came in.
#[derive(Debug, Default)]
pub struct WholeRun {
    pub entries: Vec<(IndexedEntry, Vec<Bytes>)>,
    /// Keep these while the pieces live.
    pub permits: Vec<Permit>,
}

impl Reader {
    /// Waits for memory if it has to: the caller bounds what it holds at a time far below the budget. Of the lanes of other
    /// readers it takes nothing, and never waits for those who do: it holds memory while it waits for more.
    pub async fn read_whole(&self, partition: TopicPartition, run: &Run) -> Result<WholeRun> {
        let index = match self.tail.run(partition, run) {
            Some(run) => EntryIndex::Tail(run),
            None => EntryIndex::Stored(self.stored.index_of_store(run).await?),
        };
        let mut whole = WholeRun::default();
        let mut pieces = VecDeque::new();
        let mut from_offset = run.base_offset;
        while from_offset < run.next_offset {
            let want =
                Want { from_offset, below_offset: i64::MAX, max_bytes: usize::MAX, at_least_one: true, look_up: false };
            let read = match &index {
                EntryIndex::Tail(entries) => read_tail(entries, run, &want),
                EntryIndex::Stored(index) => self.stored.read_exactly(index, run, &want).await?,
            };
            if read.next_offset <= from_offset {
                let key = run.fragment.to_string();
                return Err(Error::Corrupt { key, why: format!("nothing can be read at offset {from_offset}") });
            }
            from_offset = read.next_offset;
            whole.permits.extend(read.permits);
            pieces.extend(read.slices);
        }
        for entry in index.iter() {
            let entry_pieces = cut(&mut pieces, entry.length as usize).ok_or_else(|| Error::Corrupt {
                key: run.fragment.to_string(),
                why: "a run is shorter than its index says".to_owned(),
            })?;
            whole.entries.push((*entry, entry_pieces));
        }
        Ok(whole)
    }
}

/// Takes so many bytes from the front. None if there are fewer.
fn cut(pieces: &mut VecDeque<Bytes>, mut bytes: usize) -> Option<Vec<Bytes>> {
    let mut taken = Vec::with_capacity(2);
    while bytes > 0 {
        let first = pieces.front_mut()?;
        if first.len() <= bytes {
            bytes -= first.len();
            taken.extend(pieces.pop_front());
        } else {
            taken.push(first.split_to(bytes));
            bytes = 0;
        }
    }
    Some(taken)
}
