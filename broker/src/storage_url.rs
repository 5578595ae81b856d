//! Where the data lives: what a storage URL means, and the object store behind it.
//!
//! A folder is opened under an exclusive lock. A bucket is probed before it is trusted: several well-known servers
//! accept conditional writes and ignore them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use meta::error::ErrorKind;
use meta::probe::{self, Reason};
use meta::read_only::ReadOnlyStore;
use meta::seams::{Incarnation, Random, WallClock};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme};
use storage::folder::Folder;
use storage::metered::{MeteredStore, StoreCounters};
use url::Url;

use crate::config::keys::without_credentials;

mod provider;

pub use provider::Provider;

/// What a storage setting stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageUrl {
    Memory,
    Folder(PathBuf),
    Bucket(Provider, Url),
}

/// Why the storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("storage={given}: {why}")]
    Refused { given: String, why: String },
    /// `hint` says what to do about it, if that is known.
    #[error("storage={given}: {source}{hint}")]
    Unusable {
        given: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
        hint: String,
    },
}

/// The storage, ready for use.
pub struct OpenStorage {
    pub store: Arc<dyn ObjectStore>,
    pub counters: Arc<StoreCounters>,
    /// A provider may bill what is asked of it.
    pub is_billed: bool,
    /// For people: what is behind it.
    pub description: String,
    /// The folder, locked by this process, or None if it is not a folder.
    pub folder: Option<Arc<Folder>>,
}

impl StorageUrl {
    pub fn parse(given: &str) -> Result<Self, StorageError> {
        let refused = |why: &str| StorageError::Refused { given: without_credentials(given), why: why.to_owned() };
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
            _ => match Provider::of_scheme(scheme) {
                Some(provider) => {
                    let url = Url::parse(given).map_err(|error| refused(&error.to_string()))?;
                    provider.check(&url).map_err(|why| refused(&why))?;
                    Ok(Self::Bucket(provider, url))
                }
                None => Err(refused("unknown scheme; use a folder, file://, s3://, gs://, az:// or memory://")),
            },
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
                Ok(OpenStorage { store: Arc::new(store), counters, is_billed: false, description, folder: None })
            }
            Self::Folder(path) => open_folder(path, incarnation, clock.now_ms()),
            Self::Bucket(provider, url) => open_bucket(*provider, url, random).await,
        }
    }
}

/// A storage that is only looked at.
pub struct ReadOnlyStorage {
    pub store: Arc<dyn ObjectStore>,
    pub is_folder: bool,
    /// For people: what is behind it.
    pub description: String,
}

impl StorageUrl {
    /// Opens it to be looked at: nothing is created, locked or probed, and whoever uses it cannot write.
    pub fn open_read_only(&self) -> Result<ReadOnlyStorage, StorageError> {
        let (store, is_folder, description): (Arc<dyn ObjectStore>, _, _) = match self {
            Self::Memory => {
                let why = "what is in memory is gone with its process".to_owned();
                return Err(StorageError::Refused { given: "memory://".to_owned(), why });
            }
            Self::Folder(path) => {
                let given = path.display().to_string();
                let unusable = |source| StorageError::Unusable { given: given.clone(), source, hint: String::new() };
                let root = path.canonicalize().map_err(|error| unusable(error.into()))?;
                let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| unusable(error.into()))?;
                (Arc::new(files), true, format!("folder {}", root.display()))
            }
            Self::Bucket(provider, url) => {
                let (bucket, description) = connect(*provider, url)?;
                (bucket, false, description)
            }
        };
        Ok(ReadOnlyStorage { store: Arc::new(ReadOnlyStore::new(store)), is_folder, description })
    }
}

fn open_folder(path: &Path, incarnation: Incarnation, started_ms: i64) -> Result<OpenStorage, StorageError> {
    let given = path.display().to_string();
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| StorageError::Unusable {
        given: given.clone(),
        source,
        hint: String::new(),
    };
    let lock = Folder::lock(path, incarnation, started_ms).map_err(|error| unusable(Box::new(error)))?;
    let removed = lock.remove_unfinished().map_err(|error| unusable(Box::new(error)))?;
    if removed > 0 {
        tracing::info!(removed, "removed files that were not complete when their writer ended");
    }
    let files =
        LocalFileSystem::new_with_prefix(lock.root()).map_err(|error| unusable(Box::new(error)))?.with_fsync(true);
    let (store, counters) = MeteredStore::new(Arc::new(files));
    let description = format!("folder {}", lock.root().display());
    let folder = Some(Arc::new(lock));
    Ok(OpenStorage { store: Arc::new(store), counters, is_billed: false, description, folder })
}

fn unusable(url: &Url, source: Box<dyn std::error::Error + Send + Sync>, hint: Option<&'static str>) -> StorageError {
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    StorageError::Unusable { given: url.to_string(), source, hint }
}

/// The bucket below its prefix, and what it is for people. Sends nothing yet.
fn connect(provider: Provider, url: &Url) -> Result<(Arc<dyn ObjectStore>, String), StorageError> {
    let (_, prefix) = ObjectStoreScheme::parse(url).map_err(|error| unusable(url, Box::new(error), None))?;
    let hint = Some(provider.credentials());
    let bucket = provider.connect(url).map_err(|error| unusable(url, Box::new(error), hint))?;
    let description = format!("{url} ({bucket})");
    let bucket: Arc<dyn ObjectStore> =
        if prefix.as_ref().is_empty() { bucket } else { Arc::new(PrefixStore::new(bucket, prefix)) };
    Ok((bucket, description))
}

async fn open_bucket(provider: Provider, url: &Url, random: &Random) -> Result<OpenStorage, StorageError> {
    // Counted by the keys that the rest of the broker knows: without the prefix.
    let (bucket, description) = connect(provider, url)?;
    let (metered, counters) = MeteredStore::new(bucket);
    let store: Arc<dyn ObjectStore> = Arc::new(metered);
    probe::probe(&store, random).await.map_err(|error| {
        let may_be_credentials = error.kind() == ErrorKind::Retriable || matches!(error.reason, Reason::Refused(_));
        unusable(url, Box::new(error), may_be_credentials.then(|| provider.credentials()))
    })?;
    Ok(OpenStorage { store, counters, is_billed: true, description, folder: None })
}
