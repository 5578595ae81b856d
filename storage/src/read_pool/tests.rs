//! Tests of the reader threads: in parallel, bounded, and finished even if nobody waits.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

#[tokio::test]
async fn runs_in_parallel_and_answers_each() {
    let pool = ReadPool::start(4).unwrap();
    let barrier = Arc::new(Barrier::new(4));
    let jobs = (0..4).map(|n| {
        let barrier = barrier.clone();
        pool.run(move || {
            barrier.wait();
            n
        })
    });
    let answers: Vec<_> = futures::future::join_all(jobs).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [0, 1, 2, 3]);
}

#[tokio::test]
async fn bounded_and_given_up_jobs_still_run() {
    let pool = Arc::new(ReadPool::start(1).unwrap());
    let (open, gate) = mpsc::channel::<()>();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut blocked = Box::pin(pool.run(move || gate.recv().is_ok()));
    // Unconstrained: the runtime would otherwise make a task that polls so much yield before all were polled.
    let mut waiting = tokio::task::unconstrained(async {
        assert!(futures::poll!(&mut blocked).is_pending());
        let mut waiting = Vec::new();
        for _ in 0..QUEUE + 10 {
            let ran = ran.clone();
            let mut job = Box::pin(pool.run(move || ran.fetch_add(1, Ordering::SeqCst)));
            assert!(futures::poll!(&mut job).is_pending());
            waiting.push(job);
        }
        waiting
    })
    .await;
    assert_eq!(pool.room.available_permits(), 0, "the others wait outside");
    waiting.truncate(5);
    open.send(()).unwrap();
    assert!(blocked.await.unwrap());
    for job in waiting {
        job.await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(10), async {
        while ran.load(Ordering::SeqCst) < QUEUE - 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}
