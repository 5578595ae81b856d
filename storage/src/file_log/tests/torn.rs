//! Rule 11: damage above what is known durable is a torn tail; damage below it is corruption, by name.

use meta::error::ErrorKind;

use super::*;
use crate::conformance::{all_durable, enqueue_all, some_entries};
use crate::entry::Entry;
use crate::fragment::{EncodedFragment, FragmentBuilder, HEADER_BYTES};

const WRITER: Incarnation = Incarnation(1);
const FRAGMENTS: i64 = 6;

/// A log of a few fragments, whose writer is gone.
struct Gone {
    disk: FaultyDisk,
    backend: Backend,
    number: u64,
    record: LogRecord,
    indexes: Vec<FragmentIndex>,
}

async fn gone() -> Gone {
    let disk = FaultyDisk::new(1);
    let backend = disk_backend(disk.clone(), small());
    let opened = backend.open_log(&*(backend.open)(), WRITER).await;
    for round in 0..FRAGMENTS {
        // One entry first, then the rest: a fragment each.
        all_durable(&enqueue_all(&*opened.log, &some_entries(round, 1, 1))).await;
    }
    let record = registry::begin_sealing(&*backend.meta, opened.number).await.unwrap();
    assert_eq!(opened.sink.indexes().len() as i64, FRAGMENTS);
    Gone { disk, backend, number: opened.number, record, indexes: opened.sink.indexes() }
}

impl Gone {
    fn path(&self) -> String {
        path(self.number, 0)
    }

    /// Where a fragment begins; for the one after the last, the file's length.
    fn position(&self, fragment: usize) -> u64 {
        match self.indexes.get(fragment) {
            Some(index) => index.runs[0].run.file_position,
            None => self.disk.content(&self.path()).unwrap().len() as u64,
        }
    }

    async fn fence(&self) -> Result<u64> {
        let store = (self.backend.open)();
        let end = store.fence(self.number, &self.record, Incarnation(2)).await;
        assert_eq!(end.as_ref().ok(), store.fence(self.number, &self.record, Incarnation(3)).await.as_ref().ok());
        end
    }

    /// The fragment that would have been next.
    fn next(&self, entries: Vec<Entry>, durable_through: u64) -> EncodedFragment {
        let id = FragmentId { log: self.number, segment: 0, fragment: FRAGMENTS as u64 };
        entries.into_iter().collect::<FragmentBuilder>().finish(id, WRITER, Some(durable_through))
    }
}

#[tokio::test]
async fn whatever_is_left_of_an_unfinished_append_is_a_torn_tail() {
    let whole = gone().await;
    assert_eq!(whole.fence().await.unwrap(), FRAGMENTS as u64);
    let next = whole.next(some_entries(FRAGMENTS, 3, 2), FRAGMENTS as u64 - 1).parts.concat();
    let full = gone().await;
    full.disk.append_garbage(&full.path(), &next);
    assert_eq!(full.fence().await.unwrap(), FRAGMENTS as u64 + 1, "whole, though never acknowledged");
    for left in (0..next.len()).step_by(37).chain([HEADER_BYTES - 1, HEADER_BYTES, next.len() - 1]) {
        let torn = gone().await;
        torn.disk.append_garbage(&torn.path(), &next[..left]);
        assert_eq!(torn.fence().await.unwrap(), FRAGMENTS as u64, "{left} bytes are left");
        let zeros = gone().await;
        let mut bytes = next.clone();
        bytes[left..].fill(0);
        zeros.disk.append_garbage(&zeros.path(), &bytes);
        assert_eq!(zeros.fence().await.unwrap(), FRAGMENTS as u64, "zeros after {left} bytes");
    }
}

#[tokio::test]
async fn damaged_data_of_the_last_fragment_is_a_torn_tail() {
    for from_end in [1, 90, 200] {
        let gone = gone().await;
        let next = gone.next(some_entries(FRAGMENTS, 3, 2), FRAGMENTS as u64 - 1);
        let mut bytes = next.parts.concat();
        let data_end = next.header.footer_position() as usize;
        bytes[data_end - from_end] ^= 0x10;
        gone.disk.append_garbage(&gone.path(), &bytes);
        assert_eq!(gone.fence().await.unwrap(), FRAGMENTS as u64, "its header and footer are whole");
    }
}

