//! What runs are read from when they are joined: objects, each through two windows that move from its beginning to its
//! end, one over the entries and one over their index. A window holds what is asked for and what will be asked for next.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use storage::entry::{FragmentId, Run};
use storage::error::Result;
use storage::tiered::TieredObjects;

use super::super::rewrite::Job;

/// What nobody asks for is read all the same if it is no longer than this: cheaper than another request.
const GAP_BYTES: u64 = 64 << 10;
/// A window is no shorter, however many objects there are: what is left of memory's limit is theirs.
const LEAST_WINDOW_BYTES: usize = 16 << 10;
const MOST_WINDOW_BYTES: usize = 4 << 20;

pub struct Sources {
    objects: TieredObjects,
    window_bytes: usize,
    data: BTreeMap<FragmentId, Window>,
    index: BTreeMap<FragmentId, Window>,
}

#[derive(Default)]
struct Window {
    /// All that will be asked for, in order, with small gaps filled.
    wanted: Vec<Range<u64>>,
    position: u64,
    bytes: Bytes,
}

impl Sources {
    /// All windows together are about `windows_bytes` long.
    pub fn new(objects: TieredObjects, jobs: &[Job], windows_bytes: usize) -> Self {
        let (mut data, mut index) = (BTreeMap::<_, Window>::new(), BTreeMap::<_, Window>::new());
        for run in jobs.iter().flat_map(|job| &job.runs) {
            let range = |position: u64, length: u32| position..position + u64::from(length);
            data.entry(run.fragment).or_default().wanted.push(range(run.position, run.length));
            index.entry(run.fragment).or_default().wanted.push(range(run.index_position, run.index_length));
        }
        data.values_mut().chain(index.values_mut()).for_each(Window::fill_gaps);
        let window_bytes = windows_bytes / data.len().max(1) / 2;
        let window_bytes = window_bytes.clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES);
        Self { objects, window_bytes, data, index }
    }

    pub fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// A run's part of the index.
    pub async fn index(&mut self, run: &Run) -> Result<Bytes> {
        let window = self.index.entry(run.fragment).or_default();
        window.read(&self.objects, run.fragment, run.index_position, run.index_length, self.window_bytes).await
    }

    /// Bytes of a run.
    pub async fn data(&mut self, run: &Run, position: u64, length: u32) -> Result<Bytes> {
        let window = self.data.entry(run.fragment).or_default();
        window.read(&self.objects, run.fragment, position, length, self.window_bytes).await
    }
}

impl Window {
    fn fill_gaps(&mut self) {
        self.wanted.sort_unstable_by_key(|range| range.start);
        self.wanted.dedup_by(|next, before| {
            let near = next.start <= before.end + GAP_BYTES;
            if near {
                before.end = before.end.max(next.end);
            }
            near
        });
    }

    async fn read(
        &mut self,
        objects: &TieredObjects,
        id: FragmentId,
        position: u64,
        length: u32,
        ahead: usize,
    ) -> Result<Bytes> {
        let end = position + u64::from(length);
        if position < self.position || end > self.position + self.bytes.len() as u64 {
            let place = self.wanted.partition_point(|range| range.end < end);
            let last = self.wanted.get(place).map_or(end, |range| range.end.max(end));
            let until = (position + ahead as u64).min(last).max(end);
            self.bytes = Bytes::new();
            let bytes = u32::try_from(until - position).unwrap_or(length);
            (self.bytes, self.position) = (objects.read(id, position, bytes).await?, position);
        }
        let begin = (position - self.position) as usize;
        let found = self.bytes.slice(begin..begin + length as usize);
        if end == self.position + self.bytes.len() as u64 {
            // It has done its service.
            (self.bytes, self.position) = (Bytes::new(), end);
        }
        Ok(found)
    }
}
