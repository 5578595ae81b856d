//! Tests of one connection: order, pipelining, limits, drain.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use storage::budget::Budget;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::request::Response;
use crate::stop::Switch;

/// Answers with the body it was sent; what it does first is in the body's first byte.
#[derive(Default)]
struct Echo {
    /// In the order of arrival.
    called: Mutex<Vec<i32>>,
    held: Mutex<BTreeMap<i32, oneshot::Sender<()>>>,
    is_short: AtomicBool,
}

const NOW: u8 = b'n';
const HELD: u8 = b'h';
const NEVER: u8 = b'-';
/// Begins when it is released, and is answered then.
const SLOW: u8 = b's';
const SLOW_CLOSE: u8 = b'S';
const CLOSE: u8 = b'x';
const CLOSE_LATER: u8 = b'X';
const LARGE: u8 = b'L';
const LARGE_BYTES: usize = 4 << 20;

impl Service for Echo {
    fn call(&self, context: RequestContext, body: RequestBody) -> Result<Reply, CloseConnection> {
        self.called.lock().push(context.correlation_id);
        let closes = body.bytes[0] == SLOW_CLOSE;
        let response = Response { parts: vec![body.bytes.clone()], permits: vec![body.permit] };
        match body.bytes[0] {
            NOW => Ok(Reply::Now(response)),
            NEVER => Ok(Reply::Never),
            CLOSE => Err(CloseConnection("asked to".to_owned())),
            CLOSE_LATER => Ok(Reply::Later(Box::pin(async { Err(CloseConnection("asked to".to_owned())) }))),
            LARGE => Ok(Reply::Now(BytesMut::zeroed(LARGE_BYTES).into())),
            SLOW | SLOW_CLOSE => {
                let (release, held) = oneshot::channel();
                self.held.lock().insert(context.correlation_id, release);
                Ok(Reply::Beginning(Box::pin(async move {
                    held.await.map_err(|_| CloseConnection("nobody releases it".to_owned()))?;
                    match closes {
                        true => Err(CloseConnection("asked to".to_owned())),
                        false => Ok(Reply::Now(response)),
                    }
                })))
            }
            HELD => {
                let (release, held) = oneshot::channel();
                self.held.lock().insert(context.correlation_id, release);
                Ok(Reply::Later(Box::pin(async move {
                    held.await.map_err(|_| CloseConnection("nobody releases it".to_owned()))?;
                    Ok(response)
                })))
            }
            other => panic!("no such order: {other}"),
        }
    }

    fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }
}

impl Echo {
    fn release(&self, correlation_id: i32) {
        self.held.lock().remove(&correlation_id).unwrap().send(()).unwrap();
    }
}

struct Client {
    service: Arc<Echo>,
    to: WriteHalf<DuplexStream>,
    from: ReadHalf<DuplexStream>,
    stop: Switch,
    main: Budget,
    serving: JoinHandle<Closed>,
}

const MAX_IDLE: Duration = Duration::from_secs(600);

fn connect() -> Client {
    let (service, main) = (Arc::new(Echo::default()), Budget::new(64 << 20));
    let shared = Shared {
        service: service.clone(),
        memory: ReceiveMemory::new(main.clone(), Budget::new(1 << 20)),
        options: ConnectionOptions { request_max_bytes: 32 << 20, max_idle: MAX_IDLE },
        metrics: Arc::new(Metrics::new()),
    };
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (stop, stopped) = crate::stop::switch();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let serving = tokio::spawn(serve(tokio::io::split(theirs), peer, Arc::new(shared), stopped));
    let (from, to) = tokio::io::split(ours);
    Client { service, to, from, stop, main, serving }
}

/// A Produce v8 request, whose header has no tagged fields.
fn request(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let mut frame = (10 + body.len() as i32).to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 8]);
    frame.extend(correlation_id.to_be_bytes());
    frame.extend([0xff, 0xff]);
    frame.extend(body);
    frame
}

impl Client {
    async fn closes_soon(self) {
        tokio::time::sleep(SLOW_PEER_WHEN_SHORT - Duration::from_secs(1)).await;
        assert!(!self.serving.is_finished());
        tokio::time::sleep(Duration::from_secs(1) + TICK_MAX).await;
        assert!(matches!(self.serving.await.unwrap(), Closed::SlowPeer(_)));
    }

    async fn send(&mut self, correlation_id: i32, body: &[u8]) {
        self.to.write_all(&request(correlation_id, body)).await.unwrap();
    }

