//! What is needed of all that is stored: units that wanted runs lie in, and those that a start reads.

use std::collections::BTreeMap;

use super::{Layout, Source, View};
use crate::entry::{FragmentId, Run, TopicPartition};

/// What one unit is needed for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// In the order of partitions and offsets. Of partitions that exist, at or above their log starts.
    pub runs: Vec<(TopicPartition, Run)>,
    /// How many fragments a segment's file must hold; 1 for an object.
    pub fragments: u64,
}

impl Needed {
    /// Bytes of records.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|(_, run)| u64::from(run.length)).sum()
    }
}

impl View {
    /// By unit. What is not in here may go, or has gone, at any time.
    pub fn needed(&self, source: &Source) -> BTreeMap<FragmentId, Needed> {
        let mut needed: BTreeMap<FragmentId, Needed> = BTreeMap::new();
        for (id, chain) in &self.chains {
            for run in chain.index.runs() {
                needed.entry(source.unit(run.fragment)).or_default().runs.push((*id, *run));
            }
        }
        for span in &self.spans {
            let id = |fragment| FragmentId { log: span.log, segment: span.segment, fragment };
            for fragment in span.from..span.end {
                needed.entry(source.unit(id(fragment))).or_default();
            }
        }
        for (unit, needed) in &mut needed {
            let in_file = source.layout() == Layout::Files && !unit.is_tiered();
            needed.fragments = if in_file { self.end_of(*unit) } else { 1 };
        }
        needed
    }

    /// Where a segment ends, as far as is known.
    fn end_of(&self, unit: FragmentId) -> u64 {
        let of_span = self.spans.iter().find(|span| (span.log, span.segment) == (unit.log, unit.segment));
        let recorded = || self.records.logs.get(&unit.log)?.segments.get(unit.segment as usize)?.end;
        of_span.map(|span| span.end).or_else(recorded).unwrap_or(0)
    }
}
