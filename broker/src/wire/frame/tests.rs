//! Tests of reading frames: limits, memory, progress.

use storage::budget::Budget;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;

const MIB: usize = 1 << 20;

struct Peer {
    to: DuplexStream,
    reader: FrameReader<DuplexStream>,
    main: Budget,
    reserve: Budget,
}

fn memory(main_bytes: usize) -> (ReceiveMemory, Budget, Budget) {
    let (main, reserve) = (Budget::new(main_bytes), Budget::new(MIB));
    (ReceiveMemory::new(main.clone(), reserve.clone()), main, reserve)
}

fn peer_with(memory: &ReceiveMemory) -> (DuplexStream, FrameReader<DuplexStream>) {
    let (to, from) = tokio::io::duplex(64 << 10);
    (to, FrameReader::new(from, memory.clone(), 100 * MIB))
}

fn peer(main_bytes: usize) -> Peer {
    let (memory, main, reserve) = memory(main_bytes);
    let (to, reader) = peer_with(&memory);
    Peer { to, reader, main, reserve }
}

/// A frame of this API with so many bytes after its length.
fn frame(api_key: i16, bytes: usize) -> Vec<u8> {
    let mut frame = (bytes as i32).to_be_bytes().to_vec();
    frame.extend(api_key.to_be_bytes());
    frame.extend((0..bytes - 2).map(|n| n as u8));
    frame
}

/// Waits for the next frame, which must be this one.
async fn expect(reader: &mut FrameReader<DuplexStream>, expected: &[u8]) -> Frame {
    let frame = reader.next().await.unwrap().unwrap();
    assert!(frame.bytes == expected[4..], "{} bytes instead of {}", frame.bytes.len(), expected.len() - 4);
    frame
}

