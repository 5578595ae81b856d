//! Conformance suites: what every implementation of a seam must do, run against all of them.
//!
//! They assume nothing of what else a store holds, and use only what etcd and S3 can do: leases of whole seconds, real
//! time (or a paused clock, which is faster). A failure is a panic that names the case.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};

use crate::probe;
use crate::seams::Random;
use crate::settled::{Identity, Patience, Settled, Settler};

mod metastore;
#[cfg(test)]
mod tests;

pub use metastore::metastore;

/// Conformance of an object store to what the settled write and the probe need.
pub async fn settled(store: Arc<dyn ObjectStore>, random: &Random) {
    let prefix = format!("conformance/{:032x}", random.next_u128());
    let settler = Settler::new(store.clone());
    one_key(&settler, &Path::from(format!("{prefix}/one")), random).await;
    for length in [0, 1, 16, 31] {
        let path = Path::from(format!("{prefix}/short-{length}"));
        an_object_that_is_too_short(&settler, &path, length, random).await;
    }
    for round in 0..4 {
        race(&settler, &Path::from(format!("{prefix}/race-{round}")), random).await;
    }
    probe::probe(&store, random).await.expect("the probe accepts the store");
    let prefix = Path::from(prefix);
    let left: Vec<Path> =
        store.list(Some(&prefix)).map_ok(|meta| meta.location).try_collect().await.expect("the objects can be listed");
    assert_eq!(left.len(), 9, "every created object is listed: {left:?}");
    for path in left {
        store.delete(&path).await.expect("an object can be deleted");
    }
}

/// 16 bytes that all contenders share, 16 of identity, then content.
fn contender(random: &Random) -> (PutPayload, Identity) {
    let id = Bytes::copy_from_slice(&random.next_u128().to_be_bytes());
    let parts = [Bytes::from_static(b"the same of all "), id.clone(), Bytes::from_static(b"content")];
    (PutPayload::from_iter(parts), Identity { range: 16..32, bytes: id })
}

async fn one_key(settler: &Settler, path: &Path, random: &Random) {
    let (payload, ours) = contender(random);
    let create =
        |payload, identity| async move { settler.create(path, payload, &identity, &Patience::default()).await };
    assert_eq!(create(payload.clone(), ours.clone()).await, Settled::Ours, "the first create");
    assert_eq!(create(payload.clone(), ours.clone()).await, Settled::Ours, "the same create again");
    let (other, theirs) = contender(random);
    let outcome = create(other, theirs).await;
    assert_eq!(outcome, Settled::Theirs { found: ours.bytes.clone() }, "another's create of the same key");
    assert_eq!(create(payload, ours).await, Settled::Ours, "the first create once more");
}

async fn an_object_that_is_too_short(settler: &Settler, path: &Path, length: usize, random: &Random) {
    let short = Bytes::from(vec![b't'; length]);
    settler.store().put(path, PutPayload::from_bytes(short.clone())).await.expect("a short object can be written");
    let (payload, identity) = contender(random);
    let outcome = settler.create(path, payload, &identity, &Patience::default()).await;
    let found = short.slice(length.min(16)..);
    assert_eq!(outcome, Settled::Theirs { found }, "a create over an object of {length} bytes");
}

async fn race(settler: &Settler, path: &Path, random: &Random) {
    let patience = Patience::default();
    let contenders: Vec<_> = (0..8).map(|_| contender(random)).collect();
    let creates =
        contenders.iter().map(|(payload, identity)| settler.create(path, payload.clone(), identity, &patience));
    let outcomes = join_all(creates).await;
    let winners: Vec<&Identity> = contenders
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| **outcome == Settled::Ours)
        .map(|((_, identity), _)| identity)
        .collect();
    assert_eq!(winners.len(), 1, "one of the racing creates wins: {outcomes:?}");
    for outcome in &outcomes {
        let expected = Settled::Theirs { found: winners[0].bytes.clone() };
        assert!(*outcome == Settled::Ours || *outcome == expected, "the others find the winner: {outcomes:?}");
    }
}
