//! What runs are read from when they are joined: objects, each through a window that moves from its beginning to its end.
//!
//! What will be asked for is known before, and so are the reads that this takes: several of them are under way while
//! what came before is being written, each in a task of its own, because nobody polls them then.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use storage::apart::begin;
use storage::entry::FragmentId;
use storage::error::{Error, Result};
use storage::tiered::TieredObjects;

/// What nobody asks for is read all the same if it is no longer than this: cheaper than another request.
const GAP_BYTES: u64 = 64 << 10;
/// A window is no shorter, however many objects there are: what is left of memory's limit is theirs.
const LEAST_WINDOW_BYTES: usize = 16 << 10;
const MOST_WINDOW_BYTES: usize = 4 << 20;

/// Bytes of an object that are asked for at once.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub fragment: FragmentId,
    pub position: u64,
    pub length: u32,
}

pub struct Sources {
    windows: BTreeMap<FragmentId, Window>,
    reads: BoxStream<'static, Result<(FragmentId, Window)>>,
}

#[derive(Debug, Clone, Default)]
struct Window {
    position: u64,
    bytes: Bytes,
}

/// How long windows into these objects are, if they and what is being read may take so much memory.
pub fn window_bytes(objects: &BTreeSet<FragmentId>, reads: usize, memory_bytes: usize) -> usize {
    (memory_bytes / (objects.len() + reads)).clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES)
}

impl Sources {
    /// `wanted`: all that will be asked for, in this order, and as far as it can be those of one object from its beginning
    /// to its end. `reads`: how many of them are under way.
    pub fn new(
        objects: TieredObjects,
        wanted: impl Iterator<Item = Piece> + Clone,
        window_bytes: usize,
        reads: usize,
    ) -> Self {
        let begun = stream::iter(wanted_reads(wanted, window_bytes)).map(move |read| {
            let objects = objects.clone();
            let bytes = begin(async move { objects.read(read.fragment, read.position, read.length).await });
            async move { Ok((read.fragment, Window { position: read.position, bytes: bytes.await?? })) }
        });
        Self { windows: BTreeMap::new(), reads: begun.buffered(reads).boxed() }
    }

    /// The next piece.
    pub async fn next(&mut self, piece: Piece) -> Result<Bytes> {
        let window = self.windows.entry(piece.fragment).or_default();
        if !piece.is_within(window.position, window.position + window.bytes.len() as u64) {
            window.bytes = Bytes::new();
            let read = self.reads.next().await.transpose()?;
            let read = read.filter(|(fragment, _)| *fragment == piece.fragment).map(|(_, read)| read);
            *window = read.ok_or_else(|| Error::Invalid { what: format!("a read of {piece:?} out of order") })?;
        }
        let begin = (piece.position - window.position) as usize;
        Ok(window.bytes.slice(begin..begin + piece.length as usize))
    }
}

impl Piece {
    fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }

    fn is_within(&self, begin: u64, end: u64) -> bool {
        self.position >= begin && self.end() <= end
    }
}

/// The reads that it takes to have all these pieces, in the order in which `Sources::next` needs them.
fn wanted_reads(wanted: impl Iterator<Item = Piece> + Clone, window_bytes: usize) -> Vec<Piece> {
    let mut stretches: BTreeMap<FragmentId, Vec<Range<u64>>> = BTreeMap::new();
    for piece in wanted.clone() {
        stretches.entry(piece.fragment).or_default().push(piece.position..piece.end());
    }
    stretches.values_mut().for_each(fill_gaps);
    let mut windows: BTreeMap<FragmentId, Range<u64>> = BTreeMap::new();
    let mut reads = Vec::new();
    for piece in wanted {
        let window = windows.entry(piece.fragment).or_default();
        if piece.is_within(window.start, window.end) {
            continue;
        }
        let stretches = &stretches[&piece.fragment];
        let place = stretches.partition_point(|stretch| stretch.end < piece.end());
        let last = stretches.get(place).map_or(piece.end(), |stretch| stretch.end);
        let end = (piece.position + window_bytes as u64).min(last).max(piece.end());
        *window = piece.position..end;
        // A window is far shorter than a u32 can say, unless a piece is longer.
        let length = u32::try_from(end - piece.position).unwrap_or(piece.length);
        reads.push(Piece { length, ..piece });
    }
    reads
}

fn fill_gaps(wanted: &mut Vec<Range<u64>>) {
    wanted.sort_unstable_by_key(|range| range.start);
    wanted.dedup_by(|next, before| {
        let near = next.start <= before.end + GAP_BYTES;
        if near {
            before.end = before.end.max(next.end);
        }
        near
    });
}
