//! Tests of health and metrics over HTTP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

struct Served {
    address: std::net::SocketAddr,
    readiness: Readiness,
}

async fn served() -> Served {
    served_with(None).await
}

async fn served_with(costs: Option<Arc<Costs>>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::not_ready("recovering");
    tokio::spawn(serve(listener, Arc::new(Metrics::new()), readiness.clone(), costs));
    Served { address, readiness }
}

impl Served {
    /// The status line and the body.
    async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn readiness_says_why_not() {
    let served = served().await;
    let unavailable = "HTTP/1.1 503 Service Unavailable".to_owned();
    assert_eq!(served.get("/readyz").await, (unavailable.clone(), "recovering\n".to_owned()));
    assert_eq!(served.get("/healthz").await.0, "HTTP/1.1 200 OK");
    served.readiness.set_ready();
    assert_eq!(served.get("/readyz").await, ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned()));
    served.readiness.set_not_ready("draining");
    assert_eq!(served.get("/readyz").await, (unavailable, "draining\n".to_owned()));
}

#[tokio::test]
async fn metrics_are_shown() {
    let (status, body) = served().await.get("/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains("woodpecker_connections 0"), "{body}");
}

#[tokio::test]
async fn the_cost_is_shown_where_something_is_billed() {
    let (status, body) = served().await.get("/cost").await;
    assert_eq!((status.as_str(), body.contains("nothing is billed")), ("HTTP/1.1 404 Not Found", true));
    let (_, counters) = storage::metered::MeteredStore::new(Arc::new(object_store::memory::InMemory::new()));
    let costs = Arc::new(Costs::new(counters, crate::config::Prices::default(), Arc::new(Metrics::new())));
    let topic = |name: &str| crate::cost::TopicUsage { name: name.to_owned(), ..Default::default() };
    let topics = vec![topic("one"), topic("other")];
    costs.set_usage(move || crate::cost::Usage { produced_bytes: 0, topics: topics.clone() });
    let served = served_with(Some(costs)).await;
    for (path, topics) in [("/cost", 2), ("/cost?top=1", 1), ("/cost?top=0", 0)] {
        let (status, body) = served.get(path).await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        let bill: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(bill["topics"].as_array().unwrap().len(), topics, "{body}");
        assert_eq!(bill["other_topics"], 2 - topics, "{body}");
    }
    assert_eq!(served.get("/cost?top=all").await.0, "HTTP/1.1 400 Bad Request");
}
