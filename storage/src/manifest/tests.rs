//! The manifest against a plain model, its bytes against damage, and its commits against faults.

use std::sync::Arc;
use std::time::Duration;

use meta::faults::{FaultPlan, FaultStore};
use meta::keys::object;
use meta::memory::MemoryStore;
use meta::seams::{Incarnation, Random};
use object_store::memory::InMemory;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::registry;
use crate::tiered::TieredObjects;

const WRITER: Incarnation = Incarnation(7);

fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: Uuid::from_u128(5), partition: number }
}

fn run(fragment: FragmentId, base_offset: i64, next_offset: i64) -> Run {
    Run {
        fragment,
        base_offset,
        next_offset,
        max_timestamp: base_offset * 10,
        leader_epoch: 3,
        file_position: 17,
        position: 80,
        length: 100,
        index_position: 180,
        index_length: 64,
    }
}

fn fragment(number: u64) -> FragmentId {
    FragmentId { log: 3, segment: 0, fragment: number }
}

/// Offsets of one partition: what the manifest must say about it, as a plain list of runs.
#[derive(Debug, Clone, Default)]
struct Model {
    runs: Vec<Run>,
    end: i64,
    log_start: i64,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many runs come at the end of a partition.
    Append {
        partition: i32,
        lengths: Vec<i64>,
    },
    /// The runs from one place to another become one.
    Merge {
        partition: i32,
        from: prop::sample::Index,
        to: prop::sample::Index,
    },
    /// The beginning moves up, perhaps beyond everything.
    Truncate {
        partition: i32,
        by: i64,
    },
    Delete {
        partition: i32,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0..3_i32;
    let step = prop_oneof![
        4 => (partition.clone(), prop::collection::vec(1..20_i64, 1..4))
            .prop_map(|(partition, lengths)| Step::Append { partition, lengths }),
        2 => (partition.clone(), any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(partition, from, to)| Step::Merge { partition, from, to }),
        2 => (partition.clone(), 1..60_i64).prop_map(|(partition, by)| Step::Truncate { partition, by }),
        1 => partition.prop_map(|partition| Step::Delete { partition }),
    ];
    prop::collection::vec(step, 1..40)
}

impl Model {
    /// Changes it, and says how the manifest is told. `number` makes fragments' names.
    fn step(&mut self, step: &Step, number: u64) -> Part {
        match step {
            Step::Append { partition: id, lengths } => {
                let from = self.end;
                let added = lengths.iter().map(|length| {
                    let base_offset = self.end;
                    self.end += length;
                    run(fragment(number), base_offset, self.end)
                });
                let added: Vec<_> = added.collect();
                self.runs.extend(&added);
                let stretch = Stretch { from, to: from, runs: added };
                let producers = Some(Bytes::from(number.to_string()));
                Part { stretches: vec![stretch], producers, ..Part::of(partition(*id), self.log_start, 0) }
            }
            Step::Merge { partition: id, from, to } => {
                let mut part = Part::of(partition(*id), self.log_start, self.log_start);
                if self.runs.is_empty() {
                    return part;
                }
                let (from, to) = (from.index(self.runs.len()), to.index(self.runs.len()));
                let (from, to) = (from.min(to), from.max(to));
                let (begin, end) = (self.runs[from].base_offset, self.runs[to].next_offset);
                let one = Run {
                    max_timestamp: self.runs[to].max_timestamp,
                    ..run(FragmentId::tiered(3, number), begin, end)
                };
                self.runs.splice(from..=to, [one]);
                part.stretches.push(Stretch { from: begin, to: end, runs: vec![one] });
                part
            }
            Step::Truncate { partition: id, by } => {
                self.log_start += by;
                // More was appended and deleted without ever being in the manifest.
                self.end = self.end.max(self.log_start);
                self.runs.retain(|run| run.next_offset > self.log_start);
                Part::of(partition(*id), self.log_start, 0)
            }
            Step::Delete { partition: id } => {
                *self = Self::default();
                Part { gone: true, ..Part::of(partition(*id), 0, 0) }
            }
        }
    }

