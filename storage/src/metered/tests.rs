//! Tests of what is counted, and as what.

use futures::TryStreamExt;
use meta::faults::{Fault, FaultPlan, FaultStore, Operation};
use meta::keys::object;
use object_store::{ObjectStoreExt, PutMode};
use tokio::time::Duration;

use super::*;

fn metered() -> (FaultStore, MeteredStore, Arc<StoreCounters>) {
    let beneath = FaultStore::in_memory();
    let (store, counters) = MeteredStore::new(Arc::new(beneath.clone()));
    (beneath, store, counters)
}

#[tokio::test(start_paused = true)]
async fn requests_and_bytes_are_counted_by_kind_and_purpose() {
    let (_, store, counters) = metered();
    let (fragment, journal) = (object::fragment(1, 0, 7), object::journal(3));
    store.put(&fragment, PutPayload::from_static(b"fragment")).await.unwrap();
    store.put(&journal, PutPayload::from_static(b"txn")).await.unwrap();
    store.get(&fragment).await.unwrap();
    store.get_range(&fragment, 0..3).await.unwrap();
    store.head(&journal).await.unwrap();
    store.copy(&fragment, &Path::from("elsewhere")).await.unwrap();
    store.list(Some(&object::journal_prefix())).try_collect::<Vec<_>>().await.unwrap();
    store.delete(&journal).await.unwrap();
    let (logs, meta) = (counters.of(Purpose::Logs), counters.of(Purpose::Meta));
    assert_eq!((logs.requests(Kind::Put), logs.requests(Kind::Get)), (1, 2));
    assert_eq!((logs.written_bytes(), logs.read_bytes()), (8, 11));
    assert_eq!((meta.requests(Kind::Put), meta.requests(Kind::Head), meta.requests(Kind::List)), (1, 1, 1));
    assert_eq!((meta.requests(Kind::Delete), meta.written_bytes(), meta.read_bytes()), (1, 3, 0));
    assert_eq!(counters.of(Purpose::Other).requests(Kind::Copy), 1);
    assert_eq!(Kind::ALL.map(|kind| counters.requests(kind)), [2, 0, 1, 1, 2, 1, 1]);
}

#[test]
fn every_key_has_its_purpose() {
    for (key, purpose) in [
        (object::fragment(1, 0, 0), Purpose::Logs),
        (object::segment_file(1, 0), Purpose::Logs),
        (object::logs_prefix(), Purpose::Logs),
        (object::snapshot(1), Purpose::Meta),
        (object::probe(1, 1), Purpose::Meta),
        (object::fragment(1, object::TIERED_SEGMENT, 0), Purpose::Tiered),
        (object::manifest(1, 1), Purpose::Manifests),
        (Path::from("logsheet"), Purpose::Other),
        (Path::default(), Purpose::Other),
    ] {
        assert_eq!(Purpose::of(key.as_ref()), purpose, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn parts_of_an_upload_are_counted_and_so_are_its_beginning_and_its_end() {
    let (_, store, counters) = metered();
    let path = object::fragment(1, object::TIERED_SEGMENT, 1);
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(PutPayload::from_static(b"one")).await.unwrap();
    upload.put_part(PutPayload::from_static(b"more")).await.unwrap();
    upload.complete().await.unwrap();
    let counts = counters.of(Purpose::Tiered);
    assert_eq!((counts.requests(Kind::Put), counts.requests(Kind::Part), counts.written_bytes()), (2, 2, 7));
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!((counts.requests(Kind::Put), counts.requests(Kind::Delete)), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_no_failure_and_an_error_is_one() {
    let (beneath, store, counters) = metered();
    let path = object::fragment(1, 0, 0);
    let create = || store.put_opts(&path, PutPayload::from_static(b"x"), PutMode::Create.into());
    create().await.unwrap();
    create().await.unwrap_err();
    store.get(&object::fragment(1, 0, 1)).await.unwrap_err();
    let logs = counters.of(Purpose::Logs);
    assert_eq!(Kind::ALL.map(|kind| logs.failures(kind)), [0; 7], "it exists, and it does not");
    for operation in [Operation::Put, Operation::Get, Operation::List, Operation::Delete] {
        beneath.script(operation, "logs", 0, Fault::FailBefore);
    }
    create().await.unwrap_err();
    store.get(&path).await.unwrap_err();
    store.list(Some(&object::logs_prefix())).try_collect::<Vec<_>>().await.unwrap_err();
    store.delete(&path).await.unwrap_err();
    assert_eq!((logs.failures(Kind::Put), logs.failures(Kind::Get), logs.failures(Kind::List)), (1, 1, 1));
    let deletes: u64 = Purpose::ALL.iter().map(|purpose| counters.of(*purpose).failures(Kind::Delete)).sum();
    assert_eq!(deletes, 1);
    assert_eq!(logs.requests(Kind::Put), 3, "what failed was asked for all the same");
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_several_requests() {
    let (beneath, store, counters) = metered();
    for number in 0..2_001 {
        beneath.inner().put(&object::journal(number), PutPayload::from_static(b"")).await.unwrap();
    }
    store.list(Some(&object::journal_prefix())).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(counters.requests(Kind::List), 3);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_puts_and_gets_is_kept() {
    let (beneath, store, counters) = metered();
    let path = object::fragment(1, 0, 0);
    for latency_ms in [3, 80, 20_000] {
        let latency = Duration::from_millis(latency_ms);
        beneath.set_plan(FaultPlan::slow(latency..=latency));
        store.put(&path, PutPayload::from_static(b"x")).await.unwrap();
    }
    let filled = |latency: &Latency| -> Vec<(f64, u64)> {
        latency.buckets().into_iter().filter(|(_, count)| *count > 0).collect()
    };
    assert_eq!(filled(&counters.put_latency), [(0.005, 1), (0.1, 1), (f64::INFINITY, 1)]);
    assert!((20.08..20.1).contains(&counters.put_latency.sum_s()), "{}", counters.put_latency.sum_s());
    assert!(filled(&counters.get_latency).is_empty());
}