#[tokio::test(start_paused = true)]
async fn frames_of_all_sizes_arrive_whole_and_in_order() {
    let Peer { mut to, mut reader, main, reserve } = peer(64 * MIB);
    let sizes = [10, 11, 200, 600, 5_000, 16_384, 70_000, 300_000, 3 * MIB, 12, 16_384, 16_384, 2_000, 10];
    let sent: Vec<_> = sizes.iter().enumerate().map(|(n, size)| frame((n % 2) as i16, *size)).collect();
    let all = sent.concat();
    let writer = tokio::spawn(async move {
        // Pieces that are no divisors of anything.
        for piece in all.chunks(7_919) {
            to.write_all(piece).await.unwrap();
        }
    });
    for expected in &sent {
        expect(&mut reader, expected).await;
    }
    writer.await.unwrap();
    assert!(reader.next().await.unwrap().is_none());
    drop(reader);
    assert_eq!((main.used_bytes(), reserve.used_bytes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn frames_share_a_chunk_and_its_permit() {
    let Peer { mut to, mut reader, main, .. } = peer(64 * MIB);
    let one = frame(0, 16 << 10);
    let writer = tokio::spawn(async move {
        for _ in 0..100 {
            to.write_all(&one).await.unwrap();
        }
        to
    });
    let mut frames = Vec::new();
    for _ in 0..100 {
        frames.push(reader.next().await.unwrap().unwrap());
    }
    let _open = writer.await.unwrap();
    let total = 100 * (16 << 10);
    assert!(main.used_bytes() < 2 * total, "{} bytes pay for frames of {total}", main.used_bytes());
    let largest = frames.iter().map(|frame| frame.permit.bytes()).max().unwrap();
    assert_eq!(largest, CHUNK_MAX_BYTES, "a busy connection is given large chunks");
    let unshared: usize = frames.iter().map(|frame| frame.permit.bytes()).sum();
    assert!(unshared > 4 * main.used_bytes(), "frames do not share chunks: {unshared}");
}

#[tokio::test(start_paused = true)]
async fn lengths_beyond_the_limits_are_refused_before_anything_is_allocated() {
    let too_long = |key: i16, bytes: i32| [&bytes.to_be_bytes()[..], &key.to_be_bytes()].concat();
    let refused = [
        too_long(0, 100 * MIB as i32 + 1),
        too_long(1, OTHER_MAX_BYTES as i32 + 1),
        too_long(1, -1),
        too_long(0, i32::MIN),
        too_long(0, 9),
        b"GET / HTTP/1.1\r\n".to_vec(),
        vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
    ];
    for bytes in refused {
        let Peer { mut to, mut reader, main, reserve } = peer(64 * MIB);
        to.write_all(&bytes).await.unwrap();
        let error = reader.next().await.unwrap_err();
        assert!(matches!(error, FrameError::Length { .. }), "{bytes:?}: {error}");
        assert!(main.used_bytes() + reserve.used_bytes() <= SMALL_CHUNK_BYTES);
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_taken_as_bytes_arrive_not_as_they_are_announced() {
    let Peer { mut to, mut reader, main, .. } = peer(256 * MIB);
    let large = frame(0, 50 * MIB);
    to.write_all(&large[..100]).await.unwrap();
    let _still_waiting = tokio::time::timeout(Duration::from_secs(1), reader.next()).await.unwrap_err();
    assert!(main.used_bytes() <= UNTRUSTED_BYTES, "{}", main.used_bytes());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_a_small_chunk_only_and_is_not_timed() {
    let Peer { mut to, mut reader, main, reserve } = peer(64 * MIB);
    let one = frame(0, 16 << 10);
    to.write_all(&one).await.unwrap();
    drop(expect(&mut reader, &one).await);
    assert!(main.used_bytes() > 0);
    let _idle = tokio::time::timeout(Duration::from_secs(3600), reader.next()).await.unwrap_err();
    assert_eq!((main.used_bytes(), reserve.used_bytes()), (0, SMALL_CHUNK_BYTES));
    to.write_all(&one).await.unwrap();
    expect(&mut reader, &one).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_stops_arriving_is_given_up() {
    for arrived in [1, 5, 1000] {
        let Peer { mut to, mut reader, .. } = peer(64 * MIB);
        to.write_all(&frame(1, 2000)[..arrived]).await.unwrap();
        let begun = Instant::now();
        let error = reader.next().await.unwrap_err();
        assert!(matches!(error, FrameError::Stalled { .. }), "{error}");
        assert_eq!(begun.elapsed().as_secs(), STALL.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dripping_frame_is_given_up() {
    let Peer { mut to, mut reader, .. } = peer(64 * MIB);
    tokio::spawn(async move {
        for byte in frame(0, 100_000) {
            to.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    });
    let begun = Instant::now();
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, FrameError::TooSlow { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn time_in_which_this_side_does_not_read_does_not_count() {
    let Peer { mut to, mut reader, .. } = peer(64 * MIB);
    let one = frame(0, 3000);
    to.write_all(&one[..1500]).await.unwrap();
    let _begun = tokio::time::timeout(Duration::from_secs(1), reader.next()).await.unwrap_err();
    reader.pause();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        to.write_all(&one[1500..]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    assert_eq!(reader.next().await.unwrap().unwrap().bytes.len(), 3000);
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_inside_a_frame_is_told_apart() {
    let Peer { mut to, mut reader, .. } = peer(64 * MIB);
    to.write_all(&frame(1, 100)[..50]).await.unwrap();
    drop(to);
    assert!(matches!(reader.next().await.unwrap_err(), FrameError::Truncated));
}

#[tokio::test(start_paused = true)]
async fn producers_wait_for_memory_while_others_live_on_the_reserve() {
    let (memory, main, _reserve) = memory(4 * MIB);
    let held = main.try_take(4 * MIB).unwrap();
    let (mut producer, mut produces) = peer_with(&memory);
    let (mut consumer, mut consumes) = peer_with(&memory);
    // So small that it fits into what an idle connection reads into, which the reserve has paid.
    let (produce, fetch) = (frame(0, 100), frame(1, 30_000));
    producer.write_all(&produce).await.unwrap();
    consumer.write_all(&fetch).await.unwrap();
    expect(&mut consumes, &fetch).await;
    let waited = tokio::time::timeout(Duration::from_secs(3600), produces.next()).await;
    assert!(waited.is_err(), "a producer got memory that is not there");
    assert!(produces.is_paused());
    drop(held);
    let frame = expect(&mut produces, &produce).await;
    assert!(main.used_bytes() >= frame.permit.bytes(), "the main budget pays for producers");
}

#[tokio::test(start_paused = true)]
async fn half_read_frames_that_hold_all_memory_do_not_starve_each_other() {
    let size = 3 * MIB;
    let (memory, main, _reserve) = memory(4 * MIB);
    let mut readers = Vec::new();
    for _ in 0..4 {
        let (mut to, mut reader) = peer_with(&memory);
        readers.push(tokio::spawn(async move {
            let writing = tokio::spawn(async move {
                to.write_all(&frame(0, size)).await.unwrap();
                to
            });
            let got = reader.next().await.unwrap().unwrap();
            // Stored, after a while.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _open = writing.await.unwrap();
            got.bytes.len()
        }));
    }
    let watched = main.clone();
    let watch = tokio::spawn(async move {
        let mut most = 0;
        loop {
            most = watched.used_bytes().max(most);
            assert!(most <= 4 * MIB + size + LENGTH_BYTES, "{most} bytes: more than one frame beyond the budget");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    for reader in readers {
        let got = tokio::time::timeout(Duration::from_secs(600), reader).await.expect("starved").unwrap();
        assert_eq!(got, size);
    }
    assert!(!watch.is_finished(), "{:?}", watch.await);
    watch.abort();
    assert_eq!(main.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_lent_memory_has_to_hurry() {
    let (memory, main, _reserve) = memory(4 * MIB);
    let (mut to, mut reader) = peer_with(&memory);
    let large = frame(0, 3 * MIB);
    // Some of it arrives while there is memory; then somebody takes the rest.
    to.write_all(&large[..10_000]).await.unwrap();
    let _begun = tokio::time::timeout(Duration::from_secs(1), reader.next()).await.unwrap_err();
    let _held = main.try_take(4 * MIB - main.used_bytes()).unwrap();
    let begun = Instant::now();
    tokio::spawn(async move {
        // Fast enough for plain frames.
        for piece in large[10_000..].chunks(60_000) {
            if to.write_all(piece).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, FrameError::TooSlow { .. }), "{error}");
    assert!(begun.elapsed() <= OVERDRAFT_GRACE + Duration::from_secs(5), "{:?}", begun.elapsed());
}
