//! One GET on its way: chunks that lie one behind the other.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::FragmentId;
use crate::error::Error;

use super::landing::Outcome;
use super::slots::Seat;
use super::{Chunk, Payment, Shared};

/// What bookkeeping takes of memory, for a chunk.
const SLOT_BYTES: usize = 512;

/// Dropping it gives up what has not landed yet.
pub(super) struct Flight {
    pub shared: Arc<Shared>,
    pub fragment: FragmentId,
    /// What has not landed yet, without gaps. Not empty at first.
    pub seats: VecDeque<Seat>,
}

impl Flight {
    pub async fn run(mut self, ahead: bool) {
        let Some(first) = self.seats.front().map(|seat| seat.number) else { return };
        let shared = self.shared.clone();
        let (turns, count) = match ahead {
            false => (&shared.gets, &shared.counters.gets),
            true => (&shared.ahead_gets, &shared.counters.ahead_gets),
        };
        // An error means that nobody is left who could want it.
        let Ok(_turn) = turns.acquire().await else { return };
        count.add(1);
        let chunk_bytes = shared.options.chunk_bytes;
        let begin = first * chunk_bytes as u64;
        let range = begin..begin + (self.seats.len() * chunk_bytes) as u64;
        let fragment = self.fragment;
        let read = shared.store.read_pieces(fragment, range, chunk_bytes, &mut |piece| self.land(piece)).await;
        let error = match read {
            Ok(()) if self.seats.is_empty() => return,
            Ok(()) => Error::Corrupt { key: shared.store.key(fragment), why: "it is too short".to_owned() },
            Err(error) => error,
        };
        self.fail(|error| Outcome::Failed(error.clone()), Arc::new(error));
    }

    fn land(&mut self, bytes: Bytes) {
        let Some(Seat { number, landing, payment }) = self.seats.pop_front() else { return };
        let keeps = bytes.len() + SLOT_BYTES;
        let Payment { pool, budget } = payment;
        let payment = Payment { pool: pool.shrink(keeps), budget: budget.shrink(keeps) };
        landing.decide(Outcome::Here(Chunk { bytes, payment }));
        self.shared.slots.lock().landed(self.fragment, number, &landing);
        drop(landing);
        self.shared.pool.has_more_to_drop();
        self.shared.budget.has_more_to_drop();
    }

    fn fail<E>(&mut self, outcome: impl Fn(&E) -> Outcome, why: E) {
        for Seat { number, landing, .. } in self.seats.drain(..) {
            // First, so that who is told and tries again does not find it.
            self.shared.slots.lock().forget(self.fragment, number, &landing);
            landing.decide(outcome(&why));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.fail(|()| Outcome::GivenUp, ());
    }
}
