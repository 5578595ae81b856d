//! How much of what is stored one answer holds.
//!
//! Invariant: of each lane an answer holds no more than one reader may ask for at a time, however long its client takes to
//! receive it, but for the first batch, which it must hold. What is in the memory tail, or in files, is not counted.

use super::{Lane, Reader};
use crate::entry::{Run, TopicPartition};

/// What an answer may yet take, lane by lane.
#[derive(Debug, Clone, Copy)]
pub struct StoredRoom {
    near: usize,
    cold: usize,
}

/// What a read of one run may take.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    pub max_bytes: usize,
    /// What is taken is to be taken from this lane's room.
    pub lane: Option<Lane>,
}

impl StoredRoom {
    fn of(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Near => &mut self.near,
            Lane::Cold => &mut self.cold,
        }
    }

    pub fn take(&mut self, lane: Option<Lane>, bytes: usize) {
        if let Some(lane) = lane {
            let room = self.of(lane);
            *room = room.saturating_sub(bytes);
        }
    }
}

impl Reader {
    /// For an answer that holds nothing yet.
    pub fn stored_room(&self) -> StoredRoom {
        StoredRoom { near: self.stored.near.most_at_once(), cold: self.stored.cold.most_at_once() }
    }

    /// How much of a run is to be asked for: no read returns more.
    pub fn share(&self, partition: TopicPartition, run: &Run, max_bytes: usize, mut room: StoredRoom) -> Share {
        match self.lane_of(partition, run) {
            None => Share { max_bytes, lane: None },
            Some(lane) => {
                let most = self.chunks(lane).most_of_run().min(*room.of(lane));
                Share { max_bytes: max_bytes.min(most), lane: Some(lane) }
            }
        }
    }

    /// Takes out of the room what a read of up to `max_bytes` of these runs can use, for a read beside others.
    pub fn set_aside(
        &self,
        room: &mut StoredRoom,
        partition: TopicPartition,
        runs: &[Run],
        max_bytes: usize,
    ) -> StoredRoom {
        let mut aside = StoredRoom { near: 0, cold: 0 };
        let mut left = max_bytes;
        for run in runs {
            let bytes = (run.length as usize).min(left);
            left -= bytes;
            if let Some(lane) = self.lane_of(partition, run) {
                let bytes = bytes.min(*room.of(lane));
                *aside.of(lane) += bytes;
                *room.of(lane) -= bytes;
            }
        }
        aside
    }

    /// The lane by way of which a run would be read now. None: it is in memory, or in a file.
    fn lane_of(&self, partition: TopicPartition, run: &Run) -> Option<Lane> {
        let is_stored = self.stored.store.is_remote() && self.tail.run(partition, run).is_none();
        is_stored.then(|| self.lane(run))
    }
}
