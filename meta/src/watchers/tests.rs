//! Order, prefixes and bounds of watches.

use super::*;
use crate::store::Txn;

fn batch(revision: Revision, key: &str) -> WatchBatch {
    let mut kv = crate::kv::Kv::restore(revision - 1, []);
    kv.apply(&Txn::new().put(key, "v").ops)
}

async fn revisions(watch: &mut Watch) -> (Vec<Revision>, Option<Error>) {
    let mut seen = Vec::new();
    while let Ok(next) = watch.try_recv() {
        match next {
            Ok(batch) => seen.push(batch.revision),
            Err(error) => return (seen, Some(error)),
        }
    }
    (seen, None)
}

#[tokio::test]
async fn backlog_then_news_in_order_and_only_of_the_prefix() {
    let mut watchers = Watchers::after(0);
    for (revision, key) in [(1, "a/1"), (2, "b/1"), (3, "a/2")] {
        watchers.publish(batch(revision, key));
    }
    let (mut all, mut late) = (watchers.watch("a/", 0), watchers.watch("a/", 3));
    let mut future = watchers.watch("", 5);
    for (revision, key) in [(4, "a/1"), (5, "c"), (6, "a/1")] {
        watchers.publish(batch(revision, key));
    }
    assert_eq!(revisions(&mut all).await.0, [1, 3, 4, 6]);
    assert_eq!(revisions(&mut late).await.0, [3, 4, 6]);
    assert_eq!(revisions(&mut future).await.0, [5, 6]);
}

#[tokio::test]
async fn a_slow_receiver_is_ended_and_told_so() {
    let mut watchers = Watchers::after(0);
    let mut watch = watchers.watch("", 1);
    for revision in 1..=QUEUE_MAX as u64 + 10 {
        watchers.publish(batch(revision, "a"));
    }
    assert!(watchers.watchers.is_empty());
    let (seen, end) = revisions(&mut watch).await;
    assert_eq!(seen, (1..=QUEUE_MAX as u64).collect::<Vec<_>>());
    assert!(matches!(end, Some(Error::Compacted { .. })));
    assert!(watch.recv().await.is_none());
}

#[tokio::test]
async fn the_history_is_bounded_and_older_watches_end() {
    let mut watchers = Watchers::after(0);
    for revision in 1..=HISTORY_MAX as u64 + 5 {
        watchers.publish(batch(revision, "a"));
    }
    let (seen, end) = revisions(&mut watchers.watch("", 5)).await;
    assert!(seen.is_empty() && matches!(end, Some(Error::Compacted { requested: 5, oldest: 6 })), "{end:?}");
    assert_eq!(revisions(&mut watchers.watch("", 6)).await.0.len(), HISTORY_MAX);
    watchers.compact(HISTORY_MAX as u64 + 4);
    assert_eq!(revisions(&mut watchers.watch("", HISTORY_MAX as u64 + 5)).await.0.len(), 1);
    let value = bytes::Bytes::from(vec![0; HISTORY_BYTES_MAX]);
    let mut kv = crate::kv::Kv::restore(HISTORY_MAX as u64 + 5, []);
    watchers.publish(kv.apply(&Txn::new().put("large", value).ops));
    assert!(watchers.history.is_empty() && watchers.history_bytes == 0);
}
