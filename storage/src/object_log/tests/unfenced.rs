//! When a writer may believe that nobody has fenced its log, and when it must not.

use super::writing::UNTIL_UNKNOWN;
use super::*;

async fn is_fenced(writer: &Writer) -> bool {
    match writer.log.confirm_unfenced().await {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            true
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fence_is_seen_by_a_writer_that_never_writes() {
    for fragments in [0, 1, 3] {
        let world = World::new();
        let writer = world.writer().await;
        all(&writer.append_apart(0..fragments).await).await;
        assert!(!is_fenced(&writer).await);
        assert_eq!(world.fence(1, SEALER).await.unwrap(), fragments as u64);
        assert!(is_fenced(&writer).await);
        assert!(is_fenced(&writer).await, "and for good");
    }
}

#[tokio::test(start_paused = true)]
async fn one_read_is_enough_while_nothing_is_in_flight() {
    let world = World::new();
    let writer = world.writer().await;
    all(&writer.append_apart(0..3).await).await;
    let before = writer.connection.counts().gets;
    writer.log.confirm_unfenced().await.unwrap();
    assert_eq!(writer.connection.counts().gets, before + 1);
}

/// Fragments that landed, of which the writer does not know it yet: they hide no fence.
#[tokio::test(start_paused = true)]
async fn fragments_in_flight_hide_no_fence() {
    for fenced in [false, true] {
        let world = World::new();
        let writer = world.writer().await;
        all(&writer.append([0])).await;
        for fragment in 1..4 {
            world.store.script(Operation::Put, &key(1, 0, fragment), 0, Fault::LandThenHang);
        }
        let pending = writer.append_apart(1..4).await;
        assert!(pending.iter().all(|pending| pending.outcome().is_none()), "they hang");
        if fenced {
            assert_eq!(world.fence(1, SEALER).await.unwrap(), 4);
        }
        assert_eq!(is_fenced(&writer).await, fenced);
    }
}

/// A writer gives a fragment up and fences it; another one finds that fence, takes it for the end, and serves.
#[tokio::test(start_paused = true)]
async fn an_own_fence_proves_nothing() {
    let world = World::new();
    let writer = world.writer().await;
    for fault in [Fault::Hang; UNTIL_UNKNOWN].into_iter().chain([Fault::LandThenHang]) {
        world.store.script(Operation::Put, &key(1, 0, 1), 0, fault);
    }
    let pending = writer.append_apart(0..2).await;
    // Until the fence is there, and the writer waits for an answer.
    while world.store.inner().head(&key(1, 0, 1).into()).await.is_err() {
        assert!(!is_fenced(&writer).await);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.fence(1, SEALER).await.unwrap(), 1);
    let confirmed = writer.log.confirm_unfenced().await;
    assert!(confirmed.is_err(), "the log was sealed at the writer's own fence");
    assert_eq!(all(&pending).await, [Outcome::Durable, Outcome::Fenced]);
    assert!(is_fenced(&writer).await);
}

/// Between the registration of a segment and the writer's knowledge of it, another one fences the new segment.
#[tokio::test(start_paused = true)]
async fn a_fence_in_a_segment_that_the_writer_does_not_know_of_yet() {
    let world = World::new();
    let writer = world.writer().await;
    all(&writer.append([0])).await;
    world.meta.script([TxnFault::AppliedAnsweredLate(Duration::from_secs(10))]);
    let log = writer.log.clone();
    let rolling = tokio::spawn(async move { log.roll().await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry::load(&world.meta, 1).await.unwrap().0.segments.len(), 2, "the segment is registered");
    assert_eq!(world.fence(1, SEALER).await.unwrap(), 0);
    assert!(writer.log.confirm_unfenced().await.is_err(), "it is fenced where it does not look yet");
    rolling.await.unwrap().unwrap();
    assert!(is_fenced(&writer).await);
}

/// A roll in good order only delays the answer.
#[tokio::test(start_paused = true)]
async fn a_log_that_rolls_is_confirmed_afterwards() {
    let world = World::new();
    let writer = world.writer().await;
    all(&writer.append([0])).await;
    world.meta.script([TxnFault::AppliedAnsweredLate(Duration::from_secs(1))]);
    let log = writer.log.clone();
    let rolling = tokio::spawn(async move { log.roll().await });
    sleep(Duration::from_millis(10)).await;
    let began = Instant::now();
    writer.log.confirm_unfenced().await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    rolling.await.unwrap().unwrap();
    writer.log.confirm_unfenced().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_confirms_nothing_in_limited_time() {
    let world = World::new();
    let writer = world.writer().await;
    writer.connection.set_cut(true);
    let began = Instant::now();
    assert_eq!(writer.log.confirm_unfenced().await.unwrap_err().kind(), ErrorKind::Retriable);
    assert!(began.elapsed() <= world.options.call_timeout);
    writer.connection.set_cut(false);
    writer.log.confirm_unfenced().await.unwrap();
    writer.log.close().await.unwrap();
    assert_eq!(writer.log.confirm_unfenced().await.unwrap_err().kind(), ErrorKind::Closed);
}
