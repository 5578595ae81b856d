//! Which chunks there are, and which goes first when room is needed. No I/O and no waiting in here.
//!
//! Invariant: every slot is either on its way (`last_use` is None) or in `uses` exactly once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::entry::FragmentId;

use super::Payment;
use super::landing::Landing;

/// So many of the oldest are looked at for one that is better to drop than the very oldest.
const CANDIDATES: usize = 512;

/// Who has not come for a chunk while all of them were used so many times, on average, does not come.
const ABANDONED_TURNS: u64 = 4;

/// A chunk by its place: never used for anything else.
type Key = (FragmentId, u64);

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<Key, Slot>,
    /// What is here, from the least to the most recently used.
    uses: BTreeMap<u64, Key>,
    next_use: u64,
    unread: usize,
}

#[derive(Debug)]
struct Slot {
    landing: Arc<Landing>,
    last_use: Option<u64>,
    /// It was read ahead, and nobody has wanted it yet.
    unread: bool,
}

/// A chunk that is to be read, and what pays for it.
#[derive(Debug)]
pub(super) struct Seat {
    pub number: u64,
    pub landing: Arc<Landing>,
    pub payment: Payment,
}

/// All chunks of a stretch, and those of them that are to be read.
pub(super) struct Claim {
    pub landings: Vec<Arc<Landing>>,
    pub seats: Vec<Seat>,
}

impl Slots {
    /// Chunks that were read ahead, or are being, and that nobody has wanted yet.
    pub fn unread(&self) -> usize {
        self.unread
    }

    pub fn missing(&self, fragment: FragmentId, numbers: Range<u64>) -> Vec<u64> {
        numbers.filter(|number| !self.slots.contains_key(&(fragment, *number))).collect()
    }

    /// All of these chunks for a reader: each missing one is paid for. If there are too few payments nothing is done, and
    /// the error says how many more it takes.
    pub fn claim(
        &mut self,
        fragment: FragmentId,
        numbers: Range<u64>,
        payments: &mut Vec<Payment>,
    ) -> Result<Claim, usize> {
        let missing = self.missing(fragment, numbers.clone()).len();
        if missing > payments.len() {
            return Err(missing - payments.len());
        }
        let mut claim = Claim { landings: Vec::new(), seats: Vec::with_capacity(missing) };
        for number in numbers {
            if let Some(landing) = self.touch((fragment, number)) {
                claim.landings.push(landing);
            } else if let Some(seat) = payments.pop().and_then(|payment| self.seat(fragment, number, payment, false)) {
                claim.landings.push(seat.landing.clone());
                claim.seats.push(seat);
            }
        }
        Ok(claim)
    }

    /// A place for a chunk that is to be read. None if it has one.
    pub fn seat(&mut self, fragment: FragmentId, number: u64, payment: Payment, unread: bool) -> Option<Seat> {
        let key = (fragment, number);
        if self.slots.contains_key(&key) {
            return None;
        }
        let landing = Arc::<Landing>::default();
        self.slots.insert(key, Slot { landing: landing.clone(), last_use: None, unread });
        self.unread += usize::from(unread);
        Some(Seat { number, landing, payment })
    }

    fn touch(&mut self, key: Key) -> Option<Arc<Landing>> {
        let slot = self.slots.get_mut(&key)?;
        self.unread -= usize::from(std::mem::take(&mut slot.unread));
        if let Some(last_use) = &mut slot.last_use {
            self.uses.remove(last_use);
            *last_use = self.next_use;
            self.uses.insert(self.next_use, key);
            self.next_use += 1;
        }
        Some(slot.landing.clone())
    }

    /// It has come: from now on it can be dropped.
    pub fn landed(&mut self, fragment: FragmentId, number: u64, landing: &Arc<Landing>) {
        let key = (fragment, number);
        let slot = self.slots.get_mut(&key).filter(|slot| Arc::ptr_eq(&slot.landing, landing));
        if let Some(slot) = slot {
            slot.last_use = Some(self.next_use);
            self.uses.insert(self.next_use, key);
            self.next_use += 1;
        }
    }

    /// Whoever wants this chunk next reads it anew, unless it is another one already.
    pub fn forget(&mut self, fragment: FragmentId, number: u64, landing: &Arc<Landing>) {
        let key = (fragment, number);
        if self.slots.get(&key).is_some_and(|slot| Arc::ptr_eq(&slot.landing, landing)) {
            self.remove(key);
        }
    }

    /// Takes out what was used least recently, best something that frees memory and that somebody has read.
    pub fn take_any(&mut self) -> Option<Arc<Landing>> {
        let unused = || self.oldest(|slot| !slot.is_in_use());
        let key = self.oldest_idle().or_else(unused).or_else(|| self.oldest(|_| true))?;
        self.remove(key)
    }

    /// Takes out what nobody would miss for now, if there is such a chunk.
    pub fn take_idle(&mut self) -> Option<Arc<Landing>> {
        self.oldest_idle().and_then(|key| self.remove(key))
    }

    /// What was read ahead counts as well, once everything else has been used several times since: whoever it was meant for
    /// has gone.
    fn oldest_idle(&self) -> Option<Key> {
        let abandoned = self.next_use.saturating_sub(ABANDONED_TURNS * self.slots.len() as u64);
        self.oldest(|slot| {
            let is_awaited = slot.unread && slot.last_use.is_some_and(|last_use| last_use >= abandoned);
            !is_awaited && !slot.is_in_use()
        })
    }

    fn oldest(&self, accept: impl Fn(&Slot) -> bool) -> Option<Key> {
        let mut oldest = self.uses.values().take(CANDIDATES);
        oldest.find(|key| self.slots.get(key).is_some_and(&accept)).copied()
    }

    fn remove(&mut self, key: Key) -> Option<Arc<Landing>> {
        let slot = self.slots.remove(&key)?;
        if let Some(last_use) = slot.last_use {
            self.uses.remove(&last_use);
        }
        self.unread -= usize::from(slot.unread);
        Some(slot.landing)
    }
}

impl Slot {
    /// Dropping it would free no memory now.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.landing) > 1 || self.landing.is_in_use()
    }
}
