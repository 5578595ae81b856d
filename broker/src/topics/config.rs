//! What can be configured for one topic, under Kafka's names and with Kafka's defaults.
//!
//! `table::TABLE` lists all of Kafka's topic configurations, and for each what this broker makes of it: nothing is
//! accepted and silently ignored.

pub mod table;

use std::collections::BTreeMap;

use crate::config::values::Values;

/// Values by name, as they were set.
pub type Configs = BTreeMap<String, String>;

/// One configuration.
pub struct Row {
    /// As topics have it.
    pub name: &'static str,
    /// As brokers have it: the default of all topics that say nothing.
    pub broker: Option<&'static str>,
    pub values: Values,
    pub default: &'static str,
    pub role: Role,
    /// What it is, in a sentence.
    pub help: &'static str,
}

/// What this broker makes of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The broker acts on it.
    Enforced,
    /// Whatever the value, it is kept: what the broker does anyway is no less.
    Fulfilled,
    /// Only these values are true of this broker, the others are refused.
    Only(&'static [&'static str]),
}

/// Why a configuration is refused; the text names it and says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

pub fn find(name: &str) -> Option<&'static Row> {
    table::TABLE.iter().find(|row| row.name == name)
}

/// By the name that brokers have for it.
pub fn find_by_broker_name(name: &str) -> Option<&'static Row> {
    table::TABLE.iter().find(|row| row.broker == Some(name))
}

impl Row {
    /// Is this a value that can be set? `name` is the one it was set by.
    pub fn check(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        self.values
            .check(value)
            .map_err(|why| ConfigError(format!("Invalid value {value} for configuration {name}: {why}")))?;
        match self.role {
            Role::Only(allowed) if !allowed.contains(&value.trim()) => {
                let allowed = allowed.join(", ");
                Err(ConfigError(format!(
                    "Invalid value {value} for configuration {name}: this broker has only {allowed}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// What it is and what becomes of it, for people.
    pub fn documentation(&self) -> String {
        let role = match self.role {
            Role::Enforced | Role::Fulfilled => String::new(),
            Role::Only(allowed) => format!(" Other values than {} are refused.", allowed.join(", ")),
        };
        format!("{}{role}", self.help)
    }
}
