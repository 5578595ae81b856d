//! Servers that accept `If-None-Match: *` and ignore it exist, and on them two brokers would own one log. Here a small S3
//! server of our own does what they do; the broker must refuse it by name and with the reason.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use compat_tests::clients;
use compat_tests::http::Message;
use compat_tests::process::{Launch, free_port};
use compat_tests::s3::Prefix;
use compat_tests::wait::alone;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// What the fake server thinks of `If-None-Match: *`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manners {
    /// Honours it: the control, without which a refusal would prove nothing.
    Honours,
    Ignores,
    /// Looks first and writes later, so that it refuses a second create but not a racing one.
    Races,
    /// Refuses a create of a key that exists, and overwrites it all the same.
    RefusesAndWrites,
}

struct Fake {
    manners: Manners,
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl Fake {
    async fn listen(manners: Manners) -> String {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let fake = Arc::new(Self { manners, objects: Mutex::default() });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = Arc::clone(&fake);
                tokio::spawn(async move { fake.serve(stream).await });
            }
        });
        address
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        while let Some(request) = Message::read(&mut stream).await? {
            let (path, query) = request.target().split_once('?').unwrap_or((request.target(), ""));
            let key = path.trim_start_matches('/').to_owned();
            let answer = match request.method() {
                "PUT" => self.put(key, &request).await,
                "GET" if query.contains("list-type=2") => self.list(query).await,
                "GET" | "HEAD" => self.get(&key, request.header("range")).await,
                "DELETE" => {
                    self.objects.lock().await.remove(&key);
                    reply("204 No Content", "", b"")
                }
                "POST" => self.delete_many(&key, &request.body).await,
                _ => reply("405 Method Not Allowed", "", b""),
            };
            let head_only = request.method() == "HEAD";
            let end = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
            stream.write_all(if head_only { &answer[..end] } else { &answer }).await?;
        }
        Ok(())
    }

    async fn put(&self, key: String, request: &Message) -> Vec<u8> {
        let create = request.header("if-none-match") == Some("*");
        let exists = self.objects.lock().await.contains_key(&key);
        let refuse = create && exists && self.manners != Manners::Ignores;
        if self.manners == Manners::Races {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        if !refuse || self.manners == Manners::RefusesAndWrites {
            let mut objects = self.objects.lock().await;
            let late = create && self.manners == Manners::Honours && objects.contains_key(&key);
            if late {
                return reply("412 Precondition Failed", "", b"");
            }
            objects.insert(key, request.body.clone().freeze());
        }
        if refuse { reply("412 Precondition Failed", "", b"") } else { reply("200 OK", "ETag: \"e\"\r\n", b"") }
    }

    async fn get(&self, key: &str, range: Option<&str>) -> Vec<u8> {
        let Some(object) = self.objects.lock().await.get(key).cloned() else {
            return reply("404 Not Found", "", b"<Error><Code>NoSuchKey</Code></Error>");
        };
        let fixed = "ETag: \"e\"\r\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\n";
        let Some((from, to)) = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) else {
            return reply("200 OK", fixed, &object);
        };
        let last = object.len().saturating_sub(1);
        let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) => (from, to.min(last)),
            (Ok(from), Err(_)) => (from, last),
            (Err(_), Ok(suffix)) => (object.len().saturating_sub(suffix), last),
            (Err(_), Err(_)) => return reply("400 Bad Request", "", b""),
        };
        let headers = format!("{fixed}Content-Range: bytes {from}-{to}/{}\r\n", object.len());
        reply("206 Partial Content", &headers, &object[from..=to])
    }

    async fn list(&self, query: &str) -> Vec<u8> {
        let parameter = |name: &str| {
            let found = query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
            found.unwrap_or_default().replace("%2F", "/")
        };
        let (prefix, after) = (parameter("prefix"), parameter("start-after"));
        let mut out = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
        for (key, object) in self.objects.lock().await.iter() {
            let Some((_, key)) = key.split_once('/') else { continue };
            if key.starts_with(&prefix) && (after.is_empty() || *key > *after) {
                let stamp = "<LastModified>2023-11-14T22:13:20.000Z</LastModified><ETag>\"e\"</ETag>";
                out += &format!("<Contents><Key>{key}</Key>{stamp}<Size>{}</Size></Contents>", object.len());
            }
        }
        reply("200 OK", "Content-Type: application/xml\r\n", (out + "</ListBucketResult>").as_bytes())
    }

    async fn delete_many(&self, bucket: &str, body: &[u8]) -> Vec<u8> {
        let body = String::from_utf8_lossy(body).into_owned();
        let mut out = String::from("<DeleteResult>");
        for key in body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            self.objects.lock().await.remove(&format!("{}/{key}", bucket.trim_end_matches('/')));
            out += &format!("<Deleted><Key>{key}</Key></Deleted>");
        }
        reply("200 OK", "Content-Type: application/xml\r\n", (out + "</DeleteResult>").as_bytes())
    }
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

async fn launch_on(manners: Manners, folder: &std::path::Path) -> Launch {
    let endpoint = Fake::listen(manners).await;
    Prefix { url: "s3://bucket/prefix".to_owned(), endpoint }.on(Launch::new(folder))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_honours_conditions_is_accepted() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = launch_on(Manners::Honours, folder.path()).await;
    let _broker = launch.start().await;
    clients::create_topic(&launch.kafka, "t", 1).await;
    assert_eq!(clients::watermarks(&launch.kafka, "t", 0).await, (0, 0));
}

/// The broker must end by itself, with a failure, naming the store and the reason.
async fn refused(manners: Manners, reason: &str) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = launch_on(manners, folder.path()).await;
    let mut broker = launch.spawn();
    let code = broker.wait(Duration::from_secs(60)).await;
    assert!(matches!(code, Some(1 | 2)), "a broker on a store that {manners:?} exits with a failure, not {code:?}");
    let log = broker.log();
    assert!(log.contains("bucket"), "the store is not named:\n{log}");
    assert!(log.contains(reason), "the reason ({reason}) is not given:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_conditions_is_refused() {
    refused(Manners::Ignores, "If-None-Match").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_races_is_refused() {
    refused(Manners::Races, "If-None-Match").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_and_writes_is_refused() {
    refused(Manners::RefusesAndWrites, "conditional writes").await;
}
