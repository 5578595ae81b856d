//! Topics: those that the whole simulation uses, and those that come and go.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::dice::Dice;
use super::model::Ack;
use super::offsets::{self, EARLIEST, LATEST};
use super::probing::{Sent, produce_one};
use super::producer::init_producer_id;
use super::reader;
use super::session::{self, Clients, PATIENCE, Phase, Session, topic_name};
use super::wire::{BatchSpec, NO_TIMESTAMP, encode_batch};
use crate::checker::partition;

/// The topic that exists from the beginning, made by CreateTopics. (`AUTO` is made by asking for it.)
pub const MADE: &str = "made";
pub const MADE_PARTITIONS: i32 = 3;
pub const AUTO: &str = "auto";
pub const AUTO_PARTITIONS: i32 = 2;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC_ID: i16 = 100;

/// A session for admin requests, with whoever is not older than `least_epoch`.
async fn admin_session(clients: &Clients, dice: &Dice, topics: &[String], least_epoch: i32) -> Option<Session> {
    let session = session::open(clients, dice, topics, least_epoch, false).await;
    if session.is_none() {
        sleep(dice.ms(50..=500)).await;
    }
    session
}

/// Creates a topic, trying until it exists. True if every attempt was answered: then none can still be under way.
pub async fn create(clients: &Clients, dice: &Dice, name: &str, partitions: i32, until: Phase) -> Option<bool> {
    let mut all_answered = true;
    while clients.phase() < until {
        let Some(session) = admin_session(clients, dice, &[], -1).await else { continue };
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
        match session.connection.call(7, &request, PATIENCE).await {
            Ok(response) => {
                let error = response.topics.first().map_or(-1, |topic| topic.error_code);
                clients.trace.note(format_args!("create {name}: error {error}"));
                if error == 0 || error == TOPIC_ALREADY_EXISTS {
                    return Some(all_answered);
                }
                // Its metadata transaction may be of unknown outcome.
                all_answered = false;
            }
            Err(_) => all_answered = false,
        }
        sleep(dice.ms(50..=500)).await;
    }
    None
}

/// Creates, fills, reads, deletes and creates again, one name after another, until the drain begins.
pub async fn churn(clients: Arc<Clients>, dice: Dice) {
    let mut number = 0;
    while clients.phase() < Phase::Drain && number < 4 {
        sleep(dice.ms(200..=4000)).await;
        let name = format!("churn-{number}");
        if one_life(&clients, &dice, &name).await.is_none() {
            return;
        }
        number += 1;
    }
}

async fn one_life(clients: &Arc<Clients>, dice: &Dice, name: &str) -> Option<()> {
    let topics = [name.to_owned()];
    let created_cleanly = create(clients, dice, name, 1, Phase::Drain).await?;
    let session = retry(clients, || admin_session(clients, dice, &topics, -1)).await?;
    let (id, epoch) = (*session.ids.get(name)?, session.epoch);
    let filled_by = fill(clients, dice, name, epoch).await?;
    if dice.chance(70) {
        let missing = reader::read_back(clients, dice, &[partition(name, 0)], filled_by, Duration::from_secs(20)).await;
        clients.trace.note(format_args!("{name}: read back, {} missing", missing.len()));
    }
    let epoch = delete(clients, dice, name, id, epoch).await?;
    if created_cleanly {
        expect_gone(clients, dice, name, epoch).await?;
    }
    create(clients, dice, name, 1, Phase::Drain).await?;
    expect_empty(clients, dice, name, id, epoch).await
}

async fn retry<T, F: Future<Output = Option<T>>>(clients: &Clients, attempt: impl Fn() -> F) -> Option<T> {
    while clients.phase() < Phase::Drain {
        if let Some(found) = attempt().await {
            return Some(found);
        }
        sleep(Duration::from_millis(100)).await;
    }
    None
}

