//! Reads from storage: exactly what is wanted, or by way of the chunks that all readers of a lane share.
//!
//! Damage is asked for once more, past what is kept here: on the way it may have been another. The same bytes twice are
//! damaged where they are stored.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::apart::apart;
use crate::budget::Budget;
use crate::chunks::{ChunkCache, Pieces, Stretch};
use crate::entry::{FragmentId, IndexedEntry, Run};
use crate::error::{Error, Result};
use crate::fragment::decode_run_index;
use crate::index_cache::IndexCache;
use crate::log::LogStore;

use super::verify::{Damage, verify};
use super::{RunRead, Want, bytes_of, next_offset};

/// How often damaged bytes are read.
const ATTEMPTS: usize = 3;
/// So much is verified without letting others run.
const STEP_BYTES: usize = 1 << 20;
/// Slices that keep so many times their length in memory are copied.
const PINNED_TIMES: usize = 16;

/// Readers that do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Of what was written lately, and of look-ups.
    Near,
    /// Of everything else.
    Cold,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Near, Self::Cold];

    pub fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Cold => "cold",
        }
    }
}

pub(super) struct Stored {
    pub store: Arc<dyn LogStore>,
    pub indexes: IndexCache,
    pub budget: Budget,
    pub near: ChunkCache,
    pub cold: ChunkCache,
}

impl Stored {
    pub fn chunks(&self, lane: Lane) -> &ChunkCache {
        match lane {
            Lane::Near => &self.near,
            Lane::Cold => &self.cold,
        }
    }

    /// A run's index. Never waits for memory.
    pub async fn index(self: &Arc<Self>, lane: Lane, run: &Run) -> Result<Arc<Vec<IndexedEntry>>> {
        let load = || {
            let (stored, run) = (self.clone(), *run);
            async move { stored.load_index(lane, &run).await }
        };
        self.indexes.get(run, load).await
    }

    /// The same for who must not depend on other readers' memory: if they are reading it already, that ends by itself.
    pub async fn index_of_store(&self, run: &Run) -> Result<Arc<Vec<IndexedEntry>>> {
        let load = || {
            let (store, run) = (self.store.clone(), *run);
            async move { store.read_run_index(&run).await }
        };
        self.indexes.get(run, load).await
    }

    async fn load_index(&self, lane: Lane, run: &Run) -> Result<Vec<IndexedEntry>> {
        let chunks = self.chunks(lane);
        let range = run.index_position..run.index_position + u64::from(run.index_length);
        if self.store.is_remote()
            && range.end - range.start <= chunks.most_at_once() as u64
            && let Some(stretch) = chunks.try_get(run.fragment, range)
        {
            let why = match stretch.pieces().await {
                // The pieces keep what pays for them until they are decoded.
                Ok(pieces) => match decode_run_index(run, &joined(&pieces.slices)) {
                    Ok(index) => return Ok(index),
                    Err(error) => error.to_string(),
                },
                Err(Error::Corrupt { why, .. }) => why,
                Err(error) => return Err(error),
            };
            tracing::debug!(fragment = %run.fragment, why, "reading a damaged index again");
            chunks.forget(&stretch);
        }
        self.store.read_run_index(run).await
    }

    pub async fn read(self: &Arc<Self>, lane: Lane, run: &Run, want: &Want) -> Result<RunRead> {
        let index = self.index(lane, run).await?;
        if !self.store.is_remote() {
            return self.read_exactly(&index, run, want).await;
        }
        let chunks = self.chunks(lane);
        let want = Want { max_bytes: want.max_bytes.min(chunks.most_of_run()), ..*want };
        let mut places = want.choose(&index);
        let Some(first) = index[places.clone()].first() else {
            return Ok(RunRead::empty(&index, run, &want));
        };
        if first.length as usize > chunks.most_at_once() {
            return self.read_exactly(&index, run, &want).await;
        }
        let stretch = match chunks.try_get(run.fragment, stretch_of(&index[places.clone()])) {
            Some(stretch) => stretch,
            None if !want.at_least_one => {
                return Ok(RunRead { next_offset: want.from_offset, ..RunRead::default() });
            }
            None => {
                // What lies in the chunks of the first batch takes no more memory than that.
                let chunks_end = chunks.end_of_chunk(first.position + u64::from(first.length));
                let is_there = |entry: &&IndexedEntry| entry.position + u64::from(entry.length) <= chunks_end;
                places.end = places.start + index[places.clone()].iter().take_while(is_there).count();
                chunks.get(run.fragment, stretch_of(&index[places.clone()])).await?
            }
        };
        let chosen = &index[places.clone()];
        let Some(pieces) = self.verified(chunks, stretch, chosen, run, want.at_least_one).await? else {
            return Ok(RunRead { next_offset: want.from_offset, ..RunRead::default() });
        };
        let Pieces { slices, permits, .. } = self.unpinned(pieces);
        let (bytes, next_offset) = (bytes_of(chosen), next_offset(&index, &places, run));
        Ok(RunRead { slices, bytes, next_offset, permits, stored: true })
    }

