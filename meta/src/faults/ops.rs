//! The object store trait, with the faults applied.

use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use tokio::time::sleep;

use super::{Fault, FaultStore, Operation};

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.state.lock().counts.put_bytes += payload.content_length() as u64;
        let fault = self.decide(Operation::Put, location.as_ref());
        let (before, after) = self.latency();
        sleep(before).await;
        self.land_due().await;
        let answer = match fault {
            None | Some(Fault::TruncatedGet | Fault::BitFlip) => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::LandThenError) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(broken("the reply was lost"))
            }
            Some(Fault::LandThenAlreadyExists) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(exists(location))
            }
            Some(Fault::LandThenHang) => {
                self.inner.put_opts(location, payload, opts).await?;
                std::future::pending().await
            }
            Some(Fault::LandLate(how_long)) => {
                self.land_later(how_long, location, payload, opts.mode);
                Err(broken("the connection was reset"))
            }
            Some(Fault::HangThenLandLate(how_long)) => {
                self.land_later(how_long, location, payload, opts.mode);
                std::future::pending().await
            }
            Some(Fault::AlreadyExistsNothingLanded) => Err(exists(location)),
            Some(fault) => Err(failed(fault, location).await),
        };
        sleep(after).await;
        answer
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.pass(Operation::Other, location.as_ref()).await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        self.state.lock().open_uploads += 1;
        Ok(Box::new(FaultyUpload { inner, store: self.clone(), location: location.clone(), is_open: true }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if matches!(options.range, Some(GetRange::Suffix(_))) && self.state.lock().refuses_suffixes {
            return Err(Error::NotSupported { source: "no ranges that begin at the end".into() });
        }
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fault = self.pass(operation, location.as_ref()).await?;
        let answer = self.inner.get_opts(location, options).await?;
        if operation == Operation::Head {
            return Ok(answer);
        }
        self.state.lock().counts.get_bytes += answer.range.end - answer.range.start;
        let (meta, range) = (answer.meta.clone(), answer.range.clone());
        let (attributes, extensions) = (answer.attributes.clone(), answer.extensions.clone());
        let body = self.damage(fault, answer.bytes().await?);
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(body) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.pass(Operation::Get, location.as_ref()).await?;
        let mut answer = self.inner.get_ranges(location, ranges).await?;
        self.state.lock().counts.get_bytes += answer.iter().map(|part| part.len() as u64).sum::<u64>();
        if let Some(last) = answer.pop() {
            answer.push(self.damage(fault, last));
        }
        Ok(answer)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    store.pass(Operation::Delete, location.as_ref()).await?;
                    let one = stream::once(async move { Ok(location) }).boxed();
                    let mut deleted: Vec<Path> = store.inner.delete_stream(one).try_collect().await?;
                    deleted.pop().ok_or_else(|| broken("the inner store did not answer a delete"))
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix.cloned(), None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass(Operation::List, prefix.map_or("", Path::as_ref)).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.pass(Operation::Other, to.as_ref()).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// An upload in parts. Its completion may land without being answered; what an object store does not do is take half of it.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultStore,
    location: Path,
    is_open: bool,
}

impl FaultyUpload {
    async fn land(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        self.ended();
        Ok(result)
    }

    fn ended(&mut self) {
        self.store.state.lock().open_uploads -= usize::from(std::mem::take(&mut self.is_open));
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, location) = (self.store.clone(), self.location.clone());
        store.state.lock().counts.put_bytes += data.content_length() as u64;
        let part = self.inner.put_part(data);
        Box::pin(async move {
            store.pass(Operation::Part, location.as_ref()).await?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.decide(Operation::Complete, self.location.as_ref());
        let (before, after) = self.store.latency();
        sleep(before + after).await;
        self.store.land_due().await;
        match fault {
            None | Some(Fault::TruncatedGet | Fault::BitFlip) => self.land().await,
            Some(Fault::LandThenError | Fault::LandThenAlreadyExists) => {
                self.land().await?;
                Err(broken("the reply was lost"))
            }
            Some(Fault::LandThenHang) => {
                self.land().await?;
                std::future::pending().await
            }
            Some(fault) => Err(failed(fault, &self.location).await),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.pass(Operation::Other, self.location.as_ref()).await?;
        self.inner.abort().await?;
        self.ended();
        Ok(())
    }
}

impl FaultStore {
    /// All that can happen to an operation other than a PUT before its effect; its whole latency lies here.
    async fn pass(&self, operation: Operation, path: &str) -> Result<Option<Fault>> {
        let fault = self.decide(operation, path);
        let (before, after) = self.latency();
        sleep(before + after).await;
        self.land_due().await;
        match fault {
            None | Some(Fault::TruncatedGet | Fault::BitFlip) => Ok(fault),
            Some(fault) => Err(failed(fault, &Path::from(path)).await),
        }
    }

    fn listing(&self, prefix: Option<Path>, offset: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        stream::once(async move {
            store.pass(Operation::List, prefix.as_ref().map_or("", Path::as_ref)).await?;
            Ok::<_, Error>(match &offset {
                Some(offset) => store.inner.list_with_offset(prefix.as_ref(), offset),
                None => store.inner.list(prefix.as_ref()),
            })
        })
        .try_flatten()
        .boxed()
    }

    fn damage(&self, fault: Option<Fault>, body: Bytes) -> Bytes {
        match fault {
            Some(Fault::TruncatedGet) => body.slice(..body.len() / 2),
            Some(Fault::BitFlip) if !body.is_empty() => {
                let mut flipped = BytesMut::from(body.as_ref());
                let bit = self.random.next_u64() % (flipped.len() as u64 * 8);
                flipped[(bit / 8) as usize] ^= 1 << (bit % 8);
                flipped.freeze()
            }
            _ => body,
        }
    }
}

/// The error of a fault that lets nothing land.
async fn failed(fault: Fault, path: &Path) -> Error {
    match fault {
        Fault::Hang | Fault::LandThenHang | Fault::HangThenLandLate(_) => std::future::pending().await,
        Fault::PermissionDenied => Error::PermissionDenied { path: path.to_string(), source: "not allowed".into() },
        Fault::Unavailable(_) => broken("503: slow down"),
        _ => broken("the request did not arrive"),
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic { store: "FaultStore", source: what.into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "the key is taken".into() }
}
