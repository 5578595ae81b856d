//! From settings to a metadata store that is not the storage itself.

use meta::etcd::{EtcdConfig, EtcdStore, EtcdTarget, EtcdTiming, EtcdTls};
use meta::seams::Random;

use crate::config::Settings;

/// Why there is no metadata store.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{key}={path}: {source}")]
    File {
        key: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("metadata={target}: {source}")]
    Store {
        target: String,
        #[source]
        source: meta::error::Error,
    },
}

/// Connects to etcd, with the certificates that the settings name.
pub async fn connect(settings: &Settings, target: &EtcdTarget, random: &Random) -> Result<EtcdStore, ConnectError> {
    let read = |key, file: &Option<String>| match file {
        Some(path) => {
            std::fs::read(path).map(Some).map_err(|source| ConnectError::File { key, path: path.clone(), source })
        }
        None => Ok(None),
    };
    let ca = read("etcd_ca_file", &settings.etcd_ca_file)?;
    let certificate = read("etcd_cert_file", &settings.etcd_cert_file)?;
    let identity = certificate.zip(read("etcd_key_file", &settings.etcd_key_file)?);
    let tls = ca.map(|ca| EtcdTls { ca, identity });
    let config = EtcdConfig { target: target.clone(), tls, timing: EtcdTiming::default() };
    let failed = |source| ConnectError::Store { target: target.to_string(), source };
    EtcdStore::open(config, random).await.map_err(failed)
}
