//! Verification: reads all that is needed, and says what is wrong with it.
//!
//! A running broker moves data while it is being read. So a unit that is missing, or not as it should be, is only suspected
//! until a view that was taken afterwards still refers to it; what is dropped never returns, so then it was referred to all
//! the time. If it does not, whatever that unit held is looked for where it is now, in another pass. Units do not change,
//! so that what was found intact once is not read again.

mod findings;

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use meta::error::Error as MetaError;
use meta::keys::object;
use meta::planted;
use storage::census::{Census, Role};
use storage::entry::{FragmentId, Run, TopicPartition};
use storage::error::Error;
use storage::scrub::{Fault, Scrubbed, scrub, scrub_fence};
use storage::view::{Layout, Needed, View};

use self::findings::Findings;
use super::access::Access;
use super::batches::BatchCheck;
use super::progress::Progress;
use super::report::Verification;
use super::{Found, ToolError};
use crate::node::StartError;

/// Units read at once: each takes a chunk and a footer of memory.
const SCRUBS: usize = 4;
/// Fences read at once.
const FENCES: usize = 16;
/// After so many passes what still moves is given up.
const PASSES: u64 = 100;

struct Verifier<'a> {
    access: &'a Access,
    progress: &'a Progress,
    findings: Findings,
    intact: BTreeSet<FragmentId>,
}

/// A unit in which something did not fit.
struct Suspect {
    unit: FragmentId,
    needed: Needed,
    found: Suspicion,
}

enum Suspicion {
    Missing,
    Faulty(Vec<Fault>),
}

pub async fn verify(access: &Access, progress: &Progress) -> Result<Verification, ToolError> {
    let mut verifier = Verifier { access, progress, findings: Findings::default(), intact: BTreeSet::new() };
    let revision = verifier.run().await?;
    let findings = verifier.findings;
    let mut report = Verification {
        revision,
        checked: findings.checked,
        damage: findings.damage.into_values().collect(),
        unchecked: findings.unchecked,
        orphans: findings.orphans.into_values().collect(),
        strange: findings.strange,
        ..Verification::nothing(access.subject.clone())
    };
    report.result = match report.found() {
        Found::Nothing => "intact",
        Found::Damage => "damaged",
        Found::Unreadable => "incomplete",
    };
    Ok(report)
}

/// The first look. None if the metadata itself is damaged, by the key given; fails if there is nothing at all.
pub async fn first_view(access: &Access) -> Result<Result<View, (String, String)>, ToolError> {
    match access.check_binding().await {
        Err(StartError::Storage(Error::Meta(MetaError::Corrupt { key, why }))) => return Ok(Err((key, why))),
        checked => checked?,
    }
    match View::load(&access.source, access).await {
        Err(Error::Corrupt { key, why } | Error::Meta(MetaError::Corrupt { key, why })) => Ok(Err((key, why))),
        Err(error) => Err(error.into()),
        Ok(view) if view.records.newest == 0 && view.records.logs.is_empty() => {
            for prefix in [object::logs_prefix(), object::manifests_prefix()] {
                if access.holds(prefix.clone()).await? {
                    let why = format!("there is none, although something is stored below {prefix}/");
                    return Ok(Err(("the metadata".to_owned(), why)));
                }
            }
            Err(ToolError::Empty { description: access.subject.storage.clone() })
        }
        Ok(view) => Ok(Ok(view)),
    }
}

