//! A bucket on a real S3 server of this run, how a broker is told of it, and what it takes plain PUTs to fill it: the
//! limit of everything that stores its data there. The same for plain GETs of what is there.
//!
//! Plain PUTs are sent by the client that the broker uses too, create-if-absent and signed like the broker's.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path as Key,
};
use tokio::{runtime, task::JoinSet};

use crate::{clock::now, load::Outcome, servers::Server, wire::failed};

const NAME: &str = "woodpecker";
/// Of the server's script.
const CREDENTIALS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "woodpecker"),
    ("AWS_SECRET_ACCESS_KEY", "woodpecker-secret"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ALLOW_HTTP", "true"),
];

#[derive(Debug)]
pub struct Bucket {
    pub server: Server,
    /// Which S3 server it is.
    pub server_name: String,
    data: PathBuf,
    places: usize,
}

/// A part of the bucket that is used for one measurement, reached directly or through a proxy.
#[derive(Debug, Clone)]
pub struct Place {
    prefix: String,
    data: PathBuf,
    endpoint: SocketAddr,
    /// Whether a checksum of each body (SHA-256) is computed by the client, signed, and verified by the server.
    pub signs_payload: bool,
}

impl Bucket {
    pub fn start(script: &Path, folder: PathBuf, port: u16) -> io::Result<Self> {
        let data = folder.join("data").join(NAME);
        fs::create_dir_all(&data)?;
        let name = std::process::Command::new(script).arg("name").output()?;
        let server_name = String::from_utf8_lossy(&name.stdout).trim().to_owned();
        let server = Server::store(script, folder, port)?;
        Ok(Self { server, server_name, data, places: 0 })
    }

    /// A place where nothing is.
    pub fn place(&mut self, signs_payload: bool) -> Place {
        self.places += 1;
        let prefix = format!("bench-{}", self.places);
        Place { data: self.data.join(&prefix), prefix, endpoint: self.server.address, signs_payload }
    }
}

impl Place {
    pub fn through(&self, endpoint: SocketAddr) -> Self {
        Self { endpoint, ..self.clone() }
    }

    /// What a broker is told with --storage.
    pub fn url(&self) -> String {
        format!("s3://{NAME}/{}", self.prefix)
    }

    /// What a broker is told beside it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let own = [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.endpoint)),
            ("AWS_UNSIGNED_PAYLOAD", (!self.signs_payload).to_string()),
        ];
        let fixed = CREDENTIALS.map(|(name, value)| (name, value.to_owned()));
        fixed.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Behind the server's back, so that the space is free for the next measurement.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn store(&self) -> io::Result<Arc<dyn ObjectStore>> {
        let settings = self.environment().into_iter().map(|(name, value)| {
            let key: Result<AmazonS3ConfigKey, _> = name.to_lowercase().parse();
            key.map(|key| (key, value))
        });
        let settings = settings.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let builder = AmazonS3Builder::new().with_bucket_name(NAME);
        let builder = settings.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
        // A PUT that fails fails the run.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        Ok(Arc::new(builder.with_retry(once).build().map_err(io::Error::other)?))
    }

    /// `count` objects of the same length, `parallel` of them on their way at any time.
    pub fn plain_puts(&self, object_bytes: usize, parallel: usize, count: usize) -> io::Result<Outcome> {
        let store = self.store()?;
        // Noise, as records are: what a server does with bytes may depend on them.
        let batch = crate::batch::Batch::filled(1 << 10, object_bytes, 0);
        let mut body = batch.bytes;
        body.resize(object_bytes, 0);
        let body = Bytes::from(body);
        let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let since = now();
            let mut writers = JoinSet::new();
            for writer in 0..parallel {
                let (store, body, prefix) = (Arc::clone(&store), body.clone(), self.prefix.clone());
                writers.spawn(async move {
                    let mut latencies = Vec::new();
                    for number in (writer..count).step_by(parallel) {
                        let key = Key::from(format!("{prefix}/plain/{number:08}"));
                        latencies.push(put(store.as_ref(), &key, body.clone()).await?);
                    }
                    io::Result::Ok(latencies)
                });
            }
            let mut latencies = Vec::with_capacity(count);
            while let Some(written) = writers.join_next().await {
                latencies.extend(written.map_err(|_| failed("a writer of plain PUTs panicked"))??);
            }
            let elapsed = now() - since;
            latencies.sort_unstable();
            Ok(Outcome { bytes: (object_bytes * count) as u64, records: count as u64, elapsed, latencies })
        })
    }

    /// All record data that a broker has put here, in ranges of `part_bytes`, `parallel` of them on their way at any time.
    pub fn plain_gets(&self, part_bytes: u64, parallel: usize) -> io::Result<Outcome> {
        let store = self.store()?;
        let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let logs = Key::from(format!("{}/logs", self.prefix));
            let objects: Vec<_> = store.list(Some(&logs)).try_collect().await.map_err(io::Error::other)?;
            let parts = objects.iter().flat_map(|object| {
                let begins = (0..object.size).step_by(part_bytes as usize);
                begins.map(|begin| (object.location.clone(), begin..object.size.min(begin + part_bytes)))
            });
            let parts: Arc<[_]> = parts.collect();
            let since = now();
            let mut readers = JoinSet::new();
            for reader in 0..parallel {
                let (store, parts) = (Arc::clone(&store), Arc::clone(&parts));
                readers.spawn(async move {
                    let mut bytes = 0;
                    for (key, range) in parts.iter().skip(reader).step_by(parallel) {
                        let got = store.get_range(key, range.clone()).await.map_err(io::Error::other)?;
                        bytes += got.len() as u64;
                    }
                    io::Result::Ok(bytes)
                });
            }
            let mut bytes = 0;
            while let Some(read) = readers.join_next().await {
                bytes += read.map_err(|_| failed("a reader of plain GETs panicked"))??;
            }
            Ok(Outcome { bytes, records: parts.len() as u64, elapsed: now() - since, latencies: Vec::new() })
        })
    }
}

async fn put(store: &dyn ObjectStore, key: &Key, body: Bytes) -> io::Result<Duration> {
    let since = now();
    let create = PutOptions::from(PutMode::Create);
    store.put_opts(key, PutPayload::from(body), create).await.map_err(io::Error::other)?;
    Ok(now() - since)
}
