//! A storage to be looked at: logs in memory, a manifest over them, and metadata that a test moves as an owner would.

use std::collections::VecDeque;

use async_trait::async_trait;
use meta::keys::store as keys;
use meta::memory::MemoryStore;
use meta::records::{TopicRecord, encode};
use meta::settled::Settler;
use meta::store::{MetaStore, Txn};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use parking_lot::Mutex;

use super::*;
use crate::entry::{IndexedEntry, Run};
use crate::file_log::{FileLogOptions, FileLogStore};
use crate::files::FolderFiles;
use crate::folder::Folder;
use crate::fragment::TieredBuilder;
use crate::log::{Log, LogStore, Outcome};
use crate::manifest::{Change, Commit, ManifestStore, Part, Stretch};
use crate::object_log::{ObjectLogStore, WriterOptions};
use crate::registry;
use crate::samples::{RecordingSink, bytes_of, entry, partition};

pub const WRITER: Incarnation = Incarnation(0x11);
/// Of entries made by `samples::entry`.
const EPOCH: i32 = 3;

pub struct World {
    pub store: Arc<dyn ObjectStore>,
    pub meta: MemoryStore,
    pub source: Source,
}

/// Answers with these images, one after another, and in the end with what the store says.
pub struct Moving {
    pub images: Mutex<VecDeque<Frozen>>,
    pub then: MemoryStore,
}

#[async_trait]
impl Freeze for Moving {
    async fn freeze(&self) -> meta::error::Result<Frozen> {
        let next = self.images.lock().pop_front();
        match next {
            Some(image) => Ok(image),
            None => self.then.freeze().await,
        }
    }
}

/// The topic that exists: two partitions.
pub fn of_topic(number: i32) -> TopicPartition {
    partition(1, number)
}

impl World {
    pub async fn new() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let meta = MemoryStore::new();
        let source = Source::new(store.clone(), Layout::Objects);
        let id = of_topic(0).topic;
        let topic = TopicRecord { id, partitions: 2, configs: BTreeMap::new(), log_starts: BTreeMap::new() };
        meta.commit(Txn::new().put(keys::topic("t"), encode(&topic))).await.unwrap();
        Self { store, meta, source }
    }

    /// A new log, registered and open.
    pub async fn log(&self) -> Arc<dyn Log> {
        let number = registry::register(&self.meta, WRITER, &[]).await.unwrap();
        let meta: Arc<dyn MetaStore> = Arc::new(self.meta.clone());
        let logs = ObjectLogStore::new(Settler::new(self.store.clone()), meta, WriterOptions::default());
        logs.open(number, WRITER, RecordingSink::new()).await.unwrap()
    }

    /// A fragment for each of these offsets, with one entry of each partition.
    pub async fn append(&self, log: &dyn Log, offsets: std::ops::Range<i64>) {
        for offset in offsets {
            let appended = [0, 1].map(|number| log.enqueue(entry(of_topic(number), offset, 1, 40)));
            for appended in appended {
                assert_eq!(appended.resolved().await, Outcome::Durable);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// A tiered object with these offsets of both partitions.
    pub async fn tiered(&self, log: u64, number: u64, offsets: std::ops::Range<i64>) -> Vec<(TopicPartition, Run)> {
        let mut builder = TieredBuilder::new(log, number);
        for number in [0, 1] {
            builder.begin_run(of_topic(number), offsets.start, EPOCH);
            for offset in offsets.clone() {
                let entry = entry(of_topic(number), offset, 1, 40);
                let indexed = IndexedEntry { meta: entry.meta, position: 0, length: 61, checksum: entry.checksum() };
                builder.push(&indexed, vec![bytes_of(&entry).into()]);
            }
            builder.end_run(offsets.end);
        }
        let object = builder.finish(WRITER);
        let runs = object.index.runs.iter().map(|indexed| (indexed.partition, indexed.run)).collect();
        TieredObjects::new(self.store.clone()).write(object).await.unwrap();
        runs
    }

    /// The manifest has these runs, and everything before this position. The writer of the newest log makes it so.
    pub async fn checkpoint(&self, position: FragmentId, runs: &[(TopicPartition, Run)]) {
        let objects = TieredObjects::new(self.store.clone());
        let meta: Arc<dyn MetaStore> = Arc::new(self.meta.clone());
        let newest = registry::logs(&*meta).await.unwrap().last().unwrap().0;
        let mut manifest = ManifestStore::open(meta, objects, newest, WRITER).await.unwrap();
        let parts = runs.iter().map(|(id, run)| {
            let stretch = Stretch { from: run.base_offset, to: run.base_offset, runs: vec![*run] };
            Part { stretches: vec![stretch], ..Part::of(*id, 0, 0) }
        });
        let change = Change { position, parts: parts.collect() };
        manifest.commit(&change, Commit::Base).await.unwrap();
    }

    pub async fn view(&self) -> View {
        View::load(&self.source, &self.meta).await.unwrap()
    }

    pub async fn delete(&self, id: FragmentId) {
        self.store.delete(&id.key()).await.unwrap();
    }

    pub async fn bytes(&self, key: &Path) -> Vec<u8> {
        self.store.get(key).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub async fn put(&self, key: &Path, bytes: Vec<u8>) {
        self.store.put(key, PutPayload::from(bytes)).await.unwrap();
    }
}

pub fn id(log: u64, fragment: u64) -> FragmentId {
    FragmentId { log, segment: 0, fragment }
}

/// Where each partition ends, as the view has it.
pub fn ends(view: &View) -> Vec<i64> {
    view.chains.values().map(|chain| chain.index.next_offset()).collect()
}

/// A folder with one open log of so many fragments; its file.
pub async fn folder(fragments: i64) -> (World, tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new().await;
    world.store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    world.source = Source::new(world.store.clone(), Layout::Files);
    let lock = Arc::new(Folder::lock(folder.path(), WRITER, 0).unwrap());
    let meta: Arc<dyn MetaStore> = Arc::new(world.meta.clone());
    let (files, tiered) = (Arc::new(FolderFiles::new(lock)), TieredObjects::new(world.store.clone()));
    let logs = FileLogStore::new(files, meta, tiered, FileLogOptions::default()).unwrap();
    let number = registry::register(&world.meta, WRITER, &[]).await.unwrap();
    let log = logs.open(number, WRITER, RecordingSink::new()).await.unwrap();
    for offset in 0..fragments {
        let appended = log.enqueue(entry(of_topic(0), offset, 1, 40));
        assert_eq!(appended.resolved().await, Outcome::Durable);
    }
    let file = folder.path().join(object::segment_file(1, 0).as_ref());
    (world, folder, file)
}
