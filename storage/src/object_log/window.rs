//! The fragments in flight of one segment: they settle in any order and leave in theirs. Pure, without I/O.
//!
//! Invariant: a fragment leaves as durable only from the head, so never before a lower one; a head that is foreign or
//! unsettled blocks everything above it.

use std::collections::BTreeMap;

use bytes::Bytes;
use meta::planted;
use meta::settled::Settled;

/// What is known of the lowest fragment in flight.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<T> {
    /// Nothing is in flight.
    Empty,
    /// It may still settle.
    Flying,
    /// It is durable, and has left the window.
    Durable { fragment: u64, item: T },
    /// Another object is in its place: these are its first bytes.
    Foreign { fragment: u64, found: Bytes },
    /// Nobody knows, and nobody is trying any more.
    Unsettled { fragment: u64, why: String },
}

#[derive(Debug)]
pub(super) struct Window<T> {
    flights: BTreeMap<u64, (T, Option<Settled>)>,
    /// The first fragment that is not known to be durable.
    durable_end: u64,
    /// The next fragment's number.
    next: u64,
}

impl<T> Window<T> {
    /// Of an empty segment.
    pub fn new() -> Self {
        Self { flights: BTreeMap::new(), durable_end: 0, next: 0 }
    }

    pub fn len(&self) -> usize {
        self.flights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub fn durable_end(&self) -> u64 {
        self.durable_end
    }

    /// The number that the next fragment will get.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn launch(&mut self, item: T) -> u64 {
        let fragment = self.next;
        self.next += 1;
        self.flights.insert(fragment, (item, None));
        fragment
    }

    /// What became of a fragment in flight. A later word on the same one replaces `Unknown`, and nothing else.
    pub fn settle(&mut self, fragment: u64, settled: Settled) {
        let (_, known) = self.flights.get_mut(&fragment).expect("only fragments in flight are settled");
        assert!(
            matches!(known, None | Some(Settled::Unknown { .. })),
            "fragment {fragment} settled twice: {known:?}, then {settled:?}"
        );
        *known = Some(settled);
    }

    /// For planted bugs: whatever was known of a fragment in flight is not known any more.
    pub fn forget(&mut self, fragment: u64) {
        if let Some((_, settled)) = self.flights.get_mut(&fragment) {
            *settled = None;
        }
    }

    /// The item of a fragment in flight.
    pub fn get(&self, fragment: u64) -> Option<&T> {
        self.flights.get(&fragment).map(|(item, _)| item)
    }

    /// Looks at the head, and takes it out if it is durable.
    pub fn head(&mut self) -> Head<T> {
        if planted::bug("ack-out-of-order") {
            let ours = |(_, settled): &(T, Option<Settled>)| matches!(settled, Some(Settled::Ours));
            if let Some(fragment) = self.flights.iter().find(|(_, flight)| ours(flight)).map(|(number, _)| *number) {
                return self.take(fragment);
            }
        }
        let Some((fragment, (_, settled))) = self.flights.first_key_value() else {
            return Head::Empty;
        };
        let fragment = *fragment;
        match settled {
            None => Head::Flying,
            Some(Settled::Ours) => self.take(fragment),
            Some(Settled::Theirs { found }) => Head::Foreign { fragment, found: found.clone() },
            Some(Settled::Unknown { why }) => Head::Unsettled { fragment, why: why.clone() },
        }
    }

    fn take(&mut self, fragment: u64) -> Head<T> {
        let (item, _) = self.flights.remove(&fragment).expect("it was just seen");
        if !planted::bug("ack-out-of-order") {
            assert_eq!(fragment, self.durable_end, "fragments become durable in the order of their numbers");
        }
        self.durable_end = fragment + 1;
        Head::Durable { fragment, item }
    }

    /// For planted bugs: removes the head, whatever it is.
    pub fn drop_head(&mut self) -> Option<T> {
        let (fragment, (item, _)) = self.flights.pop_first()?;
        self.durable_end = fragment + 1;
        Some(item)
    }

    /// Everything in flight, in order; the window is that of an empty segment afterwards.
    pub fn restart(&mut self) -> Vec<T> {
        let flights = std::mem::replace(self, Self::new()).flights;
        flights.into_values().map(|(item, _)| item).collect()
    }
}

#[cfg(test)]
mod tests;
