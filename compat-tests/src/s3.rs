//! A real S3 server, started once per test process, with a prefix of its own for every test; and the two backends that
//! a broker's durability is tested on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use tokio::sync::OnceCell;

use crate::etcd;
use crate::http;
use crate::process::{Launch, free_port, mortal, server_folder, spawn};
use crate::wait::until;

const BUCKET: &str = "woodpecker";
/// The first start builds the server.
const START_LIMIT: Duration = Duration::from_secs(600);

/// A running S3 server.
#[derive(Debug)]
pub struct Server {
    pub address: String,
}

/// A place in a bucket that no other test uses.
#[derive(Debug, Clone)]
pub struct Prefix {
    pub url: String,
    /// HOST:PORT of the server, or of a proxy before it.
    pub endpoint: String,
}

impl Prefix {
    /// The same place, reached through something else.
    pub fn through(&self, endpoint: &str) -> Self {
        Self { url: self.url.clone(), endpoint: endpoint.to_owned() }
    }

    /// This place as an object store of this process, which never tries anything twice.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let prefix = self.url.strip_prefix(&format!("s3://{BUCKET}/")).expect("a place in the bucket");
        let builder = AmazonS3Builder::new().with_bucket_name(BUCKET);
        let builder = credentials(&self.endpoint).into_iter().fold(builder, |builder, (name, value)| {
            builder.with_config(name.to_lowercase().parse().expect("a setting of object_store"), value)
        });
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let store = builder.with_retry(once).build().expect("a complete configuration");
        Arc::new(PrefixStore::new(store, prefix))
    }

    /// Lets a broker keep everything here.
    pub fn on(&self, launch: Launch) -> Launch {
        credentials(&self.endpoint).into_iter().fold(launch.storage(&self.url), |l, (name, value)| l.env(name, value))
    }
}

/// The variables from which an S3 client takes where and who.
pub fn credentials(endpoint: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{endpoint}")),
        ("AWS_ACCESS_KEY_ID", "woodpecker".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "woodpecker-secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ]
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/s3")
}

/// The server of this test process.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(start).await
}

/// A fresh place on the server of this test process.
pub async fn prefix() -> Prefix {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Prefix { url: format!("s3://{BUCKET}/test-{number}"), endpoint: server().await.address.clone() }
}

async fn start() -> Server {
    let folder = server_folder("s3");
    std::fs::create_dir_all(folder.join("data").join(BUCKET)).expect("a folder for the S3 server");
    let log = folder.join("log");
    let output = std::fs::File::create(&log).expect("the S3 server's log");
    let health = Command::new(script()).arg("health").output().expect("servers/s3 runs");
    let health = String::from_utf8_lossy(&health.stdout).trim().to_owned();
    let address = format!("127.0.0.1:{}", free_port());
    let port = address.rsplit(':').next().expect("an address has a port");
    let mut command = mortal(&script());
    command.args(["run", port]).arg(folder.join("data")).stdin(Stdio::null());
    command.stdout(output.try_clone().expect("a file handle")).stderr(output);
    let mut child = spawn(command);
    until("the S3 server answers", START_LIMIT, async || {
        let ended = child.try_wait().expect("a child can be waited for");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(ended.is_none(), "the S3 server ended: {ended:?}\n{}", said());
        matches!(http::get(&address, &health).await, Ok((200, _)))
    })
    .await;
    Server { address }
}

/// Where a broker keeps what it must not lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Folder,
    S3,
    /// Records in a bucket, metadata in etcd.
    S3AndEtcd,
}

impl Backend {
    /// A broker on a fresh place of this kind, running in `folder`.
    pub async fn launch(self, folder: &Path) -> Launch {
        let launch = Launch::new(folder);
        match self {
            Self::Folder => launch.storage(folder.join("data").to_string_lossy()),
            Self::S3 => prefix().await.on(launch),
            Self::S3AndEtcd => prefix().await.on(launch).arg("--metadata").arg(etcd::url().await),
        }
    }
}