    /// The next response: correlation id and body.
    async fn receive(&mut self) -> (i32, Vec<u8>) {
        let length = self.from.read_i32().await.unwrap();
        let id = self.from.read_i32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        self.from.read_exact(&mut body).await.unwrap();
        (id, body)
    }

    /// Lets everything happen that can happen without time passing for long.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    async fn nothing_arrives(&mut self, within: Duration) {
        let read = tokio::time::timeout(within, self.from.read_u8()).await;
        assert!(read.is_err(), "something arrived: {read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn replies_leave_in_the_order_of_requests() {
    let mut client = connect();
    client.send(1, &[HELD]).await;
    client.send(2, &[NOW, 2]).await;
    client.send(3, &[HELD]).await;
    client.send(4, &[NEVER]).await;
    client.send(5, &[NOW, 5]).await;
    client.settle().await;
    assert_eq!(*client.service.called.lock(), [1, 2, 3, 4, 5], "requests wait for each other");
    client.service.release(3);
    client.nothing_arrives(Duration::from_secs(1)).await;
    client.service.release(1);
    for expected in [(1, vec![HELD]), (2, vec![NOW, 2]), (3, vec![HELD]), (5, vec![NOW, 5])] {
        assert_eq!(client.receive().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn many_requests_are_in_flight_but_not_any_number() {
    let mut client = connect();
    let requests: Vec<u8> = (0..1000).flat_map(|id| request(id, &[HELD])).collect();
    client.to.write_all(&requests).await.unwrap();
    client.settle().await;
    let called = || client.service.called.lock().len();
    assert_eq!(called(), MAX_IN_FLIGHT);
    client.service.release(0);
    client.settle().await;
    assert_eq!(called(), MAX_IN_FLIGHT + 1);
}

#[tokio::test(start_paused = true)]
async fn large_replies_arrive_whole_and_bound_what_is_read() {
    let mut client = connect();
    for id in 0..8 {
        client.send(id, &[LARGE]).await;
    }
    client.settle().await;
    let in_hand = client.service.called.lock().len();
    assert!(in_hand <= 3, "{in_hand} answers of {LARGE_BYTES} bytes wait for a peer that takes none");
    for id in 0..8 {
        let (got, body) = client.receive().await;
        assert_eq!((got, body.len()), (id, LARGE_BYTES));
    }
    client.send(9, &[NOW]).await;
    assert_eq!(client.receive().await, (9, vec![NOW]));
}

#[tokio::test(start_paused = true)]
async fn memory_comes_back_when_replies_have_been_written() {
    let mut client = connect();
    let body = [vec![NOW], vec![7; 100_000]].concat();
    client.send(1, &body).await;
    assert_eq!(client.receive().await, (1, body));
    client.settle().await;
    assert!(client.main.used_bytes() > 0, "the chunk is kept for a moment");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.main.used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_closes_the_connection_after_earlier_replies() {
    for refused in [&[CLOSE][..], &[CLOSE_LATER]] {
        let mut client = connect();
        client.send(1, &[HELD]).await;
        client.send(2, refused).await;
        client.settle().await;
        client.service.release(1);
        assert_eq!(client.receive().await, (1, vec![HELD]));
        assert_eq!(client.from.read(&mut [0]).await.unwrap(), 0);
        assert!(matches!(client.serving.await.unwrap(), Closed::Request(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_closes_the_connection() {
    let mut client = connect();
    client.to.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(client.serving.await.unwrap(), Closed::Frame(FrameError::Length { .. })));
    let mut client = connect();
    client.to.write_all(&[0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0, 0]).await.unwrap();
    let closed = client.serving.await.unwrap();
    assert_eq!(closed.to_string(), "api key 32512 is not served");
    let mut client = connect();
    client.to.write_all(&[0, 0, 0, 10, 0, 0, 0, 8, 0, 0, 0, 1, 0, 9]).await.unwrap();
    let closed = client.serving.await.unwrap();
    assert_eq!(closed.to_string(), "malformed request header: client_id, byte 10: the request ends too early");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_but_never_too_early() {
    let client = connect();
    tokio::time::sleep(MAX_IDLE - Duration::from_secs(1)).await;
    assert!(!client.serving.is_finished());
    tokio::time::sleep(Duration::from_secs(1) + TICK_MAX).await;
    assert!(matches!(client.serving.await.unwrap(), Closed::Idle(_)));

    let mut client = connect();
    for id in 0..5 {
        tokio::time::sleep(MAX_IDLE * 3 / 4).await;
        client.send(id, &[NOW]).await;
        assert_eq!(client.receive().await, (id, vec![NOW]));
    }
    assert!(!client.serving.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_owed_an_answer_is_not_idle() {
    let mut client = connect();
    client.send(1, &[HELD]).await;
    tokio::time::sleep(MAX_IDLE * 5).await;
    client.service.release(1);
    assert_eq!(client.receive().await, (1, vec![HELD]));
    tokio::time::sleep(MAX_IDLE - Duration::from_secs(1)).await;
    assert!(!client.serving.is_finished(), "the answer counts as activity");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_waits_for_memory_is_not_idle() {
    let mut client = connect();
    let held = client.main.try_take(64 << 20).unwrap();
    client.send(1, &[NOW]).await;
    tokio::time::sleep(MAX_IDLE * 5).await;
    drop(held);
    assert_eq!(client.receive().await, (1, vec![NOW]));
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_is_closed_late_or_sooner_when_memory_is_short() {
    let mut client = connect();
    client.send(1, &[LARGE]).await;
    tokio::time::sleep(MAX_IDLE - Duration::from_secs(1)).await;
    assert!(!client.serving.is_finished());
    tokio::time::sleep(Duration::from_secs(1) + TICK_MAX).await;
    assert!(matches!(client.serving.await.unwrap(), Closed::SlowPeer(_)));

    let mut client = connect();
    client.send(1, &[LARGE]).await;
    client.settle().await;
    let _short = client.main.try_take(60 << 20).unwrap();
    client.closes_soon().await;

    let mut client = connect();
    client.send(1, &[LARGE]).await;
    client.settle().await;
    client.service.is_short.store(true, Ordering::Relaxed);
    client.closes_soon().await;
}

#[tokio::test(start_paused = true)]
async fn draining_answers_what_was_asked_and_takes_nothing_new() {
    let mut client = connect();
    client.send(1, &[HELD]).await;
    client.settle().await;
    client.stop.throw();
    client.settle().await;
    client.send(2, &[NOW]).await;
    client.settle().await;
    assert!(!client.serving.is_finished());
    client.service.release(1);
    assert_eq!(client.receive().await, (1, vec![HELD]));
    assert!(matches!(client.serving.await.unwrap(), Closed::ShutDown));
    assert_eq!(*client.service.called.lock(), [1]);
}

#[tokio::test(start_paused = true)]
async fn draining_does_not_wait_for_ever() {
    let mut client = connect();
    client.send(1, &[HELD]).await;
    client.settle().await;
    client.stop.throw();
    let begun = Instant::now();
    assert!(matches!(client.serving.await.unwrap(), Closed::ShutDown));
    assert!(begun.elapsed() <= DRAIN + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_at_once_when_the_broker_stops() {
    let client = connect();
    client.settle().await;
    client.stop.throw();
    let begun = Instant::now();
    assert!(matches!(client.serving.await.unwrap(), Closed::ShutDown));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_before_the_request_in_front_has_begun() {
    let mut client = connect();
    let requests = [request(1, &[HELD]), request(2, &[SLOW]), request(3, &[SLOW]), request(4, &[NOW])];
    client.to.write_all(&requests.concat()).await.unwrap();
    client.settle().await;
    assert_eq!(*client.service.called.lock(), [1, 2]);
    client.service.release(1);
    assert_eq!(client.receive().await, (1, vec![HELD]), "answers leave meanwhile");
    client.send(5, &[NOW]).await;
    client.settle().await;
    assert_eq!(*client.service.called.lock(), [1, 2]);
    client.service.release(2);
    client.settle().await;
    assert_eq!(*client.service.called.lock(), [1, 2, 3]);
    client.service.release(3);
    for expected in [(2, vec![SLOW]), (3, vec![SLOW]), (4, vec![NOW]), (5, vec![NOW])] {
        assert_eq!(client.receive().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_begins_in_vain_closes_the_connection_after_earlier_replies() {
    let mut client = connect();
    client.send(1, &[HELD]).await;
    client.send(2, &[SLOW_CLOSE]).await;
    client.settle().await;
    client.service.release(2);
    client.settle().await;
    client.service.release(1);
    assert_eq!(client.receive().await, (1, vec![HELD]));
    assert!(matches!(client.serving.await.unwrap(), Closed::Request(_)));
}

#[tokio::test(start_paused = true)]
async fn draining_answers_what_has_not_begun_yet() {
    let mut client = connect();
    client.send(1, &[SLOW]).await;
    client.settle().await;
    client.stop.throw();
    client.settle().await;
    assert!(!client.serving.is_finished());
    client.service.release(1);
    assert_eq!(client.receive().await, (1, vec![SLOW]));
    assert!(matches!(client.serving.await.unwrap(), Closed::ShutDown));
}
