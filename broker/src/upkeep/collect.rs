//! Collection: what incarnations before ours have left behind, and nothing refers to.
//!
//! By ownership, not by age: whoever made an object owned the log in its key. All logs but ours are sealed, so their
//! writers are fenced, and whatever they still manage to write will never be referred to. LIST is a hint for what to
//! delete, never for what there is.

use std::collections::BTreeMap;

use meta::keys::object;
use meta::planted;
use storage::entry::FragmentId;
use storage::error::Result;
use storage::tiered::Listed;

use super::Worker;
use super::doomed::Garbage;

impl Worker {
    pub(super) async fn collect(&mut self) -> Result<()> {
        let listed = self.parts.objects.list().await?;
        let manifests = self.parts.objects.list_manifests().await?;
        let mut garbage = Garbage::default();
        let fragments = listed.fragments.iter().filter(|(id, bytes)| self.is_orphan(**id, **bytes));
        garbage.units.extend(fragments.map(|(id, _)| *id));
        let files =
            listed.segment_files.keys().map(|(log, segment)| FragmentId { log: *log, segment: *segment, fragment: 0 });
        garbage.units.extend(files.filter(|unit| self.is_consumed_file(*unit)));
        let named = self.parts.manifest.named();
        let is_named = |place: &(u64, u64)| named.iter().any(|part| (part.log, part.number) == *place);
        let old = manifests.keys().filter(|place| place.0 < self.parts.log && !is_named(place));
        garbage.parts.extend(old.map(|(log, number)| object::manifest(*log, *number)));
        for key in &listed.strange {
            tracing::warn!(%key, "an object that is none of ours, among those of the logs");
        }
        let (objects, parts) = (garbage.units.len(), garbage.parts.len());
        if objects + parts > 0 {
            tracing::info!(objects, parts, "deleting what earlier starts have left behind");
        }
        self.delete(vec![garbage]).await
    }

    fn is_orphan(&self, id: FragmentId, bytes: u64) -> bool {
        let referenced = self.referenced.contains(&id) && !planted::bug("collector-ignores-references");
        if id.log >= self.parts.log || Listed::is_fence(bytes) || referenced {
            return false;
        }
        id.is_tiered() || id < self.position || self.is_beyond_end(id)
    }

    /// Written by somebody who was fenced already: no reader ever sees it.
    fn is_beyond_end(&self, id: FragmentId) -> bool {
        let ends: BTreeMap<_, _> = self.parts.found.history.iter().map(|(log, record)| (*log, record)).collect();
        let segment = ends.get(&id.log).and_then(|record| record.segments.get(id.segment as usize));
        segment.and_then(|segment| segment.end).is_some_and(|end| id.fragment >= end)
    }

    fn is_consumed_file(&self, unit: FragmentId) -> bool {
        unit.log < self.parts.log
            && !self.referenced.contains(&unit)
            && (unit.log, unit.segment) < (self.position.log, self.position.segment)
    }
}