    fn is(&self, checkpoint: Option<&Checkpoint>) -> bool {
        let Some(checkpoint) = checkpoint else { return self.runs.is_empty() && self.end == 0 };
        checkpoint.index.runs().eq(&self.runs)
            && checkpoint.index.next_offset() == self.end
            && checkpoint.index.log_start() == self.log_start
    }
}

fn id_of(step: &Step) -> i32 {
    match step {
        Step::Append { partition, .. }
        | Step::Merge { partition, .. }
        | Step::Truncate { partition, .. }
        | Step::Delete { partition } => *partition,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However partitions grow, are merged, truncated and deleted: what is read back is what a plain list says, whether
    /// it was written as changes or as one base.
    #[test]
    fn changes_are_what_a_plain_list_says(steps in steps()) {
        let mut models = vec![Model::default(); 3];
        let mut manifest = Manifest::empty();
        for (number, step) in (1_u64..).zip(&steps) {
            let part = models[id_of(step) as usize].step(step, number);
            let change = Change { position: fragment(number), parts: vec![part] };
            let encoded = encode(&change, false, 3, number, WRITER);
            let (decoded, base) = decode(&encoded.bytes, 3, number).unwrap();
            prop_assert_eq!(&decoded, &change);
            prop_assert!(!base);
            manifest.apply(decoded).unwrap();
            for (id, model) in (0..).zip(&models) {
                let found = manifest.partitions.get(&partition(id));
                prop_assert!(model.is(found), "partition {id} after {step:?}: {found:?} is not {model:?}");
            }
        }
        let parts = manifest.partitions.iter().map(|(id, checkpoint)| {
            let index = &checkpoint.index;
            let mut part = Part::of(*id, index.log_start(), checkpoint.cleaned_to);
            let runs: Vec<_> = index.runs().copied().collect();
            if let Some(first) = runs.first() {
                part.stretches.push(Stretch { from: first.base_offset, to: first.base_offset, runs });
            }
            part.producers = Some(checkpoint.producers.clone());
            part
        });
        let base = Change { position: manifest.position, parts: parts.collect() };
        let (decoded, is_base) = decode(&encode(&base, true, 3, 0, WRITER).bytes, 3, 0).unwrap();
        prop_assert!(is_base);
        let mut anew = Manifest::empty();
        anew.apply(decoded).unwrap();
        prop_assert!(anew.partitions.keys().eq(manifest.partitions.keys()));
        for (id, model) in (0..).zip(&models) {
            prop_assert!(model.is(anew.partitions.get(&partition(id))), "partition {id} of the base");
        }
    }

    /// Any bytes give a value or an error.
    #[test]
    fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes, 3, 1);
    }
}

#[test]
fn every_damaged_byte_is_found() {
    let part = Model::default().step(&Step::Append { partition: 1, lengths: vec![3, 4] }, 1);
    let change = Change { position: fragment(9), parts: vec![part] };
    let good = encode(&change, true, 3, 1, WRITER).bytes;
    for place in 0..good.len() {
        let mut bad = good.to_vec();
        bad[place] ^= 0x10;
        assert!(decode(&bad, 3, 1).is_err(), "byte {place}");
        assert!(decode(&good[..place], 3, 1).is_err(), "cut at {place}");
    }
    assert!(decode(&good, 3, 2).is_err(), "under another number");
}

#[test]
fn a_change_that_does_not_join_is_refused() {
    let mut manifest = Manifest::empty();
    let append = |from: i64, to: i64| {
        let stretch = Stretch { from, to: from, runs: vec![run(fragment(1), from, to)] };
        Part { stretches: vec![stretch], ..Part::of(partition(0), 0, 0) }
    };
    manifest.apply(Change { position: fragment(2), parts: vec![append(0, 10)] }).unwrap();
    for part in [append(11, 12), append(9, 12)] {
        let refused = manifest.clone().apply(Change { position: fragment(3), parts: vec![part] }).unwrap_err();
        assert!(refused.to_string().contains(&partition(0).to_string()), "{refused}");
    }
    let back = Change { position: fragment(1), parts: Vec::new() };
    assert!(manifest.apply(back).unwrap_err().to_string().contains("moves back"));
}

struct Rig {
    meta: Arc<MemoryStore>,
    objects: TieredObjects,
    log: u64,
}

impl Rig {
    async fn new() -> Self {
        let meta = Arc::new(MemoryStore::new());
        let log = registry::register(&*meta, WRITER, &[]).await.unwrap();
        Self { meta, objects: TieredObjects::new(Arc::new(InMemory::new())), log }
    }

    async fn open(&self) -> ManifestStore {
        ManifestStore::open(self.meta.clone(), self.objects.clone(), self.log, WRITER).await.unwrap()
    }

    async fn recover_from(&self) -> u64 {
        registry::load(&*self.meta, self.log).await.unwrap().0.recover_from
    }
}

#[tokio::test]
async fn a_commit_is_what_the_next_start_reads() {
    let rig = Rig::new().await;
    let mut store = rig.open().await;
    let mut model = Model::default();
    assert_eq!(store.advice(), Commit::Base, "there is nothing to change yet");
    let mut named = 0;
    let mut dropped = 0;
    for number in 1..200_u64 {
        let part = model.step(&Step::Append { partition: 0, lengths: vec![5] }, number);
        let position = FragmentId { log: rig.log, segment: 0, fragment: number };
        let (mut change, kind) = (Change { position, parts: vec![part] }, store.advice());
        if kind == Commit::Base {
            let stretch = Stretch { from: 0, to: 0, runs: model.runs.clone() };
            change.parts[0].stretches = vec![stretch];
        }
        dropped += store.commit(&change, kind).await.unwrap().len();
        named = store.named().len();
        assert!(named <= 65, "changes are folded into a base now and then");
        let read = load(&*rig.meta, &rig.objects).await.unwrap();
        assert_eq!(read.position, position);
        assert!(model.is(read.partitions.get(&partition(0))), "after commit {number}");
        assert_eq!(rig.recover_from().await, number, "recovery begins where the manifest ends");
    }
    assert_eq!(named + dropped, 199, "every part is named, or was handed out to be deleted");
}

