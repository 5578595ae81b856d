//! Tests of the writer: when it flushes, when it acknowledges, and how it ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_there_once_in_order() {
    let world = World::new();
    let writer = world.writer().await;
    let (a, b) = (partition(1, 0), partition(2, 7));
    let mut pending = Vec::new();
    for offset in 0..50 {
        pending.push(writer.log.enqueue(entry(a, offset, 1, 200)));
        pending.push(writer.log.enqueue(entry(b, 3 * offset, 3, 10)));
        sleep(Duration::from_millis(7)).await;
    }
    assert!(all(&pending).await.iter().all(|outcome| *outcome == Outcome::Durable));
    assert_eq!(writer.log.pending_bytes(), 0);
    writer.log.close().await.unwrap();
    let content = world.content(writer.number()).await;
    assert_eq!(content[&a], (0..50).collect::<Vec<_>>());
    assert_eq!(content[&b], (0..50).map(|n| 3 * n).collect::<Vec<_>>());
    let told: Vec<i64> = writer.sink.offsets().into_iter().filter(|(p, _)| *p == a).map(|(_, o)| o).collect();
    assert_eq!(told, content[&a]);
    assert_eq!(writer.sink.outcome(), None);
}

#[tokio::test(start_paused = true)]
async fn the_first_entry_after_a_quiet_time_is_flushed_at_once() {
    let mut world = World::new();
    world.store.set_plan(FaultPlan::slow(Duration::from_millis(100)..=Duration::from_millis(100)));
    world.options.flush_interval = Duration::from_millis(250);
    let writer = world.writer().await;
    for _ in 0..3 {
        sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        let offset = writer.log.durable_end().fragment as i64;
        all(&writer.append([offset])).await;
        assert!(began.elapsed() < Duration::from_millis(105), "one PUT and no interval: {:?}", began.elapsed());
    }
    // The next one waits for the rest of the interval, and only that.
    let began = Instant::now();
    all(&writer.append([3])).await;
    assert!((249..260).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_puts_depends_on_time_not_on_entries_or_partitions() {
    for partitions in [1, 1_000] {
        let world = World::new();
        let writer = world.writer().await;
        for step in 0..1_000i64 {
            let at = partition(1, (step % partitions) as i32);
            writer.log.enqueue(entry(at, step / partitions, 1, 50));
            sleep(Duration::from_millis(1)).await;
        }
        let puts = world.store.counts().puts;
        assert!((19..=21).contains(&puts), "{puts} PUTs in a second with {partitions} partitions");
    }
}

/// An entry every millisecond for so many seconds; how many PUTs that were.
async fn steady(world: &World, writer: &Writer, from: i64, seconds: i64) -> u64 {
    let before = world.store.counts().puts;
    for offset in from..from + 1_000 * seconds {
        writer.log.enqueue(entry(partition(1, 0), offset, 1, 50));
        sleep(Duration::from_millis(1)).await;
    }
    world.store.counts().puts - before
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_puts_widens_the_interval_and_lets_go_of_it() {
    let mut world = World::new();
    world.options.puts_per_s = 5;
    let writer = world.writer().await;
    let first = steady(&world, &writer, 0, 20).await;
    assert!((140..=151).contains(&first), "20 s at 5/s, and ten seconds of them ahead: {first}");
    let later = steady(&world, &writer, 20_000, 20).await;
    assert!((99..=101).contains(&later), "5/s: {later}");
    // A lone entry waits for no more than one PUT of the budget; after a while it waits for nothing.
    let began = Instant::now();
    all(&writer.append([40_000])).await;
    assert!(began.elapsed() <= Duration::from_millis(200), "{:?}", began.elapsed());
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    all(&writer.append([40_001])).await;
    assert!(began.elapsed() < Duration::from_millis(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn full_batches_and_short_memory_win_over_the_budget() {
    let mut world = World::new();
    world.options = WriterOptions { puts_per_s: 1, flush_bytes: 10_000, ..world.options };
    let writer = world.writer().await;
    // 49 KB a second, so five full batches a second, though the budget allows one.
    let puts = steady_of(&world, &writer, 20, 1_000).await;
    assert!((95..=110).contains(&puts), "{puts} PUTs of 10,000 bytes in 20 s");
    let widened = Instant::now();
    let pending = writer.append([20_000]);
    writer.log.memory_is_short();
    all(&pending).await;
    assert!(widened.elapsed() <= Duration::from_millis(60), "the interval and no more: {:?}", widened.elapsed());
    let widened = Instant::now();
    all(&writer.append([20_001])).await;
    let waited = widened.elapsed();
    assert!((900..=1_001).contains(&waited.as_millis()), "that was for once: {waited:?}");
}

/// Twenty milliseconds apart, entries of so many bytes.
async fn steady_of(world: &World, writer: &Writer, seconds: i64, bytes: usize) -> u64 {
    let before = world.store.counts().puts;
    for offset in 0..50 * seconds {
        writer.log.enqueue(entry(partition(1, 0), offset, 1, bytes));
        sleep(Duration::from_millis(20)).await;
    }
    world.store.counts().puts - before
}

#[tokio::test(start_paused = true)]
async fn full_batches_do_not_wait_and_at_most_so_many_are_in_flight() {
    let mut world = World::new();
    world.store.set_plan(FaultPlan::slow(Duration::from_millis(100)..=Duration::from_millis(100)));
    world.options = WriterOptions { flush_bytes: 1_000, max_in_flight: 32, ..world.options };
    let writer = world.writer().await;
    let began = Instant::now();
    let pending: Vec<_> = (0..64).map(|n| writer.log.enqueue(entry(partition(1, 0), n, 1, 1_000))).collect();
    assert_eq!(writer.log.pending_bytes(), 64 * 1_021);
    all(&pending).await;
    // Two rounds of 32: one would be 100 ms, three would be 300.
    assert!((200..250).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(world.store.counts().puts, 64);
    assert_eq!(writer.log.durable_end().fragment, 64);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let world = World::new();
    let writer = world.writer().await;
    world.store.set_down(true);
    let pending = writer.append(0..3);
    sleep(Duration::from_secs(10)).await;
    assert!(pending.iter().all(|pending| pending.outcome().is_none()));
    assert!(writer.sink.durable.lock().is_empty());
    assert_eq!(writer.log.durable_end().fragment, 0);
    assert_eq!(writer.log.pending_bytes(), 3 * 121);
    world.store.set_down(false);
    assert_eq!(all(&pending).await, [Outcome::Durable; 3]);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_leave_in_order_though_puts_end_out_of_order() {
    let world = World::new();
    let writer = world.writer().await;
    world.store.script(Operation::Put, &key(1, 0, 0), 0, Fault::LandThenHang);
    let pending = writer.append_apart(0..6).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.counts().puts, 6, "the others are on their way, or there");
    assert!(pending.iter().all(|pending| pending.outcome().is_none()));
    assert!(writer.sink.durable.lock().is_empty());
    assert_eq!(all(&pending).await, [Outcome::Durable; 6]);
    assert_eq!(writer.sink.offsets().iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn every_ambiguity_of_a_put_ends_durable_and_once() {
    let late = Duration::from_millis(700);
    for fault in [
        Fault::FailBefore,
        Fault::LandThenError,
        Fault::LandThenAlreadyExists,
        Fault::AlreadyExistsNothingLanded,
        Fault::Hang,
        Fault::LandThenHang,
        Fault::LandLate(late),
        Fault::HangThenLandLate(late),
        Fault::Unavailable(Duration::from_secs(7)),
    ] {
        let world = World::new();
        let writer = world.writer().await;
        world.store.script(Operation::Put, ".frag", 1, fault);
        let pending = writer.append_apart(0..4).await;
        assert_eq!(all(&pending).await, [Outcome::Durable; 4], "{fault:?}");
        sleep(Duration::from_secs(5)).await;
        writer.log.close().await.unwrap();
        assert_eq!(world.content(writer.number()).await, offsets(0..4), "{fault:?}");
        assert_eq!(registry::load(&world.meta, 1).await.unwrap().0.segments.len(), 1, "{fault:?}: no roll was needed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_fragment_that_had_landed_is_found_to_be_durable() {
    let world = World::new();
    let writer = world.writer().await;
    world.store.script(Operation::Put, &key(1, 0, 1), 0, Fault::LandThenError);
    world.store.script(Operation::Get, &key(1, 0, 1), 0, Fault::Unavailable(Duration::from_secs(40)));
    let pending = writer.append_apart(0..2).await;
    sleep(Duration::from_secs(30)).await;
    assert!(pending[1..].iter().all(|pending| pending.outcome().is_none()));
    assert_eq!(all(&pending).await, [Outcome::Durable; 2]);
    writer.log.close().await.unwrap();
    assert_eq!(world.content(writer.number()).await, offsets(0..2));
    assert_eq!(registry::load(&world.meta, 1).await.unwrap().0.segments.len(), 1);
}

/// `unknown_after` is so many calls.
pub(super) const UNTIL_UNKNOWN: usize = 3;

/// So many PUTs of fragment 1 get no answer, while 2 and 3 have landed above it.
async fn stuck_at_one(world: &World, puts: usize) -> (Writer, Vec<Pending>) {
    let writer = world.writer().await;
    for _ in 0..puts {
        world.store.script(Operation::Put, &key(1, 0, 1), 0, Fault::Hang);
    }
    let pending = writer.append_apart(0..4).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pending[0].outcome(), Some(Outcome::Durable));
    (writer, pending)
}

#[tokio::test(start_paused = true)]
async fn a_fragment_that_never_lands_is_fenced_by_its_writer_which_goes_on_in_a_new_segment() {
    let world = World::new();
    let (writer, pending) = stuck_at_one(&world, UNTIL_UNKNOWN).await;
    assert!(pending[1..].iter().all(|pending| pending.outcome().is_none()));
    assert_eq!(all(&pending).await, [Outcome::Durable; 4]);
    assert_eq!(writer.log.durable_end(), FragmentId { log: 1, segment: 1, fragment: 3 });
    assert_eq!(all(&writer.append([4])).await, [Outcome::Durable]);
    writer.log.close().await.unwrap();
    let (record, _) = registry::load(&world.meta, 1).await.unwrap();
    assert_eq!(record.segments.iter().map(|segment| segment.end).collect::<Vec<_>>(), [Some(1), Some(4)]);
    // What landed above the fence in the first segment is not content, and every entry is there once.
    assert_eq!(world.content(1).await, offsets(0..5));
    assert_eq!(writer.sink.offsets().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_new_segment_is_registered_however_often_metadata_fails_and_never_twice() {
    for fault in [TxnFault::AppliedUnknown, TxnFault::LostUnknown, TxnFault::Unavailable] {
        let world = World::new();
        let (writer, pending) = stuck_at_one(&world, UNTIL_UNKNOWN).await;
        world.meta.script([fault, fault]);
        assert_eq!(all(&pending).await, [Outcome::Durable; 4], "{fault:?}");
        writer.log.close().await.unwrap();
        assert_eq!(registry::load(&world.meta, 1).await.unwrap().0.segments.len(), 2, "{fault:?}");
        assert_eq!(world.content(1).await, offsets(0..4), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_fenced_itself_while_being_sealed_is_fenced() {
    let world = World::new();
    let (writer, pending) = stuck_at_one(&world, UNTIL_UNKNOWN).await;
    registry::begin_sealing(&world.meta, 1).await.unwrap();
    assert_eq!(all(&pending).await[1..], [Outcome::Fenced; 3]);
    assert_eq!(writer.sink.outcome(), Some(Outcome::Fenced));
    world.recover(1, SEALER).await;
    assert_eq!(world.content(1).await, offsets(0..1));
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_loses_nothing_and_ends_by_itself() {
    let world = World::new();
    let writer = world.writer().await;
    let first = writer.append([0]);
    all(&first).await;
    world.store.set_down(true);
    let pending = writer.append_apart(1..20).await;
    sleep(Duration::from_secs(3_000)).await;
    assert!(pending.iter().all(|pending| pending.outcome().is_none()));
    world.store.set_down(false);
    assert_eq!(all(&pending).await, [Outcome::Durable; 19]);
    writer.log.close().await.unwrap();
    assert_eq!(world.content(1).await, offsets(0..20));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_writer_never_acknowledges_again() {
    let world = World::new();
    let (writer, pending) = stuck_at_one(&world, 1).await;
    let record = world.recover(1, SEALER).await;
    assert_eq!(record.segments[0].end, Some(1));
    let later = writer.append(4..6);
    assert_eq!(all(&pending).await[1..], [Outcome::Fenced; 3], "2 and 3 are in the store, above the fence");
    assert_eq!(all(&later).await, [Outcome::Fenced; 2]);
    assert_eq!(writer.sink.offsets().len(), 1);
    let ended = writer.sink.ended.lock().clone();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].0, Outcome::Fenced);
    assert!(ended[0].1.contains(&SEALER.to_string()), "names who fenced: {}", ended[0].1);
    assert!(all_are(Outcome::Fenced, &writer.append(6..7)));
    assert_eq!(writer.log.pending_bytes(), 0);
    assert_eq!(writer.log.roll().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(writer.log.close().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(world.content(1).await, offsets(0..1));
}

#[tokio::test(start_paused = true)]
async fn rolling_ends_the_segment_at_its_durable_end() {
    let world = World::new();
    world.store.set_plan(FaultPlan::slow(Duration::from_millis(10)..=Duration::from_millis(200)));
    let writer = world.writer().await;
    let before = writer.append_apart(0..3).await;
    writer.log.roll().await.unwrap();
    assert!(all_are(Outcome::Durable, &before[..2]));
    let after = writer.append(3..5);
    writer.log.roll().await.unwrap();
    writer.log.close().await.unwrap();
    assert!(all_are(Outcome::Durable, &before) && all_are(Outcome::Durable, &after));
    assert_eq!(writer.log.durable_end().segment, 2);
    let (record, _) = registry::load(&world.meta, 1).await.unwrap();
    assert_eq!((record.state, record.segments.len()), (LogState::Sealed, 3));
    assert_eq!(world.content(1).await, offsets(0..5));
    let owned = world.logs(&world.store).open(1, WRITER, RecordingSink::new()).await;
    assert_eq!(owned.err().unwrap().kind(), ErrorKind::Fenced, "a sealed log is never written again");
}

#[tokio::test(start_paused = true)]
async fn a_closed_log_takes_nothing_and_can_be_closed_again() {
    let world = World::new();
    let writer = world.writer().await;
    let pending = writer.append(0..3);
    world.meta.script([TxnFault::Unavailable]);
    assert_eq!(writer.log.close().await.unwrap_err().kind(), ErrorKind::Retriable);
    assert!(all_are(Outcome::Durable, &pending));
    assert!(all_are(Outcome::Unknown, &writer.append(3..4)));
    writer.log.close().await.unwrap();
    writer.log.close().await.unwrap();
    assert_eq!(world.content(1).await, offsets(0..3));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_log_stops_its_writer_and_leaves_nobody_waiting() {
    let world = World::new();
    let writer = world.writer().await;
    world.store.set_down(true);
    let pending = writer.append_apart(0..2).await;
    let Writer { log, sink, .. } = writer;
    drop(log);
    assert_eq!(all(&pending).await, [Outcome::Unknown; 2]);
    assert_eq!(sink.outcome(), Some(Outcome::Unknown));
    let puts = world.store.counts().puts;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.store.counts().puts, puts);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_was_cut_off_learns_that_it_was_fenced() {
    let world = World::new();
    let writer = world.writer().await;
    all(&writer.append([0])).await;
    writer.connection.set_cut(true);
    let pending = writer.append_apart(1..4).await;
    world.recover(1, SEALER).await;
    sleep(Duration::from_secs(100)).await;
    assert!(pending.iter().all(|pending| pending.outcome().is_none()), "it cannot know");
    writer.connection.set_cut(false);
    assert_eq!(all(&pending).await, [Outcome::Fenced; 3]);
    assert_eq!(world.content(1).await, offsets(0..1));
}
