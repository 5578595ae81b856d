//! Tests of reads by way of shared chunks: damage, memory that others hold, reading ahead.

use futures::FutureExt;
use tokio::task::yield_now;

use super::*;

const CHUNK: usize = 64;

/// A lane with room for 32 chunks, of which a reader gets 8 at a time.
fn lane() -> LaneOptions {
    LaneOptions { chunk_bytes: CHUNK, get_chunks: 4, max_bytes: 32 * CHUNK, gets: 4, ahead_gets: 4 }
}

fn remote(budget_bytes: usize) -> Fixture {
    let mut f = fixture(Place::Remote, budget_bytes);
    let options = ReaderOptions { index_cache_bytes: 1 << 20, near: lane(), cold: lane() };
    // Nothing has been written since the start.
    f.reader = Reader::new(Arc::new(Tail::new(0)), f.store.clone(), f.budget.clone(), options);
    f
}

impl Fixture {
    fn reads(&self) -> usize {
        self.store.reads.load(Ordering::SeqCst)
    }

    /// Makes all memory of the cold lane part of answers that nobody drops.
    async fn fill_cold_lane(&self) -> Vec<crate::chunks::Pieces> {
        let other = FragmentId { log: 1, segment: 0, fragment: 0 };
        self.store.fragments.lock().insert(other, vec![0; 32 * CHUNK]);
        let chunks = self.reader.chunks(Lane::Cold);
        let mut answers = Vec::new();
        for begin in (0..32 * CHUNK as u64).step_by(8 * CHUNK) {
            let stretch = chunks.get(other, begin..begin + 8 * CHUNK as u64).await.unwrap();
            answers.push(stretch.pieces().await.unwrap());
        }
        assert_eq!(chunks.bytes(), 32 * CHUNK);
        answers
    }
}

#[tokio::test]
async fn damage_on_the_way_is_read_again() {
    let f = remote(1 << 20);
    for damaged in 1..=2 {
        f.store.damaged.store(damaged, Ordering::SeqCst);
        assert_eq!(f.expect(want(10, 21, 1000, true), 0..2).await, 13, "as many as a reader gets at a time");
        assert_eq!(f.expect(want(13, 21, 1000, true), 2..4).await, 21);
        while f.reader.chunks(Lane::Cold).evict_oldest() {}
    }
}

