//! Record batches against what the index says of them: their own CRC32C, length, offsets, epoch, producer, attributes.

use storage::entry::IndexedEntry;
use storage::scrub::EntryCheck;

use crate::batch::{BatchHeader, LENGTH_OVERHEAD};

/// The format of record batches that is stored.
const MAGIC: i8 = 2;

pub struct BatchCheck;

impl EntryCheck for BatchCheck {
    fn check(&self, entry: &IndexedEntry, prefix: &[u8], body_crc: u32) -> Result<(), String> {
        let header = BatchHeader::parse(prefix).ok_or("is shorter than a record batch's header")?;
        if header.magic != MAGIC {
            return Err(format!("has message format {}", header.magic));
        }
        // The CRC covers what follows the head.
        if header.crc != body_crc {
            return Err("fails its own CRC32C".to_owned());
        }
        let meta = &entry.meta;
        let last_offset = header.base_offset.saturating_add(i64::from(header.last_offset_delta));
        let length = i64::from(header.length) + LENGTH_OVERHEAD as i64;
        for (what, found, indexed) in [
            ("base offset", header.base_offset, meta.base_offset),
            ("last offset", last_offset, meta.last_offset),
            ("length", length, i64::from(entry.length)),
            ("leader epoch", i64::from(header.leader_epoch), i64::from(meta.leader_epoch)),
            ("producer id", header.producer_id, meta.producer_id),
            ("attributes", i64::from(header.attributes), i64::from(meta.attributes)),
        ] {
            if found != indexed {
                return Err(format!("has the {what} {found}, and {indexed} in the index"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
