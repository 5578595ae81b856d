//! Opens storage and metadata to be looked at.

use async_trait::async_trait;
use futures::StreamExt;
use meta::embedded::{Audit, EmbeddedView};
use meta::etcd::EtcdStore;
use meta::frozen::{Freeze, Frozen};
use meta::seams::Random;
use meta::settled::Patience;
use storage::view::{Layout, Source};

use super::ToolError;
use crate::config::keys::without_credentials;
use crate::config::{MetadataSetting, Settings};
use crate::metadata_store;
use crate::node::{StartError, binding};
use crate::storage_url::StorageUrl;

/// What is looked at, as the documents name it.
#[derive(Debug, Clone)]
pub struct Subject {
    pub storage: String,
    pub metadata: String,
}

impl Subject {
    /// As the settings name it.
    pub fn given(settings: &Settings) -> Self {
        let metadata = match &settings.metadata {
            MetadataSetting::Embedded => "embedded".to_owned(),
            MetadataSetting::Etcd(target) => target.to_string(),
        };
        Self { storage: without_credentials(&settings.storage), metadata }
    }
}

pub struct Access {
    pub source: Source,
    pub metadata: Metadata,
    pub subject: Subject,
}

pub enum Metadata {
    Embedded(EmbeddedView),
    Etcd(EtcdStore),
}

impl Access {
    pub async fn open(settings: &Settings) -> Result<Self, ToolError> {
        let storage = StorageUrl::parse(&settings.storage)?.open_read_only()?;
        let layout = if storage.is_folder { Layout::Files } else { Layout::Objects };
        let metadata = match &settings.metadata {
            MetadataSetting::Embedded => {
                Metadata::Embedded(EmbeddedView::new(storage.store.clone(), Patience::default()))
            }
            MetadataSetting::Etcd(target) => {
                Metadata::Etcd(metadata_store::connect(settings, target, &Random::from_os()).await?)
            }
        };
        let subject = Subject { storage: storage.description, ..Subject::given(settings) };
        Ok(Self { source: Source::new(storage.store, layout), metadata, subject })
    }

    /// Fails if this metadata is not that of this storage.
    pub async fn check_binding(&self) -> Result<(), StartError> {
        match &self.metadata {
            Metadata::Embedded(_) => binding::refuse_bound(self.source.store()).await,
            Metadata::Etcd(store) => binding::check(self.source.store(), store).await,
        }
    }

    /// Whether anything lies below this prefix, as far as can be seen.
    pub async fn holds(&self, prefix: object_store::path::Path) -> Result<bool, ToolError> {
        let first = self.source.store().list(Some(&prefix)).next().await.transpose();
        let unlisted = |source| storage::error::Error::Unavailable { what: prefix.to_string(), source };
        Ok(first.map_err(|error| unlisted(Box::new(error)))?.is_some())
    }

    /// Journal and snapshots, if the metadata consists of them.
    pub async fn audit(&self) -> storage::error::Result<Option<Audit>> {
        match &self.metadata {
            Metadata::Embedded(view) => Ok(Some(view.audit().await?)),
            Metadata::Etcd(_) => Ok(None),
        }
    }
}

#[async_trait]
impl Freeze for Access {
    async fn freeze(&self) -> meta::error::Result<Frozen> {
        match &self.metadata {
            Metadata::Embedded(view) => view.freeze().await,
            Metadata::Etcd(store) => store.freeze().await,
        }
    }
}
