//! Conformance of a metadata store to the contract of `store`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, ErrorKind};
use crate::store::{Event, KeyValue, LeaseId, MetaStore, Revision, Txn, TxnOutcome, Watch, WatchBatch};

/// How long a watch may take to deliver, and an expired lease to be noticed.
const SOON: Duration = Duration::from_secs(10);

type Store = Arc<dyn MetaStore>;

/// Runs every case, each on a store of its own that `make` opens, empty as far as this caller can see.
pub async fn metastore<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Store>,
{
    reads_and_revisions(make().await).await;
    listings(make().await).await;
    comparisons(make().await).await;
    transactions_without_effect(make().await).await;
    large_transactions(make().await).await;
    competing_commits(make().await).await;
    watches(make().await).await;
    watch_of_the_past_and_the_future(make().await).await;
    lease_expiry(make().await).await;
    lease_revocation(make().await).await;
    closing(make().await).await;
}

async fn commit(store: &Store, txn: Txn) -> Revision {
    match store.commit(txn.clone()).await {
        Ok(TxnOutcome::Committed { revision }) => revision,
        other => panic!("{txn:?} ended as {other:?}"),
    }
}

async fn conflict(store: &Store, txn: Txn) {
    let outcome = store.commit(txn.clone()).await;
    assert!(matches!(outcome, Ok(TxnOutcome::Conflict { .. })), "{txn:?} ended as {outcome:?}");
}

async fn get(store: &Store, key: &str) -> Option<KeyValue> {
    store.get(key).await.expect("a read")
}

async fn value(store: &Store, key: &str) -> Option<Bytes> {
    get(store, key).await.map(|entry| entry.value)
}

fn is_invalid<T: std::fmt::Debug>(answer: Result<T, Error>) -> bool {
    answer.is_err_and(|error| error.kind() == ErrorKind::Invalid)
}

async fn reads_and_revisions(store: Store) {
    assert_eq!(get(&store, "a").await, None);
    let first = commit(&store, Txn::new().put("a", "1")).await;
    let entry = |value: &'static str, create_revision, mod_revision| KeyValue {
        key: "a".to_owned(),
        value: Bytes::from_static(value.as_bytes()),
        create_revision,
        mod_revision,
        lease: None,
    };
    assert_eq!(get(&store, "a").await, Some(entry("1", first, first)));
    let second = commit(&store, Txn::new().put("a", "2")).await;
    assert!(second > first, "revisions grow");
    assert_eq!(get(&store, "a").await, Some(entry("2", first, second)), "a put keeps the creation");
    let third = commit(&store, Txn::new().delete("a")).await;
    assert!(third > second, "a deletion has a revision");
    assert_eq!(get(&store, "a").await, None);
    let fourth = commit(&store, Txn::new().put("a", "")).await;
    assert_eq!(get(&store, "a").await, Some(entry("", fourth, fourth)), "a deleted key is created again");
}

async fn listings(store: Store) {
    let keys = ["p/10", "p/2", "p/", "p", "p0", "o/1", "p/\u{e9}", "q"];
    let txn = keys.iter().fold(Txn::new(), |txn, key| txn.put(*key, *key));
    let revision = commit(&store, txn).await;
    let listing = store.list("p/").await.expect("a listing");
    let listed: Vec<&str> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(listed, ["p/", "p/10", "p/2", "p/\u{e9}"], "in key order, of the prefix only");
    assert!(listing.entries.iter().all(|entry| entry.mod_revision == revision && entry.value == entry.key));
    assert!(listing.revision >= revision);
    assert!(store.list("nothing/").await.expect("a listing").entries.is_empty());
    assert_eq!(store.list("").await.expect("a listing").entries.len(), keys.len());
}