/// A few acknowledged batches. Returns the epoch of whoever acknowledged the last one.
async fn fill(clients: &Clients, dice: &Dice, name: &str, epoch: i32) -> Option<i32> {
    let mut filled_by = epoch;
    let topics = [name.to_owned()];
    let target = partition(name, 0);
    let producer_id = retry(clients, || async {
        let session = admin_session(clients, dice, &topics, epoch).await?;
        init_producer_id(&session).await
    })
    .await?;
    clients.model.producer_id(u32::MAX, producer_id);
    let mut sequence = 0;
    for _ in 0..dice.below(4) {
        let values = clients.model.send(9_000, &target, 2);
        let spec = BatchSpec {
            producer_id,
            producer_epoch: 0,
            base_sequence: sequence,
            attributes: 0,
            timestamp_ms: NO_TIMESTAMP,
            values: &values,
        };
        let bytes = encode_batch(&spec);
        let mut attempts = 0;
        while clients.phase() < Phase::Drain {
            let Some(session) = admin_session(clients, dice, &topics, epoch).await else { continue };
            attempts += 1;
            let ack = Ack { epoch: session.epoch, retried: attempts > 1, sent_at: Instant::now() };
            if let Sent::At(offset) = produce_one(&session, &target, bytes.clone()).await {
                clients.model.acked(&target, &values, offset, ack);
                filled_by = session.epoch;
                break;
            }
        }
        sequence += 2;
    }
    Some(filled_by)
}

/// Deletes the topic by its id, so that a late attempt cannot hit a successor. Returns the epoch of who confirmed.
async fn delete(clients: &Clients, dice: &Dice, name: &str, id: Uuid, epoch: i32) -> Option<i32> {
    let anchor = [MADE.to_owned()];
    retry(clients, || async {
        let session = admin_session(clients, dice, &anchor, epoch).await?;
        let state = DeleteTopicState::default().with_name(None).with_topic_id(id);
        let request = DeleteTopicsRequest::default().with_topics(vec![state]).with_timeout_ms(5000);
        let response = session.connection.call(6, &request, PATIENCE).await.ok()?;
        let error = response.responses.first().map_or(-1, |answer| answer.error_code);
        clients.trace.note(format_args!("delete {name}: error {error}"));
        (error == 0 || error == UNKNOWN_TOPIC_ID).then_some(session.epoch)
    })
    .await
}

/// A deleted topic is gone for whoever is not older than its deletion: in Metadata and for producers.
async fn expect_gone(clients: &Clients, dice: &Dice, name: &str, epoch: i32) -> Option<()> {
    let anchor = [MADE.to_owned()];
    let session = retry(clients, || admin_session(clients, dice, &anchor, epoch)).await?;
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
    let response = session.connection.call(12, &request, PATIENCE).await.ok()?;
    let error = response.topics.first().map_or(-1, |topic| topic.error_code);
    if error == 0 {
        clients.trace.violation("acked-durable", format_args!("{name} was deleted and is there"));
    }
    let target = partition(name, 0);
    let values = clients.model.send(9_001, &target, 1);
    clients.model.refused(&values);
    let spec = BatchSpec {
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        attributes: 0,
        timestamp_ms: NO_TIMESTAMP,
        values: &values,
    };
    match produce_one(&session, &target, encode_batch(&spec)).await {
        Sent::At(offset) => {
            clients.trace.violation("acked-durable", format_args!("{name} was deleted and acknowledged {offset}"));
        }
        Sent::Error(error) if error != UNKNOWN_TOPIC_OR_PARTITION => {
            clients.trace.note(format_args!("produce to deleted {name}: error {error}"));
        }
        Sent::Error(_) | Sent::Unknown => {}
    }
    Some(())
}

/// A topic that was created again is another one, and empty.
async fn expect_empty(clients: &Clients, dice: &Dice, name: &str, old: Uuid, epoch: i32) -> Option<()> {
    let topics = [name.to_owned()];
    let target = partition(name, 0);
    retry(clients, || async {
        let session = admin_session(clients, dice, &topics, epoch).await?;
        let new = *session.ids.get(name)?;
        let start = offsets::list_offset(clients, &session, &target, EARLIEST).await?;
        let end = offsets::list_offset(clients, &session, &target, LATEST).await?;
        clients.trace.note(format_args!("{name} again: {start} to {end}"));
        if new == old || (start, end) != (0, 0) {
            let how = format_args!("{name} was deleted as {old}, and is again {new} with {start} to {end}");
            clients.trace.violation("offset-immutable", how);
        }
        Some(())
    })
    .await
}