#[tokio::test]
async fn who_reads_damage_again_holds_nothing_of_what_he_waits_for() {
    let f = remote(1 << 20);
    f.expect(want(10, 12, 1000, true), 0..1).await;
    while f.reader.chunks(Lane::Cold).evict_oldest() {}
    let mut answers = f.fill_cold_lane().await;
    // There is room for the reader's chunks once, not twice.
    answers.pop();
    f.store.damaged.store(1, Ordering::SeqCst);
    let wanted = want(10, 21, 1000, true);
    let mut reading = std::pin::pin!(f.reader.read(p(), &f.run, &wanted));
    for _ in 0..200 {
        if let Some(read) = reading.as_mut().now_or_never() {
            assert_eq!(read.unwrap().next_offset, 13);
            return;
        }
        yield_now().await;
    }
    panic!("it waits for itself");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_on_the_way_is_read_again() {
    let f = remote(1 << 20);
    f.expect(want(10, 12, 1000, true), 0..1).await;
    for kept_bytes in [0, 10, CHUNK, CHUNK + 10] {
        while f.reader.chunks(Lane::Cold).evict_oldest() {}
        f.store.cut_to.lock().replace(kept_bytes);
        assert_eq!(f.expect(want(10, 21, 1000, true), 0..2).await, 13, "{kept_bytes}");
        assert!(f.store.cut_to.lock().is_none(), "it was cut off");
    }
    f.store.fragments.lock().get_mut(&f.run.fragment).unwrap().truncate(f.run.position as usize + 50);
    while f.reader.chunks(Lane::Cold).evict_oldest() {}
    let error = f.reader.read(p(), &f.run, &want(10, 21, 1000, true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "it is that short where it is stored: {error}");
}

#[tokio::test]
async fn stored_damage_is_reported_and_not_kept() {
    let f = remote(1 << 20);
    let position = f.run.position as usize + 150; // in the second batch
    let flip = || f.store.fragments.lock().get_mut(&f.run.fragment).unwrap()[position] ^= 1;
    flip();
    for at_least_one in [true, false] {
        let error = f.reader.read(p(), &f.run, &want(10, 21, 1000, at_least_one)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.contains("logs/0000000004/000002/000000000009.frag"), "{text}");
        assert!(text.contains(&format!("position {}", f.run.position + 100)) && text.contains("offset 12"), "{text}");
    }
    assert_eq!(f.expect(want(10, 12, 1000, false), 0..1).await, 12, "what is intact is still served");
    flip();
    assert_eq!(f.expect(want(10, 21, 1000, true), 0..2).await, 13, "as soon as it is intact");
}

#[tokio::test]
async fn a_damaged_index_and_a_missing_fragment_are_what_they_are() {
    let f = remote(1 << 20);
    let position = f.run.index_position as usize + 3;
    let flip = || f.store.fragments.lock().get_mut(&f.run.fragment).unwrap()[position] ^= 1;
    flip();
    let error = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    flip();
    f.expect(want(10, 12, 1000, false), 0..1).await;
    while f.reader.chunks(Lane::Cold).evict_oldest() {}
    f.store.fragments.lock().clear();
    let error = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "to be planned again: {error}");
    assert_eq!(f.budget.used_bytes(), 0);
}

#[tokio::test]
async fn an_answer_is_paid_for_with_all_that_it_keeps_in_memory() {
    let f = remote(1 << 20);
    let read = f.reader.read(p(), &f.run, &want(10, 12, 1000, false)).await.unwrap();
    while f.reader.chunks(Lane::Cold).evict_oldest() {}
    let kept = f.budget.used_bytes();
    assert!(kept >= 2 * CHUNK && kept == f.reader.chunks(Lane::Cold).bytes(), "{kept}");
    drop(read);
    assert_eq!((f.budget.used_bytes(), f.reader.chunks(Lane::Cold).bytes()), (0, 0));
}

#[tokio::test]
async fn upkeep_and_look_ups_do_not_wait_for_readers_that_hold_their_lane() {
    let f = remote(1 << 20);
    let answers = f.fill_cold_lane().await;
    let wanted = want(10, 21, 1000, true);
    let mut reading = std::pin::pin!(f.reader.read(p(), &f.run, &wanted));
    for _ in 0..50 {
        assert!(reading.as_mut().now_or_never().is_none(), "there is no memory in the cold lane");
        yield_now().await;
    }
    let refused = f.reader.read(p(), &f.run, &want(10, 21, 1000, false)).await.unwrap();
    assert_eq!((refused.bytes, refused.next_offset), (0, 10), "does not wait while the caller may hold more");
    let whole = f.reader.read_whole(p(), &f.run).await.unwrap();
    let bytes: Vec<u8> = whole.entries.iter().flat_map(|(_, pieces)| pieces.concat()).collect();
    assert_eq!(bytes, f.entries.iter().flat_map(entry_bytes).collect::<Vec<u8>>());
    let look_up = Want { look_up: true, ..want(13, 21, 0, true) };
    assert_eq!(f.expect(look_up, 2..3).await, 20);
    let fetch = want(13, 21, 0, true);
    let fetched = f.reader.read(p(), &f.run, &fetch);
    assert!(fetched.now_or_never().is_none(), "a client's limit of nothing is no look-up");
    drop(answers);
    assert_eq!(reading.await.unwrap().next_offset, 12);
}

#[tokio::test]
async fn readers_do_not_wait_for_what_upkeep_holds() {
    let f = remote(40 * CHUNK);
    let whole = f.reader.read_whole(p(), &f.run).await.unwrap();
    assert_eq!(f.budget.used_bytes(), 400);
    assert_eq!(f.expect(want(10, 21, 1000, true), 0..2).await, 13);
    drop(whole);
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_its_lane_is_read_by_itself() {
    let mut f = remote(1 << 20);
    let small = LaneOptions { chunk_bytes: 32, max_bytes: 8 * 32, ..lane() };
    let options = ReaderOptions { index_cache_bytes: 1 << 20, near: small, cold: small };
    f.reader = Reader::new(f.reader.tail.clone(), f.store.clone(), f.budget.clone(), options);
    assert_eq!(f.expect(want(10, 21, 1000, true), 0..1).await, 12);
    assert_eq!(f.expect(want(10, 21, 1000, false), 0..0).await, 10, "only if it has to be");
}

#[tokio::test]
async fn what_was_written_lately_has_a_lane_of_its_own() {
    let f = remote(1 << 20);
    assert_eq!(f.reader.lane(&f.run), Lane::Cold);
    let newer = [entry(p(), 21, 1, 10)].into_iter().collect::<FragmentBuilder>();
    let id = FragmentId { fragment: 10, ..f.run.fragment };
    let encoded = newer.finish(id, Incarnation(1), None);
    f.reader.tail().push(DurableFragment { index: encoded.index, entries: encoded.entries });
    assert_eq!(f.reader.lane(&f.run), Lane::Near, "its log is being written");
    let tiered = Run { fragment: FragmentId::tiered(f.run.fragment.log, 9), ..f.run };
    assert_eq!(f.reader.lane(&tiered), Lane::Cold);
    let _answers = f.fill_cold_lane().await;
    assert_eq!(f.expect(want(10, 21, 1000, true), 0..2).await, 13);
}

#[tokio::test]
async fn who_goes_on_where_he_ended_finds_it_read() {
    let f = remote(1 << 20);
    f.expect(want(10, 12, 1000, true), 0..1).await;
    assert_eq!(f.reader.went_on(p(), 10..12), 0);
    f.expect(want(12, 13, 1000, true), 1..2).await;
    let window = f.reader.went_on(p(), 12..13);
    assert_eq!(window, 8 * CHUNK, "as much as a reader gets at a time");
    let before = f.reads();
    f.reader.read_ahead(p(), vec![f.run], 13, window);
    for _ in 0..50 {
        yield_now().await;
    }
    assert!(f.reads() > before, "it has begun");
    let before = f.reads();
    assert_eq!(f.expect(want(13, 21, 1000, true), 2..4).await, 21);
    assert_eq!(f.reads(), before, "all of it was here");
    let file = fixture(Place::File, 1 << 20);
    file.reader.went_on(p(), 10..12);
    assert_eq!(file.reader.went_on(p(), 12..13), 0, "files are read ahead by others");
}

#[tokio::test]
async fn of_each_lane_an_answer_gets_what_one_reader_may_have() {
    let mut f = remote(1 << 20);
    let near = LaneOptions { max_bytes: 8 * CHUNK, ..lane() };
    let options = ReaderOptions { index_cache_bytes: 1 << 20, near, cold: lane() };
    f.reader = Reader::new(Arc::new(Tail::new(0)), f.store.clone(), f.budget.clone(), options);
    let mut room = f.reader.stored_room();
    let share = f.reader.share(p(), &f.run, 1000, room);
    assert_eq!((share.max_bytes, share.lane), (4 * CHUNK, Some(Lane::Cold)), "half of it at a time");
    room.take(share.lane, 6 * CHUNK);
    assert_eq!(f.reader.share(p(), &f.run, 1000, room).max_bytes, 2 * CHUNK);
    let mut aside = f.reader.set_aside(&mut room, p(), &[f.run], CHUNK);
    assert_eq!(f.reader.share(p(), &f.run, 1000, aside).max_bytes, CHUNK);
    assert_eq!(f.reader.share(p(), &f.run, 1000, room).max_bytes, CHUNK, "nothing twice");
    aside.take(share.lane, 2 * CHUNK);
    assert_eq!(f.reader.share(p(), &f.run, 1000, aside).max_bytes, 0);
    let newer = [entry(p(), 21, 1, 10)].into_iter().collect::<FragmentBuilder>();
    let encoded = newer.finish(FragmentId { fragment: 10, ..f.run.fragment }, Incarnation(1), None);
    f.reader.tail().push(DurableFragment { index: encoded.index, entries: encoded.entries });
    let share = f.reader.share(p(), &f.run, 1000, room);
    assert_eq!(
        (share.max_bytes, share.lane),
        (CHUNK, Some(Lane::Near)),
        "the lane's own, whatever was taken of others"
    );
    let file = fixture(Place::File, 1 << 20);
    assert_eq!(file.reader.share(p(), &file.run, 1000, file.reader.stored_room()).max_bytes, 1000);
    let tail = fixture(Place::Tail, 1 << 20);
    assert_eq!(tail.reader.share(p(), &tail.run, 1000, tail.reader.stored_room()).max_bytes, 1000);
}

#[tokio::test]
async fn a_lane_that_is_waited_for_is_short() {
    let f = remote(1 << 20);
    let answers = f.fill_cold_lane().await;
    assert!(!f.reader.is_short(), "nobody wants more");
    let wanted = want(10, 21, 1000, true);
    let mut reading = std::pin::pin!(f.reader.read(p(), &f.run, &wanted));
    for _ in 0..50 {
        assert!(reading.as_mut().now_or_never().is_none());
        yield_now().await;
    }
    assert!(f.reader.is_short());
    drop(answers);
    reading.await.unwrap();
    assert!(!f.reader.is_short());
}

/// Who waits for memory takes as little as brings something, and all that it brings.
#[tokio::test]
async fn while_memory_is_waited_for_a_read_brings_whole_chunks() {
    let mut f = remote(1 << 20);
    let cold = LaneOptions { chunk_bytes: 512, get_chunks: 4, max_bytes: 32 * 512, gets: 4, ahead_gets: 4 };
    let options = ReaderOptions { index_cache_bytes: 1 << 20, near: lane(), cold };
    f.reader = Reader::new(Arc::new(Tail::new(0)), f.store.clone(), f.budget.clone(), options);
    let _held = f.budget.take(1 << 10).await;
    let mut producer = std::pin::pin!(f.budget.take(1 << 20));
    assert!(producer.as_mut().now_or_never().is_none() && f.budget.is_waited_for());
    let in_first_chunk = (512 - f.run.position as usize % 512) / 100;
    assert!((2..4).contains(&in_first_chunk), "{:?}", f.run);
    f.expect(want(10, 21, 1000, true), 0..in_first_chunk).await;
}
