//! What happens to all partitions: opening, leading, fragments, deletion, and the end of the log.

use parking_lot::Mutex;
use storage::reader::Want;

use super::testing::Rig;
use super::*;
use crate::batch::testing::BatchSpec;

const TOPIC: Uuid = Uuid::from_u128(9);

fn id(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition }
}

#[derive(Default)]
struct Events(Mutex<Vec<(i32, Option<Status>)>>);

impl LeadershipListener for Events {
    fn became_leader(&self, partition: &Arc<Partition>, leader_epoch: i32) {
        assert_eq!(leader_epoch, 4);
        self.0.lock().push((partition.id().partition, None));
    }

    fn resigned(&self, partition: &Arc<Partition>, why: Status) {
        self.0.lock().push((partition.id().partition, Some(why)));
    }
}

#[test]
fn leadership_is_an_event_for_every_partition_once() {
    let rig = Rig::new(1 << 20);
    let events = Arc::new(Events::default());
    rig.partitions.add_listener(events.clone());
    rig.partitions.open_topic(TOPIC, 2);
    assert!(rig.partitions.log().is_none());
    rig.lead();
    rig.partitions.open_topic(TOPIC, 3);
    rig.partitions.close_topic(TOPIC, 1);
    rig.partitions.resign("test");
    rig.partitions.log_ended(Outcome::Fenced, "test");
    let expected = [
        (0, None),
        (1, None),
        (2, None),
        (0, Some(Status::Deleted)),
        (1, Some(Status::Released)),
        (2, Some(Status::Released)),
        (1, Some(Status::Fenced)),
        (2, Some(Status::Fenced)),
    ];
    assert_eq!(*events.0.lock(), expected);
    assert!(rig.partitions.log().is_none());
}

#[tokio::test]
async fn a_fragment_is_in_the_tail_before_it_is_readable() {
    let rig = Rig::leading(1 << 20, TOPIC, 2);
    rig.append(id(0), &BatchSpec::records(2));
    rig.append(id(1), &BatchSpec::records(3));
    let fragment = rig.cut();
    // Not kept in the store: only the tail has it.
    fragment.durable(&*rig.partitions);
    for (partition, count) in [(0, 2), (1, 3)] {
        let plan = rig.partitions.get(id(partition)).unwrap().plan_fetch(0, -1, 1 << 20).unwrap();
        let want = Want { from_offset: 0, below_offset: count, max_bytes: 1 << 20, at_least_one: true, look_up: false };
        let read = rig.partitions.reader().read(id(partition), &plan.runs[0], &want).await.unwrap();
        assert_eq!(read.next_offset, count);
    }
}

#[tokio::test]
async fn the_end_of_the_log_fences_everything_and_is_told() {
    let rig = Rig::leading(1 << 20, TOPIC, 1);
    let pending = rig.append(id(0), &BatchSpec::records(1));
    rig.partitions.log_ended(Outcome::Fenced, "sealed by another broker");
    rig.cut().end(Outcome::Fenced);
    assert_eq!(rig.partitions.get(id(0)).unwrap().status(), Status::Fenced);
    assert_eq!(pending.resolved().await, Outcome::Fenced);
    assert!(rig.ownership.lost().await.to_string().contains("sealed by another broker"));
    rig.lead();
    rig.partitions.open_topic(Uuid::from_u128(10), 1);
    let late = TopicPartition { topic: Uuid::from_u128(10), partition: 0 };
    assert_eq!(rig.partitions.get(late).unwrap().status(), Status::Fenced, "nothing is led any more");
}

#[test]
fn fragments_of_deleted_topics_are_passed_over() {
    let rig = Rig::leading(1 << 20, TOPIC, 2);
    let replayed = Rig::new(1 << 20);
    replayed.partitions.open_topic(TOPIC, 1);
    rig.append(id(0), &BatchSpec::records(1));
    rig.append(id(1), &BatchSpec::records(1));
    let fragment = rig.cut();
    fragment.runs().iter().for_each(|run| replayed.partitions.replay(run).unwrap());
    assert_eq!(replayed.partitions.len(), 1);
    rig.partitions.close_topic(TOPIC, 1);
    fragment.durable(&*rig.partitions);
    assert_eq!(rig.partitions.get(id(1)).unwrap().bounds(-1).unwrap().high_watermark, 1);
    assert!(rig.partitions.get(id(0)).is_none());
}

#[test]
fn a_contradiction_in_one_partition_is_named_and_spares_the_others() {
    let rig = Rig::leading(1 << 20, TOPIC, 2);
    rig.append(id(0), &BatchSpec::records(1));
    rig.append(id(1), &BatchSpec::records(1));
    let fragment = rig.cut();
    let replayed = Rig::new(1 << 20);
    replayed.partitions.open_topic(TOPIC, 2);
    let twice = &fragment.runs()[0];
    replayed.partitions.replay(twice).unwrap();
    let error = replayed.partitions.replay(twice).unwrap_err();
    assert!(error.to_string().contains(&id(0).to_string()), "{error}");
    replayed.partitions.replay(&fragment.runs()[1]).unwrap();
    replayed.lead();
    assert_eq!(replayed.partitions.get(id(0)).unwrap().status(), Status::Damaged);
    assert_eq!(replayed.partitions.get(id(1)).unwrap().status(), Status::Leading);
}
