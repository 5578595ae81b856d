//! Idempotence of one partition: what each producer id appended last (KIP-98, five batches as of KAFKA-5494).
//!
//! Pure state: no clock, no I/O. Invariants:
//! - The state is a function of the appended batches in the order of their offsets, so that replay rebuilds exactly what
//!   was there.
//! - Sequences are never taken back: what was recorded stays recorded, whatever becomes of the append.
//! - At most `max` producers are remembered; the one whose last append is oldest (by offset) is forgotten first.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use kafka_protocol::ResponseError;

/// Batches remembered of each producer: what a producer may have in flight.
pub const REMEMBERED_BATCHES: usize = 5;

/// Sequences count from 0 to 2^31-1 and begin again.
const SEQUENCE_MASK: u32 = 0x7fff_ffff;

/// The producer's fields of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// Records, at least 1.
    pub count: i32,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// It is here already, at this offset.
    Duplicate {
        base_offset: i64,
    },
    /// It is here already, before this offset; where is no longer known.
    OldDuplicate {
        before_offset: i64,
    },
    Refuse(ResponseError),
}

/// The producers of one partition.
#[derive(Debug, Clone)]
pub struct Producers {
    max: usize,
    by_id: BTreeMap<i64, Producer>,
    /// Producer ids by the base offset of their last batch.
    by_last_append: BTreeMap<i64, i64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Remembered {
    base_offset: i64,
    base_sequence: i32,
    count: i32,
}

#[derive(Debug, Clone, Copy)]
struct Producer {
    epoch: i16,
    /// Oldest first; the first `len` are in use, at least one.
    batches: [Remembered; REMEMBERED_BATCHES],
    len: usize,
}

impl Producers {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), by_id: BTreeMap::new(), by_last_append: BTreeMap::new() }
    }

    /// Judges a batch. Changes nothing.
    pub fn check(&self, batch: &ProducerBatch) -> Verdict {
        // Never seen, or forgotten: any sequence will do, else an idle producer could not go on.
        let Some(producer) = self.by_id.get(&batch.producer_id) else { return Verdict::Append };
        if batch.producer_epoch < producer.epoch {
            return Verdict::Refuse(ResponseError::InvalidProducerEpoch);
        }
        if batch.producer_epoch > producer.epoch {
            return match batch.base_sequence {
                0 => Verdict::Append,
                _ => Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        producer.check_sequence(batch)
    }

    /// Takes note of a batch that got its offsets.
    pub fn record(&mut self, batch: &ProducerBatch, base_offset: i64) {
        let remembered = Remembered { base_offset, base_sequence: batch.base_sequence, count: batch.count };
        match self.by_id.get_mut(&batch.producer_id) {
            Some(producer) => {
                self.by_last_append.remove(&producer.newest().base_offset);
                if producer.epoch == batch.producer_epoch {
                    producer.push(remembered);
                } else {
                    *producer = Producer::new(batch.producer_epoch, remembered);
                }
            }
            None => {
                self.by_id.insert(batch.producer_id, Producer::new(batch.producer_epoch, remembered));
            }
        }
        self.by_last_append.insert(base_offset, batch.producer_id);
        if self.by_id.len() > self.max
            && let Some((_, oldest)) = self.by_last_append.pop_first()
        {
            self.by_id.remove(&oldest);
        }
    }
}

/// Version of a snapshot's bytes: this, the number of producers (4 bytes), of each: id 8, epoch 2, number of batches 1, and
/// of each batch: base offset 8, base sequence 4, count 4. Producers come in the order of their last batches.
const SNAPSHOT_VERSION: u8 = 1;

impl Producers {
    /// What batches below this offset left behind. What a snapshot lacks, the batches from that offset on bring back when
    /// they are recorded again: a producer has no more in flight than are remembered.
    pub fn snapshot(&self, below_offset: i64) -> Vec<u8> {
        let mut out = vec![SNAPSHOT_VERSION];
        out.put_u32(0);
        let mut count = 0_u32;
        for id in self.by_last_append.values() {
            let Some(producer) = self.by_id.get(id) else { continue };
            let below = |batch: &&Remembered| batch.base_offset < below_offset;
            let kept = producer.remembered().iter().filter(below).count();
            if kept == 0 {
                continue;
            }
            count += 1;
            out.put_i64(*id);
            out.put_i16(producer.epoch);
            out.put_u8(kept as u8);
            for batch in producer.remembered().iter().filter(below) {
                out.put_i64(batch.base_offset);
                out.put_i32(batch.base_sequence);
                out.put_i32(batch.count);
            }
        }
        out[1..5].copy_from_slice(&count.to_be_bytes());
        out
    }

    /// Takes a snapshot in, as if its batches were recorded. Nothing (no bytes) is a snapshot of nothing.
    pub fn restore(&mut self, mut snapshot: &[u8]) -> Result<(), SnapshotError> {
        if snapshot.is_empty() {
            return Ok(());
        }
        let version = snapshot.try_get_u8()?;
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        for _ in 0..snapshot.try_get_u32()? {
            let (producer_id, producer_epoch) = (snapshot.try_get_i64()?, snapshot.try_get_i16()?);
            for _ in 0..snapshot.try_get_u8()? {
                let base_offset = snapshot.try_get_i64()?;
                let (base_sequence, count) = (snapshot.try_get_i32()?, snapshot.try_get_i32()?);
                self.record(&ProducerBatch { producer_id, producer_epoch, base_sequence, count }, base_offset);
            }
        }
        Ok(())
    }
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("written in version {0}; this binary reads version {SNAPSHOT_VERSION}")]
    Version(u8),
    #[error("it ends too early")]
    Short(#[from] bytes::TryGetError),
}

impl Producer {
    fn new(epoch: i16, first: Remembered) -> Self {
        let mut producer = Self { epoch, batches: Default::default(), len: 0 };
        producer.push(first);
        producer
    }

    fn push(&mut self, batch: Remembered) {
        if self.len == REMEMBERED_BATCHES {
            self.batches.copy_within(1.., 0);
            self.len -= 1;
        }
        self.batches[self.len] = batch;
        self.len += 1;
    }

    fn remembered(&self) -> &[Remembered] {
        &self.batches[..self.len]
    }

    fn oldest(&self) -> Remembered {
        self.batches[0]
    }

    fn newest(&self) -> Remembered {
        self.batches[self.len - 1]
    }

    fn check_sequence(&self, batch: &ProducerBatch) -> Verdict {
        let same = |known: &&Remembered| known.base_sequence == batch.base_sequence && known.count == batch.count;
        if let Some(known) = self.remembered().iter().find(same) {
            return Verdict::Duplicate { base_offset: known.base_offset };
        }
        let newest = self.newest();
        let expected = advanced(newest.base_sequence, newest.count);
        if batch.base_sequence == expected {
            return Verdict::Append;
        }
        // How far the batch lies behind: "behind" is less than half the circle of sequences.
        let behind_oldest = distance(batch.base_sequence, self.oldest().base_sequence);
        if behind_oldest < SEQUENCE_MASK / 2 && behind_oldest >= batch.count as u32 {
            return Verdict::OldDuplicate { before_offset: self.oldest().base_offset };
        }
        Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber)
    }
}

/// The sequence `count` after this one.
pub fn advanced(sequence: i32, count: i32) -> i32 {
    ((sequence as u32).wrapping_add(count as u32) & SEQUENCE_MASK) as i32
}

/// How many sequences lie between, going up from `from`.
fn distance(from: i32, to: i32) -> u32 {
    (to as u32).wrapping_sub(from as u32) & SEQUENCE_MASK
}

#[cfg(test)]
mod tests;
