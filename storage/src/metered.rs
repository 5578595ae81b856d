//! Counts every request that reaches the object store, by kind and purpose, with the bytes it moved and the time it took:
//! what the bill is made of.
//!
//! What is counted is what this process asks for. Retries inside the client are not seen here; of a list every thousand
//! objects count as one request, which is what a page holds.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::time::Instant;

mod counters;

pub use counters::{Counts, Kind, LATENCY_BUCKETS_S, Latency, Purpose, StoreCounters};

#[cfg(test)]
mod tests;

/// Objects in one answer to a LIST.
const LIST_PAGE: u64 = 1000;

/// An object store that counts.
#[derive(Debug)]
pub struct MeteredStore {
    inner: Arc<dyn ObjectStore>,
    counters: Arc<StoreCounters>,
}

impl MeteredStore {
    /// Keys must begin as in `meta::keys::object`: a store's prefix goes beneath this.
    pub fn new(inner: Arc<dyn ObjectStore>) -> (Self, Arc<StoreCounters>) {
        let counters = Arc::new(StoreCounters::default());
        (Self { inner, counters: counters.clone() }, counters)
    }

    fn listed(
        &self,
        prefix: Option<&Path>,
        found: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let purpose = Purpose::of(prefix.map_or("", Path::as_ref));
        self.counters.of(purpose).asked(Kind::List, 1);
        let (counters, mut seen) = (self.counters.clone(), 0);
        let counted = found.inspect(move |found| match found {
            Ok(_) => {
                seen += 1;
                if seen > LIST_PAGE && seen % LIST_PAGE == 1 {
                    counters.of(purpose).asked(Kind::List, 1);
                }
            }
            Err(error) => counters.of(purpose).ended(Kind::List, Some(error)),
        });
        counted.boxed()
    }
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Counts a failure, if it is one.
fn noted<T>(counts: &Counts, kind: Kind, result: Result<T>) -> Result<T> {
    counts.ended(kind, result.as_ref().err());
    result
}

#[async_trait]
impl ObjectStore for MeteredStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let counts = self.counters.of(Purpose::of(location.as_ref()));
        counts.asked(Kind::Put, 1);
        counts.wrote(payload.content_length());
        let began = Instant::now();
        let result = noted(counts, Kind::Put, self.inner.put_opts(location, payload, options).await);
        self.counters.put_latency.observe(began.elapsed());
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let purpose = Purpose::of(location.as_ref());
        let counts = self.counters.of(purpose);
        counts.asked(Kind::Put, 1);
        let upload = noted(counts, Kind::Put, self.inner.put_multipart_opts(location, options).await)?;
        Ok(Box::new(MeteredUpload { inner: upload, counters: self.counters.clone(), purpose }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let counts = self.counters.of(Purpose::of(location.as_ref()));
        let kind = if options.head { Kind::Head } else { Kind::Get };
        counts.asked(kind, 1);
        let began = Instant::now();
        let result = noted(counts, kind, self.inner.get_opts(location, options).await);
        if kind == Kind::Get {
            self.counters.get_latency.observe(began.elapsed());
            if let Ok(result) = &result {
                counts.read(result.range.end - result.range.start);
            }
        }
        result
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let counts = self.counters.of(Purpose::of(location.as_ref()));
        counts.asked(Kind::Get, ranges.len() as u64);
        let result = noted(counts, Kind::Get, self.inner.get_ranges(location, ranges).await);
        if let Ok(parts) = &result {
            counts.read(parts.iter().map(|part| part.len() as u64).sum());
        }
        result
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (counters, failing) = (self.counters.clone(), self.counters.clone());
        let counted = locations.inspect(move |location| {
            if let Ok(location) = location {
                counters.of(Purpose::of(location.as_ref())).asked(Kind::Delete, 1);
            }
        });
        let deleted = self.inner.delete_stream(counted.boxed());
        deleted
            .inspect(move |answer| {
                if let Err(error) = answer {
                    let purpose = failed_path(error).map_or(Purpose::Other, Purpose::of);
                    failing.of(purpose).ended(Kind::Delete, Some(error));
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let counts = self.counters.of(Purpose::of(prefix.map_or("", Path::as_ref)));
        counts.asked(Kind::List, 1);
        noted(counts, Kind::List, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let counts = self.counters.of(Purpose::of(to.as_ref()));
        counts.asked(Kind::Copy, 1);
        noted(counts, Kind::Copy, self.inner.copy_opts(from, to, options).await)
    }

    /// What no object store can do at once: a copy and a delete.
    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let counts = self.counters.of(Purpose::of(to.as_ref()));
        counts.asked(Kind::Copy, 1);
        counts.asked(Kind::Delete, 1);
        noted(counts, Kind::Copy, self.inner.rename_opts(from, to, options).await)
    }
}

/// The path that an error is about, if it names one.
fn failed_path(error: &Error) -> Option<&str> {
    match error {
        Error::NotFound { path, .. }
        | Error::AlreadyExists { path, .. }
        | Error::Precondition { path, .. }
        | Error::NotModified { path, .. }
        | Error::PermissionDenied { path, .. }
        | Error::Unauthenticated { path, .. } => Some(path),
        _ => None,
    }
}

/// An upload in parts. Its beginning and its completion are requests too, billed like a PUT.
#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn MultipartUpload>,
    counters: Arc<StoreCounters>,
    purpose: Purpose,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let counts = self.counters.of(self.purpose);
        counts.asked(Kind::Part, 1);
        counts.wrote(data.content_length());
        let (part, counters, purpose) = (self.inner.put_part(data), self.counters.clone(), self.purpose);
        Box::pin(async move { noted(counters.of(purpose), Kind::Part, part.await) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let counts = self.counters.of(self.purpose);
        counts.asked(Kind::Put, 1);
        noted(counts, Kind::Put, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        let counts = self.counters.of(self.purpose);
        counts.asked(Kind::Delete, 1);
        noted(counts, Kind::Delete, self.inner.abort().await)
    }
}
