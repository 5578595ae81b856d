//! Answers that come in pieces, and those that nobody asked for.

use std::net::TcpListener;

use super::*;

/// A crowd of one, and the other end of its connection.
fn pair() -> (Crowd, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut crowd = Crowd::new().unwrap();
    crowd.connect(listener.local_addr().unwrap()).unwrap();
    (crowd, listener.accept().unwrap().0)
}

fn soon() -> Instant {
    now() + Duration::from_secs(5)
}

fn answer(correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut answer = Encoder::answer(correlation);
    answer.bytes(body);
    answer.frame()
}

#[test]
fn an_answer_is_told_when_it_is_whole() {
    let (mut crowd, mut broker) = pair();
    crowd.ask(0, Encoder::request(API_VERSIONS, 0)).unwrap();
    assert!(crowd.ask(0, Encoder::request(API_VERSIONS, 0)).is_err(), "one at a time");
    let body = vec![7; 3 * INBOX_BYTES];
    let frame = answer(1, &body);
    for piece in [&frame[..2], &frame[2..9], &frame[9..INBOX_BYTES + 5]] {
        broker.write_all(piece).unwrap();
        assert!(crowd.answered(soon()).unwrap().is_empty());
        assert!(crowd.answer(0).is_err(), "not there yet");
    }
    broker.write_all(&frame[INBOX_BYTES + 5..]).unwrap();
    let mut told = Vec::new();
    while told.is_empty() {
        told = crowd.answered(soon()).unwrap();
    }
    assert_eq!(told, [0]);
    assert!(!crowd.is_asking(0));
    assert_eq!(crowd.answer(0).unwrap().bytes().unwrap(), body);
    crowd.ask(0, Encoder::request(API_VERSIONS, 0)).unwrap();
    broker.write_all(&answer(1, &[])).unwrap();
    assert_eq!(crowd.answered(soon()).unwrap(), [0]);
    assert!(crowd.answer(0).is_err(), "the answer to the first request again");
}

#[test]
fn what_nobody_asked_for_fails() {
    let (mut crowd, mut broker) = pair();
    broker.write_all(&answer(1, &[])).unwrap();
    assert!(crowd.answered(soon()).is_err());
    let (mut crowd, broker) = pair();
    drop(broker);
    assert!(crowd.answered(soon()).is_err());
}

#[test]
fn nobody_is_waited_for_longer_than_asked() {
    let (mut crowd, _broker) = pair();
    crowd.ask(0, Encoder::request(API_VERSIONS, 0)).unwrap();
    assert!(crowd.answered(now() + Duration::from_millis(5)).unwrap().is_empty());
    assert!(crowd.is_asking(0));
}
