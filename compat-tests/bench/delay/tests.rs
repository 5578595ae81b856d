//! A made-up server behind the proxy sees what the client sent, and when.

use super::*;
use crate::clock::now;

#[test]
fn a_put_arrives_whole_late_and_counted() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let upstream = server.local_addr().unwrap();
    let seen = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut request = Vec::new();
        let head_bytes = read_head(&mut stream, &mut request).unwrap().unwrap();
        let missing = head_bytes + 5 - request.len();
        let mut rest = vec![0; missing];
        stream.read_exact(&mut rest).unwrap();
        request.extend(rest);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    let delay = Duration::from_millis(30);
    let proxy = SlowPuts::before(upstream, delay).unwrap();
    let since = now();
    let mut client = TcpStream::connect(proxy.address).unwrap();
    client.write_all(b"PUT /a HTTP/1.1\r\nConnection: keep-alive\r\ncontent-LENGTH: 5\r\n\r\nhello").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(now() - since >= delay);
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(seen.join().unwrap(), "PUT /a HTTP/1.1\r\ncontent-LENGTH: 5\r\nConnection: close\r\n\r\nhello");
    assert_eq!(proxy.puts(), 1);
}
