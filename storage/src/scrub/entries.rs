//! The entries of a fragment, from its data as it comes. Pure.
//!
//! Entries lie one after another from the header on, in the order of the index; a footer that decodes says so of every byte.

use meta::planted;

use super::{EntryCheck, PREFIX_BYTES, checksum};
use crate::entry::{FragmentIndex, HEAD_BYTES, IndexedEntry};

pub(super) struct Entries<'a> {
    check: &'a dyn EntryCheck,
    /// Those whose bytes have not come completely.
    left: Box<dyn Iterator<Item = &'a IndexedEntry> + Send + 'a>,
    open: Option<Open<'a>>,
}

/// The entry whose bytes are coming.
struct Open<'a> {
    entry: &'a IndexedEntry,
    prefix: Vec<u8>,
    body_crc: u32,
    seen: usize,
}

impl<'a> Entries<'a> {
    pub fn new(index: &'a FragmentIndex, check: &'a dyn EntryCheck) -> Self {
        Self { check, left: Box::new(index.runs.iter().flat_map(|run| &run.entries)), open: None }
    }

    /// Takes the next bytes of data; `fault` is told which entry is wrong, and why.
    pub fn feed(&mut self, mut bytes: &[u8], mut fault: impl FnMut(&IndexedEntry, String)) {
        while !bytes.is_empty() {
            let Some(mut open) = self.open.take().or_else(|| self.left.next().map(Open::new)) else { return };
            bytes = open.take(bytes);
            if open.seen < open.entry.length as usize {
                self.open = Some(open);
                return;
            }
            if let Err(why) = open.finish(self.check) {
                fault(open.entry, why);
            }
        }
    }
}

impl<'a> Open<'a> {
    fn new(entry: &'a IndexedEntry) -> Self {
        Self { entry, prefix: Vec::with_capacity(PREFIX_BYTES), body_crc: 0, seen: 0 }
    }

    /// Takes what belongs to this entry, and gives the rest back.
    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (own, rest) = bytes.split_at((self.entry.length as usize - self.seen).min(bytes.len()));
        let room = PREFIX_BYTES - self.prefix.len();
        self.prefix.extend_from_slice(&own[..own.len().min(room)]);
        let head_left = HEAD_BYTES.saturating_sub(self.seen).min(own.len());
        self.body_crc = crc32c::crc32c_append(self.body_crc, &own[head_left..]);
        self.seen += own.len();
        rest
    }

    fn finish(&self, check: &dyn EntryCheck) -> Result<(), String> {
        // Lengths were checked when the footer was decoded: every entry has a head.
        let head = &self.prefix[..HEAD_BYTES.min(self.prefix.len())];
        if planted::bug("scrub-trusts-the-index") {
            return Ok(());
        }
        if checksum(self.body_crc, head) != self.entry.checksum {
            return Err("fails its checksum".to_owned());
        }
        check.check(self.entry, &self.prefix, self.body_crc)
    }
}
