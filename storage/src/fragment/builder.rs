//! Collects entries and encodes them as one fragment, without copying or reading their bodies again.

use bytes::Bytes;
use meta::seams::Incarnation;
use meta::settled::Identity;

use super::{FragmentHeader, FragmentKind, HEADER_BYTES, footer};
use crate::entry::{Entry, FragmentId, FragmentIndex, HEAD_BYTES, IndexedEntry, IndexedRun, Run};

/// The entries of the fragment that is being filled, in the order in which they were appended.
#[derive(Debug, Default)]
pub struct FragmentBuilder {
    entries: Vec<Entry>,
    bytes: usize,
}

/// A fragment whose bytes are fixed.
#[derive(Debug)]
pub struct EncodedFragment {
    pub header: FragmentHeader,
    /// The fragment's bytes, in order. Bodies are slices of what was received.
    pub parts: Vec<Bytes>,
    /// What tells this attempt from any other writer's, and from any other content: the whole header.
    pub identity: Identity,
    pub index: FragmentIndex,
    /// In the order in which they lie in the fragment.
    pub entries: Vec<Entry>,
}

impl FragmentBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, entry: Entry) {
        let meta = &entry.meta;
        assert!(
            0 <= meta.base_offset && meta.base_offset <= meta.last_offset && meta.last_offset < i64::MAX,
            "an entry has offsets: {meta:?}"
        );
        assert!(u32::try_from(entry.len()).is_ok(), "a record batch's length is a 32-bit number");
        self.bytes += entry.len();
        self.entries.push(entry);
    }

    /// Bytes of the entries: what the fragment's data will be long.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries as they are, unencoded: for a writer that gives up.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Fixes the fragment's bytes. `durable_through`: the highest fragment of this segment known to be durable.
    pub fn finish(self, id: FragmentId, writer: Incarnation, durable_through: Option<u64>) -> EncodedFragment {
        assert!(!self.is_empty(), "a fragment has at least one entry");
        let mut entries = self.entries;
        entries.sort_by_key(|entry| entry.partition); // stable: keeps the order within a partition
        let index = index_of(id, &entries, self.bytes);
        let mut tail = Vec::with_capacity(footer::body_length(entries.len(), index.runs.len()) + HEADER_BYTES);
        footer::encode_body(&index, &mut tail);
        assert_eq!(tail.capacity(), tail.len() + HEADER_BYTES, "the footer is as long as was reckoned");
        let header = FragmentHeader {
            kind: FragmentKind::Data,
            id,
            writer,
            durable_through,
            data_length: self.bytes as u64,
            footer_length: u32::try_from(tail.len() + HEADER_BYTES)
                .expect("a fragment is cut long before its index outgrows a u32"),
            footer_crc: crc32c::crc32c(&tail),
        };
        let header_bytes = header.encode();
        tail.extend_from_slice(&header_bytes);
        let parts = parts_of(header_bytes, &entries, tail);
        let identity = Identity { range: 0..HEADER_BYTES as u64, bytes: parts[0].clone() };
        EncodedFragment { header, parts, identity, index, entries }
    }
}

impl FromIterator<Entry> for FragmentBuilder {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut builder = Self::new();
        for entry in entries {
            builder.push(entry);
        }
        builder
    }
}

impl EncodedFragment {
    pub fn total_length(&self) -> u64 {
        self.header.total_length()
    }
}

/// Header, heads and footer in one buffer each; bodies as they are.
fn parts_of(header: [u8; HEADER_BYTES], entries: &[Entry], tail: Vec<u8>) -> Vec<Bytes> {
    let mut heads = Vec::with_capacity(HEADER_BYTES + entries.len() * HEAD_BYTES);
    heads.extend_from_slice(&header);
    for entry in entries {
        heads.extend_from_slice(&entry.head);
    }
    let mut heads = Bytes::from(heads);
    let mut parts = Vec::with_capacity(2 * entries.len() + 2);
    parts.push(heads.split_to(HEADER_BYTES));
    for entry in entries {
        parts.push(heads.split_to(HEAD_BYTES));
        if !entry.body.is_empty() {
            parts.push(entry.body.clone());
        }
    }
    parts.push(Bytes::from(tail));
    parts
}

/// The index of entries that lie one after another in this order.
fn index_of(fragment: FragmentId, entries: &[Entry], data_bytes: usize) -> FragmentIndex {
    let mut runs: Vec<IndexedRun> = Vec::new();
    let mut position = HEADER_BYTES as u64;
    for entry in entries {
        let length = u32::try_from(entry.len()).expect("checked when it was pushed");
        let indexed = IndexedEntry { meta: entry.meta, position, length, checksum: entry.checksum() };
        match runs.last_mut() {
            Some(last) if continues(last, entry, length) => extend(last, indexed),
            _ => runs.push(begin(fragment, entry, indexed)),
        }
        position += u64::from(length);
    }
    assert_eq!(position, (HEADER_BYTES + data_bytes) as u64, "entries are as long as was counted");
    let mut index_position = position;
    for IndexedRun { run, entries, .. } in &mut runs {
        run.index_position = index_position;
        run.index_length = u32::try_from(footer::index_length(entries.len()))
            .expect("a fragment is cut long before its index outgrows a u32");
        index_position += u64::from(run.index_length);
        if let Err(error) = footer::check_entries(run, entries) {
            panic!("a run that no reader would accept: {error}: {run:?}");
        }
    }
    FragmentIndex { fragment, runs }
}

/// A new run begins where offsets leave a gap (replay must see it), with a new leader epoch, and before lengths overflow.
fn continues(last: &IndexedRun, entry: &Entry, length: u32) -> bool {
    last.partition == entry.partition
        && last.run.next_offset == entry.meta.base_offset
        && last.run.leader_epoch == entry.meta.leader_epoch
        && last.run.length.checked_add(length).is_some()
}

fn extend(last: &mut IndexedRun, entry: IndexedEntry) {
    last.run.next_offset = entry.meta.last_offset + 1;
    last.run.max_timestamp = last.run.max_timestamp.max(entry.meta.max_timestamp);
    last.run.length += entry.length;
    last.entries.push(entry);
}

fn begin(fragment: FragmentId, entry: &Entry, indexed: IndexedEntry) -> IndexedRun {
    let run = Run {
        fragment,
        base_offset: entry.meta.base_offset,
        next_offset: entry.meta.last_offset + 1,
        max_timestamp: entry.meta.max_timestamp.max(-1),
        leader_epoch: entry.meta.leader_epoch,
        file_position: 0,
        position: indexed.position,
        length: indexed.length,
        index_position: 0, // known when all runs are
        index_length: 0,
    };
    IndexedRun { partition: entry.partition, run, entries: vec![indexed] }
}
