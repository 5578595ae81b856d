//! Bytes that no client sends, and more of them than any client would: connections are closed, the broker stays, and its
//! memory does not follow what a stranger claims.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use compat_tests::clients;
use compat_tests::process::{Broker, Launch};
use compat_tests::proxy::Proxy;
use compat_tests::raw::{self, Raw};
use compat_tests::s3;
use compat_tests::sim::wire;
use compat_tests::wait::{Dice, alone};
use kafka_protocol::messages::{
    ApiVersionsRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, ProduceResponse,
};
use tempfile::TempDir;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
/// More than any limit of the broker on a stalled frame.
const CLOSES_WITHIN: Duration = Duration::from_secs(60);
const UNSUPPORTED_VERSION: i16 = 35;
const CORRUPT_MESSAGE: i16 = 2;
const INVALID_RECORD: i16 = 87;

async fn broker() -> (TempDir, Broker) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = Launch::new(folder.path()).start().await;
    (folder, broker)
}

/// The broker answers a well-behaved client.
async fn serves(broker: &mut Broker) {
    assert_eq!(broker.exited(), None, "the broker ended");
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    let answer = raw.call(3, &ApiVersionsRequest::default()).await;
    assert_eq!(answer.error_code, 0);
    assert!(!answer.api_keys.is_empty());
}

