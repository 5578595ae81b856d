//! Views of storages in every state: while their owner moves on, after it has died, and damaged.

use meta::keys::store as keys;
use meta::records::{LogCounterRecord, LogState, TopicRecord, decode, encode};
use meta::store::{MetaStore, Txn};
use object_store::ObjectStoreExt;

use super::testing::*;
use super::*;
use crate::fragment::{FragmentBuilder, HEADER_BYTES};
use crate::registry;
use crate::samples::entry;

#[tokio::test(start_paused = true)]
async fn sealed_and_open_logs_are_followed_to_their_ends() {
    let world = World::new().await;
    let first = world.log().await;
    world.append(&*first, 0..3).await;
    first.close().await.unwrap();
    let second = world.log().await;
    world.append(&*second, 3..5).await;
    let view = world.view().await;
    assert_eq!(view.problems, vec![]);
    assert_eq!(ends(&view), vec![5, 5]);
    let ended: Vec<_> = view.spans.iter().map(|span| (span.log, span.end, span.ending)).collect();
    assert_eq!(ended, vec![(1, 3, Ending::Recorded), (2, 2, Ending::Open)]);
    assert_eq!(
        view.needed(&world.source).keys().copied().collect::<Vec<_>>(),
        vec![id(1, 0), id(1, 1), id(1, 2), id(2, 0), id(2, 1)]
    );
    world.append(&*second, 5..6).await;
    assert_eq!(ends(&world.view().await), vec![6, 6], "its writer noticed nothing");
}

