//! Stores that break their promise are refused; faults on the way are not.

use super::*;
use std::ops::Range;

use async_trait::async_trait;
use futures::{TryStreamExt, stream::BoxStream};
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult,
};
use tokio::time::Instant;

use crate::faults::{Fault, FaultPlan, FaultStore, Operation};

/// How a store breaks its promise.
#[derive(Debug, Clone, Copy)]
enum Broken {
    /// `If-None-Match` is accepted and ignored.
    Ignores,
    /// It looks first and writes afterwards.
    Races,
    /// It refuses, but writes all the same.
    RefusesAndWrites,
    /// It tells one caller that it won and keeps what another sent.
    KeepsAnother,
}

#[derive(Debug)]
struct BrokenStore(InMemory, Broken);

impl fmt::Display for BrokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a store that {:?}", self.1)
    }
}

#[async_trait]
impl ObjectStore for BrokenStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult, Error> {
        let exists = self.0.head(path).await.is_ok();
        match self.1 {
            Broken::Ignores => self.0.put(path, payload).await,
            Broken::Races => {
                tokio::task::yield_now().await;
                if exists { self.0.put_opts(path, payload, opts).await } else { self.0.put(path, payload).await }
            }
            Broken::RefusesAndWrites if exists => {
                self.0.put(path, payload).await?;
                Err(Error::AlreadyExists { path: path.to_string(), source: "exists".into() })
            }
            Broken::RefusesAndWrites => self.0.put(path, payload).await,
            Broken::KeepsAnother if exists => self.0.put_opts(path, payload, opts).await,
            Broken::KeepsAnother => self.0.put(path, PutPayload::from("something else")).await,
        }
    }

    async fn put_multipart_opts(&self, path: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>, Error> {
        self.0.put_multipart_opts(path, o).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult, Error> {
        self.0.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        self.0.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path, Error>>) -> BoxStream<'static, Result<Path, Error>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Error> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), Error> {
        self.0.copy_opts(from, to, options).await
    }
}

async fn refusal(broken: Broken) -> String {
    let store: Arc<dyn ObjectStore> = Arc::new(BrokenStore(InMemory::new(), broken));
    let failure = probe(&store, &Random::from_seed(1)).await.expect_err("a broken store passed the probe");
    assert_eq!(failure.kind(), ErrorKind::Invalid);
    failure.to_string()
}

#[tokio::test(start_paused = true)]
async fn broken_stores_are_refused_by_name() {
    let ignores = refusal(Broken::Ignores).await;
    let expected = "a store that Ignores accepted 4 of 4 racing creates of one key: it ignores ";
    assert_eq!(ignores, format!("{expected}{CONDITION}"));
    let races = refusal(Broken::Races).await;
    assert_eq!(races, format!("{}{CONDITION}", expected.replace("Ignores", "Races")));
    assert!(refusal(Broken::RefusesAndWrites).await.contains("cannot be trusted"));
    assert!(refusal(Broken::KeepsAnother).await.contains("held the bytes of another"));
}

#[tokio::test(start_paused = true)]
async fn a_good_store_passes_quickly_and_is_left_clean() {
    let latency = Duration::from_millis(50);
    let faults = FaultStore::in_memory();
    faults.set_plan(FaultPlan::slow(latency..=latency));
    let store: Arc<dyn ObjectStore> = Arc::new(faults.clone());
    let began = Instant::now();
    probe(&store, &Random::from_seed(1)).await.unwrap();
    assert!(began.elapsed() <= 6 * latency, "{:?}", began.elapsed());
    let left: Vec<ObjectMeta> = faults.inner().list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_folder_passes() {
    let folder = tempfile::tempdir().unwrap();
    let local = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
    let store: Arc<dyn ObjectStore> = Arc::new(local);
    probe(&store, &Random::from_seed(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn faults_on_the_way_are_not_the_stores_fault() {
    for seed in 0..100 {
        let inner = Arc::new(InMemory::new());
        let faults = FaultStore::new(inner, Random::from_seed(seed), FaultPlan::ambiguous(0.2));
        let store: Arc<dyn ObjectStore> = Arc::new(faults);
        probe(&store, &Random::from_seed(seed)).await.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_retriable_and_a_refusal_is_not() {
    let faults = FaultStore::in_memory();
    let store: Arc<dyn ObjectStore> = Arc::new(faults.clone());
    faults.set_down(true);
    let failure = probe(&store, &Random::from_seed(1)).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Retriable, "{failure}");
    faults.set_down(false);
    faults.script(Operation::Put, "", 0, Fault::PermissionDenied);
    let failure = probe(&store, &Random::from_seed(2)).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Invalid, "{failure}");
}