async fn comparisons(store: Store) {
    let first = commit(&store, Txn::new().if_absent("a").put("a", "1").put("b", "1")).await;
    conflict(&store, Txn::new().if_absent("a").put("a", "2").put("c", "2")).await;
    conflict(&store, Txn::new().if_revision("a", first).if_absent("b").put("a", "2")).await;
    conflict(&store, Txn::new().if_revision("a", first + 1_000_000).put("a", "2")).await;
    conflict(&store, Txn::new().if_revision("none", first).put("a", "2")).await;
    conflict(&store, Txn::new().if_value("a", "2").put("a", "2")).await;
    conflict(&store, Txn::new().if_value("none", "").put("a", "2")).await;
    assert_eq!((value(&store, "a").await, value(&store, "c").await), (Some(Bytes::from("1")), None));
    let second = commit(&store, Txn::new().if_revision("a", first).if_value("b", "1").put("a", "2").delete("b")).await;
    conflict(&store, Txn::new().if_revision("a", first).put("a", "3")).await;
    conflict(&store, Txn::new().if_value("b", "1").put("a", "3")).await;
    commit(&store, Txn::new().if_revision("a", second).if_absent("b").put("b", "3")).await;
    assert_eq!(value(&store, "a").await, Some(Bytes::from("2")));
}

async fn transactions_without_effect(store: Store) {
    let first = commit(&store, Txn::new().put("a", "1")).await;
    assert_eq!(commit(&store, Txn::new().if_revision("a", first)).await, first, "without operations");
    assert_eq!(commit(&store, Txn::new().delete("none")).await, first, "a deletion of nothing");
    let twice = store.commit(Txn::new().put("a", "2").delete("a")).await;
    assert!(is_invalid(twice), "a key in two operations");
    assert_eq!(value(&store, "a").await, Some(Bytes::from("1")));
}

async fn large_transactions(store: Store) {
    let binary = Bytes::from((0..100_000u32).map(|n| (n * 7) as u8).collect::<Vec<_>>());
    let mut txn = Txn::new().put("large/binary", binary.clone());
    for n in 0..100 {
        txn = txn.put(format!("large/{n:03}"), format!("{n}"));
    }
    let revision = commit(&store, txn).await;
    let entries = store.list("large/").await.expect("a listing").entries;
    assert_eq!(entries.len(), 101);
    assert!(entries.iter().all(|entry| entry.mod_revision == revision), "operations share their revision");
    assert_eq!(value(&store, "large/binary").await, Some(binary));
}

/// Many increments of one counter, each by comparing and swapping: none may be lost, none applied twice.
async fn competing_commits(store: Store) {
    const WORKERS: u64 = 6;
    const EACH: u64 = 5;
    let worker = || async {
        let mut revisions = Vec::new();
        while revisions.len() < EACH as usize {
            let entry = get(&store, "counter").await;
            let count: u64 = entry.as_ref().map_or(0, |entry| {
                std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()).expect("a number")
            });
            let revision = entry.map_or(0, |entry| entry.mod_revision);
            let txn = Txn::new().if_revision("counter", revision).put("counter", format!("{}", count + 1));
            if let TxnOutcome::Committed { revision } = store.commit(txn).await.expect("a commit") {
                revisions.push(revision);
            }
        }
        revisions
    };
    let mut revisions = join_all((0..WORKERS).map(|_| worker())).await.concat();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len() as u64, WORKERS * EACH, "every commit has a revision of its own");
    assert_eq!(value(&store, "counter").await, Some(Bytes::from((WORKERS * EACH).to_string())));
}

async fn next(watch: &mut Watch) -> WatchBatch {
    match timeout(SOON, watch.recv()).await {
        Ok(Some(Ok(batch))) => batch,
        other => panic!("a watch delivered {other:?}"),
    }
}

fn names(batch: &WatchBatch) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::Put(entry) => format!("put {}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Event::Delete { key, .. } => format!("delete {key}"),
    };
    batch.events.iter().map(name).collect()
}

async fn watches(store: Store) {
    let before = commit(&store, Txn::new().put("w/a", "0").put("x", "0")).await;
    let mut watch = store.watch("w/", before + 1).await.expect("a watch");
    let mut everything = store.watch("", before + 1).await.expect("a watch");
    let first = commit(&store, Txn::new().put("w/b", "1").delete("w/a").put("x", "1")).await;
    commit(&store, Txn::new().put("x", "2")).await;
    conflict(&store, Txn::new().if_absent("w/b").put("w/c", "3")).await;
    let third = commit(&store, Txn::new().put("w/b", "4")).await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, names(&batch)), (first, vec!["delete w/a".to_owned(), "put w/b=1".to_owned()]));
    assert!(batch.events.iter().all(|event| match event {
        Event::Put(entry) => entry.mod_revision == first,
        Event::Delete { mod_revision, .. } => *mod_revision == first,
    }));
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, names(&batch)), (third, vec!["put w/b=4".to_owned()]));
    for expected in [3, 1, 1] {
        assert_eq!(next(&mut everything).await.events.len(), expected);
    }
}