impl Verifier<'_> {
    /// Returns the revision of the metadata that was looked at last. Fails only before anything is known; what fails later
    /// is told beside what was found.
    async fn run(&mut self) -> Result<u64, ToolError> {
        self.progress.begin("reading metadata and manifest", 0, 0);
        let first = first_view(self.access).await?;
        self.audit().await;
        let mut view = match first {
            Ok(view) => view,
            Err((key, why)) => {
                self.findings.damage(&key, why, Vec::new());
                self.findings.everything_else();
                return Ok(0);
            }
        };
        self.findings.take_view(&view);
        let mut todo = view.needed(&self.access.source);
        while view.complete && !todo.is_empty() {
            self.findings.checked.passes += 1;
            let suspects = self.pass(&view, todo).await;
            if suspects.is_empty() {
                break;
            }
            // Read after what was suspected.
            view = match View::load(&self.access.source, self.access).await {
                Ok(view) => view,
                Err(error) => {
                    self.undecided(&suspects, &error);
                    break;
                }
            };
            self.findings.take_view(&view);
            todo = self.judge(&view, suspects);
            if self.findings.checked.passes == PASSES {
                let moved = todo.keys().map(|unit| self.access.source.unit_key(*unit).to_string()).collect();
                self.findings.given_up(moved, "a running broker moved its records again and again");
                break;
            }
        }
        match view.complete {
            true => {
                self.fences(&view).await;
                self.count(&view).await;
            }
            false => self.findings.everything_else(),
        }
        Ok(view.meta.revision())
    }

    async fn audit(&mut self) {
        match self.access.audit().await {
            Ok(Some(audit)) => {
                self.findings.checked.journal_records = audit.records + audit.snapshots;
                for (key, why) in audit.damaged {
                    self.findings.damage(&key, why, Vec::new());
                }
            }
            Ok(None) => {}
            Err(error) => self.findings.failed("the journal", &error),
        }
    }

    /// The view that would tell whether these are damaged or have moved could not be had.
    fn undecided(&mut self, suspects: &[Suspect], error: &Error) {
        self.findings.failed("the metadata, read again", error);
        for Suspect { unit, found, .. } in suspects {
            let why = match found {
                Suspicion::Missing => "it is missing".to_owned(),
                Suspicion::Faulty(faults) => faults.iter().map(|fault| &*fault.why).collect::<Vec<_>>().join("; "),
            };
            let key = self.access.source.unit_key(*unit).to_string();
            self.findings.given_up(vec![key], &format!("{why}; whether it is still referred to could not be read"));
        }
    }

    /// What ends the segments whose ends are recorded, as far as they were fenced. None is ever deleted.
    async fn fences(&mut self, view: &View) {
        let source = &self.access.source;
        if source.layout() == Layout::Files {
            return;
        }
        let mut ends = Vec::new();
        for (log, record) in &view.records.logs {
            let numbered = (0_u32..).zip(&record.segments);
            let recorded = numbered.filter_map(|(segment, ends)| Some((segment, ends.end?)));
            ends.extend(recorded.map(|(segment, end)| FragmentId { log: *log, segment, fragment: end }));
        }
        let mut scrubs = stream::iter(ends)
            .map(|end| async move { (source.unit_key(end), scrub_fence(source, end).await) })
            .buffer_unordered(FENCES);
        while let Some((key, scrubbed)) = scrubs.next().await {
            match scrubbed {
                Ok(None) => {}
                Ok(Some(why)) => self.findings.damage(key.as_ref(), why, Vec::new()),
                Err(error) => self.findings.unchecked(key.as_ref(), &error),
            }
        }
    }

    /// Reads units. Returns those in which something did not fit.
    async fn pass(&mut self, view: &View, todo: BTreeMap<FragmentId, Needed>) -> Vec<Suspect> {
        let source = &self.access.source;
        let todo: Vec<_> =
            todo.into_iter().filter(|(unit, _)| !self.findings.is_damaged(source.unit_key(*unit).as_ref())).collect();
        let bytes = todo.iter().map(|(_, needed)| needed.bytes()).sum();
        self.progress.begin("verifying", todo.len() as u64, bytes);
        let progress = self.progress;
        let mut scrubs = stream::iter(todo)
            .map(|(unit, needed)| async move {
                let writer = view.records.logs.get(&unit.log).map(|log| log.writer);
                let scrubbed = scrub(source, unit, &needed, writer, &BatchCheck).await;
                progress.add(1, needed.bytes());
                (unit, needed, scrubbed)
            })
            .buffer_unordered(SCRUBS);
        let mut suspects = Vec::new();
        while let Some((unit, needed, scrubbed)) = scrubs.next().await {
            match scrubbed {
                Ok(Scrubbed { faults, bytes, fragments, entries }) if faults.is_empty() => {
                    self.intact.insert(unit);
                    let checked = &mut self.findings.checked;
                    checked.objects += 1;
                    checked.bytes += bytes;
                    checked.fragments += fragments;
                    checked.batches += entries;
                }
                Ok(scrubbed) => suspects.push(Suspect { unit, needed, found: Suspicion::Faulty(scrubbed.faults) }),
                Err(Error::Missing { .. }) => suspects.push(Suspect { unit, needed, found: Suspicion::Missing }),
                Err(error) => self.findings.unchecked(source.unit_key(unit).as_ref(), &error),
            }
        }
        suspects
    }

    /// What is still referred to is damaged. What is not has moved: returns where its records are now, as far as that was
    /// not read yet.
    fn judge(&mut self, view: &View, suspects: Vec<Suspect>) -> BTreeMap<FragmentId, Needed> {
        let source = &self.access.source;
        let mut now = view.needed(source);
        let mut moved: BTreeMap<TopicPartition, Vec<Run>> = BTreeMap::new();
        for Suspect { unit, needed, found } in suspects {
            let current = now.get(&unit);
            let key = source.unit_key(unit).to_string();
            let why = match found {
                Suspicion::Missing if current.is_some() || planted::bug("missing-is-damage") => {
                    vec!["it is missing, and referred to".to_owned()]
                }
                Suspicion::Missing => Vec::new(),
                Suspicion::Faulty(faults) => still_true(faults, current),
            };
            let partitions = self.findings.names(view, current.unwrap_or(&needed));
            why.into_iter().for_each(|why| self.findings.damage(&key, why, partitions.clone()));
            if !self.findings.is_damaged(&key) {
                needed.runs.into_iter().for_each(|(id, run)| moved.entry(id).or_default().push(run));
            }
        }
        let overlaps = |(id, run): &(TopicPartition, Run)| {
            let gone = moved.get(id).into_iter().flatten();
            gone.into_iter().any(|gone| gone.base_offset < run.next_offset && run.base_offset < gone.next_offset)
        };
        now.retain(|unit, needed| !self.intact.contains(unit) && needed.runs.iter().any(overlaps));
        now
    }

    /// What else lies in the storage.
    async fn count(&mut self, view: &View) {
        let needed = view.needed(&self.access.source);
        let census = Census::new(view, &self.access.source, &needed);
        self.progress.begin("listing", 0, 0);
        let mut unknown = Vec::new();
        let mut objects = self.access.source.store().list(None);
        while let Some(found) = objects.next().await {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let error = Error::Unavailable { what: "listing objects".to_owned(), source: Box::new(error) };
                    self.findings.unchecked("orphans and strange objects", &error);
                    break;
                }
            };
            match census.role(&found.location, found.size) {
                Role::UnknownLog(log) => unknown.push((log, found.location, found.size)),
                role => self.findings.count(role, &found.location, found.size),
            }
            self.progress.add(1, 0);
        }
        if !unknown.is_empty() {
            // Registered since, or never.
            let now = match View::load(&self.access.source, self.access).await {
                Ok(now) => now,
                Err(error) => return self.findings.failed("objects of logs that were not registered", &error),
            };
            for (log, key, bytes) in unknown {
                if !now.records.logs.contains_key(&log) {
                    self.findings.count(Role::Strange, &key, bytes);
                }
            }
        }
    }
}

/// Those faults that are about the unit itself, or about references that still exist. Nothing, if the unit is not needed.
fn still_true(faults: Vec<Fault>, current: Option<&Needed>) -> Vec<String> {
    let Some(current) = current else { return Vec::new() };
    let holds = |fault: &Fault| fault.run.as_ref().is_none_or(|run| current.runs.contains(run));
    faults.into_iter().filter(holds).map(|fault| fault.why).collect()
}

#[cfg(test)]
mod tests;
