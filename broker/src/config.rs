//! What can be set, its defaults and its limits.
//!
//! `keys` has the one table of it: a row is a key of the configuration file, a `WOODPECKER_` variable, for some a
//! flag, its help text and its limits. An unknown key or a bad value is refused at start by its name; limits that
//! involve two keys are in `Settings::check`.

pub mod keys;

/// Values under Kafka's names.
pub mod values;

/// Settings under Kafka's names.
pub mod kafka;

mod prices;

use std::time::Duration;

use meta::etcd::EtcdTarget;

pub use prices::Prices;

use self::keys::addresses;

/// Settings that the running broker reads. Validated before anything starts.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    pub broker_id: i32,
    /// What Metadata tells clients to connect to.
    pub advertised_host: String,
    pub advertised_port: u16,
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without saying how many.
    pub num_partitions: i32,
    /// Largest record batch accepted, unless the topic says otherwise (`max.message.bytes`).
    pub message_max_bytes: usize,
    /// Largest frame of a Produce request.
    pub request_max_bytes: usize,
    /// Record data in memory: receive buffers, what waits for durability, the memory tail, what is being sent.
    pub memory_bytes: usize,
    /// At most this much of `memory_bytes` holds recent data for readers.
    pub tail_bytes: usize,
    /// Largest Fetch response, whatever the client asks for (the first batch may exceed it).
    pub fetch_max_bytes: usize,
    pub connections_max_idle: Duration,
    pub max_connections: usize,
    /// Producer ids remembered per partition.
    pub max_producers_per_partition: usize,
    pub flush_interval: Duration,
    pub flush_bytes: usize,
    /// 0: no such budget.
    pub put_budget_per_s: u32,
    pub tier: TierConfig,
    pub groups: GroupConfig,
}

/// Consumer groups, with Kafka's names and defaults.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// Partitions of `__consumer_offsets` when it is created.
    pub offsets_partitions: i32,
    /// How long the first members of an empty group wait for more.
    pub initial_rebalance_delay: Duration,
    pub min_session_timeout: Duration,
    pub max_session_timeout: Duration,
    pub max_members: usize,
    /// Of a committed offset's metadata.
    pub max_metadata_bytes: usize,
    /// Offsets that nobody uses are forgotten after so long.
    pub offsets_retention: Duration,
    pub offsets_retention_check_interval: Duration,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            offsets_partitions: 50,
            initial_rebalance_delay: Duration::from_secs(3),
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(30 * 60),
            max_members: i32::MAX as usize,
            max_metadata_bytes: 4096,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check_interval: Duration::from_secs(600),
        }
    }
}

/// What happens to data after it was acknowledged.
#[derive(Debug, Clone)]
pub struct TierConfig {
    /// So much of what the manifest does not hold yet is tiered at a time.
    pub bytes: usize,
    /// After so long, however little it is.
    pub interval: Duration,
    /// Length of a tiered object.
    pub object_bytes: usize,
    /// What is tiered is merged into objects of this length. 0: it is not merged.
    pub merge_object_bytes: usize,
    /// Of the parts in which they are written.
    pub merge_part_bytes: usize,
    /// How often at most it is checked whether records have become too old.
    pub retention_check_interval: Duration,
    /// What nothing refers to any more is deleted so long afterwards.
    pub delete_delay: Duration,
}

