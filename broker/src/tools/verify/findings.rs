//! What verification has found so far, each thing once.

use std::collections::{BTreeMap, BTreeSet};

use meta::error::Error as MetaError;
use object_store::path::Path;
use storage::census::{Orphan, Role};
use storage::entry::TopicPartition;
use storage::error::Error;
use storage::view::{Needed, Problem, View};

use super::super::report::{Checked, Damage, Object, Orphans, Unchecked};
use crate::partition::producers::Producers;

/// Keys, and names of partitions, that are told of one thing.
const EXAMPLES: usize = 20;
/// Strange objects that are told.
const STRANGE: usize = 1000;

#[derive(Default)]
pub struct Findings {
    pub checked: Checked,
    pub damage: BTreeMap<String, Damage>,
    pub unchecked: Vec<Unchecked>,
    pub orphans: BTreeMap<Orphan, Orphans>,
    pub strange: Vec<Object>,
}

impl Findings {
    pub fn damage(&mut self, key: &str, why: String, partitions: Vec<String>) {
        let damage = self.damage.entry(key.to_owned());
        let damage = damage.or_insert_with(|| Damage { key: key.to_owned(), why: Vec::new(), partitions });
        if !damage.why.contains(&why) {
            damage.why.push(why);
        }
    }

    pub fn is_damaged(&self, key: &str) -> bool {
        self.damage.contains_key(key)
    }

    pub fn unchecked(&mut self, key: &str, error: &Error) {
        self.unchecked.push(Unchecked { key: key.to_owned(), why: error.to_string() });
    }

    /// Something that could not be looked at: it is damaged, if that is why.
    pub fn failed(&mut self, key: &str, error: &Error) {
        match error {
            Error::Corrupt { key, why } | Error::Meta(MetaError::Corrupt { key, why }) => {
                self.damage(key, why.clone(), Vec::new());
            }
            error => self.unchecked(key, error),
        }
    }

    /// These were looked at, and could not be judged.
    pub fn given_up(&mut self, keys: Vec<String>, why: &str) {
        self.unchecked.extend(keys.into_iter().map(|key| Unchecked { key, why: why.to_owned() }));
    }

    /// What there should be is not known, so nothing else was looked at.
    pub fn everything_else(&mut self) {
        self.unchecked.push(Unchecked::everything_else());
    }

    /// What was wrong already when the view was taken, and what can be checked without reading any data.
    pub fn take_view(&mut self, view: &View) {
        self.checked.partitions = view.chains.len() as u64;
        self.checked.metadata_records = view.meta.entries().count() as u64;
        self.checked.manifest_parts = view.records.manifest.iter().map(|record| record.objects.len() as u64).sum();
        for Problem { key, why, .. } in &view.problems {
            self.damage(key, why.clone(), Vec::new());
        }
        for (id, chain) in &view.chains {
            if let Err(error) = Producers::new(usize::MAX).restore(&chain.producers) {
                let name = name(view, *id);
                self.damage(
                    &format!("the producers of partition {name} in the manifest"),
                    error.to_string(),
                    vec![name],
                );
            }
        }
        let known: BTreeSet<_> = self.strange.iter().map(|object| object.key.clone()).collect();
        let unknown = view.records.unknown.iter().map(|key| format!("metadata: {key}"));
        let unknown = unknown.filter(|key| !known.contains(key));
        self.strange.extend(unknown.map(|key| Object { key, bytes: 0 }));
    }

    /// Partitions with records in a unit, a few of them.
    pub fn names(&self, view: &View, needed: &Needed) -> Vec<String> {
        let ids: BTreeSet<_> = needed.runs.iter().map(|(id, _)| *id).collect();
        ids.into_iter().take(EXAMPLES).map(|id| name(view, id)).collect()
    }

    /// An object that was listed.
    pub fn count(&mut self, role: Role, key: &Path, bytes: u64) {
        match role {
            Role::Fence => self.checked.fences += 1,
            Role::Orphan(orphan) => {
                let reason = orphan.reason();
                let none = || Orphans { reason, objects: 0, bytes: 0, keys: Vec::new() };
                let orphans = self.orphans.entry(orphan).or_insert_with(none);
                orphans.objects += 1;
                orphans.bytes += bytes;
                if orphans.keys.len() < EXAMPLES {
                    orphans.keys.push(key.to_string());
                }
            }
            Role::Strange if self.strange.len() < STRANGE => {
                self.strange.push(Object { key: key.to_string(), bytes });
            }
            Role::Strange | Role::Data | Role::Manifest | Role::Metadata | Role::Lock | Role::UnknownLog(_) => {}
        }
    }
}

/// `TOPIC-PARTITION`.
pub fn name(view: &View, id: TopicPartition) -> String {
    match view.records.topics.get(&id.topic) {
        Some(topic) => format!("{}-{}", topic.name, id.partition),
        None => id.to_string(),
    }
}
