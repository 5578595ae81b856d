//! What is stored, looked at by one who owns nothing of it: no lock, no takeover, no write, whether a broker runs or not.
//!
//! A view is everything that a start would find: the metadata as of one revision, the manifest, the fragments from the
//! manifest's position on, and what they come to for every partition. Its owner goes on meanwhile, so:
//! - What is not there, or not as it should be, counts only if the metadata, read again after that, still refers to it.
//!   Else everything is read again.
//! - The end of a log that has none yet is its first absent fragment; which may be absent because it was moved and deleted.
//!   Deleted is only what lies before the manifest's position: so the end counts if the position, read again afterwards, is
//!   not beyond it.
//!
//! What is found above the high watermark may still be fenced off: it is shown as stored, not as acknowledged.

mod records;

mod objects;

pub(crate) mod files;

mod chains;

mod units;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meta::frozen::{Freeze, Frozen};
use meta::keys::object;
use meta::planted;
use meta::seams::Incarnation;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::entry::{FragmentId, FragmentIndex, TopicPartition};
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::object_log::gets::Gets;
use crate::tiered::TieredObjects;

pub use self::chains::Chain;
pub use self::records::{Records, Topic};
pub use self::units::Needed;

/// How often the owner may move on while we look.
const ATTEMPTS: usize = 20;
/// Limit of a single read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How the fragments of logs lie in their storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each is an object.
    Objects,
    /// Those of a segment are one file.
    Files,
}

/// A storage to be read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) gets: Gets,
    objects: TieredObjects,
    layout: Layout,
}

impl Source {
    pub fn new(store: Arc<dyn ObjectStore>, layout: Layout) -> Self {
        Self { gets: Gets::new(store.clone(), READ_TIMEOUT), objects: TieredObjects::new(store), layout }
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        self.objects.store()
    }

    /// What is stored and deleted together: the fragment itself, or the first one of its file.
    pub fn unit(&self, fragment: FragmentId) -> FragmentId {
        match self.layout {
            Layout::Files if !fragment.is_tiered() => FragmentId { fragment: 0, ..fragment },
            _ => fragment,
        }
    }

    pub fn unit_key(&self, unit: FragmentId) -> Path {
        match self.layout {
            Layout::Files if !unit.is_tiered() => object::segment_file(unit.log, unit.segment),
            _ => unit.key(),
        }
    }
}

/// Something that is not as it should be, and still referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of an object, or of a record in the metadata; or the name of a partition.
    pub key: String,
    pub why: String,
    pub about: About,
}

/// What a problem is about, and so what may refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Something in the metadata, or that follows from it.
    Metadata,
    Manifest,
    ManifestPart {
        log: u64,
        number: u64,
    },
    /// One at or after the manifest's position.
    Fragment(FragmentId),
    Partition(TopicPartition),
}

/// The fragments of one segment that the manifest does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub log: u64,
    pub segment: u32,
    pub from: u64,
    /// Exclusive.
    pub end: u64,
    pub ending: Ending,
    /// In the order of their numbers. Those that cannot be read are not among them.
    pub fragments: Vec<Piece>,
}

/// How the end of a span is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By the log's record.
    Recorded,
    /// By a fence, and by whom, which is not recorded yet.
    Fence(Incarnation),
    /// Nothing was there yet.
    Open,
}

/// One fragment, in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub number: u64,
    /// In its file; 0 if it is an object.
    pub position: u64,
    pub bytes: u64,
    pub runs: usize,
    pub entries: usize,
}

/// Everything that a start would find.
#[derive(Debug)]
pub struct View {
    pub meta: Frozen,
    pub records: Records,
    /// What the manifest says by itself, of deleted topics too. Empty if it cannot be read.
    pub manifest: Manifest,
    pub spans: Vec<Span>,
    /// Of topics that exist.
    pub chains: BTreeMap<TopicPartition, Chain>,
    pub problems: Vec<Problem>,
    /// False if records, or parts of the manifest, cannot be read: what is needed is not known then.
    pub complete: bool,
}

impl View {
    /// Looks until what was seen holds together. `Retriable` if the owner moves things faster than that.
    pub async fn load(source: &Source, meta: &dyn Freeze) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let view = Self::build(source, meta.freeze().await?).await?;
            if !view.is_outdated(&Records::decode(&meta.freeze().await?).await?.0) {
                return Ok(view);
            }
            tracing::debug!("the owner has moved on, looking again");
        }
        let source = "its owner moves it faster than it can be read".into();
        Err(Error::Unavailable { what: "a view of the storage".to_owned(), source })
    }

    async fn build(source: &Source, meta: Frozen) -> Result<Self> {
        let (records, mut problems) = Records::decode(&meta).await?;
        let mut complete = problems.is_empty();
        let manifest = match manifest::load(&meta, &source.objects).await {
            Ok(manifest) => manifest,
            // Its record is among the problems already.
            Err(_) if !complete => Manifest::empty(),
            Err(Error::Corrupt { key, why }) => {
                complete = false;
                let part = object::parse_manifest(&Path::from(key.as_str()));
                let about = part.map_or(About::Manifest, |(log, number)| About::ManifestPart { log, number });
                problems.push(Problem { key, why, about });
                Manifest::empty()
            }
            Err(error) => return Err(error),
        };
        let mut view = Self { meta, records, manifest, spans: Vec::new(), chains: BTreeMap::new(), problems, complete };
        if complete {
            view.follow(source).await?;
        }
        Ok(view)
    }

    /// The manifest's position: the first fragment that it does not have.
    pub fn position(&self) -> FragmentId {
        self.records.position()
    }

    /// What follows the manifest.
    async fn follow(&mut self, source: &Source) -> Result<()> {
        let mut chains = chains::Chains::new(&self.records, &self.manifest);
        let position = self.position();
        for (number, record) in &self.records.logs {
            for (segment, ends) in (0_u32..).zip(&record.segments) {
                if (*number, segment) < (position.log, position.segment) {
                    continue;
                }
                let is_first = (*number, segment) == (position.log, position.segment);
                let from = if is_first { position.fragment } else { 0 };
                let wanted = objects::Wanted { log: *number, segment, from, end: ends.end, writer: record.writer };
                let mut each = |index: &FragmentIndex| chains.replay(index);
                let (span, found) = match source.layout {
                    Layout::Objects => objects::read_span(&source.gets, wanted, &mut each).await?,
                    Layout::Files => files::read_span(&source.gets, wanted, &mut each).await?,
                };
                self.spans.push(span);
                self.problems.extend(found);
            }
        }
        let (chains, found) = chains.finish();
        self.chains = chains;
        self.problems.extend(found);
        Ok(())
    }

    /// Whether what was seen may be due to the owner having moved on since the view's revision.
    fn is_outdated(&self, now: &Records) -> bool {
        let position = now.position();
        let dropped = |problem: &Problem| match problem.about {
            About::Metadata | About::Partition(_) => false,
            About::Manifest => now.manifest != self.records.manifest,
            About::ManifestPart { log, number } => {
                let named = now.manifest.iter().flat_map(|record| &record.objects);
                !named.into_iter().any(|part| (part.log, part.number) == (log, number))
            }
            About::Fragment(id) => id < position && !planted::bug("missing-is-damage"),
        };
        let deleted = |span: &Span| {
            let end = FragmentId { log: span.log, segment: span.segment, fragment: span.end };
            span.ending != Ending::Recorded && end < position && !planted::bug("view-ends-where-it-was-deleted")
        };
        self.problems.iter().any(dropped) || self.spans.iter().any(deleted)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
