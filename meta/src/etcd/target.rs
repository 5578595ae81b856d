//! Where etcd is and how it is entered. What is secret here is never shown: not by `Debug`, not in an error.

use std::fmt;
use std::time::Duration;

/// Where keys go if the URL does not say.
const DEFAULT_PREFIX: &str = "woodpecker";
const DEFAULT_PORT: u16 = 2379;

/// What an `etcd://` URL says: `etcd://[user:password@]host[:port],host[:port],.../prefix`. What is not a plain character
/// in a user's name or password is written as %XX.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdTarget {
    /// `host:port`, at least one.
    pub endpoints: Vec<String>,
    /// Every key begins with it and a slash. No slash at its ends.
    pub prefix: String,
    pub user: Option<(String, String)>,
}

/// Certificates, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// Whoever signed etcd's certificate.
    pub ca: Vec<u8>,
    /// The certificate and the key by which etcd knows this client.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Limits of time. etcd-client has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtcdTiming {
    /// For reaching one endpoint, its first answer included.
    pub connect_timeout: Duration,
    /// For a single answer.
    pub call_timeout: Duration,
    /// For a whole call, however often it is tried. Shorter than what Kafka's clients wait for an answer.
    pub deadline: Duration,
    /// Once nobody could be reached for so long, calls fail at once until somebody can. Longer than an election takes.
    pub outage_after: Duration,
    /// Silence on a connection with a call under way, after which the other side is asked for a sign of life. etcd closes
    /// connections on which it is asked more often than every five seconds, or while nothing is under way.
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
    /// Pause after the first failed round of all endpoints; doubles up to `backoff_max`.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    pub target: EtcdTarget,
    pub tls: Option<EtcdTls>,
    pub timing: EtcdTiming,
}

impl Default for EtcdTiming {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(8),
            outage_after: Duration::from_secs(4),
            keep_alive_interval: Duration::from_secs(6),
            keep_alive_timeout: Duration::from_secs(3),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

impl EtcdTarget {
    /// An error says what is wrong without repeating any of it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "must be etcd://[user:password@]host:port[,host:port...][/prefix]";
        let rest = url.strip_prefix("etcd://").ok_or(SHAPE)?;
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(credentials(user).ok_or(SHAPE)?), hosts),
            None => (None, authority),
        };
        let endpoints: Option<Vec<String>> = hosts.split(',').map(endpoint).collect();
        let prefix = match prefix.trim_matches('/') {
            "" => DEFAULT_PREFIX,
            prefix => prefix,
        };
        if !prefix.chars().all(|c| c.is_ascii_graphic()) {
            return Err("the prefix of etcd's keys must consist of plain characters without spaces");
        }
        Ok(Self { endpoints: endpoints.ok_or(SHAPE)?, prefix: prefix.to_owned(), user })
    }
}

/// `user:password`, each percent-decoded.
fn credentials(text: &str) -> Option<(String, String)> {
    let (user, password) = text.split_once(':')?;
    let (user, password) = (percent_decoded(user)?, percent_decoded(password)?);
    (!user.is_empty()).then_some((user, password))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// `host:port` of `host[:port]`; an IPv6 address stands in brackets.
fn endpoint(text: &str) -> Option<String> {
    let in_brackets = text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !in_brackets || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, DEFAULT_PORT),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (in_brackets && c == ':');
    (!bare.is_empty() && bare.chars().all(plain) && port != 0).then(|| format!("{host}:{port}"))
}

/// Without user and password.
impl fmt::Display for EtcdTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{}/{}", self.endpoints.join(","), self.prefix)
    }
}

impl fmt::Debug for EtcdTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtcdTarget({self})")
    }
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls").field("with_identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
