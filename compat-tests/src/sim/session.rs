//! A client's way to the leader of its partitions: bootstrap, Metadata, leader epochs that never go back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::watch;
use uuid::Uuid;

use super::connection::Connection;
use super::dice::Dice;
use super::group_model::GroupModel;
use super::model::Model;
use super::net::Net;
use super::trace::Trace;

/// How long a client waits for a connection or a plain answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What all clients of a simulation share.
pub struct Clients {
    pub net: Net,
    pub trace: Arc<Trace>,
    pub model: Model,
    pub groups: GroupModel,
    pub addresses: Vec<String>,
    /// What the schedule wants of the clients.
    pub phase: watch::Receiver<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Faults strike.
    Faults,
    /// They have stopped: what is new must succeed.
    Healed,
    /// Producers finish what they began; nothing new.
    Drain,
    /// Readers stop.
    Stop,
}

impl Clients {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// A connection to the broker that leads the topics.
pub struct Session {
    pub connection: Connection,
    /// Topic name to id.
    pub ids: BTreeMap<String, Uuid>,
    /// The leader epoch: in this system all partitions of one broker have the same.
    pub epoch: i32,
}

impl Session {
    pub fn name_of(&self, id: Uuid) -> Option<&str> {
        self.ids.iter().find(|(_, known)| **known == id).map(|(name, _)| name.as_str())
    }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Asks a random broker who leads, and connects there. None if that did not work out, or if the answer is older than
/// what this client knows (`least_epoch`): then it must not be believed, as Kafka's clients do not. The epoch is told by
/// the very process that the session is with: its address may have been somebody else's a moment ago.
pub async fn open(
    clients: &Clients,
    dice: &Dice,
    topics: &[String],
    least_epoch: i32,
    create: bool,
) -> Option<Session> {
    let wanted = topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect();
    let request = MetadataRequest::default().with_topics(Some(wanted)).with_allow_auto_topic_creation(create);
    let mut address = dice.pick(&clients.addresses).clone();
    for _ in 0..3 {
        let connection = Connection::open(&clients.net, &clients.trace, &address, PATIENCE).await.ok()?;
        let metadata = connection.call(12, &request, PATIENCE).await.ok()?;
        let (ids, epoch) = understand(clients, topics, &metadata)?;
        if epoch < least_epoch {
            return None;
        }
        let leader = metadata.brokers.first().map(|broker| format!("{}:{}", broker.host.as_str(), broker.port))?;
        if leader == address {
            return Some(Session { connection, ids, epoch });
        }
        address = leader;
    }
    None
}

fn understand(
    clients: &Clients,
    topics: &[String],
    metadata: &MetadataResponse,
) -> Option<(BTreeMap<String, Uuid>, i32)> {
    let mut ids = BTreeMap::new();
    let mut epoch = -1;
    for topic in &metadata.topics {
        let name = topic.name.as_ref()?.to_string();
        if topic.error_code != 0 {
            clients.trace.note(format_args!("metadata: {name} error {}", topic.error_code));
            return None;
        }
        ids.insert(name, topic.topic_id);
        epoch = leader_epoch(clients, topic, epoch)?;
    }
    (ids.len() == topics.len()).then_some((ids, epoch))
}

/// The epoch of all partitions, which must be the same as those before.
fn leader_epoch(clients: &Clients, topic: &MetadataResponseTopic, before: i32) -> Option<i32> {
    let mut epoch = before;
    for partition in &topic.partitions {
        if partition.error_code != 0 || partition.leader_id.0 < 0 {
            clients.trace.note(format_args!("metadata: partition error {}", partition.error_code));
            return None;
        }
        if epoch >= 0 && partition.leader_epoch != epoch {
            let how = format_args!("one broker leads at epochs {epoch} and {}", partition.leader_epoch);
            clients.trace.violation("one-writer-per-segment", how);
        }
        epoch = partition.leader_epoch;
    }
    Some(epoch)
}
