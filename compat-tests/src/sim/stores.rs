//! The bucket of a simulation: audited at the bottom, faulty above (`meta::faults`), and on top one handle for each
//! incarnation of a broker, which a kill or a pause cuts off.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use parking_lot::Mutex;
use storage::tiered::Listed;
use tokio::sync::Notify;

use super::trace::Trace;

/// What a host may do to the outside.
#[derive(Debug, Default)]
pub struct Life {
    state: AtomicU8,
    changed: Notify,
}

const ALIVE: u8 = 0;
const FROZEN: u8 = 1;
/// Its requests under way go on: they were already sent.
const DEAD: u8 = 2;
/// Its requests under way are lost with it.
const DEAD_WITH_REQUESTS: u8 = 3;

impl Life {
    pub fn set_frozen(&self, frozen: bool) {
        self.set(if frozen { FROZEN } else { ALIVE });
    }

    pub fn kill(&self, with_requests: bool) {
        self.set(if with_requests { DEAD_WITH_REQUESTS } else { DEAD });
    }

    pub fn is_alive(&self) -> bool {
        self.get() < DEAD
    }

    fn get(&self) -> u8 {
        self.state.load(Ordering::SeqCst)
    }

    /// Nobody comes back from the dead.
    fn set(&self, state: u8) {
        if self.is_alive() {
            self.state.store(state, Ordering::SeqCst);
            self.changed.notify_waiters();
        }
    }

    /// Returns when the host runs; never, if it is dead.
    async fn running(&self) {
        self.until(|state| state == ALIVE).await;
    }

    async fn until(&self, wanted: impl Fn(u8) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if wanted(self.get()) {
                return;
            }
            changed.await;
        }
    }

    /// The answer of an operation, as the host gets to know it.
    pub(super) async fn answer<T>(&self, operation: impl Future<Output = T>) -> T {
        self.running().await;
        tokio::select! {
            biased;
            () = self.until(|state| state == DEAD_WITH_REQUESTS) => std::future::pending().await,
            answer = operation => {
                self.running().await;
                answer
            }
        }
    }
}

/// One incarnation's access to the bucket.
#[derive(Debug, Clone)]
pub struct HostStore {
    pub inner: Arc<dyn ObjectStore>,
    pub life: Arc<Life>,
}

impl fmt::Display for HostStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for HostStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.life.answer(self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.life.answer(self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(HostUpload { inner, life: Arc::clone(&self.life) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.life.answer(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let one = stream::once(std::future::ready(location)).boxed();
                    let mut deleted: Vec<Path> = this.life.answer(this.inner.delete_stream(one).try_collect()).await?;
                    Ok(deleted.pop().unwrap_or_default())
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move {
            let found: Result<Vec<ObjectMeta>> = this.life.answer(this.inner.list(prefix.as_ref()).try_collect()).await;
            stream::iter(found.map_or_else(|error| vec![Err(error)], |found| found.into_iter().map(Ok).collect()))
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.life.answer(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.life.answer(self.inner.copy_opts(from, to, options)).await
    }
}

/// An upload in parts, of one incarnation.
#[derive(Debug)]
struct HostUpload {
    inner: Box<dyn MultipartUpload>,
    life: Arc<Life>,
}

#[async_trait]
impl MultipartUpload for HostUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, life) = (self.inner.put_part(data), Arc::clone(&self.life));
        Box::pin(async move { life.answer(part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.life.answer(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.life.answer(self.inner.abort()).await
    }
}

/// Watches what lands: an object of a log, of the journal or of the manifest is created once, never overwritten, and its
/// name is never used for anything else after it was deleted. (An attempt that was under way may bring the same bytes
/// back; and one who recovers, and was overtaken by another who did and deleted since, may fence where nothing is any
/// more: the log's end is recorded, so nobody asks.)
#[derive(Debug, Clone)]
pub struct AuditStore {
    inner: Arc<dyn ObjectStore>,
    trace: Arc<Trace>,
    /// What each name stands for, by the checksum of its bytes.
    used: Arc<Mutex<BTreeMap<Path, u32>>>,
}

/// An upload in parts: it lands when it is completed.
#[derive(Debug)]
struct AuditUpload {
    inner: Box<dyn MultipartUpload>,
    store: AuditStore,
    location: Path,
    /// Of the parts so far: they are sent in their order.
    checksum: u32,
}

#[async_trait]
impl MultipartUpload for AuditUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.checksum = data.iter().fold(self.checksum, |checksum, piece| crc32c::crc32c_append(checksum, piece));
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let answer = self.inner.complete().await;
        if answer.is_ok() {
            self.store.landed(&self.location, &PutMode::Create, self.checksum, false);
        }
        answer
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

impl AuditStore {
    pub fn new(inner: Arc<dyn ObjectStore>, trace: Arc<Trace>) -> Self {
        Self { inner, trace, used: Arc::default() }
    }

    fn landed(&self, location: &Path, mode: &PutMode, checksum: u32, is_fence: bool) {
        let name = location.as_ref();
        if !["logs/", "meta/journal/", "manifests/"].iter().any(|prefix| name.starts_with(prefix)) {
            return;
        }
        let again =
            self.used.lock().insert(location.clone(), checksum).is_some_and(|before| before != checksum && !is_fence);
        if again || *mode != PutMode::Create {
            let how = format_args!("{name} was written again, or not by create-if-absent: {mode:?}");
            self.trace.violation("gc-unreferenced-only", how);
        }
    }
}

impl fmt::Display for AuditStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for AuditStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mode = opts.mode.clone();
        let checksum = payload.iter().fold(0, |checksum, piece| crc32c::crc32c_append(checksum, piece));
        let is_fence = Listed::is_fence(payload.content_length() as u64);
        let answer = self.inner.put_opts(location, payload, opts).await;
        if answer.is_ok() {
            self.landed(location, &mode, checksum, is_fence);
        }
        answer
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // There is no create-if-absent of these: only a key that nobody else writes to may be used.
        if !location.as_ref().contains("/tiered/") {
            self.trace.violation("gc-unreferenced-only", format_args!("{location} is written in parts"));
        }
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        let (store, location) = (self.clone(), location.clone());
        Ok(Box::new(AuditUpload { inner, store, location, checksum: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
