//! Which tiered objects are worth being merged. Pure.
//!
//! Objects whose lengths are within a factor of eight are of one class; what is merged of one class is of the next. So
//! a byte is written once a class, until its object is as long as they get.

use storage::entry::FragmentId;

/// Objects that are merged at once at most.
const FAN_IN: usize = 8;

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

/// Candidates come in the order in which they were made. None are chosen if it is not worth it.
pub fn choose(candidates: &[Candidate], most: Most) -> Vec<FragmentId> {
    let stays = |candidate: &&Candidate| candidate.going_bytes * 2 < candidate.bytes;
    let has_room = |candidate: &&Candidate| candidate.bytes * 2 <= most.bytes && candidate.entries * 2 <= most.entries;
    let open: Vec<&Candidate> = candidates.iter().filter(stays).filter(has_room).collect();
    let mut classes: Vec<u32> = open.iter().map(|candidate| class(candidate.bytes)).collect();
    classes.sort_unstable();
    classes.dedup();
    // The smallest first: there are most of them.
    classes.into_iter().find_map(|class| together(&open, class, most)).unwrap_or_default()
}

fn class(bytes: u64) -> u32 {
    bytes.max(1).ilog2() / FAN_IN.ilog2()
}

/// The oldest ones of a class that fill an object, or as many as are merged at once.
fn together(open: &[&Candidate], wanted: u32, most: Most) -> Option<Vec<FragmentId>> {
    let (mut chosen, mut bytes, mut entries) = (Vec::new(), 0, 0);
    let mut full = false;
    for candidate in open.iter().filter(|candidate| class(candidate.bytes) == wanted) {
        full = bytes + candidate.bytes > most.bytes || entries + candidate.entries > most.entries;
        if full || chosen.len() == FAN_IN {
            break;
        }
        chosen.push(candidate.id);
        bytes += candidate.bytes;
        entries += candidate.entries;
    }
    full |= bytes == most.bytes || chosen.len() == FAN_IN;
    (full && chosen.len() > 1).then_some(chosen)
}

#[cfg(test)]
mod tests;
