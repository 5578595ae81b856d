//! Emulators of the other clouds' stores, started once per test process, with a prefix of its own for every test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use tokio::sync::OnceCell;

use crate::process::{Launch, free_port, mortal, server_folder, spawn};
use crate::wait::until;

const BUCKET: &str = "woodpecker";
/// The account that every Azure emulator has, and its key, which is published and no secret.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The first start builds or installs the emulator.
const START_LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    Gcs,
    /// An emulator that takes preconditions and ignores them.
    CarelessGcs,
    Azure,
}

/// A place in an emulator's bucket or container that no other test uses.
#[derive(Debug, Clone)]
pub struct Place {
    cloud: Cloud,
    pub url: String,
    /// HOST:PORT of the emulator.
    endpoint: String,
}

impl Cloud {
    /// A fresh place on this test process's emulator.
    pub async fn place(self) -> Place {
        static GCS: OnceCell<String> = OnceCell::const_new();
        static CARELESS_GCS: OnceCell<String> = OnceCell::const_new();
        static AZURE: OnceCell<String> = OnceCell::const_new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (server, scheme) = match self {
            Self::Gcs => (&GCS, "gs"),
            Self::CarelessGcs => (&CARELESS_GCS, "gs"),
            Self::Azure => (&AZURE, "az"),
        };
        let endpoint = server.get_or_init(|| self.start()).await.clone();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Place { cloud: self, url: format!("{scheme}://{BUCKET}/test-{number}"), endpoint }
    }

    async fn start(self) -> String {
        let (name, flag) = match self {
            Self::Gcs => ("gcs", None),
            Self::CarelessGcs => ("gcs", Some("-careless")),
            Self::Azure => ("azure", None),
        };
        let folder = server_folder(&format!("{self:?}").to_lowercase());
        std::fs::create_dir_all(folder.join("data")).expect("a folder for the emulator");
        let log = folder.join("log");
        let output = std::fs::File::create(&log).expect("the emulator's log");
        let port = free_port().to_string();
        let mut command = mortal(&script(name));
        command.arg("run").arg(&port).args(flag).stdin(Stdio::null());
        if self == Self::Azure {
            command.arg(folder.join("data"));
        }
        command.stdout(output.try_clone().expect("a file handle")).stderr(output);
        let mut child = spawn(command);
        let endpoint = format!("127.0.0.1:{port}");
        let store = Place { cloud: self, url: String::new(), endpoint: endpoint.clone() }.bucket();
        until(&format!("{self:?} answers"), START_LIMIT, async || {
            let ended = child.try_wait().expect("a child can be waited for");
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "{self:?} ended: {ended:?}\n{}", said());
            matches!(store.list(None).next().await, None | Some(Ok(_)))
        })
        .await;
        endpoint
    }
}

impl Place {
    /// This place as an object store of this process, which never tries anything twice.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let (_, prefix) = self.url.rsplit_once('/').expect("a place in the bucket");
        Arc::new(PrefixStore::new(self.bucket(), prefix))
    }

    fn bucket(&self) -> Arc<dyn ObjectStore> {
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let settings = self.credentials();
        let settings = settings.iter().map(|(name, value)| (name.to_lowercase(), value));
        const KNOWN: &str = "a setting of object_store";
        match self.cloud {
            Cloud::Gcs | Cloud::CarelessGcs => {
                let builder = GoogleCloudStorageBuilder::new().with_bucket_name(BUCKET).with_retry(once);
                let set = |builder: GoogleCloudStorageBuilder, (name, value): (String, &String)| {
                    builder.with_config(name.parse().expect(KNOWN), value)
                };
                Arc::new(settings.fold(builder, set).build().expect("a complete configuration"))
            }
            Cloud::Azure => {
                let builder = MicrosoftAzureBuilder::new().with_container_name(BUCKET).with_retry(once);
                let set = |builder: MicrosoftAzureBuilder, (name, value): (String, &String)| {
                    builder.with_config(name.parse().expect(KNOWN), value)
                };
                Arc::new(settings.fold(builder, set).build().expect("a complete configuration"))
            }
        }
    }

    /// Lets a broker keep everything here.
    pub fn on(&self, launch: Launch) -> Launch {
        self.credentials().into_iter().fold(launch.storage(&self.url), |l, (name, value)| l.env(name, value))
    }

    /// The variables from which a client takes where and who.
    fn credentials(&self) -> Vec<(&'static str, String)> {
        match self.cloud {
            // What a service account's file holds, of one that needs no token.
            Cloud::Gcs | Cloud::CarelessGcs => {
                let account = serde_json::json!({
                    "gcs_base_url": format!("http://{}", self.endpoint),
                    "disable_oauth": true,
                    "client_email": "",
                    "private_key": "",
                    "private_key_id": "",
                });
                vec![("GOOGLE_SERVICE_ACCOUNT_KEY", account.to_string())]
            }
            Cloud::Azure => vec![
                ("AZURE_STORAGE_ENDPOINT", format!("http://{}/{ACCOUNT}", self.endpoint)),
                ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY.to_owned()),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
            ],
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(name)
}
