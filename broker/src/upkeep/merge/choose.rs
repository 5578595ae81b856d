//! Which tiered objects are worth being merged. Pure.
//!
//! Only neighbours are: then a partition's runs in them follow each other, and become one. Objects whose lengths are
//! within a factor of eight are of one class, and eight that are no longer than that are merged, the smallest class
//! first. What is merged is at least twice as long as each of its parts, mostly eight times: so a byte is written about
//! once a class, until its object is as long as they get.

use storage::entry::FragmentId;

/// Neighbours that are merged, if they do not fill an object before.
const FAN_IN: usize = 8;
/// At once at most: each is read through windows of its own.
const MOST_AT_ONCE: usize = 64;

/// A tiered object, by what partitions still want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub id: FragmentId,
    pub bytes: u64,
    pub entries: usize,
    /// Retention takes so much of it before long.
    pub going_bytes: u64,
    /// What it holds, wanted or not.
    pub stored_bytes: u64,
}

impl Candidate {
    /// Nothing that is wanted of it is counted yet.
    pub fn new(id: FragmentId) -> Self {
        Self { id, bytes: 0, entries: 0, going_bytes: 0, stored_bytes: u64::MAX }
    }

    /// What is wanted of it stays for some time.
    fn stays(&self) -> bool {
        self.going_bytes * 2 < self.bytes
    }

    /// Half of it or more is of no use.
    fn is_hollow(&self) -> bool {
        self.stays() && self.bytes <= self.stored_bytes / 2
    }
}

/// What an object holds at most.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub bytes: u64,
    pub entries: usize,
}

/// Neighbours, as far as they go together.
#[derive(Default)]
struct Window<'a> {
    chosen: Vec<&'a Candidate>,
    bytes: u64,
    entries: usize,
}

/// Candidates are in the order of what is in them. None are chosen if it is not worth it.
pub fn choose(candidates: &[Candidate], most: Most) -> Vec<FragmentId> {
    let is_open = |candidate: &Candidate| {
        candidate.stays() && candidate.bytes * 2 <= most.bytes && candidate.entries * 2 <= most.entries
    };
    let open = candidates.iter().filter(|candidate| is_open(candidate));
    let classes: std::collections::BTreeSet<u32> = open.map(|candidate| class(candidate.bytes)).collect();
    let merged = classes.into_iter().find_map(|wanted| neighbours(candidates, most, wanted, is_open));
    merged.unwrap_or_else(|| hollow(candidates, most))
}

/// The first that are of little use, with their neighbours if those are as well. What is written is no more than what is
/// given back.
fn hollow(candidates: &[Candidate], most: Most) -> Vec<FragmentId> {
    let first = candidates.iter().skip_while(|candidate| !candidate.is_hollow());
    let (mut bytes, mut entries) = (0, 0);
    let fits = |candidate: &&Candidate| {
        (bytes, entries) = (bytes + candidate.bytes, entries + candidate.entries);
        candidate.is_hollow() && bytes <= most.bytes && entries <= most.entries
    };
    first.take_while(fits).take(MOST_AT_ONCE).map(|candidate| candidate.id).collect()
}

fn class(bytes: u64) -> u32 {
    bytes.max(1).ilog2() / FAN_IN.ilog2()
}

/// The first neighbours of a class, or of smaller ones, that fill an object or are enough.
fn neighbours(
    candidates: &[Candidate],
    most: Most,
    wanted: u32,
    is_open: impl Fn(&Candidate) -> bool,
) -> Option<Vec<FragmentId>> {
    let mut window = Window::default();
    for candidate in candidates {
        if !is_open(candidate) || class(candidate.bytes) > wanted {
            window = Window::default();
            continue;
        }
        let is_full = window.bytes + candidate.bytes > most.bytes || window.entries + candidate.entries > most.entries;
        if is_full && window.is_worth_it() {
            return Some(window.ids());
        }
        if is_full || window.chosen.len() == MOST_AT_ONCE {
            window = Window::default();
        }
        window.chosen.push(candidate);
        window.bytes += candidate.bytes;
        window.entries += candidate.entries;
        if (window.chosen.len() >= FAN_IN || window.bytes == most.bytes) && window.is_worth_it() {
            return Some(window.ids());
        }
    }
    None
}

impl Window<'_> {
    fn is_worth_it(&self) -> bool {
        let longest = self.chosen.iter().map(|candidate| candidate.bytes).max().unwrap_or(0);
        self.chosen.len() > 1 && longest * 2 <= self.bytes
    }

    fn ids(&self) -> Vec<FragmentId> {
        self.chosen.iter().map(|candidate| candidate.id).collect()
    }
}

#[cfg(test)]
mod tests;
