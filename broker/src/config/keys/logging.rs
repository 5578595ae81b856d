//! What is logged, and how.

use super::{Flag, Key, Kind};
use crate::config::LogFormat;

pub const KEYS: &[Key] = &[
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
];
