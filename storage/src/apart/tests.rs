//! Work goes on without its caller, and not without anybody.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::*;

#[tokio::test]
async fn work_goes_on_while_its_caller_is_not_polled_and_ends_with_it() {
    let (begin, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, ends) = (begin.clone(), done.clone());
    let work = async move {
        begins.notified().await;
        ends.notify_one();
        7
    };
    let mut waiting = Box::pin(apart(work));
    assert!(waiting.as_mut().now_or_never().is_none());
    begin.notify_one();
    done.notified().await;
    assert_eq!(waiting.await.unwrap(), 7);

    let alive = Arc::new(());
    let held = alive.clone();
    let mut waiting = Box::pin(apart(async move {
        std::future::pending::<()>().await;
        drop(held);
    }));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(waiting);
    for _ in 0..10 {
        yield_now().await;
    }
    assert_eq!(Arc::strong_count(&alive), 1, "given up");
}
