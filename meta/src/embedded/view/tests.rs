//! Looking at a journal from outside: while its owner writes and trims it, when it is damaged, and without a trace.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::time::sleep;

use super::*;
use crate::embedded::{EmbeddedOptions, EmbeddedStore};
use crate::faults::{FaultPlan, FaultStore};
use crate::keys::object;
use crate::seams::Random;
use crate::store::{MetaStore, Txn};

async fn owner(store: &FaultStore, seed: u64, snapshot_every: u64) -> EmbeddedStore {
    let random = Random::from_seed(seed);
    let options = EmbeddedOptions { snapshot_every, ..EmbeddedOptions::default() };
    EmbeddedStore::open(Arc::new(store.clone()), Incarnation::generate(&random), &random, options).await.unwrap()
}

fn view(store: &FaultStore) -> EmbeddedView {
    EmbeddedView::new(Arc::new(store.clone()), Patience::default())
}

async fn put(owner: &EmbeddedStore, key: &str, value: u64) -> u64 {
    owner.commit(Txn::new().put(key, value.to_string())).await.unwrap();
    owner.list("").await.unwrap().revision
}

async fn everything(store: &FaultStore) -> Vec<(String, u64)> {
    let listed: Vec<_> = store.inner().list(None).try_collect().await.unwrap();
    let mut listed: Vec<_> = listed.into_iter().map(|object| (object.location.to_string(), object.size)).collect();
    listed.sort();
    listed
}

#[tokio::test(start_paused = true)]
async fn a_look_sees_what_the_owner_has_and_leaves_no_trace() {
    let store = FaultStore::in_memory();
    assert!(view(&store).look().await.unwrap().frozen.is_empty());
    let owner = owner(&store, 1, 10).await;
    for n in 0..35 {
        put(&owner, &format!("k/{}", n % 7), n).await;
    }
    sleep(Duration::from_secs(60)).await;
    let before = (store.counts().puts, store.counts().deletes, everything(&store).await);
    let look = view(&store).look().await.unwrap();
    assert_eq!(look.frozen.list("").await.unwrap(), owner.list("").await.unwrap());
    assert_eq!(look.next, 37, "a takeover and 35 records");
    assert!(look.snapshot >= 30, "snapshots every 10: {}", look.snapshot);
    assert_eq!(look.owner, Some(Incarnation::generate(&Random::from_seed(1))));
    let audit = view(&store).audit().await.unwrap();
    assert_eq!(audit.damaged, vec![]);
    assert_eq!((audit.snapshots, audit.takeovers), (2, 1));
    assert_eq!((store.counts().puts, store.counts().deletes, everything(&store).await), before);
    put(&owner, "still", 1).await;
    assert!(!*owner.fenced().borrow(), "its owner noticed nothing");
}

/// The owner trims its journal at any moment of a slow look: what is seen is never older than what was acknowledged before.
#[tokio::test(start_paused = true)]
async fn a_look_is_never_older_than_its_beginning() {
    for seed in 0..12 {
        let store = FaultStore::in_memory();
        let owner = owner(&store, seed, 2).await;
        let latency = FaultPlan::slow(Duration::ZERO..=Duration::from_millis(90));
        let slow = FaultStore::new(store.inner().clone(), Random::from_seed(seed), latency);
        let (acknowledged, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (reported, stop) = (acknowledged.clone(), done.clone());
        let writer = tokio::spawn(async move {
            for n in 0_u64.. {
                for _ in 0..7 {
                    reported.store(put(&owner, "k", n).await, Ordering::SeqCst);
                }
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                sleep(Duration::from_millis(150 + 37 * (n % 9))).await;
            }
        });
        let (view, mut seen) = (view(&slow), 0);
        for _ in 0..60 {
            let least = acknowledged.load(Ordering::SeqCst);
            match view.look().await {
                Ok(look) => {
                    seen += 1;
                    assert!(look.frozen.revision() >= least, "{} < {least}, seed {seed}", look.frozen.revision());
                }
                Err(error) => assert!(matches!(error, Error::Unavailable { .. }), "{error}"),
            }
        }
        assert!(seen > 10, "it was outrun nearly always: {seen}");
        done.store(true, Ordering::SeqCst);
        writer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn damage_and_gaps_are_named() {
    let store = FaultStore::in_memory();
    let owner = owner(&store, 1, 1000).await;
    for n in 0..5 {
        put(&owner, "k", n).await;
    }
    let path = object::journal(4);
    let bytes = store.inner().get(&path).await.unwrap().bytes().await.unwrap();
    let mut flipped = bytes.to_vec();
    *flipped.last_mut().unwrap() ^= 4;
    store.inner().put(&path, PutPayload::from(flipped)).await.unwrap();
    let named = |result: Result<Look>| match result {
        Err(Error::Corrupt { key, .. }) => assert_eq!(key, path.to_string()),
        other => panic!("{other:?}"),
    };
    named(view(&store).look().await);
    let audit = view(&store).audit().await.unwrap();
    assert_eq!(audit.damaged.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), vec![path.to_string()]);
    store.inner().delete(&path).await.unwrap();
    named(view(&store).look().await);
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_program_wrote_is_refused_by_name() {
    let store = FaultStore::in_memory();
    let owner = owner(&store, 1, 1000).await;
    put(&owner, "k", 1).await;
    let path = object::journal(2);
    let mut bytes = store.inner().get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[8] = 2;
    let damaged = bytes.clone();
    let crc = crc32c::crc32c(&bytes[..52]);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    store.inner().put(&path, PutPayload::from(bytes)).await.unwrap();
    let refused = view(&store).look().await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid { what } if what.contains(path.as_ref()) && what.contains("version 2")));
    store.inner().put(&path, PutPayload::from(damaged)).await.unwrap();
    assert!(matches!(view(&store).look().await, Err(Error::Corrupt { .. })), "a damaged version is not a newer one");
}
