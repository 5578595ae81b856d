//! Compares checksums of entries that lie in one or more pieces.

use bytes::Bytes;
use meta::planted;

use crate::entry::{HEAD_BYTES, IndexedEntry};

/// What is wrong, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// Of the entry, as in its index.
    pub position: u64,
    pub why: String,
    /// What the bytes are, for comparison with another reading of them.
    pub found_crc: u32,
}

/// The entries lie one behind the other in the pieces, which hold nothing else.
pub(super) fn verify(pieces: &[Bytes], entries: &[IndexedEntry]) -> Result<(), Damage> {
    let damage = |entry: &IndexedEntry, why: &str, found_crc| {
        Err(Damage { position: entry.position, why: why.to_owned(), found_crc })
    };
    let Some(first) = entries.first() else { return Ok(()) };
    let mut rest = Rest { pieces: pieces.iter(), piece: &[] };
    for entry in entries {
        let length = entry.length as usize;
        if length < HEAD_BYTES {
            return damage(entry, "an entry is shorter than its head", 0);
        }
        let mut head = [0; HEAD_BYTES];
        let mut taken = 0;
        rest.take(HEAD_BYTES, |part| {
            head[taken..taken + part.len()].copy_from_slice(part);
            taken += part.len();
        });
        let mut crc = 0;
        let body = rest.take(length - HEAD_BYTES, |part| crc = crc32c::crc32c_append(crc, part));
        if taken < HEAD_BYTES || body < length - HEAD_BYTES {
            return damage(first, "storage returned another length than asked for", 0);
        }
        let found = crc32c::crc32c_append(crc, &head);
        if found != entry.checksum && !planted::bug("checksum-not-checked") {
            let offset = entry.meta.base_offset;
            return damage(entry, &format!("the batch at offset {offset} fails its checksum"), found);
        }
    }
    if rest.take(1, |_| {}) > 0 {
        return damage(first, "storage returned another length than asked for", 0);
    }
    Ok(())
}

/// What is left of the pieces.
struct Rest<'a> {
    pieces: std::slice::Iter<'a, Bytes>,
    piece: &'a [u8],
}

impl Rest<'_> {
    /// Hands over so many bytes, or as many as there are, and says how many it were.
    fn take(&mut self, bytes: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < bytes {
            if self.piece.is_empty() {
                let Some(next) = self.pieces.next() else { break };
                self.piece = next;
                continue;
            }
            let (part, after) = self.piece.split_at(self.piece.len().min(bytes - taken));
            each(part);
            taken += part.len();
            self.piece = after;
        }
        taken
    }
}
