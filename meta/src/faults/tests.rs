//! Each fault does what it says, once, and the same seed does it again.

use super::*;
use futures::TryStreamExt;
use object_store::{Error, ObjectStoreExt};

fn key(name: &str) -> Path {
    Path::from(name)
}

async fn create(store: &FaultStore, name: &str) -> Result<(), Error> {
    let key = key(name);
    store.put_opts(&key, PutPayload::from("body of the object"), PutOptions::from(PutMode::Create)).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn scripts_strike_once_at_the_nth_match() {
    let store = FaultStore::in_memory();
    store.script(Operation::Put, "b/", 1, Fault::FailBefore);
    create(&store, "a/1").await.unwrap();
    create(&store, "b/1").await.unwrap();
    assert!(create(&store, "b/2").await.is_err());
    assert_eq!(store.scripts_left(), 0);
    create(&store, "b/2").await.unwrap();
    assert_eq!(store.counts().puts, 4);
    assert_eq!(store.counts().faults, 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_write_lands_when_it_is_due_and_not_before() {
    let store = FaultStore::in_memory();
    store.script(Operation::Put, "", 0, Fault::LandLate(Duration::from_secs(5)));
    assert!(create(&store, "a").await.is_err());
    assert!(matches!(store.get(&key("a")).await, Err(Error::NotFound { .. })));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(store.handle().get(&key("a")).await.is_ok());
    assert_eq!(store.due(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_create_does_not_replace_what_is_there() {
    let store = FaultStore::in_memory();
    store.script(Operation::Put, "", 0, Fault::LandLate(Duration::from_secs(5)));
    assert!(create(&store, "a").await.is_err());
    store.put(&key("a"), PutPayload::from("another")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(store.get(&key("a")).await.unwrap().bytes().await.unwrap(), "another");
}

#[tokio::test(start_paused = true)]
async fn damaged_reads_keep_the_meta_data() {
    let store = FaultStore::in_memory();
    create(&store, "a").await.unwrap();
    store.script(Operation::Get, "a", 0, Fault::TruncatedGet);
    let answer = store.get(&key("a")).await.unwrap();
    assert_eq!(answer.meta.size, 18);
    assert_eq!(answer.bytes().await.unwrap(), "body of t");
    store.script(Operation::Get, "a", 0, Fault::BitFlip);
    let flipped = store.get(&key("a")).await.unwrap().bytes().await.unwrap();
    let wrong: u32 = flipped.iter().zip(b"body of the object").map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!((flipped.len(), wrong), (18, 1));
}

#[tokio::test(start_paused = true)]
async fn outages_of_everybody_and_of_one() {
    let store = FaultStore::in_memory();
    let other = store.handle();
    other.set_cut(true);
    create(&store, "a").await.unwrap();
    assert!(create(&other, "b").await.is_err());
    store.set_down(true);
    assert!(create(&store, "b").await.is_err());
    assert!(store.list(None).try_collect::<Vec<_>>().await.is_err());
    store.set_down(false);
    store.script(Operation::Get, "", 0, Fault::Unavailable(Duration::from_secs(1)));
    assert!(store.get(&key("a")).await.is_err());
    assert!(store.get(&key("a")).await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.get(&key("a")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn deletes_and_lists_are_counted() {
    let store = FaultStore::in_memory();
    create(&store, "a/1").await.unwrap();
    create(&store, "a/2").await.unwrap();
    let listed: Vec<_> = store.list_with_offset(Some(&key("a")), &key("a/1")).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    store.delete(&key("a/1")).await.unwrap();
    let counts = store.counts();
    assert_eq!((counts.puts, counts.lists, counts.deletes, counts.put_bytes), (2, 1, 1, 36));
}

/// The same seed gives the same faults at the same times.
#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    async fn run(seed: u64) -> Vec<(bool, Duration)> {
        let plan =
            FaultPlan { latency: Duration::from_millis(1)..=Duration::from_millis(100), ..FaultPlan::ambiguous(0.5) };
        let inner = Arc::new(object_store::memory::InMemory::new());
        let store = FaultStore::new(inner, Random::from_seed(seed), plan);
        let began = Instant::now();
        let mut trace = Vec::new();
        for n in 0..50 {
            let name = format!("a/{n}");
            let put = tokio::time::timeout(Duration::from_secs(1), create(&store, &name)).await;
            trace.push((matches!(put, Ok(Ok(()))), began.elapsed()));
        }
        trace
    }
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}