impl Default for TierConfig {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            interval: Duration::from_secs(600),
            object_bytes: 64 << 20,
            merge_object_bytes: 256 << 20,
            merge_part_bytes: 24 << 20,
            retention_check_interval: Duration::from_secs(300),
            delete_delay: Duration::from_secs(60),
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            broker_id: 0,
            advertised_host: "127.0.0.1".to_owned(),
            advertised_port: 9092,
            auto_create_topics: true,
            num_partitions: 1,
            message_max_bytes: 16 << 20,
            request_max_bytes: 100 << 20,
            memory_bytes: 512 << 20,
            tail_bytes: 128 << 20,
            fetch_max_bytes: 55 << 20,
            connections_max_idle: Duration::from_secs(600),
            max_connections: 10_000,
            max_producers_per_partition: 10_000,
            flush_interval: Duration::from_millis(100),
            flush_bytes: 8 << 20,
            put_budget_per_s: 0,
            tier: TierConfig::default(),
            groups: GroupConfig::default(),
        }
    }
}

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port` that clients connect to; port 0 lets the system choose.
    pub listen: String,
    /// `host:port` that clients are told; `None`: the address that is listened on.
    pub advertise: Option<String>,
    /// `host:port` of health checks and metrics; `None`: no such listener.
    pub http: Option<String>,
    /// A URL or a folder.
    pub storage: String,
    pub metadata: MetadataSetting,
    /// Files in PEM, for TLS to etcd: whoever signed its certificate; our own certificate and its key.
    pub etcd_ca_file: Option<String>,
    pub etcd_cert_file: Option<String>,
    pub etcd_key_file: Option<String>,
    pub log: String,
    pub log_format: LogFormat,
    pub prices: Prices,
    pub broker: BrokerConfig,
}

/// Where metadata is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataSetting {
    /// In the storage itself.
    Embedded,
    Etcd(EtcdTarget),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9092".to_owned(),
            advertise: None,
            http: Some("127.0.0.1:9644".to_owned()),
            storage: "./data".to_owned(),
            metadata: MetadataSetting::Embedded,
            etcd_ca_file: None,
            etcd_cert_file: None,
            etcd_key_file: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            prices: Prices::default(),
            broker: BrokerConfig::default(),
        }
    }
}

/// Why the settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin}: there is no setting {name}{}", suggestion(.name))]
    UnknownKey { origin: String, name: String },
    #[error("{origin}: {key}={value}: {allowed}")]
    BadValue { origin: String, key: &'static str, value: String, allowed: String },
    #[error("{path}: {why}")]
    File { path: String, why: String },
}

/// Names the setting that was probably meant.
fn suggestion(name: &str) -> String {
    let close =
        |key: &&keys::Key| key.name.starts_with(name) || name.starts_with(key.name) || same_words(key.name, name);
    keys::all().find(close).map(|key| format!("; did you mean {}?", key.name)).unwrap_or_default()
}

fn same_words(one: &str, other: &str) -> bool {
    let words = |text: &str| {
        let mut words: Vec<_> = text.split(['_', '-', '.']).map(str::to_ascii_lowercase).collect();
        words.sort();
        words
    };
    words(one) == words(other)
}

/// S3 takes no shorter parts of an object, but for the last.
pub const LEAST_PART_BYTES: usize = 5 << 20;

impl Settings {
    /// Checks what involves more than one key, and works out what clients are told to connect to.
    pub fn check(&mut self) -> Result<(), ConfigError> {
        let refused = |key: &'static str, value: String, allowed: String| {
            Err(ConfigError::BadValue { origin: "settings".to_owned(), key, value, allowed })
        };
        let broker = &mut self.broker;
        let least = 2 * broker.request_max_bytes;
        if broker.memory_bytes < least {
            let allowed = format!(
                "must be at least twice request_max_bytes ({}), so {least}: one request being received, one being stored",
                broker.request_max_bytes
            );
            return refused("memory_bytes", broker.memory_bytes.to_string(), allowed);
        }
        if broker.message_max_bytes > broker.request_max_bytes {
            let allowed = format!("must be at most request_max_bytes ({})", broker.request_max_bytes);
            return refused("message_max_bytes", broker.message_max_bytes.to_string(), allowed);
        }
        for (key, bytes) in [("tail_bytes", broker.tail_bytes), ("flush_bytes", broker.flush_bytes)] {
            if bytes > broker.memory_bytes / 2 {
                let allowed = format!("must be at most half of memory_bytes ({})", broker.memory_bytes);
                return refused(key, bytes.to_string(), allowed);
            }
        }
        if broker.fetch_max_bytes > broker.memory_bytes {
            let allowed = format!("must be at most memory_bytes ({})", broker.memory_bytes);
            return refused("fetch_max_bytes", broker.fetch_max_bytes.to_string(), allowed);
        }
        let is_bucket = ["s3://", "gs://", "az://"].iter().any(|scheme| self.storage.starts_with(scheme));
        if is_bucket && broker.tier.merge_part_bytes < LEAST_PART_BYTES {
            let allowed = format!("must be at least {LEAST_PART_BYTES} on a bucket, which takes no shorter parts");
            return refused("merge_part_bytes", broker.tier.merge_part_bytes.to_string(), allowed);
        }
        let groups = &broker.groups;
        if groups.min_session_timeout > groups.max_session_timeout {
            let most = groups.max_session_timeout.as_millis();
            let allowed = format!("must be at most group_max_session_timeout_ms ({most})");
            return refused(
                "group_min_session_timeout_ms",
                groups.min_session_timeout.as_millis().to_string(),
                allowed,
            );
        }
        self.check_etcd()?;
        let broker = &mut self.broker;
        let (address, key) = match &self.advertise {
            Some(advertise) => (advertise, "advertise"),
            None => (&self.listen, "listen"),
        };
        let Some((host, port)) = addresses::host_and_port(address) else {
            return refused(key, address.clone(), addresses::HOST_PORT.to_owned());
        };
        if self.advertise.is_none() && addresses::is_wildcard(host) {
            let allowed = "listens on every address: say with advertise=HOST:PORT under which one clients reach it";
            return refused("listen", self.listen.clone(), allowed.to_owned());
        }
        broker.advertised_host = host.to_owned();
        broker.advertised_port = port;
        Ok(())
    }

    fn check_etcd(&self) -> Result<(), ConfigError> {
        let given = [
            ("etcd_ca_file", &self.etcd_ca_file),
            ("etcd_cert_file", &self.etcd_cert_file),
            ("etcd_key_file", &self.etcd_key_file),
        ];
        let given: Vec<_> = given.into_iter().filter_map(|(key, file)| Some((key, file.clone()?))).collect();
        let allowed = match &given[..] {
            [] => return Ok(()),
            _ if self.metadata == MetadataSetting::Embedded => "is of use only with metadata=etcd://...",
            [("etcd_ca_file", _)] | [_, _, _] => return Ok(()),
            _ => "etcd_cert_file and etcd_key_file go together, and need etcd_ca_file",
        };
        let (key, value) = given[given.len() - 1].clone();
        let origin = "settings".to_owned();
        Err(ConfigError::BadValue { origin, key, value, allowed: allowed.to_owned() })
    }
}

#[cfg(test)]
mod tests;
