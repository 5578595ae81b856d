//! Where clients connect, and what else listens.

use super::{Flag, Key, Kind};

pub const HOST_PORT: &str = "must be HOST:PORT";

/// Splits `host:port`; the host may be an IPv6 address in brackets, which are left out of the answer.
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if host.is_empty() || (bare.is_none() && host.contains(':')) || host.contains(char::is_whitespace) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

pub fn is_wildcard(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
}

fn checked_address(text: &str) -> Result<String, String> {
    host_and_port(text).map(|_| text.to_owned()).ok_or_else(|| HOST_PORT.to_owned())
}

pub const KEYS: &[Key] = &[
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
];