    /// What a stretch holds, once it is intact. None if it has to be read again and there is no memory for it.
    async fn verified(
        &self,
        chunks: &ChunkCache,
        mut stretch: Stretch,
        entries: &[IndexedEntry],
        run: &Run,
        may_wait: bool,
    ) -> Result<Option<Pieces>> {
        let range = stretch_of(entries);
        let mut known: Option<Damage> = None;
        for _ in 0..ATTEMPTS {
            let damage = match stretch.pieces().await {
                Ok(pieces) => match verify(&pieces.slices, entries) {
                    Err(damage) => damage,
                    Ok(()) => {
                        if bytes_of(entries) >= STEP_BYTES {
                            tokio::task::yield_now().await;
                        }
                        return Ok(Some(pieces));
                    }
                },
                // Too short is damage like any other.
                Err(Error::Corrupt { why, .. }) => Damage { position: range.start, why, found_crc: 0 },
                Err(error) => return Err(error),
            };
            // Whoever wants it next has to read it again, also if nobody here tries.
            chunks.forget(&stretch);
            let again = known.as_ref() == Some(&damage);
            tracing::debug!(fragment = %run.fragment, position = damage.position, again, "damaged: {}", damage.why);
            if again {
                return Err(self.corrupt(run, damage));
            }
            known = Some(damage);
            // Nothing is held while memory is waited for: what was forgotten cannot be dropped for anybody.
            drop(stretch);
            stretch = match chunks.try_get(run.fragment, range.clone()) {
                Some(stretch) => stretch,
                None if may_wait => chunks.get(run.fragment, range.clone()).await?,
                None => return Ok(None),
            };
        }
        let what = format!("an intact copy of {}", self.store.key(run.fragment));
        Err(Error::Unavailable { what, source: known.map_or_else(String::new, |damage| damage.why).into() })
    }

    /// Copies what is little but keeps much in memory, if there is memory for it.
    fn unpinned(&self, pieces: Pieces) -> Pieces {
        let bytes: usize = pieces.slices.iter().map(Bytes::len).sum();
        if bytes * PINNED_TIMES > pieces.pinned_bytes {
            return pieces;
        }
        match self.budget.take_if_free(bytes) {
            None => pieces,
            Some(permit) => {
                Pieces { slices: vec![pieces.slices.concat().into()], permits: vec![permit], pinned_bytes: bytes }
            }
        }
    }

    /// With one read of exactly what is wanted, kept by nobody else.
    pub async fn read_exactly(&self, index: &[IndexedEntry], run: &Run, want: &Want) -> Result<RunRead> {
        let mut places = want.choose(index);
        if places.is_empty() {
            return Ok(RunRead::empty(index, run, want));
        }
        let permit = match self.budget.try_take(bytes_of(&index[places.clone()])) {
            Some(permit) => permit,
            None if !want.at_least_one => {
                return Ok(RunRead { next_offset: want.from_offset, ..RunRead::default() });
            }
            None => {
                places.end = places.start + 1;
                let bytes = bytes_of(&index[places.clone()]);
                // More than the whole budget would never be granted. One batch is bounded far below it when appended.
                let (budget, bytes) = (self.budget.clone(), bytes.min(self.budget.total_bytes()));
                apart(async move { budget.take(bytes).await }).await?
            }
        };
        let chosen = &index[places.clone()];
        let length = u32::try_from(bytes_of(chosen)).map_err(|_| Error::Corrupt {
            key: self.store.key(run.fragment),
            why: "a run is longer than its length can say".to_owned(),
        })?;
        let data = self.store.read(run, chosen[0].position, length).await?;
        let slices = vec![data];
        verify(&slices, chosen).map_err(|damage| self.corrupt(run, damage))?;
        let (bytes, next_offset) = (bytes_of(chosen), next_offset(index, &places, run));
        Ok(RunRead { slices, bytes, next_offset, permits: vec![permit], stored: true })
    }

    fn corrupt(&self, run: &Run, damage: Damage) -> Error {
        let why = format!("position {}: {}", run.file_position + damage.position, damage.why);
        Error::Corrupt { key: self.store.key(run.fragment), why }
    }

    /// Begins to read so many bytes from an offset on, if less than half of them are here or on their way.
    pub async fn read_ahead(self: &Arc<Self>, runs: &[(Lane, Run)], from_offset: i64, bytes: u64) {
        let Some((lane, first)) = runs.first() else { return };
        // It was read just now, so that this costs nothing.
        let Ok(index) = self.index(*lane, first).await else { return };
        let next = index.partition_point(|entry| entry.meta.last_offset < from_offset);
        let mut begin = index.get(next).map_or(first.position + u64::from(first.length), |entry| entry.position);
        let mut stretches = Vec::with_capacity(runs.len());
        let mut left = bytes;
        for (lane, run) in runs {
            let end = (run.position + u64::from(run.length)).min(begin.max(run.position) + left);
            let range = begin.max(run.position)..end;
            left -= range.end.saturating_sub(range.start);
            begin = 0;
            stretches.push((self.chunks(*lane), run.fragment, range));
            if left == 0 {
                break;
            }
        }
        if all_there(&stretches, (bytes - left) / 2) {
            return;
        }
        for (chunks, fragment, range) in &stretches {
            chunks.read_ahead(*fragment, range.clone());
        }
        // Each run that comes next begins with its index, which has to be here by then as well.
        for (lane, run) in &runs[..stretches.len()] {
            if self.index(*lane, run).await.is_err() {
                return;
            }
        }
    }
}

/// Are the first so many bytes of these stretches here or on their way?
fn all_there(stretches: &[(&ChunkCache, FragmentId, Range<u64>)], mut bytes: u64) -> bool {
    stretches.iter().all(|(chunks, fragment, range)| {
        let wanted = range.start..range.end.min(range.start + bytes);
        bytes -= wanted.end - wanted.start;
        wanted.is_empty() || chunks.has(*fragment, wanted)
    })
}

fn stretch_of(entries: &[IndexedEntry]) -> Range<u64> {
    let begin = entries.first().map_or(0, |first| first.position);
    begin..begin + bytes_of(entries) as u64
}

fn joined(slices: &[Bytes]) -> Bytes {
    match slices {
        [whole] => whole.clone(),
        slices => Bytes::from(slices.concat()),
    }
}
