//! The embedded store: restarts, takeovers, zombies, unknown outcomes, snapshots, damage.

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload, path::Path};
use tokio::time::{sleep, timeout};

use super::*;
use crate::error::ErrorKind;
use crate::faults::{Fault, FaultPlan, FaultStore, Operation};
use crate::keys::object;

mod race;

fn options() -> EmbeddedOptions {
    EmbeddedOptions { snapshot_every: 1000, ..EmbeddedOptions::default() }
}

async fn open_with(store: &FaultStore, seed: u64, options: EmbeddedOptions) -> Result<EmbeddedStore> {
    let random = Random::from_seed(seed);
    EmbeddedStore::open(Arc::new(store.clone()), Incarnation::generate(&random), &random, options).await
}

async fn open(store: &FaultStore, seed: u64) -> EmbeddedStore {
    open_with(store, seed, options()).await.unwrap()
}

async fn put(owner: &EmbeddedStore, key: &str, value: &str) -> Result<TxnOutcome> {
    owner.commit(Txn::new().put(key, value.to_owned())).await
}

async fn value(owner: &EmbeddedStore, key: &str) -> Option<Bytes> {
    owner.get(key).await.unwrap().map(|entry| entry.value)
}

fn kind<T: std::fmt::Debug>(answer: Result<T>) -> ErrorKind {
    answer.expect_err("an error").kind()
}

async fn names(store: &FaultStore, prefix: &str) -> Vec<u64> {
    let prefix = Path::from(prefix);
    let listed: Vec<_> = store.inner().list(Some(&prefix)).try_collect().await.unwrap();
    listed.iter().filter_map(|meta| meta.location.filename()?.parse().ok()).collect()
}

