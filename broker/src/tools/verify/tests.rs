//! When a suspicion is damage, and what is told of how often.

use std::sync::Arc;

use super::super::access::{Metadata, Subject};
use super::super::inspect::inspect;
use super::*;
use crate::cli::Inspect;
use meta::embedded::{EmbeddedOptions, EmbeddedStore, EmbeddedView};
use meta::faults::{Fault as StoreFault, FaultPlan, FaultStore};
use meta::keys::store as keys;
use meta::records::{LogCounterRecord, LogRecord, LogState, SegmentRecord, encode};
use meta::seams::{Incarnation, Random};
use meta::settled::Patience;
use meta::store::{MetaStore, Txn};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use storage::census::Orphan;
use storage::view::Source;
use uuid::Uuid;

fn reference(base_offset: i64) -> (TopicPartition, Run) {
    let run = Run {
        fragment: FragmentId::tiered(1, 2),
        base_offset,
        next_offset: base_offset + 10,
        max_timestamp: -1,
        leader_epoch: 1,
        file_position: 0,
        position: 80,
        length: 100,
        index_position: 180,
        index_length: 64,
    };
    (TopicPartition { topic: Uuid::from_u128(1), partition: 0 }, run)
}

#[test]
fn only_what_is_still_referred_to_is_damage() {
    let faults = || {
        let of = |why: &str, run| Fault { why: why.to_owned(), run };
        vec![of("itself", None), of("kept", Some(reference(0))), of("dropped", Some(reference(10)))]
    };
    let current = Needed { runs: vec![reference(0), reference(20)], fragments: 1 };
    assert_eq!(still_true(faults(), Some(&current)), vec!["itself", "kept"]);
    assert!(still_true(faults(), None).is_empty(), "nothing needs the unit any more");
}

#[test]
fn each_thing_is_told_once_and_examples_are_few() {
    let mut findings = Findings::default();
    for _ in 0..3 {
        findings.damage("logs/1", "torn".to_owned(), vec!["t-0".to_owned()]);
        findings.damage("logs/1", "lost".to_owned(), Vec::new());
    }
    let damage = &findings.damage["logs/1"];
    assert_eq!((damage.why.clone(), damage.partitions.len()), (vec!["torn".to_owned(), "lost".to_owned()], 1));
    assert!(findings.is_damaged("logs/1") && !findings.is_damaged("logs/2"));
    for number in 0..1_500 {
        findings.count(Role::Orphan(Orphan::LeftBehind), &Path::from(format!("o/{number}")), 10);
        findings.count(Role::Strange, &Path::from(format!("s/{number}")), 1);
        findings.count(Role::Fence, &Path::from(keys::LOGS), 80);
    }
    let orphans = &findings.orphans[&Orphan::LeftBehind];
    assert_eq!((orphans.objects, orphans.bytes, orphans.keys.len()), (1_500, 15_000, 20));
    assert_eq!((findings.strange.len(), findings.checked.fences), (1_000, 1_500));
}

/// A bucket whose only log ended after a fragment that is missing. Metadata and data can fail apart from each other.
struct Bucket {
    journal: FaultStore,
    data: FaultStore,
    owner: EmbeddedStore,
}

impl Bucket {
    async fn new() -> Self {
        let (journal, data) = (FaultStore::in_memory(), FaultStore::in_memory());
        let (writer, random) = (Incarnation(7), Random::from_seed(1));
        let options = EmbeddedOptions::default();
        let owner = EmbeddedStore::open(Arc::new(journal.clone()), writer, &random, options).await.unwrap();
        let segments = vec![SegmentRecord { end: Some(1) }];
        let log = encode(&LogRecord { writer, state: LogState::Sealed, segments, recover_from: 0 });
        let counter = encode(&LogCounterRecord { newest: 1 });
        owner.commit(Txn::new().put(keys::log(1), log).put(keys::LOG_COUNTER, counter)).await.unwrap();
        Self { journal, data, owner }
    }

    fn access(&self) -> Access {
        Access {
            source: Source::new(Arc::new(self.data.clone()), Layout::Objects),
            metadata: Metadata::Embedded(EmbeddedView::new(Arc::new(self.journal.clone()), Patience::default())),
            subject: Subject { storage: "a bucket".to_owned(), metadata: "embedded".to_owned() },
        }
    }

