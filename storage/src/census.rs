//! What of all that lies in a storage is needed, and by whom: the role of each object, by its key and length alone.
//!
//! What nothing refers to is no damage: a running broker produces it all the time and deletes it, and what a crash leaves the
//! next start collects. LIST is a hint here as everywhere: nothing is concluded from what it does not show.

use std::collections::{BTreeMap, BTreeSet};

use meta::keys::object::{self, LogObject};
use object_store::path::Path;

use crate::entry::FragmentId;
use crate::tiered::Listed;
use crate::view::{Ending, Needed, Source, View};

/// What an object is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Records that are wanted, or fragments that a start reads.
    Data,
    Manifest,
    /// The journal or a snapshot of embedded metadata, or what ties the storage to metadata elsewhere.
    Metadata,
    Fence,
    /// The lock of a folder.
    Lock,
    /// Nothing refers to it.
    Orphan(Orphan),
    /// A log's that is not registered: it was since the metadata was read, or never.
    UnknownLog(u64),
    /// None of ours.
    Strange,
}

/// Why nothing refers to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Orphan {
    /// Moved, or dropped, by the owner of the newest log.
    Awaiting,
    /// The same, by an earlier one.
    LeftBehind,
    BeyondEnd,
    AboveTail,
    NewTiered,
    Unwanted,
    OldManifest,
    SupersededManifest,
    Probe,
}

impl Orphan {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Awaiting => {
                "moved or dropped; the newest log's owner deletes it after delete_delay_ms, else the next start"
            }
            Self::LeftBehind => "left behind by an earlier start; the next start deletes it",
            Self::BeyondEnd => "beyond the end of its segment, never acknowledged; the next start deletes it",
            Self::AboveTail => "above the end that was found: being written, or written since",
            Self::NewTiered => "tiered and not referred to: being written, or moved on and about to be deleted",
            Self::Unwanted => {
                "the manifest names it for a deleted topic, or below a log start; deleted after the next round"
            }
            Self::OldManifest => {
                "part of a former manifest, left behind by an earlier start; the next start deletes it"
            }
            Self::SupersededManifest => {
                "part of a former manifest, or of one being written; deleted after delete_delay_ms"
            }
            Self::Probe => "scratch of a probe at some start; harmless",
        }
    }
}

/// Knows the role of every key.
pub struct Census<'a> {
    view: &'a View,
    needed: &'a BTreeMap<FragmentId, Needed>,
    /// Named by the manifest, wanted or not.
    named: BTreeSet<FragmentId>,
    parts: BTreeSet<(u64, u64)>,
}

impl<'a> Census<'a> {
    pub fn new(view: &'a View, source: &Source, needed: &'a BTreeMap<FragmentId, Needed>) -> Self {
        let runs = view.manifest.partitions.values().flat_map(|checkpoint| checkpoint.index.runs());
        let named = runs.map(|run| source.unit(run.fragment)).collect();
        let parts = view.records.manifest.iter().flat_map(|record| &record.objects);
        let parts = parts.map(|part| (part.log, part.number)).collect();
        Self { view, needed, named, parts }
    }

    pub fn role(&self, key: &Path, bytes: u64) -> Role {
        match object::parse_log_object(key) {
            Some(LogObject::Fragment { log, segment, fragment }) => {
                return self.fragment(FragmentId { log, segment, fragment }, bytes);
            }
            Some(LogObject::SegmentFile { log, segment }) => {
                return self.file(FragmentId { log, segment, fragment: 0 });
            }
            None => {}
        }
        if let Some((log, number)) = object::parse_manifest(key) {
            return match self.parts.contains(&(log, number)) {
                true => Role::Manifest,
                false if log > self.newest() => Role::UnknownLog(log),
                false if log == self.newest() => Role::Orphan(Orphan::SupersededManifest),
                false => Role::Orphan(Orphan::OldManifest),
            };
        }
        let name = key.as_ref();
        match () {
            () if name == "LOCK" => Role::Lock,
            () if *key == object::binding() => Role::Metadata,
            () if name.starts_with("meta/probe/") => Role::Orphan(Orphan::Probe),
            () if name.starts_with("meta/journal/") || name.starts_with("meta/snapshot/") => Role::Metadata,
            () => Role::Strange,
        }
    }

    fn newest(&self) -> u64 {
        self.view.records.newest
    }

    fn fragment(&self, id: FragmentId, bytes: u64) -> Role {
        if self.needed.contains_key(&id) {
            return Role::Data;
        }
        if Listed::is_fence(bytes) && !id.is_tiered() {
            return Role::Fence;
        }
        if id.is_tiered() || id < self.view.position() {
            return self.unit(id);
        }
        let Some(record) = self.view.records.logs.get(&id.log) else { return Role::UnknownLog(id.log) };
        let recorded = record.segments.get(id.segment as usize).and_then(|segment| segment.end);
        let fenced =
            self.view.spans.iter().any(|span| {
                (span.log, span.segment) == (id.log, id.segment) && matches!(span.ending, Ending::Fence(_))
            });
        let beyond = recorded.is_some_and(|end| id.fragment >= end) || fenced;
        Role::Orphan(if beyond { Orphan::BeyondEnd } else { Orphan::AboveTail })
    }

    fn file(&self, unit: FragmentId) -> Role {
        let position = self.view.position();
        let is_read_at_start = (unit.log, unit.segment) >= (position.log, position.segment);
        match self.view.records.logs.contains_key(&unit.log) {
            true if is_read_at_start => Role::Data,
            _ => self.unit(unit),
        }
    }

    /// A tiered object, or what lies before the manifest's position.
    fn unit(&self, unit: FragmentId) -> Role {
        if self.needed.contains_key(&unit) {
            return Role::Data;
        }
        let Some(record) = self.view.records.logs.get(&unit.log) else { return Role::UnknownLog(unit.log) };
        if self.named.contains(&unit) {
            return Role::Orphan(Orphan::Unwanted);
        }
        let is_newest = unit.log == self.newest();
        if unit.is_tiered() {
            return Role::Orphan(if is_newest { Orphan::NewTiered } else { Orphan::LeftBehind });
        }
        let beyond = record.segments.get(unit.segment as usize).and_then(|segment| segment.end);
        match beyond.is_some_and(|end| unit.fragment >= end) {
            true => Role::Orphan(Orphan::BeyondEnd),
            false if is_newest => Role::Orphan(Orphan::Awaiting),
            false => Role::Orphan(Orphan::LeftBehind),
        }
    }
}

#[cfg(test)]
mod tests;
