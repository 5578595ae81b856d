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
        let stays = candidate.going_bytes * 2 < candidate.bytes;
        stays && candidate.bytes * 2 <= most.bytes && candidate.entries * 2 <= most.entries
    };
    let open = candidates.iter().filter(|candidate| is_open(candidate));
    let classes: std::collections::BTreeSet<u32> = open.map(|candidate| class(candidate.bytes)).collect();
    classes.into_iter().find_map(|wanted| neighbours(candidates, most, wanted, is_open)).unwrap_or_default()
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
