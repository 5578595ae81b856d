//! What was taken comes back, to the byte.

use std::time::Duration;

use super::*;

#[test]
fn a_permit_shrinks_unless_somebody_shares_it() {
    let budget = Budget::new(100);
    let permit = budget.try_take(80).unwrap().shrink(30);
    assert_eq!((permit.bytes(), budget.used_bytes()), (30, 30));
    let clone = permit.clone();
    let permit = permit.shrink(10);
    assert_eq!((permit.bytes(), clone.bytes(), budget.used_bytes()), (30, 30, 30), "the clone counts on it");
    drop(clone);
    let permit = permit.shrink(50);
    assert_eq!((permit.bytes(), budget.used_bytes()), (30, 30), "it never grows");
    drop(permit);
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_by_shrinking_can_be_taken() {
    let budget = Budget::new(100);
    let permit = budget.try_take(100).unwrap();
    let waiting = tokio::spawn({
        let budget = budget.clone();
        async move { budget.take(60).await.bytes() }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!waiting.is_finished());
    let _permit = permit.shrink(40);
    assert_eq!(waiting.await.unwrap(), 60);
}

#[tokio::test(start_paused = true)]
async fn what_is_spare_costs_nobody_anything() {
    let budget = Budget::new(100);
    let reclaimed = Arc::new(AtomicUsize::new(0));
    let count = reclaimed.clone();
    budget.on_shortage(Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        false
    }));
    assert_eq!(budget.take_spare(60).await.bytes(), 60);
    let held = budget.try_take(80).unwrap();
    let spare = tokio::spawn({
        let budget = budget.clone();
        async move { budget.take_spare(60).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!spare.is_finished() && reclaimed.load(Ordering::Relaxed) == 0, "nothing is dropped for it");
    let waiting = tokio::spawn({
        let budget = budget.clone();
        async move { budget.take(90).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = held.shrink(30);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!spare.is_finished(), "who waits for memory is not passed");
    drop(held);
    drop(waiting.await.unwrap());
    assert_eq!(spare.await.unwrap().bytes(), 60);
}