/// The owner tiers what is being looked at, and deletes it: the open log's end is no end, and what is missing no damage.
#[tokio::test(start_paused = true)]
async fn what_moved_on_while_it_was_looked_at_is_looked_at_again() {
    for closed in [false, true] {
        let world = World::new().await;
        let log = world.log().await;
        world.append(&*log, 0..6).await;
        let mut next = None;
        if closed {
            log.close().await.unwrap();
            next = Some(world.log().await);
        }
        let before = world.meta.freeze().await.unwrap();
        let runs = world.tiered(1, 0, 0..4).await;
        world.checkpoint(id(1, 4), &runs).await;
        for fragment in 0..4 {
            world.delete(id(1, fragment)).await;
        }
        let images = parking_lot::Mutex::new([before].into());
        let moving = Moving { images, then: world.meta.clone() };
        let view = View::load(&world.source, &moving).await.unwrap();
        assert_eq!((view.problems.clone(), ends(&view)), (vec![], vec![6, 6]), "closed: {closed}");
        assert_eq!(view.position(), id(1, 4));
        drop(next);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_or_damaged_is_named_with_what_follows_from_it() {
    let world = World::new().await;
    let log = world.log().await;
    world.append(&*log, 0..5).await;
    log.close().await.unwrap();
    let kept = world.bytes(&id(1, 2).key()).await;
    world.delete(id(1, 2)).await;
    let named = |view: &View| view.problems.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>();
    let expected = vec![id(1, 2).key().to_string(), "partition t-0".to_owned(), "partition t-1".to_owned()];
    assert_eq!(named(&world.view().await), expected);
    let mut flipped = kept.clone();
    *flipped.last_mut().unwrap() ^= 1;
    world.put(&id(1, 2).key(), flipped).await;
    assert_eq!(named(&world.view().await), expected);
    world.put(&id(1, 2).key(), kept).await;
    assert_eq!(named(&world.view().await), Vec::<String>::new());
    // A part of the manifest.
    let _next = world.log().await;
    let runs = world.tiered(1, 0, 0..4).await;
    world.checkpoint(id(1, 4), &runs).await;
    let part = object::manifest(2, 0);
    world.store.delete(&part).await.unwrap();
    let view = world.view().await;
    assert_eq!((named(&view), view.complete), (vec![part.to_string()], false));
}

#[tokio::test(start_paused = true)]
async fn deleted_records_and_topics_are_not_needed() {
    let world = World::new().await;
    let log = world.log().await;
    world.append(&*log, 0..5).await;
    let runs = world.tiered(1, 0, 0..2).await;
    let more = world.tiered(1, 1, 2..4).await;
    world
        .checkpoint(
            id(1, 4),
            &[runs, more].concat().into_iter().filter(|(id, _)| id.partition == 0).collect::<Vec<_>>(),
        )
        .await;
    let tiered = [FragmentId::tiered(1, 0), FragmentId::tiered(1, 1)];
    let has = |view: &View| tiered.map(|unit| view.needed(&world.source).contains_key(&unit));
    assert_eq!(has(&world.view().await), [true, true]);
    let found = world.meta.get(&keys::topic("t")).await.unwrap().unwrap();
    let mut topic: TopicRecord = decode("t", &found.value).unwrap();
    topic.log_starts.insert(0, 3);
    world.meta.commit(Txn::new().put(keys::topic("t"), encode(&topic))).await.unwrap();
    assert_eq!(has(&world.view().await), [false, true]);
    world.meta.commit(Txn::new().delete(keys::topic("t"))).await.unwrap();
    let view = world.view().await;
    assert_eq!((has(&view), view.chains.len()), ([false, false], 0));
}

#[tokio::test(start_paused = true)]
async fn records_that_contradict_each_other_are_named() {
    let world = World::new().await;
    world.log().await.close().await.unwrap();
    world.log().await;
    let (mut record, _) = registry::load(&world.meta, 1).await.unwrap();
    (record.state, record.segments[0].end) = (LogState::Open, None);
    let counter = encode(&LogCounterRecord { newest: 7 });
    let wrong = Txn::new().put(keys::log(1), encode(&record)).put(keys::LOG_COUNTER, counter).put("surprise", "1");
    world.meta.commit(wrong).await.unwrap();
    let view = world.view().await;
    let named: Vec<_> = view.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(named, vec![keys::LOG_COUNTER, &keys::log(1)]);
    assert_eq!(view.records.unknown, vec!["surprise"]);
    world.meta.commit(Txn::new().put(keys::LOG_COUNTER, r#"{"newest":7,"version":2}"#)).await.unwrap();
    let refused = View::load(&world.source, &world.meta).await.unwrap_err();
    assert!(refused.to_string().contains("log_counter has format version 2"), "{refused}");
}

#[tokio::test]
async fn an_open_file_ends_where_it_is_torn_and_is_damaged_below_what_was_durable() {
    let (world, _folder, file) = folder(6).await;
    let view = world.view().await;
    assert_eq!((view.problems.clone(), ends(&view)), (vec![], vec![6, 0]));
    let pieces = view.spans[0].fragments.clone();
    let whole = std::fs::read(&file).unwrap();
    // A write that is under way, or that a crash has cut off.
    for cut in [1, 30, 100] {
        std::fs::write(&file, &whole[..whole.len() - cut]).unwrap();
        let view = world.view().await;
        assert_eq!((view.problems.clone(), view.spans[0].end, ends(&view)), (vec![], 5, vec![5, 0]), "{cut}");
    }
    for (piece, offset) in [(pieces[3], 20), (pieces[3], pieces[3].bytes - 100), (pieces[4], 20)] {
        let mut flipped = whole.clone();
        flipped[(piece.position + offset) as usize] ^= 1;
        std::fs::write(&file, &flipped).unwrap();
        let problems = world.view().await.problems;
        let first = &problems[0];
        assert_eq!(first.key, object::segment_file(1, 0).to_string());
        assert!(first.why.contains(&format!("fragment {} at position {}", piece.number, piece.position)), "{first:?}");
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(world.view().await.problems, vec![]);
}

/// After a power cut the last fragments can have header and footer, and not their data: the start takes them for a torn tail.
#[tokio::test]
async fn an_open_file_ends_before_data_that_is_damaged_and_was_perhaps_never_durable() {
    let (world, _folder, file) = folder(6).await;
    let pieces = world.view().await.spans[0].fragments.clone();
    let whole = std::fs::read(&file).unwrap();
    // Two more of which nobody knows, written before the first of them was durable.
    let mut longer = whole.clone();
    let mut begins = Vec::new();
    for fragment in [6, 7] {
        begins.push(longer.len());
        let next: FragmentBuilder = [entry(of_topic(0), fragment, 1, 40)].into_iter().collect();
        let next = next.finish(id(1, fragment as u64), WRITER, Some(5));
        longer.extend(next.parts.concat());
    }
    let ended = async |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let view = world.view().await;
        assert_eq!(view.problems, vec![]);
        assert_eq!(view.spans[0].fragments.len() as u64, view.spans[0].end);
        assert_eq!(ends(&view), vec![view.spans[0].end as i64, 0]);
        view.spans[0].end
    };
    let flipped = |bytes: &[u8], begin: usize| {
        let mut flipped = bytes.to_vec();
        flipped[begin + HEADER_BYTES + 30] ^= 1;
        flipped
    };
    assert_eq!(ended(&longer).await, 8, "whole, though perhaps never acknowledged");
    assert_eq!(ended(&flipped(&longer, begins[1])).await, 7);
    assert_eq!(ended(&flipped(&longer, begins[0])).await, 6);
    assert_eq!(ended(&flipped(&whole, pieces[5].position as usize)).await, 5);
    // What was durable is part of it, however its data is: a scrub names it.
    assert_eq!(ended(&flipped(&longer, pieces[5].position as usize)).await, 8);
    assert_eq!(ended(&flipped(&whole, pieces[4].position as usize)).await, 6);
}

/// What another writer says proves nothing, and what it wrote is not part of the log.
#[tokio::test]
async fn another_writers_fragments_neither_prove_nor_continue_a_file() {
    let (world, _folder, file) = folder(6).await;
    let pieces = world.view().await.spans[0].fragments.clone();
    let whole = std::fs::read(&file).unwrap();
    let foreign = |fragment: u64| {
        let next: FragmentBuilder = [entry(of_topic(0), fragment as i64, 1, 40)].into_iter().collect();
        next.finish(id(1, fragment), Incarnation(0x22), Some(fragment - 1)).parts.concat()
    };
    let torn = &whole[..(pieces[5].position + 100) as usize];
    for bytes in [[torn, &foreign(6)].concat(), [&whole[..pieces[5].position as usize], &foreign(5)].concat()] {
        std::fs::write(&file, bytes).unwrap();
        let view = world.view().await;
        assert_eq!((view.problems.clone(), ends(&view)), (vec![], vec![5, 0]));
    }
}
