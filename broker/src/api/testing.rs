//! A broker without connections, over a log and a store that tests control, and calls as clients make them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use meta::memory::MemoryStore;
use meta::seams::{Random, SystemClock};
use storage::budget::{Budget, Permit};
use storage::entry::TopicPartition;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::broker::{Broker, RECOMPRESSIONS};
use crate::config::BrokerConfig;
use crate::coordinator::{Coordinator, CoordinatorParts};
use crate::metrics::Metrics;
use crate::partitions::testing::Rig;
use crate::producer_ids::ProducerIds;
use crate::request::{CloseConnection, Principal, Reply, RequestBody, RequestContext, Response};
use crate::topics::{Created, Topic, Topics};

use super::Handler;

pub struct TestBroker {
    pub broker: Arc<Broker>,
    pub rig: Rig,
    pub topic: Arc<Topic>,
    store: Arc<MemoryStore>,
}

impl TestBroker {
    /// With one topic, "t", of `partitions` partitions.
    pub async fn new(tail_bytes: usize, partitions: i32) -> Self {
        let rig = Rig::new(tail_bytes);
        let store = Arc::new(MemoryStore::new());
        let random = Random::from_seed(1);
        let config = BrokerConfig { message_max_bytes: 1 << 20, fetch_max_bytes: 1 << 20, ..BrokerConfig::default() };
        let topics = Topics::load(store.clone(), random.clone(), &config).await.unwrap();
        rig.lead();
        let opened = |topic: &Arc<Topic>| rig.partitions.open_topic(topic.id, topic.partitions);
        let (Created::New(topic) | Created::Exists(topic)) =
            topics.create("t", partitions, BTreeMap::new(), opened).await.unwrap();
        let config = Arc::new(config);
        let budget = Budget::new(1 << 30);
        let clock = Arc::new(SystemClock);
        let coordinator = Coordinator::new(CoordinatorParts {
            config: config.clone(),
            topics: topics.clone(),
            partitions: rig.partitions.clone(),
            budget: budget.clone(),
            clock: clock.clone(),
            random: random.clone(),
        });
        rig.partitions.add_listener(coordinator.listener());
        let broker = Arc::new(Broker {
            config,
            cluster_id: "c".repeat(22),
            leader_epoch: 4,
            topics,
            partitions: rig.partitions.clone(),
            coordinator,
            producer_ids: ProducerIds::new(store.clone()),
            ownership: rig.ownership.clone(),
            budget,
            clock,
            random,
            metrics: Arc::new(Metrics::new()),
            recompressions: Semaphore::new(RECOMPRESSIONS),
        });
        Self { broker, rig, topic, store }
    }

    /// What the next broker would find.
    pub async fn stored_topics(&self) -> Topics {
        Topics::load(self.store.clone(), self.broker.random.clone(), &self.broker.config).await.unwrap()
    }

    pub fn id(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.id, partition }
    }

    /// Up to the request's first wait.
    pub fn begin(
        &self,
        handler: Handler,
        version: i16,
        request: &impl Encodable,
        permit: Permit,
    ) -> Result<Reply, CloseConnection> {
        let mut bytes = BytesMut::new();
        request.encode(&mut bytes, version).unwrap();
        handler(&self.broker, context(version), RequestBody { bytes: bytes.freeze(), permit })
    }

    /// To the end, which must be an answer.
    pub async fn call<A: Decodable>(&self, handler: Handler, version: i16, request: &impl Encodable) -> A {
        let permit = self.broker.budget.take_anyway(1);
        finish(self.begin(handler, version, request, permit).unwrap(), version).await
    }
}

pub fn context(version: i16) -> RequestContext {
    RequestContext {
        api_key: 0,
        api_version: version,
        correlation_id: 1,
        client_id: None,
        principal: Principal::Anonymous,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        received: Instant::now(),
    }
}

/// Up to the request's first wait, also if that takes a while.
pub async fn begun(mut reply: Reply) -> Reply {
    while let Reply::Beginning(beginning) = reply {
        reply = beginning.await.unwrap();
    }
    reply
}

pub async fn finish<A: Decodable>(reply: Reply, version: i16) -> A {
    let response = match begun(reply).await {
        Reply::Now(response) => response,
        Reply::Later(response) => response.await.unwrap(),
        Reply::Never | Reply::Beginning(_) => panic!("an answer was expected"),
    };
    decode(&response, version)
}

pub fn decode<A: Decodable>(response: &Response, version: i16) -> A {
    let mut bytes = bytes::Bytes::from(response.parts.concat());
    let answer = A::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
    answer
}

pub fn name(name: &str) -> kafka_protocol::messages::TopicName {
    StrBytes::from_string(name.to_owned()).into()
}