/// Lets the snapshots that run beside finish.
async fn settle_down() {
    sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_everything_and_writes_one_object() {
    let store = FaultStore::in_memory();
    let first = open(&store, 1).await;
    assert_eq!(store.counts().puts, 1);
    let topic = crate::records::TopicRecord {
        id: uuid::Uuid::nil(),
        partitions: 10_000,
        configs: Default::default(),
        log_starts: Default::default(),
    };
    first.commit(Txn::new().put("topics/large", crate::records::encode(&topic))).await.unwrap();
    assert_eq!(store.counts().puts, 2, "a topic of ten thousand partitions is one write");
    for n in 0..100 {
        put(&first, &format!("k/{n:03}"), "v").await.unwrap();
    }
    let before = (store.counts().puts, first.list("").await.unwrap());
    let second = open(&store, 2).await;
    assert_eq!(second.list("").await.unwrap(), before.1);
    assert_eq!(store.counts().puts, before.0 + 1, "a restart writes its takeover and nothing else");
    put(&second, "a", "1").await.unwrap();
    let requests = store.counts();
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(store.counts(), requests, "nothing polls");
}

#[tokio::test(start_paused = true)]
async fn a_locked_folder_is_read_without_requests() {
    let store = FaultStore::in_memory();
    let owner = open_with(&store, 1, EmbeddedOptions { exclusive: true, ..options() }).await.unwrap();
    put(&owner, "a", "1").await.unwrap();
    let requests = store.counts();
    assert_eq!(value(&owner, "a").await, Some(Bytes::from("1")));
    assert!(matches!(owner.commit(Txn::new().if_absent("a")).await, Ok(TxnOutcome::Conflict { .. })));
    assert_eq!(store.counts(), requests);
}

#[tokio::test(start_paused = true)]
async fn the_owner_before_is_fenced_for_good_whatever_it_tries_first() {
    for attempt in 0..4 {
        let store = FaultStore::in_memory();
        let first = open(&store, 1).await;
        put(&first, "a", "1").await.unwrap();
        let mut watch = first.watch("", 1).await.unwrap();
        let second = open(&store, 2).await;
        put(&second, "a", "2").await.unwrap();
        let answer = match attempt {
            0 => kind(put(&first, "b", "1").await),
            1 => kind(first.get("a").await),
            2 => kind(first.list("").await),
            _ => kind(first.commit(Txn::new().if_absent("a").put("a", "3")).await),
        };
        assert_eq!(answer, ErrorKind::Fenced, "{attempt}");
        assert!(*first.fenced().borrow());
        let requests = store.counts();
        assert_eq!(kind(put(&first, "b", "1").await), ErrorKind::Fenced);
        assert_eq!(kind(first.get("a").await), ErrorKind::Fenced);
        assert_eq!(kind(first.watch("", 1).await), ErrorKind::Fenced);
        assert_eq!(store.counts(), requests, "fenced is for good");
        assert_eq!(watch.recv().await.unwrap().unwrap().revision, 1);
        assert!(matches!(watch.recv().await, Some(Err(Error::Fenced { .. }))));
        assert_eq!(value(&second, "a").await, Some(Bytes::from("2")));
        assert_eq!(value(&second, "b").await, None);
        assert!(!*second.fenced().borrow());
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_is_settled_before_anything_else() {
    for landed in [false, true] {
        for read_first in [false, true] {
            let store = FaultStore::in_memory();
            let owner = open(&store, 1).await;
            let fault = if landed { Fault::LandThenError } else { Fault::LandLate(Duration::from_secs(40)) };
            store.script(Operation::Put, "journal", 0, fault);
            let failing = vec![(1.0, Fault::FailBefore)];
            store.set_plan(FaultPlan { put: failing.clone(), get: failing, ..FaultPlan::default() });
            assert_eq!(kind(put(&owner, "a", "1").await), ErrorKind::Unknown);
            assert_eq!(kind(put(&owner, "b", "1").await), ErrorKind::Unknown);
            assert_eq!(kind(owner.get("a").await), ErrorKind::Retriable);
            store.set_plan(FaultPlan::default());
            if read_first {
                assert_eq!(value(&owner, "a").await, Some(Bytes::from("1")), "landed: {landed}");
            }
            let outcome = owner.commit(Txn::new().if_revision("a", 1).put("b", "2")).await;
            assert_eq!(outcome.unwrap(), TxnOutcome::Committed { revision: 2 }, "landed: {landed}");
            settle_down().await;
            store.land_due().await;
            let again = open(&store, 2).await;
            let entries = again.list("").await.unwrap().entries;
            let found: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_ref())).collect();
            assert_eq!(found, [("a", &b"1"[..]), ("b", b"2")], "landed: {landed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_caller_went_away_is_settled_by_the_next_call() {
    for fault in [Fault::LandThenHang, Fault::Hang, Fault::HangThenLandLate(Duration::from_secs(3))] {
        let store = FaultStore::in_memory();
        let owner = open(&store, 1).await;
        store.script(Operation::Put, "journal", 0, fault);
        assert!(timeout(Duration::from_secs(1), put(&owner, "a", "1")).await.is_err());
        assert_eq!(value(&owner, "a").await, Some(Bytes::from("1")), "{fault:?}");
        assert_eq!(put(&owner, "b", "1").await.unwrap(), TxnOutcome::Committed { revision: 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_beside_a_slow_commit() {
    let store = FaultStore::in_memory();
    let owner = open(&store, 1).await;
    put(&owner, "a", "1").await.unwrap();
    store.script(Operation::Put, "journal", 0, Fault::HangThenLandLate(Duration::from_secs(2)));
    let read = async {
        sleep(Duration::from_millis(10)).await;
        let began = tokio::time::Instant::now();
        let found = value(&owner, "a").await;
        (found, began.elapsed() < Duration::from_millis(10))
    };
    let (committed, read) = tokio::join!(put(&owner, "a", "2"), read);
    committed.unwrap();
    assert_eq!(read, (Some(Bytes::from("1")), true));
    assert_eq!(value(&owner, "a").await, Some(Bytes::from("2")));
}

/// A zombie that slept through hundreds of commits, snapshots and deletions still finds its number taken.
#[tokio::test(start_paused = true)]
async fn takeover_records_are_never_deleted() {
    let store = FaultStore::in_memory();
    let every = EmbeddedOptions { exclusive: true, snapshot_every: 4, ..EmbeddedOptions::default() };
    let mut zombies = vec![open_with(&store, 1, every).await.unwrap()];
    let mut takeovers = vec![1];
    for generation in 0..6 {
        let owner = open_with(&store, 10 + generation, every).await.unwrap();
        takeovers.push(names(&store, "meta/journal").await.last().copied().unwrap());
        for n in 0..20 {
            put(&owner, "n", &format!("{n}")).await.unwrap();
            settle_down().await;
        }
        zombies.push(owner);
    }
    let owner = zombies.pop().unwrap();
    for zombie in &zombies {
        assert_eq!(kind(put(zombie, "n", "zombie").await), ErrorKind::Fenced);
    }
    assert_eq!(value(&owner, "n").await, Some(Bytes::from("19")));
    let journal = names(&store, "meta/journal").await;
    assert!(takeovers.iter().all(|takeover| journal.contains(takeover)), "{takeovers:?} in {journal:?}");
    assert!(journal.len() <= takeovers.len() + 3 * 4, "what is superfluous is deleted: {journal:?}");
    assert_eq!(names(&store, "meta/snapshot").await.len(), 2);
    let again = open(&store, 99).await;
    assert_eq!(value(&again, "n").await, Some(Bytes::from("19")));
}

/// The number that an opener found to be the next is used, and deleted again, before its takeover arrives there.
#[tokio::test(start_paused = true)]
async fn an_opener_that_slept_is_not_misled_by_a_deleted_number() {
    let store = FaultStore::in_memory();
    let every = EmbeddedOptions { snapshot_every: 4, ..EmbeddedOptions::default() };
    let owner = open_with(&store, 1, every).await.unwrap();
    store.script(Operation::Put, "00002", 0, Fault::HangThenLandLate(Duration::from_millis(4500)));
    let opener = open_with(&store, 2, every);
    let work = async {
        sleep(Duration::from_secs(1)).await;
        for n in 0..20 {
            put(&owner, "n", &format!("{n}")).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        assert!(!names(&store, "meta/journal").await.contains(&2), "the number is free again");
    };
    let (opened, ()) = tokio::join!(opener, work);
    let opened = opened.unwrap();
    assert!(names(&store, "meta/journal").await.contains(&2), "the opener's first record landed there");
    assert_eq!(value(&opened, "n").await, Some(Bytes::from("19")));
    assert_eq!(kind(put(&owner, "n", "zombie").await), ErrorKind::Fenced);
    put(&opened, "n", "20").await.unwrap();
    assert_eq!(value(&open(&store, 3).await, "n").await, Some(Bytes::from("20")));
}

#[tokio::test(start_paused = true)]
async fn leased_keys_go_with_their_owner() {
    let store = FaultStore::in_memory();
    let first = open(&store, 1).await;
    let lease = first.grant_lease(Duration::from_secs(60)).await.unwrap();
    first.commit(Txn::new().put_leased("brokers/1", "", lease).put("kept", "")).await.unwrap();
    let second = open(&store, 2).await;
    assert_eq!((value(&second, "brokers/1").await, value(&second, "kept").await), (None, Some(Bytes::new())));
    assert_eq!(kind(second.keep_alive(lease).await), ErrorKind::Invalid);
    let listing = second.list("").await.unwrap();
    assert_eq!(open(&store, 3).await.list("").await.unwrap(), listing);
}

#[tokio::test(start_paused = true)]
async fn a_failing_snapshot_fails_nothing() {
    for fault in [Fault::PermissionDenied, Fault::Hang, Fault::FailBefore, Fault::LandThenError] {
        let store = FaultStore::in_memory();
        let every = EmbeddedOptions { snapshot_every: 2, ..EmbeddedOptions::default() };
        let owner = open_with(&store, 1, every).await.unwrap();
        for _ in 0..3 {
            store.script(Operation::Put, "snapshot", 0, fault);
        }
        for n in 0..30 {
            put(&owner, "n", &format!("{n}")).await.unwrap();
            settle_down().await;
        }
        assert!(names(&store, "meta/snapshot").await.len() <= 2);
        assert!(names(&store, "meta/journal").await.len() < 10);
        assert_eq!(value(&open(&store, 2).await, "n").await, Some(Bytes::from("29")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_bounds_what_a_restart_reads() {
    let store = FaultStore::in_memory();
    let every = EmbeddedOptions { snapshot_every: 10, ..EmbeddedOptions::default() };
    let owner = open_with(&store, 1, every).await.unwrap();
    for n in 0..200 {
        put(&owner, &format!("k/{n}"), "v").await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    settle_down().await;
    let before = store.counts();
    let again = open(&store, 2).await;
    let after = store.counts();
    assert!(after.gets - before.gets <= 20, "{} reads", after.gets - before.gets);
    assert_eq!(again.list("k/").await.unwrap().entries.len(), 200);
}

async fn overwrite(store: &FaultStore, path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = store.inner().get(path).await.unwrap().bytes().await.unwrap().to_vec();
    change(&mut bytes);
    store.inner().put(path, PutPayload::from(bytes)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn damage_is_refused_by_name() {
    async fn filled() -> FaultStore {
        let store = FaultStore::in_memory();
        let owner = open_with(&store, 1, EmbeddedOptions { snapshot_every: 6, ..options() }).await.unwrap();
        for n in 0..9 {
            put(&owner, "n", &format!("{n}")).await.unwrap();
        }
        settle_down().await;
        store
    }
    async fn refusal(store: &FaultStore, key: &Path, kind: ErrorKind) {
        let puts = store.counts().puts;
        let error = open_with(store, 2, options()).await.expect_err("it is damaged");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(key.as_ref()), "{error}");
        assert_eq!(store.counts().puts, puts, "nothing is taken over");
    }
    let (store, key) = (filled().await, object::journal(8));
    overwrite(&store, &key, |bytes| bytes[70] ^= 1).await;
    refusal(&store, &key, ErrorKind::Corrupt).await;
    let store = filled().await;
    overwrite(&store, &key, |bytes| bytes[8] = 2).await;
    refusal(&store, &key, ErrorKind::Corrupt).await;
    let store = filled().await;
    // Intact, and written by a newer program.
    let newer = |bytes: &mut Vec<u8>| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..52]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    };
    overwrite(&store, &key, newer).await;
    refusal(&store, &key, ErrorKind::Invalid).await;
    let store = filled().await;
    store.inner().delete(&key).await.unwrap();
    refusal(&store, &key, ErrorKind::Corrupt).await;
    let (store, key) = (filled().await, object::snapshot(6));
    overwrite(&store, &key, |bytes| bytes[70] ^= 1).await;
    refusal(&store, &key, ErrorKind::Corrupt).await;
}

/// A record of another history at the right number is not applied, though nothing is wrong with it as such.
#[tokio::test(start_paused = true)]
async fn a_record_that_does_not_follow_is_refused_by_name() {
    let (store, other) = (FaultStore::in_memory(), FaultStore::in_memory());
    for (store, seed) in [(&store, 1), (&other, 2)] {
        let owner = open(store, seed).await;
        for n in 0..3 {
            put(&owner, "n", &format!("{n}")).await.unwrap();
        }
    }
    let key = object::journal(3);
    let foreign = other.inner().get(&key).await.unwrap().bytes().await.unwrap();
    store.inner().put(&key, PutPayload::from_bytes(foreign)).await.unwrap();
    let error = open_with(&store, 3, options()).await.unwrap_err();
    assert!(error.to_string().contains(key.as_ref()) && error.kind() == ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_folder_with_foreign_files() {
    let folder = tempfile::tempdir().unwrap();
    let local = || {
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
        FaultStore::new(Arc::new(store), Random::from_seed(0), FaultPlan::default())
    };
    let every = EmbeddedOptions { exclusive: true, snapshot_every: 5, ..EmbeddedOptions::default() };
    let owner = open_with(&local(), 1, every).await.unwrap();
    for name in ["00000000000000000009#3", ".DS_Store", "0000000000000000000x", "99"] {
        std::fs::write(folder.path().join("meta/journal").join(name), b"foreign").unwrap();
    }
    for n in 0..20 {
        put(&owner, "n", &format!("{n}")).await.unwrap();
    }
    owner.close().await;
    drop(owner);
    let again = open_with(&local(), 2, every).await.unwrap();
    assert_eq!(value(&again, "n").await, Some(Bytes::from("19")));
}
