//! The one table of settings.

use std::time::Duration;

use meta::etcd::EtcdTarget;

use super::{ConfigError, LogFormat, MetadataSetting, Settings};

/// How variables of the environment begin.
pub const VARIABLE_PREFIX: &str = "WOODPECKER_";

pub(super) const HOST_PORT: &str = "must be HOST:PORT";

/// One setting.
pub struct Key {
    /// In the configuration file.
    pub name: &'static str,
    /// On the command line, for some.
    pub flag: Option<Flag>,
    /// In sentences.
    pub help: &'static str,
    kind: Kind,
}

/// A flag: `--name <VALUE>`.
pub struct Flag {
    pub name: &'static str,
    /// What stands for the value in the help text.
    pub value: &'static str,
}

/// A setting that has no flag.
const fn plain(name: &'static str, help: &'static str, kind: Kind) -> Key {
    Key { name, flag: None, help, kind }
}

enum Kind {
    Integer {
        min: u64,
        max: u64,
        get: fn(&Settings) -> u64,
        set: fn(&mut Settings, u64),
    },
    Bool {
        get: fn(&Settings) -> bool,
        set: fn(&mut Settings, bool),
    },
    /// `set` says what is allowed when it refuses.
    Text {
        get: fn(&Settings) -> String,
        set: fn(&mut Settings, &str) -> Result<(), String>,
    },
}

impl Key {
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// The value as it would be written in the environment.
    pub fn value(&self, settings: &Settings) -> String {
        match &self.kind {
            Kind::Integer { get, .. } => get(settings).to_string(),
            Kind::Bool { get, .. } => get(settings).to_string(),
            Kind::Text { get, .. } => get(settings),
        }
    }

    /// Sets it from text. `origin` says where the text is from.
    pub fn set(&self, settings: &mut Settings, text: &str, origin: &str) -> Result<(), ConfigError> {
        let refused = |allowed: String| ConfigError::BadValue {
            origin: origin.to_owned(),
            key: self.name,
            value: without_credentials(text),
            allowed,
        };
        match &self.kind {
            Kind::Integer { min, max, set, .. } => match text.parse::<u64>() {
                Ok(value) if (min..=max).contains(&&value) => set(settings, value),
                _ => return Err(refused(format!("must be a whole number from {min} to {max}"))),
            },
            Kind::Bool { set, .. } => match text {
                "true" => set(settings, true),
                "false" => set(settings, false),
                _ => return Err(refused("must be true or false".to_owned())),
            },
            Kind::Text { set, .. } => set(settings, text).map_err(refused)?,
        }
        Ok(())
    }
}

pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// A value as it may be shown: a URL loses what stands between its scheme and its last @.
pub(crate) fn without_credentials(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://...{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

/// Splits `host:port`; the host may be an IPv6 address in brackets, which are left out of the answer.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if host.is_empty() || (bare.is_none() && host.contains(':')) || host.contains(char::is_whitespace) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

pub(super) fn is_wildcard(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
}

fn checked_address(text: &str) -> Result<String, String> {
    host_and_port(text).map(|_| text.to_owned()).ok_or_else(|| HOST_PORT.to_owned())
}

/// An integer setting that is kept in a field of `Settings`.
macro_rules! integer {
    ($min:expr, $max:expr, $($field:ident).+ : $type:ty) => {
        Kind::Integer {
            min: $min,
            max: $max,
            get: |settings| settings.$($field).+ as u64,
            set: |settings, value| settings.$($field).+ = value as $type,
        }
    };
}

/// A duration in milliseconds.
macro_rules! millis {
    ($min:expr, $max:expr, $($field:ident).+) => {
        Kind::Integer {
            min: $min,
            max: $max,
            get: |settings| settings.$($field).+.as_millis() as u64,
            set: |settings, value| settings.$($field).+ = Duration::from_millis(value),
        }
    };
}

/// The path of a file, or none.
macro_rules! file {
    ($field:ident) => {
        Kind::Text {
            get: |settings| settings.$field.clone().unwrap_or_else(|| "none".to_owned()),
            set: |settings, text| {
                settings.$field = match text {
                    "" => return Err("must be the path of a file, or none".to_owned()),
                    "none" => None,
                    path => Some(path.to_owned()),
                };
                Ok(())
            },
        }
    };
}

/// A price in dollars.
macro_rules! dollars {
    ($field:ident) => {
        Kind::Text {
            get: |settings| settings.prices.$field.to_string(),
            set: |settings, text| match text.parse::<f64>() {
                Ok(price) if price.is_finite() && price >= 0.0 => {
                    settings.prices.$field = price;
                    Ok(())
                }
                _ => Err("must be a price in dollars, such as 0.005".to_owned()),
            },
        }
    };
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 24 * 3_600_000;

pub static KEYS: &[Key] = &[
    Key {
        name: "listen",
        flag: Some(Flag { name: "listen", value: "HOST:PORT" }),
        help: "Where Kafka clients connect.",
        kind: Kind::Text {
            get: |settings| settings.listen.clone(),
            set: |settings, text| {
                settings.listen = checked_address(text)?;
                Ok(())
            },
        },
    },
    Key {
        name: "advertise",
        flag: Some(Flag { name: "advertise", value: "HOST:PORT" }),
        help: "What clients are told to connect to, if that is not what is listened on.",
        kind: Kind::Text {
            get: |settings| settings.advertise.clone().unwrap_or_else(|| "as listen".to_owned()),
            set: |settings, text| match host_and_port(text) {
                Some((host, port)) if port != 0 && !is_wildcard(host) => {
                    settings.advertise = Some(text.to_owned());
                    Ok(())
                }
                _ => Err("must be HOST:PORT that clients can connect to".to_owned()),
            },
        },
    },
    Key {
        name: "http",
        flag: Some(Flag { name: "http", value: "HOST:PORT" }),
        help: "Where /metrics, /cost, /healthz and /readyz are served; off for nowhere.",
        kind: Kind::Text {
            get: |settings| settings.http.clone().unwrap_or_else(|| "off".to_owned()),
            set: |settings, text| {
                settings.http = match text {
                    "off" => None,
                    _ => Some(checked_address(text).map_err(|allowed| format!("{allowed}, or off"))?),
                };
                Ok(())
            },
        },
    },
    Key {
        name: "storage",
        flag: Some(Flag { name: "storage", value: "URL|FOLDER" }),
        help: "Where data is kept: a folder, file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or \
               memory:// (lost at exit).",
        kind: Kind::Text {
            get: |settings| settings.storage.clone(),
            set: |settings, text| {
                if text.is_empty() {
                    return Err("must be a folder or a URL".to_owned());
                }
                settings.storage = text.to_owned();
                Ok(())
            },
        },
    },
    Key {
        name: "metadata",
        flag: Some(Flag { name: "metadata", value: "embedded|etcd://HOST:PORT,.../PREFIX" }),
        help: "Where metadata is kept: embedded (in the storage itself) or etcd, with [USER:PASSWORD@] before the \
               hosts if it asks for them (better in the variable or the file than on the command line).",
        kind: Kind::Text {
            get: |settings| match &settings.metadata {
                MetadataSetting::Embedded => "embedded".to_owned(),
                MetadataSetting::Etcd(target) => target.to_string(),
            },
            set: |settings, text| {
                settings.metadata = match text {
                    "embedded" => MetadataSetting::Embedded,
                    _ if text.starts_with("etcd://") => MetadataSetting::Etcd(EtcdTarget::parse(text)?),
                    _ => return Err("must be embedded, or etcd://...".to_owned()),
                };
                Ok(())
            },
        },
    },
    Key {
        name: "etcd_ca_file",
        flag: None,
        help: "PEM file of whoever signed etcd's certificate; with it etcd is spoken to over TLS. none for no TLS.",
        kind: file!(etcd_ca_file),
    },
    Key {
        name: "etcd_cert_file",
        flag: None,
        help: "PEM file of the certificate by which etcd knows this broker; none for no certificate.",
        kind: file!(etcd_cert_file),
    },
    Key {
        name: "etcd_key_file",
        flag: None,
        help: "PEM file of the key of etcd_cert_file.",
        kind: file!(etcd_key_file),
    },
    Key {
        name: "log",
        flag: Some(Flag { name: "log", value: "FILTER" }),
        help: "What is logged: error, warn, info, debug, trace, or per module, such as info,broker=debug.",
        kind: Kind::Text {
            get: |settings| settings.log.clone(),
            set: |settings, text| {
                tracing_subscriber::EnvFilter::try_new(text).map_err(|error| error.to_string())?;
                settings.log = text.to_owned();
                Ok(())
            },
        },
    },
    Key {
        name: "log_format",
        flag: Some(Flag { name: "log-format", value: "text|json" }),
        help: "How it is logged, on standard error: text for people, json for machines.",
        kind: Kind::Text {
            get: |settings| match settings.log_format {
                LogFormat::Text => "text".to_owned(),
                LogFormat::Json => "json".to_owned(),
            },
            set: |settings, text| {
                settings.log_format = match text {
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return Err("must be text or json".to_owned()),
                };
                Ok(())
            },
        },
    },
    Key {
        name: "broker_id",
        flag: None,
        help: "The broker's number, as clients see it.",
        kind: integer!(0, i32::MAX as u64, broker.broker_id: i32),
    },
    Key {
        name: "auto_create_topics",
        flag: None,
        help: "Whether a topic is created when a client first asks for it.",
        kind: Kind::Bool {
            get: |settings| settings.broker.auto_create_topics,
            set: |settings, value| settings.broker.auto_create_topics = value,
        },
    },
    Key {
        name: "num_partitions",
        flag: None,
        help: "Partitions of a topic that is created without saying how many.",
        kind: integer!(1, 10_000, broker.num_partitions: i32),
    },
    Key {
        name: "message_max_bytes",
        flag: None,
        help: "Largest record batch accepted, unless the topic sets max.message.bytes.",
        kind: integer!(1 << 10, GIB, broker.message_max_bytes: usize),
    },
    Key {
        name: "request_max_bytes",
        flag: None,
        help: "Largest Produce request accepted.",
        kind: integer!(64 << 10, GIB, broker.request_max_bytes: usize),
    },
    Key {
        name: "memory_bytes",
        flag: None,
        help: "Record data in memory: received, waiting to be durable, kept for readers, being sent. When it is used \
               up, producers wait.",
        kind: integer!(16 * MIB, 1 << 44, broker.memory_bytes: usize),
    },
    Key {
        name: "tail_bytes",
        flag: None,
        help: "At most this much of memory_bytes keeps recent records for readers.",
        kind: integer!(0, 1 << 44, broker.tail_bytes: usize),
    },
    Key {
        name: "fetch_max_bytes",
        flag: None,
        help: "Largest Fetch response, whatever a client asks for.",
        kind: integer!(MIB, GIB, broker.fetch_max_bytes: usize),
    },
    Key {
        name: "connections_max_idle_ms",
        flag: None,
        help: "A connection without any request for so long is closed.",
        kind: millis!(1_000, 7 * 24 * 3_600_000, broker.connections_max_idle),
    },
    Key {
        name: "max_connections",
        flag: None,
        help: "Connections served at a time; more wait to be accepted.",
        kind: integer!(1, 1_000_000, broker.max_connections: usize),
    },
    Key {
        name: "max_producers_per_partition",
        flag: None,
        help: "Idempotent producers remembered per partition.",
        kind: integer!(1, 1_000_000, broker.max_producers_per_partition: usize),
    },
    Key {
        name: "flush_interval_ms",
        flag: None,
        help: "Writes to object storage begin at least so far apart, unless flush_bytes are waiting.",
        kind: millis!(1, 60_000, broker.flush_interval),
    },
    Key {
        name: "flush_bytes",
        flag: None,
        help: "So many bytes are written to object storage without waiting for the interval.",
        kind: integer!(64 << 10, GIB, broker.flush_bytes: usize),
    },
    Key {
        name: "put_budget_per_s",
        flag: None,
        help: "Writes to object storage begin at most so often per second, averaged over ten seconds: above that the \
               interval is widened, to no more than one write's share, until they fit. What reaches flush_bytes is \
               written all the same, and memory that is used up ends the widening. 0 for no such budget.",
        kind: integer!(0, 10_000, broker.put_budget_per_s: u32),
    },
    plain(
        "price_thousand_puts_usd",
        "For estimates of the bill, here S3 Standard's: 1,000 writes of objects or of their parts, copies, lists.",
        dollars!(thousand_puts),
    ),
    plain("price_thousand_gets_usd", "1,000 reads of objects or of what is known about them.", dollars!(thousand_gets)),
    plain("price_gib_month_usd", "A GiB stored for a month.", dollars!(gib_month)),
    plain(
        "tier_bytes",
        "As soon as so much has been written, it moves from what all partitions share to where each partition's data lies together.",
        integer!(1, GIB, broker.tier.bytes: usize),
    ),
    plain(
        "tier_interval_ms",
        "After this time it moves, however little it is: until then retention does not see it.",
        millis!(1, DAY_MS, broker.tier.interval),
    ),
    plain(
        "tier_object_bytes",
        "Length of the objects that it moves to; less if memory_bytes is small.",
        integer!(1, GIB, broker.tier.object_bytes: usize),
    ),
    plain(
        "merge_object_bytes",
        "What it moved to is merged, in the background, into objects of this length. 0 for no merging.",
        integer!(0, 64 * GIB, broker.tier.merge_object_bytes: usize),
    ),
    plain(
        "merge_part_bytes",
        "Objects that are longer are written in parts of this length, each of which costs as much as a PUT; two of \
               them are in memory. Less if memory_bytes is small. S3 takes none under 5 MiB.",
        integer!(1, GIB, broker.tier.merge_part_bytes: usize),
    ),
    plain(
        "retention_check_interval_ms",
        "Records that have become too old go within this time.",
        millis!(1, DAY_MS, broker.tier.retention_check_interval),
    ),
    plain(
        "delete_delay_ms",
        "What nothing refers to any more is deleted so much later, so that readers who are at it can finish.",
        millis!(0, DAY_MS, broker.tier.delete_delay),
    ),
    Key {
        name: "offsets_topic_num_partitions",
        flag: None,
        help: "Partitions of __consumer_offsets, which is created when the first group needs it.",
        kind: integer!(1, 10_000, broker.groups.offsets_partitions: i32),
    },
    Key {
        name: "group_initial_rebalance_delay_ms",
        flag: None,
        help: "How long the first member of an empty group waits for others.",
        kind: millis!(0, 600_000, broker.groups.initial_rebalance_delay),
    },
    Key {
        name: "group_min_session_timeout_ms",
        flag: None,
        help: "Shortest session timeout that a member of a group may ask for.",
        kind: millis!(1, DAY_MS, broker.groups.min_session_timeout),
    },
    Key {
        name: "group_max_session_timeout_ms",
        flag: None,
        help: "Longest session timeout that a member of a group may ask for.",
        kind: millis!(1, DAY_MS, broker.groups.max_session_timeout),
    },
    Key {
        name: "group_max_size",
        flag: None,
        help: "Most members of one group.",
        kind: integer!(1, 1 << 32, broker.groups.max_members: usize),
    },
    Key {
        name: "offset_metadata_max_bytes",
        flag: None,
        help: "Longest text that a client may store with a committed offset.",
        kind: integer!(0, 32_767, broker.groups.max_metadata_bytes: usize),
    },
    Key {
        name: "offsets_retention_minutes",
        flag: None,
        help: "Committed offsets are forgotten so long after their group became empty, or stopped reading the topic.",
        kind: Kind::Integer {
            min: 1,
            max: i32::MAX as u64,
            get: |settings| settings.broker.groups.offsets_retention.as_secs() / 60,
            set: |settings, value| settings.broker.groups.offsets_retention = Duration::from_secs(value * 60),
        },
    },
    Key {
        name: "offsets_retention_check_interval_ms",
        flag: None,
        help: "How often it is looked for committed offsets to forget.",
        kind: millis!(1, DAY_MS, broker.groups.offsets_retention_check_interval),
    },
];