    async fn verify(&self) -> (Verification, Vec<String>) {
        let report = verify(&self.access(), &Progress::new(false)).await.unwrap();
        let damaged = report.damage.iter().map(|damage| damage.key.clone()).collect();
        (report, damaged)
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_later_does_not_hide_damage() {
    let bucket = Bucket::new().await;
    let (report, damaged) = bucket.verify().await;
    let missing = object::fragment(1, 0, 0).to_string();
    assert_eq!((report.found(), &damaged), (Found::Damage, &vec![missing.clone()]));
    assert_eq!(report.unchecked, vec![]);
    bucket.data.set_plan(FaultPlan { other: vec![(1.0, StoreFault::FailBefore)], ..FaultPlan::default() });
    let (report, damaged) = bucket.verify().await;
    assert_eq!((report.result, damaged), ("damaged", vec![missing]));
    assert!(report.unchecked[0].why.contains("listing objects"), "{:?}", report.unchecked);
}

/// What was suspected cannot be judged without another view: it is told, and is no damage.
#[tokio::test(start_paused = true)]
async fn a_suspicion_that_nobody_can_confirm_is_told_as_such() {
    let access = Bucket::new().await.access();
    let progress = Progress::new(false);
    let mut verifier =
        Verifier { access: &access, progress: &progress, findings: Findings::default(), intact: BTreeSet::new() };
    let suspect = Suspect { unit: FragmentId::tiered(1, 2), needed: Needed::default(), found: Suspicion::Missing };
    let away = || Error::Unavailable { what: "etcd".to_owned(), source: "no answer".into() };
    verifier.undecided(&[suspect], &away());
    assert!(verifier.findings.damage.is_empty());
    let keys: Vec<_> = verifier.findings.unchecked.iter().map(|unchecked| unchecked.key.as_str()).collect();
    assert_eq!(keys, vec!["the metadata, read again", FragmentId::tiered(1, 2).key().as_ref()]);
    let corrupt = Error::Corrupt { key: "k".to_owned(), why: "torn".to_owned() };
    verifier.findings.failed("the metadata, read again", &corrupt);
    assert!(verifier.findings.is_damaged("k"));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_fence_is_damage() {
    let bucket = Bucket::new().await;
    let end = object::fragment(1, 0, 1);
    bucket.data.put(&end, PutPayload::from(vec![7; 80])).await.unwrap();
    let (report, damaged) = bucket.verify().await;
    assert!(damaged.contains(&end.to_string()), "{report:?}");
    assert_eq!(report.checked.fences, 1, "by its length it is one");
}

/// Damaged metadata, or the object that says where it is: that nothing else was looked at is said, in a document.
#[tokio::test(start_paused = true)]
async fn damaged_metadata_is_told_in_a_document() {
    let record = Bucket::new().await;
    record.owner.commit(Txn::new().put(keys::MANIFEST, "nonsense")).await.unwrap();
    let binding = Bucket::new().await;
    binding.data.put(&object::binding(), PutPayload::from("nonsense")).await.unwrap();
    let journal = Bucket::new().await;
    let first = object::journal(1);
    journal.journal.put(&first, PutPayload::from("nonsense")).await.unwrap();
    let keys = [keys::MANIFEST.to_owned(), object::binding().to_string(), first.to_string()];
    for (bucket, key) in [record, binding, journal].iter().zip(keys) {
        let (report, damaged) = bucket.verify().await;
        assert_eq!((report.found(), &damaged), (Found::Damage, &vec![key.clone()]));
        assert_eq!(report.unchecked[0].key, "everything else", "{report:?}");
        let partition = Inspect::Partition { topic: "t".to_owned(), partition: 0 };
        for what in [Inspect::Overview, Inspect::Fragments, partition] {
            let shown = inspect(&bucket.access(), &what, &Progress::new(false)).await.unwrap();
            assert_eq!((shown.found(), &shown.damage[0].key), (Found::Damage, &key));
            assert_eq!(shown.unchecked[0].key, "everything else");
            assert!(shown.objects.is_none());
        }
    }
}