async fn watch_of_the_past_and_the_future(store: Store) {
    let mut revisions = Vec::new();
    for n in 0..5 {
        revisions.push(commit(&store, Txn::new().put(format!("w/{n}"), "1")).await);
    }
    let mut past = store.watch("w/", revisions[2]).await.expect("a watch");
    let mut future = store.watch("w/", revisions[4] + 2).await.expect("a watch");
    let skipped = commit(&store, Txn::new().put("w/5", "1")).await;
    let seen = commit(&store, Txn::new().put("w/6", "1")).await;
    for revision in [revisions[2], revisions[3], revisions[4], skipped, seen] {
        assert_eq!(next(&mut past).await.revision, revision, "everything from a past revision on, once, in order");
    }
    assert_eq!(next(&mut future).await.revision, seen, "nothing before a future revision");
}

async fn leased(store: &Store, key: &str, lease: LeaseId) -> Revision {
    commit(store, Txn::new().put_leased(key, "here", lease)).await
}

async fn lease_expiry(store: Store) {
    const TTL: Duration = Duration::from_secs(2);
    let lease = store.grant_lease(TTL).await.expect("a lease");
    leased(&store, "l/a", lease).await;
    leased(&store, "l/kept", lease).await;
    let revision = leased(&store, "l/b", lease).await;
    assert_eq!(get(&store, "l/a").await.and_then(|entry| entry.lease), Some(lease));
    let kept = commit(&store, Txn::new().put("l/kept", "without a lease")).await;
    assert!(kept > revision);
    for _ in 0..6 {
        sleep(TTL / 4).await;
        store.keep_alive(lease).await.expect("a lease that is kept alive");
    }
    assert!(get(&store, "l/a").await.is_some(), "a lease that is kept alive keeps its keys");
    let mut watch = store.watch("l/", kept + 1).await.expect("a watch");
    let began = Instant::now();
    let batch = next(&mut watch).await;
    assert!(began.elapsed() > TTL / 4, "a lease does not expire early: {:?}", began.elapsed());
    assert_eq!(names(&batch), ["delete l/a", "delete l/b"], "its keys go in one transaction");
    assert_eq!((get(&store, "l/a").await, get(&store, "l/b").await), (None, None));
    assert!(get(&store, "l/kept").await.is_some(), "a key that was put again without the lease stays");
    assert!(is_invalid(store.keep_alive(lease).await), "an expired lease cannot be kept alive");
    assert!(is_invalid(store.commit(Txn::new().put_leased("l/a", "late", lease)).await));
    assert_eq!(get(&store, "l/a").await, None);
}

async fn lease_revocation(store: Store) {
    let lease = store.grant_lease(Duration::from_secs(60)).await.expect("a lease");
    let other = store.grant_lease(Duration::from_secs(60)).await.expect("a lease");
    assert_ne!(lease, other);
    leased(&store, "l/a", lease).await;
    leased(&store, "l/b", other).await;
    store.revoke_lease(lease).await.expect("a revocation");
    assert_eq!(get(&store, "l/a").await, None);
    assert!(get(&store, "l/b").await.is_some());
    assert!(is_invalid(store.keep_alive(lease).await));
    store.keep_alive(other).await.expect("the other lease lives");
}

async fn closing(store: Store) {
    let revision = commit(&store, Txn::new().put("a", "1")).await;
    let mut watch = store.watch("", revision + 1).await.expect("a watch");
    store.close().await;
    let ended = timeout(SOON, watch.recv()).await.expect("a watch ends soon");
    assert!(matches!(ended, None | Some(Err(_))), "a watch of a closed store delivered {ended:?}");
    let closed = |error: Error| error.kind() == ErrorKind::Closed;
    assert!(store.get("a").await.is_err_and(closed));
    assert!(store.commit(Txn::new().put("a", "2")).await.is_err_and(closed));
    assert!(store.grant_lease(Duration::from_secs(1)).await.is_err_and(closed));
}