#[tokio::test]
async fn damage_below_what_was_known_durable_is_corruption_by_name() {
    for fragment in 0..FRAGMENTS as usize - 1 {
        let reference = gone().await;
        let (begin, end) = (reference.position(fragment), reference.position(fragment + 1));
        // In the header, in the footer, in the trailer.
        for position in [begin, begin + 30, end - HEADER_BYTES as u64 - 5, end - 3] {
            let gone = gone().await;
            gone.disk.damage(&gone.path(), position);
            let error = gone.fence().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let text = error.to_string();
            assert!(text.contains(&gone.path()), "{text}");
            assert!(text.contains(&format!("fragment {fragment} at position {begin}")), "{text}");
        }
    }
}

#[tokio::test]
async fn what_the_metadata_knows_to_be_durable_must_be_there() {
    let mut gone = gone().await;
    gone.record.recover_from = FRAGMENTS as u64;
    gone.disk.truncate(&gone.path(), gone.position(FRAGMENTS as usize - 1));
    let error = gone.fence().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    gone.number += 1; // no such file
    assert_eq!(gone.fence().await.unwrap_err().kind(), ErrorKind::Corrupt);
    gone.record.recover_from = 0;
    assert_eq!(gone.fence().await.unwrap(), 0);
}

#[tokio::test]
async fn headers_inside_record_data_prove_nothing_unless_the_writer_wrote_them() {
    let forge = |writer, number| {
        let id = FragmentId { log: number, segment: 0, fragment: 50 };
        some_entries(0, 1, 1).into_iter().collect::<FragmentBuilder>().finish(id, writer, Some(49)).parts.concat()
    };
    let gone = gone().await;
    let mut tail = vec![7; 100];
    tail.extend(forge(Incarnation(66), gone.number));
    gone.disk.append_garbage(&gone.path(), &tail);
    assert_eq!(gone.fence().await.unwrap(), FRAGMENTS as u64);
    gone.disk.append_garbage(&gone.path(), &forge(WRITER, gone.number));
    assert_eq!(gone.fence().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_newer_format_is_refused_and_not_taken_for_a_torn_tail() {
    let gone = gone().await;
    let mut next = gone.next(some_entries(FRAGMENTS, 1, 1), FRAGMENTS as u64 - 1).parts.concat();
    next[9] = 2;
    let crc = crc32c::crc32c(&next[..76]);
    next[76..80].copy_from_slice(&crc.to_be_bytes());
    gone.disk.append_garbage(&gone.path(), &next);
    let error = gone.fence().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains(&gone.path()), "{error}");
}

#[tokio::test]
async fn damage_below_the_end_is_named_when_indexes_are_read() {
    let gone = gone().await;
    let end = gone.fence().await.unwrap();
    let position = gone.position(3);
    gone.disk.damage(&gone.path(), position + 8);
    let store = (gone.backend.open)();
    let mut each = |_| Ok(());
    let error = store.read_indexes(gone.number, 0, 0, end, &mut each).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&format!("fragment 3 at position {position}")), "{error}");
}

#[tokio::test]
async fn a_name_is_never_used_twice_and_an_open_log_is_not_fenced() {
    let disk = FaultyDisk::new(1);
    let backend = disk_backend(disk.clone(), small());
    let opened = backend.open_log(&*(backend.open)(), WRITER).await;
    drop(opened.log);
    let store = (backend.open)();
    let sink = Arc::new(conformance::Recorder::default());
    let error = store.open(opened.number, WRITER, sink).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("written before"), "{error}");
    let (record, _) = registry::load(&*backend.meta, opened.number).await.unwrap();
    assert_eq!(store.fence(opened.number, &record, WRITER).await.unwrap_err().kind(), ErrorKind::Invalid);
}
