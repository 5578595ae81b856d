//! What configurations belong to: a topic, this broker, all brokers. Shared by the APIs that show and change them.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::topics::edits::{Edits, Refusal};
use crate::topics::{ChangeError, Topic, check_name};

/// Kafka's numbers for the kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

pub enum Resource {
    Topic(Arc<Topic>),
    Broker,
    AllBrokers,
}

pub fn find(broker: &Broker, kind: i8, name: &str) -> Result<Resource, Refusal> {
    match kind {
        TOPIC => {
            check_name(name).map_err(|why| (ResponseError::InvalidTopicException, why))?;
            let missing = || ChangeError::NoSuchTopic.refusal();
            broker.topics.by_name(name).map(Resource::Topic).ok_or_else(missing)
        }
        BROKER if name.is_empty() => Ok(Resource::AllBrokers),
        BROKER => {
            let own = broker.config.broker_id;
            let refuse = |text: String| Err((ResponseError::InvalidRequest, text));
            match name.parse::<i32>() {
                Ok(id) if id == own => Ok(Resource::Broker),
                Ok(id) => refuse(format!("Unexpected broker id, expected {own} or empty string, but received {id}")),
                Err(_) => refuse(format!("Broker id must be an integer, but it is: {name}")),
            }
        }
        _ => Err((ResponseError::InvalidRequest, format!("there are no configurations of resources of type {kind}"))),
    }
}

/// Changes the configuration of a resource, or only checks whether that could be done.
pub async fn alter(broker: &Broker, kind: i8, name: &str, edits: &Edits, check_only: bool) -> Result<(), Refusal> {
    let altered = match find(broker, kind, name)? {
        Resource::Topic(topic) => broker.topics.alter_topic(&topic, edits, check_only).await,
        Resource::Broker => broker.topics.alter_broker(false, edits, check_only).await,
        Resource::AllBrokers => broker.topics.alter_broker(true, edits, check_only).await,
    };
    if altered.is_ok() && !check_only {
        // Retention may be another now.
        broker.partitions.backlog().dropped();
    }
    altered.map_err(|error| {
        if let ChangeError::Store(error) = &error {
            tracing::warn!(resource = name, %error, "could not change a configuration");
        }
        error.refusal()
    })
}

/// Which places of a request name a resource that is named elsewhere in it, too.
pub fn doubled<'a>(resources: impl Iterator<Item = (i8, &'a StrBytes)>) -> Vec<bool> {
    let all: Vec<_> = resources.collect();
    let mut counts = std::collections::BTreeMap::new();
    for (kind, name) in &all {
        *counts.entry((*kind, name.as_str())).or_insert(0_u32) += 1;
    }
    all.iter().map(|(kind, name)| counts.get(&(*kind, name.as_str())).is_some_and(|count| *count > 1)).collect()
}

pub fn doubled_refusal() -> Refusal {
    (ResponseError::InvalidRequest, "Each resource must appear at most once.".to_owned())
}

/// Error code and text of an answer.
pub fn code_and_text<T>(outcome: Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(_) => (0, None),
        Err((error, text)) => (error.code(), Some(StrBytes::from_string(text))),
    }
}
