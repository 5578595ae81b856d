//! Encodes runs that were moved out of other fragments as one tiered object.
//!
//! Unlike a fragment being filled, the caller says where runs begin and end: a run's offsets are those that it stands
//! for, also where compaction left no record of them.

use bytes::Bytes;
use meta::seams::Incarnation;
use meta::settled::Identity;

use super::{FragmentHeader, FragmentKind, HEADER_BYTES, footer};
use crate::entry::{FragmentId, FragmentIndex, IndexedEntry, IndexedRun, Run, TopicPartition};

/// A tiered object whose bytes are fixed.
#[derive(Debug)]
pub struct EncodedTiered {
    pub header: FragmentHeader,
    /// The object's bytes, in order: slices of what was read.
    pub parts: Vec<Bytes>,
    pub identity: Identity,
    pub index: FragmentIndex,
}

/// A tiered object whose entries are still where they come from: all of it but them, and where each of them will lie.
#[derive(Debug)]
pub struct TieredLayout {
    pub identity: Identity,
    pub index: FragmentIndex,
    /// What comes before the entries.
    pub head: Bytes,
    /// What comes after them.
    pub tail: Bytes,
    pub total_bytes: u64,
}

/// What a run has so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenRun {
    pub entries: usize,
    pub bytes: u64,
    pub leader_epoch: i32,
    /// Of its first entry, -1 if there is none.
    pub first_timestamp: i64,
}

/// Collects runs, in the order of partitions and offsets.
#[derive(Debug)]
pub struct TieredBuilder {
    id: FragmentId,
    runs: Vec<IndexedRun>,
    data: Vec<Bytes>,
    data_bytes: u64,
    entries: usize,
}

impl TieredBuilder {
    /// `number`: never used before by the writer of this log.
    pub fn new(log: u64, number: u64) -> Self {
        let id = FragmentId::tiered(log, number);
        Self { id, runs: Vec::new(), data: Vec::new(), data_bytes: 0, entries: 0 }
    }

    pub fn id(&self) -> FragmentId {
        self.id
    }

    /// Bytes of entries.
    pub fn bytes(&self) -> u64 {
        self.data_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The run that was begun last.
    pub fn open_run(&self) -> OpenRun {
        self.runs.last().map_or_else(OpenRun::default, |last| OpenRun {
            entries: last.entries.len(),
            bytes: u64::from(last.run.length),
            leader_epoch: last.run.leader_epoch,
            first_timestamp: last.entries.first().map_or(-1, |first| first.meta.max_timestamp),
        })
    }

    /// Begins a run, which stands for the offsets from `base_offset` on, and ends the one before: there, or where its own
    /// partition's data ended.
    pub fn begin_run(&mut self, partition: TopicPartition, base_offset: i64, leader_epoch: i32) {
        let place = (partition, base_offset);
        let ordered = self.runs.last().is_none_or(|last| (last.partition, last.run.next_offset) <= place);
        assert!(ordered, "runs come in the order of partitions and offsets");
        let run = Run {
            fragment: self.id,
            base_offset,
            next_offset: base_offset,
            max_timestamp: -1,
            leader_epoch,
            file_position: 0,
            position: HEADER_BYTES as u64 + self.data_bytes,
            length: 0,
            index_position: 0, // known when all runs are
            index_length: 0,
        };
        self.runs.push(IndexedRun { partition, run, entries: Vec::new() });
    }

    /// Adds an entry to the run that was begun last. `pieces` are its bytes, `length` of them, with `checksum` as the index
    /// that they came with has it. Its position is made anew.
    pub fn push(&mut self, entry: &IndexedEntry, pieces: impl IntoIterator<Item = Bytes>) {
        let position = HEADER_BYTES as u64 + self.data_bytes;
        let open = self.runs.last_mut().expect("a run was begun");
        let run = &mut open.run;
        run.next_offset = entry.meta.last_offset + 1;
        run.max_timestamp = run.max_timestamp.max(entry.meta.max_timestamp);
        run.length += entry.length;
        open.entries.push(IndexedEntry { position, ..*entry });
        self.data_bytes += u64::from(entry.length);
        self.entries += 1;
        self.data.extend(pieces);
    }

    /// The run that was begun last stands for offsets below this one.
    pub fn end_run(&mut self, next_offset: i64) {
        let open = self.runs.last_mut().expect("a run was begun");
        assert!(next_offset >= open.run.next_offset && !open.entries.is_empty(), "a run ends behind its entries");
        open.run.next_offset = next_offset;
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Fixes the object's bytes.
    pub fn finish(self, writer: Incarnation) -> EncodedTiered {
        let (header, layout, mut data) = self.fix(writer);
        let mut parts = Vec::with_capacity(data.len() + 2);
        parts.push(layout.head);
        parts.append(&mut data);
        parts.push(layout.tail);
        EncodedTiered { header, parts, identity: layout.identity, index: layout.index }
    }

    /// Fixes the object's bytes, but for those of its entries, which were pushed without any.
    pub fn lay_out(self, writer: Incarnation) -> TieredLayout {
        let (_, layout, data) = self.fix(writer);
        assert!(data.is_empty(), "entries that are still elsewhere have no pieces");
        layout
    }

    fn fix(mut self, writer: Incarnation) -> (FragmentHeader, TieredLayout, Vec<Bytes>) {
        assert!(!self.is_empty(), "a tiered object has at least one run");
        let mut index_position = HEADER_BYTES as u64 + self.data_bytes;
        for IndexedRun { run, entries, .. } in &mut self.runs {
            run.index_position = index_position;
            run.index_length = u32::try_from(footer::index_length(entries.len()))
                .expect("a run is cut long before its index outgrows a u32");
            index_position += u64::from(run.index_length);
            if let Err(error) = footer::check_entries(run, entries) {
                panic!("a run that no reader would accept: {error}: {run:?}");
            }
        }
        let index = FragmentIndex { fragment: self.id, runs: self.runs };
        let mut tail = Vec::with_capacity(footer::body_length(self.entries, index.runs.len()) + HEADER_BYTES);
        footer::encode_body(&index, &mut tail);
        let header = FragmentHeader {
            kind: FragmentKind::Tiered,
            id: self.id,
            writer,
            durable_through: None,
            data_length: self.data_bytes,
            footer_length: u32::try_from(tail.len() + HEADER_BYTES)
                .expect("an object is cut long before its index outgrows a u32"),
            footer_crc: crc32c::crc32c(&tail),
        };
        let head = Bytes::copy_from_slice(&header.encode());
        tail.extend_from_slice(&head);
        let identity = Identity { range: 0..HEADER_BYTES as u64, bytes: head.clone() };
        let total_bytes = header.total_length();
        let layout = TieredLayout { identity, index, head, tail: Bytes::from(tail), total_bytes };
        (header, layout, self.data)
    }
}
