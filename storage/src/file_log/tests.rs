//! Tests of the file log: the conformance suite, on real files and on a faulty disk.

mod faults;
mod torn;

use std::sync::Arc;

use meta::memory::MemoryStore;
use meta::seams::{Incarnation, Random};

use super::*;
use crate::conformance::{self, Backend};
use crate::files::FolderFiles;
use crate::files::faulty::{Faults, FaultyDisk};
use crate::folder::Folder;

fn meta_store() -> Arc<dyn MetaStore> {
    Arc::new(MemoryStore::new())
}

/// Small fragments and segments, so that splitting and rolling happen all the time.
fn small() -> FileLogOptions {
    FileLogOptions { max_fragment_bytes: 64 << 10, segment_bytes: 1 << 20, reader_threads: 2 }
}

/// These tests have no tiered objects.
fn tiered() -> TieredObjects {
    TieredObjects::new(Arc::new(object_store::memory::InMemory::new()))
}

fn folder_backend(root: &std::path::Path, number: usize) -> Backend {
    let meta = meta_store();
    let root = root.join(number.to_string());
    let folder = Arc::new(Folder::lock(&root, Incarnation(1), 0).unwrap());
    let (meta_of_stores, options) = (meta.clone(), FileLogOptions::default());
    let open = move || -> Arc<dyn LogStore> {
        let files = Arc::new(FolderFiles::new(folder.clone()));
        Arc::new(FileLogStore::new(files, meta_of_stores.clone(), tiered(), options).unwrap())
    };
    Backend { meta, open: Box::new(open), shared: false }
}

fn disk_backend(disk: FaultyDisk, options: FileLogOptions) -> Backend {
    let meta = meta_store();
    let meta_of_stores = meta.clone();
    let open = move || -> Arc<dyn LogStore> {
        Arc::new(FileLogStore::new(disk.files(), meta_of_stores.clone(), tiered(), options).unwrap())
    };
    Backend { meta, open: Box::new(open), shared: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicUsize::new(0);
    conformance::run(async || folder_backend(dir.path(), number.fetch_add(1, std::sync::atomic::Ordering::SeqCst)))
        .await;
}

#[tokio::test]
async fn conforms_on_one_thread_with_short_writes() {
    let random = Random::from_seed(1);
    conformance::run(async || {
        let disk = FaultyDisk::new(random.next_u64());
        disk.set_faults(Faults { short_writes: true, ..Faults::default() });
        disk_backend(disk, FileLogOptions::default())
    })
    .await;
}
