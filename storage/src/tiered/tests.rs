//! Objects that are written in parts: what they hold, what is counted, and what is left when something goes wrong.

use std::sync::Arc;
use std::time::Duration;

use meta::faults::{Fault, FaultPlan, FaultStore, Operation};
use meta::seams::Incarnation;
use object_store::ObjectStoreExt;
use tokio::time::Instant;

use super::*;
use crate::fragment::{FragmentHeader, TieredBuilder, TieredLayout, decode_footer};
use crate::metered::{Kind, MeteredStore, Purpose};
use crate::samples::{bytes_of, entry, partition};

const WRITER: Incarnation = Incarnation(7);
const SECOND: Duration = Duration::from_secs(1);

/// An object of so many entries of 100 bytes: how it is laid out, and its entries' bytes.
fn laid_out(number: u64, entries: i64) -> (TieredLayout, Vec<Vec<u8>>) {
    let mut builder = TieredBuilder::new(3, number);
    let mut bytes = Vec::new();
    builder.begin_run(partition(5, 0), 0, 3);
    for offset in 0..entries {
        let entry = entry(partition(5, 0), offset, 1, 79);
        let indexed = IndexedEntry { meta: entry.meta, position: 0, length: 100, checksum: entry.checksum() };
        builder.push(&indexed, []);
        bytes.push(bytes_of(&entry));
    }
    (builder.lay_out(WRITER), bytes)
}

async fn written(objects: &TieredObjects, layout: &TieredLayout, entries: &[Vec<u8>], part_bytes: usize) -> Result<()> {
    let mut upload =
        objects.begin(layout, Parts { bytes: part_bytes, at_once: 3, allowed: true, reads_back: true }).await?;
    let whole = async {
        for entry in entries {
            upload.push(entry).await?;
        }
        upload.finish(layout).await
    };
    let outcome = whole.await;
    upload.abort().await;
    outcome
}

#[tokio::test]
async fn whatever_the_length_of_parts_the_object_is_the_same() {
    let (layout, entries) = laid_out(0, 20);
    let whole = [&layout.head[..], &entries.concat(), &layout.tail].concat();
    assert_eq!(whole.len() as u64, layout.total_bytes);
    let footer = &whole[whole.len() - layout.tail.len()..];
    let header = FragmentHeader::decode(&whole).unwrap();
    assert_eq!(decode_footer(&header, footer).unwrap(), layout.index, "it is a fragment like any other");
    for part_bytes in [1, 7, 80, 100, 1_000, whole.len() - 1, whole.len(), 1 << 20] {
        let (store, counters) = MeteredStore::new(Arc::new(object_store::memory::InMemory::new()));
        let objects = TieredObjects::new(Arc::new(store));
        written(&objects, &layout, &entries, part_bytes).await.unwrap();
        let found = objects.store().get(&layout.index.fragment.key()).await.unwrap().bytes().await.unwrap();
        assert_eq!(found, whole, "in parts of {part_bytes}");
        let counts = counters.of(Purpose::Tiered);
        let parts = if part_bytes < whole.len() { whole.len().div_ceil(part_bytes) as u64 } else { 0 };
        assert_eq!(counts.requests(Kind::Part), parts, "all parts but the last have one length");
        assert_eq!(counts.requests(Kind::Put), if parts > 0 { 2 } else { 1 }, "its beginning and its end count");
    }
}

/// A store that is far away takes several parts side by side, and no more than there is memory for.
#[tokio::test(start_paused = true)]
async fn parts_are_on_their_way_side_by_side() {
    let store = FaultStore::in_memory();
    let objects = TieredObjects::new(Arc::new(store.clone()));
    store.set_plan(FaultPlan::slow(SECOND..=SECOND));
    let (layout, entries) = laid_out(1, 20);
    let parts = layout.total_bytes.div_ceil(200) as u32;
    let began = Instant::now();
    written(&objects, &layout, &entries, 200).await.unwrap();
    // Beside them, its beginning and its end, and that it is given up, which comes too late.
    let took_s = began.elapsed().as_secs_f64().round() as u32;
    assert_eq!(took_s, parts.div_ceil(3) + 3, "{parts} parts, three at a time");
}

#[tokio::test]
async fn what_was_given_up_is_not_there() {
    let store = FaultStore::in_memory();
    let objects = TieredObjects::new(Arc::new(store.clone()));
    let (layout, entries) = laid_out(1, 20);
    let mut upload =
        objects.begin(&layout, Parts { bytes: 500, at_once: 3, allowed: true, reads_back: true }).await.unwrap();
    for entry in &entries[..15] {
        upload.push(entry).await.unwrap();
    }
    assert_eq!(store.open_uploads(), 1);
    upload.abort().await;
    assert_eq!(store.open_uploads(), 0);
    assert!(objects.list().await.unwrap().fragments.is_empty());
    // The head alone is longer than a part: it fails while the upload is begun.
    store.script(Operation::Part, "tiered", 0, Fault::FailBefore);
    written(&objects, &layout, &entries, 10).await.unwrap_err();
    assert_eq!(store.open_uploads(), 0);
    store.script(Operation::Part, "tiered", 1, Fault::FailBefore);
    let failed = written(&objects, &layout, &entries, 500).await.unwrap_err();
    assert_eq!(failed.kind(), meta::error::ErrorKind::Retriable, "{failed}");
    assert_eq!(store.open_uploads(), 0);
    assert!(objects.list().await.unwrap().fragments.is_empty());
}

/// Only the object itself tells what became of a completion whose answer got lost.
#[tokio::test(start_paused = true)]
async fn a_completion_without_an_answer_is_settled() {
    let store = FaultStore::in_memory();
    let objects = TieredObjects::new(Arc::new(store.clone()));
    for (number, fault) in [(2, Fault::LandThenError), (3, Fault::LandThenHang)] {
        let (layout, entries) = laid_out(number, 20);
        store.script(Operation::Complete, "tiered", 0, fault);
        written(&objects, &layout, &entries, 500).await.unwrap();
    }
    for (number, fault) in [(4, Fault::FailBefore), (5, Fault::Hang)] {
        let (layout, entries) = laid_out(number, 20);
        store.script(Operation::Complete, "tiered", 0, fault);
        let unknown = written(&objects, &layout, &entries, 500).await.unwrap_err();
        assert_eq!(unknown.kind(), meta::error::ErrorKind::Unknown, "{unknown}");
    }
    assert_eq!(objects.list().await.unwrap().fragments.len(), 2);
}
