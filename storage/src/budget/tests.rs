//! What was taken comes back, to the byte.

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
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert!(!waiting.is_finished());
    let _permit = permit.shrink(40);
    assert_eq!(waiting.await.unwrap(), 60);
}