#[tokio::test]
async fn a_part_that_is_missing_is_told_by_name() {
    let rig = Rig::new().await;
    let mut store = rig.open().await;
    let part = Model::default().step(&Step::Append { partition: 0, lengths: vec![5] }, 1);
    let position = FragmentId { log: rig.log, segment: 0, fragment: 1 };
    store.commit(&Change { position, parts: vec![part] }, Commit::Base).await.unwrap();
    let key = object::manifest(rig.log, 0);
    rig.objects.delete(vec![key.clone()]).await.unwrap();
    let error = load(&*rig.meta, &rig.objects).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains(key.as_ref()), "{error}");
}

/// Whoever has not seen the newest manifest cannot change it, and what they wrote is an orphan.
#[tokio::test]
async fn of_two_writers_one_is_refused() {
    let rig = Rig::new().await;
    let mut old = rig.open().await;
    // Parts of one writer have one name: the second is another start.
    let mut new =
        ManifestStore::open(rig.meta.clone(), rig.objects.clone(), rig.log + 1, Incarnation(8)).await.unwrap();
    let position = FragmentId { log: rig.log, segment: 0, fragment: 1 };
    let change = Change { position, parts: Vec::new() };
    new.commit(&change, Commit::Base).await.unwrap();
    let refused = old.commit(&change, Commit::Base).await.unwrap_err();
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
}

/// Recovery looks from where it was told to: nothing from there on may be dropped while it does.
#[tokio::test]
async fn while_a_log_is_being_sealed_its_fragments_stay() {
    let rig = Rig::new().await;
    let mut store = rig.open().await;
    let at = |number| Change { position: FragmentId { log: rig.log, segment: 0, fragment: number }, parts: Vec::new() };
    store.commit(&at(3), Commit::Base).await.unwrap();
    let sealing = registry::begin_sealing(&*rig.meta, rig.log).await.unwrap();
    assert_eq!(sealing.recover_from, 3);
    let refused = store.commit(&at(5), Commit::Change).await.unwrap_err();
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
    assert_eq!(load(&*rig.meta, &rig.objects).await.unwrap().position.fragment, 3);
    assert_eq!(rig.recover_from().await, 3);
}

/// All that the models have, as a base.
fn base_of(models: &[Model], position: FragmentId) -> Change {
    let mut parts = Vec::new();
    for (id, model) in (0..).zip(models).filter(|(_, model)| model.end > 0) {
        let mut part = Part::of(partition(id), model.log_start, 0);
        if let Some(first) = model.runs.first() {
            let stretch = Stretch { from: first.base_offset, to: first.base_offset, runs: model.runs.clone() };
            part.stretches.push(stretch);
        }
        parts.push(part);
    }
    Change { position, parts }
}

async fn commits_until_it_dies(steps: &[Step], seed: u64) {
    let random = Random::from_seed(seed);
    let latency = Duration::from_millis(1)..=Duration::from_millis(20);
    let plan = FaultPlan { latency, ..FaultPlan::ambiguous(0.05) };
    let stored = Arc::new(InMemory::new());
    let store = FaultStore::new(stored.clone(), random.clone(), plan);
    let (meta, objects) = (Arc::new(MemoryStore::new()), TieredObjects::new(Arc::new(store)));
    // What is there, and not what becomes of it on the way: now and then a reply is damaged in the same way twice.
    let unharmed = TieredObjects::new(stored);
    let mut models = vec![Model::default(); 3];
    let mut steps = (1_u64..).zip(steps).peekable();
    for life in 0_u128.. {
        let writer = Incarnation(life + 1);
        let log = registry::register(&*meta, writer, &[]).await.unwrap();
        let mut commits = ManifestStore::open(meta.clone(), objects.clone(), log, writer).await.unwrap();
        let Some(_) = steps.peek() else { return };
        for (number, step) in steps.by_ref() {
            let mut after = models.clone();
            let part = after[id_of(step) as usize].step(step, number);
            let position = FragmentId { log, segment: 0, fragment: number };
            let kind = if random.next_u64().is_multiple_of(8) { Commit::Base } else { commits.advice() };
            let change = match kind {
                Commit::Base => base_of(&after, position),
                Commit::Change => Change { position, parts: vec![part] },
            };
            let dies_after = Duration::from_millis(random.next_u64() % 120);
            let committed = tokio::time::timeout(dies_after, commits.commit(&change, kind)).await;
            let manifest = load(&*meta, &unharmed).await.unwrap();
            let is = |models: &[Model]| {
                (0..).zip(models).all(|(id, model)| model.is(manifest.partitions.get(&partition(id))))
            };
            let (done, is_after) = (matches!(committed, Ok(Ok(_))), is(&after));
            assert!(is_after || (!done && is(&models)), "{step:?} of {models:?}, done: {done}: {manifest:?}");
            if is_after {
                models = after;
            }
            if !done {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever moment a writer dies at, and whatever the store does meanwhile: the next one finds the manifest as it was
    /// before the last commit, or after it.
    #[test]
    fn a_crash_leaves_the_manifest_before_a_commit_or_after(steps in steps(), seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(commits_until_it_dies(&steps, seed));
    }
}
