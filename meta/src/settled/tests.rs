//! Every row of the fault table, and races under all of them at once.

use super::*;
use crate::faults::{Fault, FaultPlan, FaultStore, Operation};
use crate::seams::Random;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

const LENGTH: usize = 64;

fn body(id: u8) -> (PutPayload, Identity) {
    let mut bytes = vec![0; LENGTH];
    bytes[8..24].fill(id);
    (PutPayload::from(bytes), Identity { range: 8..24, bytes: Bytes::from(vec![id; 16]) })
}

fn path() -> Path {
    Path::from("logs/1/2/3")
}

fn patience() -> Patience {
    Patience { call_timeout: Duration::from_millis(500), ..Patience::default() }
}

async fn create(store: &FaultStore, id: u8) -> Settled {
    let (payload, identity) = body(id);
    Settler::new(Arc::new(store.clone())).create(&path(), payload, &identity, &patience()).await
}

/// The byte that fills the identity of the object that is really there.
async fn holder(store: &FaultStore) -> Option<u8> {
    let answer = store.inner().get_range(&path(), 8..9).await;
    answer.ok().and_then(|bytes| bytes.first().copied())
}

#[tokio::test(start_paused = true)]
async fn one_put_and_no_read_when_all_is_well() {
    let store = FaultStore::in_memory();
    assert_eq!(create(&store, 1).await, Settled::Ours);
    let counts = store.counts();
    assert_eq!((counts.puts, counts.gets, counts.heads), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_a_put_is_settled_as_ours() {
    let late = Duration::from_millis(70);
    for fault in [
        Fault::FailBefore,
        Fault::LandThenError,
        Fault::LandThenAlreadyExists,
        Fault::AlreadyExistsNothingLanded,
        Fault::Hang,
        Fault::LandThenHang,
        Fault::LandLate(late),
        Fault::HangThenLandLate(late),
        Fault::Unavailable(Duration::from_secs(3)),
    ] {
        for nth in 0..2 {
            let store = FaultStore::in_memory();
            store.script(Operation::Put, "logs/", 0, Fault::FailBefore);
            store.script(Operation::Put, "logs/", nth, fault);
            assert_eq!(create(&store, 1).await, Settled::Ours, "{fault:?}");
            assert_eq!(holder(&store).await, Some(1), "{fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn already_exists_is_never_believed() {
    let store = FaultStore::in_memory();
    assert_eq!(create(&store, 2).await, Settled::Ours);
    assert_eq!(create(&store, 1).await, Settled::Theirs { found: Bytes::from(vec![2; 16]) });
    assert_eq!(create(&store, 2).await, Settled::Ours, "the same bytes are the same write");
}

#[tokio::test(start_paused = true)]
async fn nothing_at_the_key_proves_nothing() {
    let store = FaultStore::in_memory();
    store.script(Operation::Put, "", 0, Fault::LandLate(Duration::from_secs(2)));
    store.script(Operation::Put, "", 0, Fault::FailBefore);
    assert_eq!(create(&store, 1).await, Settled::Ours);
    sleep(Duration::from_secs(3)).await;
    store.land_due().await;
    assert_eq!(holder(&store).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn damaged_reads_do_not_make_ours_theirs() {
    for fault in [Fault::BitFlip, Fault::TruncatedGet, Fault::FailBefore, Fault::Hang] {
        let store = FaultStore::in_memory();
        store.script(Operation::Put, "", 0, Fault::LandThenAlreadyExists);
        store.script(Operation::Get, "", 0, fault);
        assert_eq!(create(&store, 1).await, Settled::Ours, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_ends_within_the_identity_is_theirs() {
    for length in [0, 1, 8, 9, 23] {
        let store = FaultStore::in_memory();
        store.inner().put(&path(), PutPayload::from(vec![7; length])).await.unwrap();
        let found = Bytes::from(vec![7; length.saturating_sub(8)]);
        assert_eq!(create(&store, 7).await, Settled::Theirs { found }, "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_as_unknown_and_can_be_settled_later() {
    let store = FaultStore::in_memory();
    store.set_down(true);
    let began = Instant::now();
    let Settled::Unknown { why } = create(&store, 1).await else { panic!("settled during an outage") };
    assert!(why.contains("did not arrive"), "{why}");
    assert_eq!(began.elapsed(), patience().deadline);
    store.set_down(false);
    assert_eq!(create(&store, 1).await, Settled::Ours);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_is_given_up_on_early() {
    let store = FaultStore::in_memory();
    store.set_plan(FaultPlan { put: vec![(1.0, Fault::PermissionDenied)], ..FaultPlan::default() });
    let began = Instant::now();
    let Settled::Unknown { why } = create(&store, 1).await else { panic!("settled without permission") };
    assert!(why.contains("privileges"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(1));
}

struct Log(parking_lot::Mutex<Vec<(u32, u32)>>);

impl Observer for Log {
    fn settled(&self, _: &Path, effort: Effort, _: &Settled) {
        self.0.lock().push((effort.puts, effort.reads));
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_what_it_took() {
    let store = FaultStore::in_memory();
    store.script(Operation::Put, "", 0, Fault::LandThenError);
    let log = Arc::new(Log(parking_lot::Mutex::default()));
    let settler = Settler::new(Arc::new(store)).with_observer(log.clone());
    let (payload, identity) = body(1);
    settler.create(&path(), payload, &identity, &patience()).await;
    assert_eq!(*log.0.lock(), [(1, 1)]);
}

/// Many writers, one key, every ambiguity at once: at most one `Ours`, it is who is there, and nobody is told a lie.
#[tokio::test(start_paused = true)]
async fn racing_writers_agree_on_one_winner() {
    for seed in 0..200 {
        let mut plan = FaultPlan {
            latency: Duration::from_millis(1)..=Duration::from_millis(90),
            ..FaultPlan::ambiguous(if seed % 4 == 0 { 0.9 } else { 0.4 })
        };
        // Of so many damaged reads two would now and then be damaged in the very same bit.
        plan.get.retain(|(_, fault)| seed % 4 != 0 || *fault != Fault::BitFlip);
        let store = FaultStore::new(Arc::new(InMemory::new()), Random::from_seed(seed), plan);
        let outcomes = futures::future::join_all((1..=4).map(|id| create(&store, id))).await;
        store.set_plan(FaultPlan::default());
        sleep(Duration::from_secs(10)).await;
        store.land_due().await;
        let holder = holder(&store).await;
        for (id, outcome) in (1..=4).zip(&outcomes) {
            match outcome {
                Settled::Ours => assert_eq!(holder, Some(id), "seed {seed}: {outcomes:?}"),
                Settled::Theirs { found } => {
                    assert_ne!(holder, Some(id), "seed {seed}: {outcomes:?}");
                    assert_eq!(found.first().copied(), holder, "seed {seed}: {outcomes:?}");
                }
                Settled::Unknown { .. } => {}
            }
        }
        assert!(outcomes.iter().filter(|outcome| **outcome == Settled::Ours).count() <= 1, "seed {seed}");
    }
}