/// A frame with this header (version 1, with a client id) and any body.
fn frame(api: i16, version: i16, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32((2 + 2 + 4 + 2 + 1 + body.len()) as i32);
    out.put_i16(api);
    out.put_i16(version);
    out.put_i32(1);
    out.put_i16(1);
    out.put_slice(b"x");
    out.put_slice(body);
    out.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kafka_is_closed() {
    let (_folder, mut broker) = broker().await;
    let tls_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0];
    let strangers: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &tls_hello,
        &(-1_i32).to_be_bytes(),
        &i32::MIN.to_be_bytes(),
        &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 0, 3, 0],
    ];
    for bytes in strangers {
        let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
        raw.send(bytes).await.expect("the socket takes it");
        assert!(raw.is_closed_within(Duration::from_secs(10)).await, "{bytes:?} is not closed");
    }
    serves(&mut broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_apis_and_versions_are_closed() {
    let (_folder, mut broker) = broker().await;
    for (api, version) in [(9999, 0), (-1, 0), (4, 0), (0, 99), (3, -1), (1, i16::MAX)] {
        let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
        raw.send(&frame(api, version, &[0; 16])).await.expect("the socket takes it");
        assert!(raw.is_closed_within(Duration::from_secs(10)).await, "api {api} version {version}");
    }
    serves(&mut broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_api_versions_is_answered_in_version_0() {
    let (_folder, mut broker) = broker().await;
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    raw.send(&frame(18, 99, b"\0\xff\xffwhatever a later version says")).await.expect("sent");
    let (correlation, mut answer) = raw.receive().await.expect("an answer").expect("an open connection");
    answer.advance(4);
    assert_eq!(correlation, 1);
    assert_eq!(answer.get_i16(), UNSUPPORTED_VERSION);
    assert_eq!(answer.get_i32(), 1, "one api key: the one that the client should try again");
    let (key, lowest, highest) = (answer.get_i16(), answer.get_i16(), answer.get_i16());
    assert!(key == 18 && lowest == 0 && highest >= 3, "{key} {lowest} {highest}");
    assert!(!answer.has_remaining(), "version 0 ends here");
    // The connection goes on with the version that was offered.
    assert_eq!(raw.call(highest, &ApiVersionsRequest::default()).await.error_code, 0);
    serves(&mut broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_nobody_could_mean_cost_no_memory() {
    let (_folder, mut broker) = broker().await;
    let before = broker.rss_bytes();
    let most = i32::MAX.to_be_bytes();
    let compact = [0xff, 0xff, 0xff, 0xff, 0x07];
    let produce = [&[0xff, 0xff, 0, 1, 0, 0, 0, 1][..], &most[..]].concat();
    let bodies: [(i16, i16, Vec<u8>); 7] = [
        (3, 0, most.to_vec()),
        (3, 9, [&[0][..], &compact[..]].concat()),
        (0, 3, [&[0xff, 0xff][..], &produce[2..], &most[..]].concat()),
        (0, 9, [&[0, 0, 0, 1, 0, 0, 0, 1][..], &compact[..]].concat()),
        (1, 11, [&[0xff; 4][..], &[0; 13], &most[..]].concat()),
        (2, 1, [&[0xff; 4][..], &most[..]].concat()),
        (19, 2, most.to_vec()),
    ];
    for (api, version, body) in bodies {
        let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
        raw.send(&frame(api, version, &body)).await.expect("the socket takes it");
        assert!(raw.is_closed_within(Duration::from_secs(10)).await, "api {api} version {version}");
    }
    serves(&mut broker).await;
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB, "{} MiB for nothing", grown / MIB);
}

async fn produce(raw: &mut Raw, batch: Bytes) -> (i16, i64) {
    let answer: ProduceResponse = raw.call::<ProduceRequest>(9, &raw::produce("t", 0, batch)).await;
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_batches_are_refused_and_nothing_is_appended() {
    let (_folder, mut broker) = broker().await;
    clients::create_topic(broker.kafka(), "t", 1).await;
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    assert_eq!(produce(&mut raw, raw::batch(&[1, 2])).await, (0, 0));
    let good = raw::batch(&[3, 4]);
    let damage = |at: usize, with: &[u8], new_crc: bool| {
        let mut bytes = good.to_vec();
        bytes[at..at + with.len()].copy_from_slice(with);
        if new_crc {
            let crc = crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        Bytes::from(bytes)
    };
    let most = i32::MAX.to_be_bytes();
    let wrong = [
        ("a flipped bit", damage(good.len() - 1, &[0x55], false)),
        ("a magic of 1", damage(16, &[1], false)),
        ("a last offset delta that does not fit the count", damage(23, &[0, 0, 0, 9], true)),
        ("two thousand million records", damage(57, &most, true)),
        ("a negative count", damage(57, &(-5_i32).to_be_bytes(), true)),
        ("a control batch", damage(21, &[0, 0x20], true)),
        ("a transactional batch", damage(21, &[0, 0x10], true)),
        ("a length beyond the end", damage(8, &most, false)),
        ("a negative length", damage(8, &(-1_i32).to_be_bytes(), false)),
        ("half a batch", good.slice(..good.len() / 2)),
        ("two batches", Bytes::from([&good[..], &good[..]].concat())),
    ];
    for (what, batch) in wrong {
        let (error, _) = produce(&mut raw, batch).await;
        let fits = if what == "a transactional batch" || what == "a magic of 1" { error > 0 } else { false };
        assert!(fits || [CORRUPT_MESSAGE, INVALID_RECORD].contains(&error), "{what}: error {error}");
    }
    assert_eq!(produce(&mut raw, raw::batch(&[5])).await, (0, 2), "the refused ones took no offsets");
    serves(&mut broker).await;
}

fn crc32c(bytes: &[u8]) -> u32 {
    let update = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1)))
    };
    !bytes.iter().fold(!0, update)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_never_end_are_closed_and_hold_no_memory() {
    let _turn = alone().await;
    let (_folder, mut broker) = broker().await;
    let before = broker.rss_bytes();
    let start = Instant::now();
    // Two hundred strangers: half announce 50 MB and stop there, half announce 100 KB and send a byte now and then. How
    // long a frame may take depends on its size.
    let strangers = (0..200).map(|number| {
        let kafka = broker.kafka().to_owned();
        tokio::spawn(async move {
            let mut raw = Raw::connect(&kafka).await.expect("a connection");
            let drips = number % 2 == 0;
            let length: i32 = if drips { 100_000 } else { 50_000_000 };
            let announced = [&length.to_be_bytes()[..], &[0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b'x']].concat();
            raw.send(&announced).await.expect("the socket takes it");
            while start.elapsed() < CLOSES_WITHIN {
                if raw.is_closed_within(Duration::from_secs(1)).await {
                    return true;
                }
                if drips && raw.send(b"x").await.is_err() {
                    return true;
                }
            }
            false
        })
    });
    let strangers: Vec<_> = strangers.collect();
    let mut peak = 0;
    for stranger in strangers {
        while !stranger.is_finished() {
            peak = peak.max(broker.rss_bytes());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(stranger.await.expect("a stranger never panics"), "a frame that never ends is still waited for");
    }
    println!("strangers: gone after {:?}, {} MiB more at most", start.elapsed(), peak.saturating_sub(before) / MIB);
    assert!(peak.saturating_sub(before) < 64 * MIB, "{} MiB for frames that never came", peak / MIB);
    serves(&mut broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_frames_never_end_the_broker() {
    let (_folder, mut broker) = broker().await;
    let before = broker.rss_bytes();
    let mut dice = Dice::new("random frames");
    for _ in 0..3_000 {
        let api = [0, 1, 2, 3, 18, 19, 20, 22, 23][dice.below(9) as usize];
        let length = dice.below(60) as usize;
        let mut body: Vec<u8> = (0..length).map(|_| dice.below(256) as u8).collect();
        // Zeros and ones reach deeper than noise does.
        if dice.below(2) == 0 {
            body.iter_mut().for_each(|byte| *byte &= 1);
        }
        let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
        let version = dice.below(14) as i16;
        // It may be answered or closed, and the connection is left behind either way.
        let _ = raw.send(&frame(api, version, &body)).await;
    }
    serves(&mut broker).await;
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB for random frames", grown / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let (_folder, broker) = broker().await;
    clients::create_topic(broker.kafka(), "t", 1).await;
    let mut raw = Raw::connect(broker.kafka()).await.expect("a connection");
    let mut next_offset = 0;
    for correlation in 0..120 {
        match correlation % 4 {
            0 => raw.request(correlation, 9, &raw::produce("t", 0, raw::batch(&[correlation as u64]))).await,
            1 => raw.request(correlation, 3, &ApiVersionsRequest::default()).await,
            2 => raw.request(correlation, 9, &MetadataRequest::default()).await,
            _ => raw.request(correlation, 5, &ListOffsetsRequest::default()).await,
        }
        .expect("a request");
    }
    for correlation in 0..120 {
        let (answered, frame) = raw.receive().await.expect("an answer").expect("an open connection");
        assert_eq!(answered, correlation);
        if correlation % 4 == 0 {
            let answer = wire::response::<ProduceRequest>(9, frame).expect("a Produce response");
            let partition = &answer.responses[0].partition_responses[0];
            assert_eq!((partition.error_code, partition.base_offset), (0, next_offset));
            next_offset += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_produces_of_one_connection_are_in_flight_at_once() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = s3::prefix().await;
    let proxy = Proxy::before(&place.endpoint).await.expect("a proxy");
    let launch = place.through(&proxy.address).on(Launch::new(folder.path()));
    let _broker = launch.start().await;
    clients::create_topic(&launch.kafka, "t", 1).await;
    proxy.faults.put_delay_ms.store(100, Ordering::Relaxed);
    let mut raw = Raw::connect(&launch.kafka).await.expect("a connection");
    let start = Instant::now();
    for number in 0..96 {
        raw.request(number, 9, &raw::produce("t", 0, raw::batch(&[number as u64]))).await.expect("a request");
    }
    for number in 0..96 {
        let (answered, frame) = raw.receive().await.expect("an answer").expect("an open connection");
        let answer = wire::response::<ProduceRequest>(9, frame).expect("a Produce response");
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((answered, partition.error_code, partition.base_offset), (number, 0, i64::from(number)));
    }
    let took = start.elapsed();
    println!("96 produces on one connection over PUTs of 100 ms: {took:?}");
    // With fewer than 32 in flight at once it would be at least four PUTs in a row and their flush intervals.
    assert!(took < Duration::from_millis(1_500), "96 produces took {took:?}: they waited for each other");
}
