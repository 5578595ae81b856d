//! Where the data lives: what a storage URL means, and the object store behind it.
//!
//! A folder is opened under an exclusive lock. A bucket is probed before it is trusted: several well-known servers
//! accept conditional writes and ignore them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meta::probe;
use meta::seams::{Incarnation, Random, WallClock};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig};
use storage::folder::Folder;
use storage::metered::{MeteredStore, StoreCounters};
use url::Url;

/// Time limits of the S3 client where the environment sets none: the variable, its key, our default.
const CLIENT_DEFAULTS: [(&str, ClientConfigKey, &str); 2] = [
    ("AWS_CONNECT_TIMEOUT", ClientConfigKey::ConnectTimeout, "3 seconds"),
    ("AWS_TIMEOUT", ClientConfigKey::Timeout, "10 seconds"),
];

/// What a storage setting stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageUrl {
    Memory,
    Folder(PathBuf),
    S3(Url),
}

/// Why the storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("storage={given}: {why}")]
    Refused { given: String, why: String },
    #[error("storage={given}: {source}")]
    Unusable {
        given: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The storage, ready for use.
pub struct OpenStorage {
    pub store: Arc<dyn ObjectStore>,
    pub counters: Arc<StoreCounters>,
    /// For people: what is behind it.
    pub description: String,
    /// The folder, locked by this process, or None if it is not a folder.
    pub folder: Option<Arc<Folder>>,
}

impl StorageUrl {
    pub fn parse(given: &str) -> Result<Self, StorageError> {
        let refused = |why: &str| StorageError::Refused { given: given.to_owned(), why: why.to_owned() };
        let Some((scheme, rest)) = given.split_once("://") else {
            if given.is_empty() {
                return Err(refused("it is empty; give a folder or a URL"));
            }
            return Ok(Self::Folder(PathBuf::from(given)));
        };
        match scheme {
            "memory" => Ok(Self::Memory),
            "file" if rest.starts_with('/') => Ok(Self::Folder(PathBuf::from(rest))),
            "file" => Err(refused("a file URL needs an absolute path: file:///var/lib/woodpecker")),
            "s3" => {
                let url = Url::parse(given).map_err(|error| refused(&error.to_string()))?;
                if url.host_str().is_none_or(str::is_empty) {
                    return Err(refused("it names no bucket: s3://bucket/prefix"));
                }
                Ok(Self::S3(url))
            }
            "gs" | "az" => Err(refused("this kind of storage is not yet proven; use s3://, file:// or memory://")),
            _ => Err(refused("unknown scheme; use a folder, file://, s3:// or memory://")),
        }
    }

    /// Opens, locks or probes it.
    pub async fn open(
        &self,
        incarnation: Incarnation,
        random: &Random,
        clock: &dyn WallClock,
    ) -> Result<OpenStorage, StorageError> {
        match self {
            Self::Memory => {
                let (store, counters) = MeteredStore::new(Arc::new(InMemory::new()));
                let description = "memory (gone when this process ends)".to_owned();
                Ok(OpenStorage { store: Arc::new(store), counters, description, folder: None })
            }
            Self::Folder(path) => open_folder(path, incarnation, clock.now_ms()),
            Self::S3(url) => open_bucket(url, random).await,
        }
    }
}

fn open_folder(path: &Path, incarnation: Incarnation, started_ms: i64) -> Result<OpenStorage, StorageError> {
    let given = path.display().to_string();
    let unusable =
        |source: Box<dyn std::error::Error + Send + Sync>| StorageError::Unusable { given: given.clone(), source };
    let lock = Folder::lock(path, incarnation, started_ms).map_err(|error| unusable(Box::new(error)))?;
    let files =
        LocalFileSystem::new_with_prefix(lock.root()).map_err(|error| unusable(Box::new(error)))?.with_fsync(true);
    let (store, counters) = MeteredStore::new(Arc::new(files));
    let description = format!("folder {}", lock.root().display());
    Ok(OpenStorage { store: Arc::new(store), counters, description, folder: Some(Arc::new(lock)) })
}

async fn open_bucket(url: &Url, random: &Random) -> Result<OpenStorage, StorageError> {
    let given = url.to_string();
    let unusable =
        |source: Box<dyn std::error::Error + Send + Sync>| StorageError::Unusable { given: given.clone(), source };
    let (_, prefix) = ObjectStoreScheme::parse(url).map_err(|error| unusable(Box::new(error)))?;
    // The settled write and the reader retry with their own deadlines; what is below them only smooths a blip.
    let retries = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    };
    let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retries);
    for (variable, key, value) in CLIENT_DEFAULTS {
        if std::env::var_os(variable).is_none() {
            builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
        }
    }
    let bucket = builder.build().map_err(|error| unusable(Box::new(error)))?;
    let description = format!("{url} ({bucket})");
    let (metered, counters) = MeteredStore::new(Arc::new(bucket));
    let store: Arc<dyn ObjectStore> =
        if prefix.as_ref().is_empty() { Arc::new(metered) } else { Arc::new(PrefixStore::new(metered, prefix)) };
    probe::probe(&store, random).await.map_err(|error| unusable(Box::new(error)))?;
    Ok(OpenStorage { store, counters, description, folder: None })
}
