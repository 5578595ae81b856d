//! The role of every kind of key.

use super::*;
use crate::view::testing::{World, id};

#[tokio::test(start_paused = true)]
async fn every_object_has_a_role() {
    let world = World::new().await;
    let first = world.log().await;
    world.append(&*first, 0..4).await;
    first.close().await.unwrap();
    let old = world.tiered(1, 0, 0..2).await;
    world.tiered(1, 1, 0..2).await;
    let second = world.log().await;
    world.append(&*second, 4..6).await;
    let newer = world.tiered(2, 0, 2..5).await;
    let both = [0, 1].iter().flat_map(|n| [old[*n], newer[*n]]).collect::<Vec<_>>();
    // A base for each partition, as `checkpoint` makes one part of each run.
    world.checkpoint(FragmentId { log: 2, segment: 0, fragment: 1 }, &both).await;
    let view = world.view().await;
    assert_eq!(view.problems, vec![]);
    let needed = view.needed(&world.source);
    let census = Census::new(&view, &world.source, &needed);
    let role = |key: &str| census.role(&Path::from(key), 1000);
    let fragment = |log, number| census.role(&id(log, number).key(), 1000);
    let tiered = |log, number| census.role(&FragmentId::tiered(log, number).key(), 1000);
    assert_eq!((tiered(1, 0), tiered(2, 0), fragment(2, 1)), (Role::Data, Role::Data, Role::Data));
    assert_eq!(tiered(1, 1), Role::Orphan(Orphan::LeftBehind));
    assert_eq!(tiered(2, 5), Role::Orphan(Orphan::NewTiered));
    assert_eq!(fragment(1, 3), Role::Orphan(Orphan::LeftBehind));
    assert_eq!(fragment(1, 4), Role::Orphan(Orphan::BeyondEnd));
    assert_eq!(fragment(2, 0), Role::Orphan(Orphan::Awaiting));
    assert_eq!(fragment(2, 2), Role::Orphan(Orphan::AboveTail));
    assert_eq!(census.role(&id(1, 4).key(), 80), Role::Fence);
    assert_eq!((fragment(3, 0), tiered(9, 0)), (Role::UnknownLog(3), Role::UnknownLog(9)));
    assert_eq!(role("manifests/0000000002/000000000000.mf"), Role::Manifest);
    assert_eq!(role("manifests/0000000002/000000000001.mf"), Role::Orphan(Orphan::SupersededManifest));
    assert_eq!(role("manifests/0000000001/000000000000.mf"), Role::Orphan(Orphan::OldManifest));
    assert_eq!((role("LOCK"), role("meta/kept-elsewhere")), (Role::Lock, Role::Metadata));
    assert_eq!(role("meta/journal/00000000000000000001"), Role::Metadata);
    assert_eq!(role("meta/probe/00/000"), Role::Orphan(Orphan::Probe));
    assert_eq!((role("logs/notes.txt"), role("elsewhere")), (Role::Strange, Role::Strange));
    assert_eq!(role("logs/0000000001/000000.seg"), Role::Orphan(Orphan::LeftBehind));
    assert_eq!(role("logs/0000000002/000000.seg"), Role::Data);
}

/// What the manifest still names for a topic that was deleted is wanted by nobody.
#[tokio::test(start_paused = true)]
async fn what_only_a_deleted_topic_has_is_an_orphan() {
    use meta::store::{MetaStore, Txn};
    let world = World::new().await;
    let log = world.log().await;
    world.append(&*log, 0..2).await;
    let runs = world.tiered(1, 0, 0..2).await;
    world.checkpoint(id(1, 2), &runs).await;
    world.meta.commit(Txn::new().delete("topics/t")).await.unwrap();
    let view = world.view().await;
    let needed = view.needed(&world.source);
    let census = Census::new(&view, &world.source, &needed);
    assert_eq!(census.role(&FragmentId::tiered(1, 0).key(), 1000), Role::Orphan(Orphan::Unwanted));
}
