//! Tests of finding a log's end: whoever looks, however often, whatever the store answers.

use meta::records::encode;
use meta::settled::Patience;
use meta::store::Txn;

use super::*;
use crate::object_log::fence::Recovery;

/// A writer that is stopped for good, with so many fragments acknowledged.
async fn dead_writer(world: &World, fragments: i64) -> u64 {
    let writer = world.writer().await;
    all(&writer.append_apart(0..fragments).await).await;
    writer.number()
}

/// Writes an object at a fragment's key, as no writer of ours would.
async fn plant(world: &World, segment: u32, fragment: u64, bytes: impl Into<PutPayload>) {
    world.store.inner().put(&object::fragment(1, segment, fragment), bytes.into()).await.unwrap();
}

fn fragment_bytes(log: u64, fragment: u64, writer: Incarnation) -> Vec<u8> {
    let builder: FragmentBuilder = [entry(partition(1, 0), fragment as i64, 1, 100)].into_iter().collect();
    builder.finish(FragmentId { log, segment: 0, fragment }, writer, None).parts.concat()
}

#[tokio::test(start_paused = true)]
async fn the_end_is_the_first_fragment_that_is_not_there() {
    for fragments in [0, 1, 5, 70] {
        let world = World::new();
        let number = dead_writer(&world, fragments).await;
        let record = world.recover(number, SEALER).await;
        assert_eq!(record.segments[0].end, Some(fragments as u64));
        assert_eq!(world.content(number).await, offsets(0..fragments));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_fences_however_often_the_end_is_the_same() {
    let world = World::new();
    let number = dead_writer(&world, 3).await;
    for sealer in [SEALER, OTHER_SEALER, SEALER, WRITER] {
        assert_eq!(world.fence(number, sealer).await.unwrap(), 3);
    }
    // What a zombie may still land above the fence changes nothing, whatever LIST shows.
    plant(&world, 0, 4, fragment_bytes(1, 4, WRITER)).await;
    plant(&world, 0, 5, fragment_bytes(1, 5, WRITER)).await;
    assert_eq!(world.fence(number, OTHER_SEALER).await.unwrap(), 3);
    let record = world.recover(number, OTHER_SEALER).await;
    assert_eq!(world.logs(&world.store).fence(number, &record, SEALER).await.unwrap(), 3);
    assert_eq!(world.content(number).await, offsets(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_marked_as_sealing_is_not_fenced() {
    let world = World::new();
    let number = dead_writer(&world, 1).await;
    let (record, _) = registry::load(&world.meta, number).await.unwrap();
    let error = world.logs(&world.store).fence(number, &record, SEALER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(world.store.counts().puts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fragment_that_lands_before_the_fence_moves_the_fence_up() {
    let world = World::new();
    let number = dead_writer(&world, 2).await;
    let record = registry::begin_sealing(&world.meta, number).await.unwrap();
    let logs = world.logs(&world.store);
    // The reads of the headers are answered before the late fragments land, the fence's PUT after.
    world.store.set_plan(FaultPlan::slow(Duration::from_millis(10)..=Duration::from_millis(10)));
    let began = Instant::now();
    let fence = tokio::spawn(async move { logs.fence(number, &record, SEALER).await });
    for _ in 0..10 {
        if world.store.counts().gets >= 64 {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    // Every header was asked for, and nothing was there.
    sleep(Duration::from_millis(10).saturating_sub(began.elapsed())).await;
    plant(&world, 0, 2, fragment_bytes(1, 2, WRITER)).await;
    let end = fence.await.unwrap().unwrap();
    assert_eq!(end, 3, "the writer was first, and may have acknowledged it");
    registry::seal(&world.meta, number, end).await.unwrap();
    assert_eq!(world.content(number).await, offsets(0..3));
}

#[tokio::test(start_paused = true)]
async fn every_ambiguity_of_the_fence_gives_the_same_end() {
    for fault in [
        Fault::FailBefore,
        Fault::LandThenError,
        Fault::LandThenAlreadyExists,
        Fault::AlreadyExistsNothingLanded,
        Fault::LandThenHang,
        Fault::LandLate(Duration::from_millis(300)),
        Fault::HangThenLandLate(Duration::from_secs(20)),
        Fault::Unavailable(Duration::from_secs(40)),
    ] {
        let world = World::new();
        let number = dead_writer(&world, 2).await;
        world.store.script(Operation::Put, &key(number, 0, 2), 0, fault);
        assert_eq!(world.fence(number, SEALER).await.unwrap(), 2, "{fault:?}");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.fence(number, OTHER_SEALER).await.unwrap(), 2, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_zombies_late_fragment_finds_the_fence() {
    let world = World::new();
    let writer = world.writer().await;
    all(&writer.append_apart(0..2).await).await;
    world.store.script(Operation::Put, &key(1, 0, 2), 0, Fault::HangThenLandLate(Duration::from_secs(100)));
    let pending = writer.append([2]);
    sleep(Duration::from_millis(200)).await;
    let record = world.recover(1, SEALER).await;
    assert_eq!(record.segments[0].end, Some(2));
    sleep(Duration::from_secs(200)).await;
    world.store.land_due().await;
    assert_eq!(world.store.due(), 0);
    assert_eq!(all(&pending).await, [Outcome::Fenced]);
    assert_eq!(world.fence(1, OTHER_SEALER).await.unwrap(), 2);
    assert_eq!(world.content(1).await, offsets(0..2));
}

#[tokio::test(start_paused = true)]
async fn a_zombies_late_fragment_that_is_first_is_content() {
    let world = World::new();
    let writer = world.writer().await;
    all(&writer.append_apart(0..2).await).await;
    world.store.script(Operation::Put, &key(1, 0, 2), 0, Fault::HangThenLandLate(Duration::from_millis(100)));
    let pending = writer.append([2]);
    sleep(Duration::from_millis(200)).await;
    world.recover(1, SEALER).await;
    assert_eq!(all(&pending).await, [Outcome::Durable], "it is below the fence: acknowledged late, and rightly");
    assert_eq!(world.content(1).await, offsets(0..3));
    // The writer learns of the fence with its next fragment.
    assert_eq!(all(&writer.append([3])).await, [Outcome::Fenced]);
}

#[tokio::test(start_paused = true)]
async fn recovery_that_dies_half_way_twice_gives_the_same_end() {
    let latency = Duration::from_millis(10)..=Duration::from_millis(40);
    let mut ends = Vec::new();
    for (first, second) in [(0, 0), (15, 30), (30, 60), (45, 5), (60, 90), (90, 20), (120, 100)] {
        let world = World::seeded(first * 1_000 + second, FaultPlan::slow(latency.clone()));
        let number = dead_writer(&world, 4).await;
        for (lifetime, sealer) in [(first, SEALER), (second, OTHER_SEALER)] {
            let recovery = world.recover(number, sealer);
            let died = timeout(Duration::from_millis(lifetime), recovery).await;
            ends.extend(died.ok().and_then(|record| record.segments[0].end));
        }
        let record = world.recover(number, Incarnation(0x44)).await;
        ends.extend(record.segments[0].end);
        assert_eq!(world.content(number).await, offsets(0..4));
    }
    assert!(ends.len() > 7, "some got to the end before they died");
    assert!(ends.iter().all(|end| *end == 4), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn recovery_starts_where_the_record_says() {
    let world = World::new();
    let number = dead_writer(&world, 6).await;
    let (record, _) = registry::load(&world.meta, number).await.unwrap();
    // Fragments 0 to 3 were deleted, after `recover_from` had been raised.
    let raised = LogRecord { recover_from: 4, ..record };
    world.meta.commit(Txn::new().put(meta::keys::store::log(number), encode(&raised))).await.unwrap();
    for fragment in 0..4 {
        world.store.inner().delete(&object::fragment(number, 0, fragment)).await.unwrap();
    }
    assert_eq!(world.fence(number, SEALER).await.unwrap(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_is_found_must_be_what_its_key_says() {
    let damaged = {
        let mut bytes = fragment_bytes(1, 2, WRITER);
        bytes[20] ^= 1;
        bytes
    };
    let short = fragment_bytes(1, 2, WRITER)[..150].to_vec();
    for (what, bytes) in [
        ("another log's", fragment_bytes(9, 2, WRITER)),
        ("another number's", fragment_bytes(1, 1, WRITER)),
        ("another writer's", fragment_bytes(1, 2, SEALER)),
        ("damaged", damaged),
        ("shorter than it says", short),
        ("shorter than a header", vec![1; 30]),
    ] {
        let world = World::new();
        let number = dead_writer(&world, 2).await;
        plant(&world, 0, 2, bytes).await;
        let error = world.fence(number, SEALER).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.to_string().contains(&key(number, 0, 2)), "{what}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_no_end() {
    let world = World::new();
    let number = dead_writer(&world, 2).await;
    let record = registry::begin_sealing(&world.meta, number).await.unwrap();
    world.store.set_down(true);
    let error = world.logs(&world.store).fence(number, &record, SEALER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retriable);
    world.store.set_down(false);
    assert_eq!(world.fence(number, SEALER).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn recovery_reads_no_more_than_it_needs_and_at_once() {
    let world = World::new();
    let latency = Duration::from_millis(5);
    for fragment in 0..10_000u64 {
        plant(&world, 0, fragment, fragment_bytes(1, fragment, WRITER)).await;
    }
    let number = registry::register(&world.meta, WRITER, &[]).await.unwrap();
    let record = registry::begin_sealing(&world.meta, number).await.unwrap();
    world.store.set_plan(FaultPlan::slow(latency..=latency));
    let logs = world.logs(&world.store);
    let began = Instant::now();
    assert_eq!(logs.fence(number, &record, SEALER).await.unwrap(), 10_000);
    let fenced = began.elapsed();
    let mut seen = 0;
    let mut each = |index: FragmentIndex| {
        assert_eq!(index.fragment.fragment, seen);
        seen += 1;
        Ok(())
    };
    logs.read_indexes(number, 0, 0, 10_000, &mut each).await.unwrap();
    let counts = world.store.counts();
    println!(
        "10,000 fragments, 5 ms a request: fenced in {} ms, indexes read in {} ms, {} GETs",
        fenced.as_millis(),
        (began.elapsed() - fenced).as_millis(),
        counts.gets
    );
    assert_eq!(counts.puts, 1);
    assert!(counts.gets < 20_200, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_fence_believes_what_it_reads_back_not_that_it_lost() {
    let world = World::new();
    let number = dead_writer(&world, 2).await;
    let record = registry::begin_sealing(&world.meta, number).await.unwrap();
    let logs = world.logs(&world.store);
    // As if every header read had been answered before the fragments landed.
    let recovery = Recovery {
        gets: &logs.gets,
        settler: &logs.settler,
        patience: Patience::default(),
        number,
        record: &record,
        sealer: SEALER,
    };
    assert_eq!(recovery.end_from_absent(0).await.unwrap(), 2);
}
