//! Changes of configurations as clients ask for them: all anew (AlterConfigs), or one by one (IncrementalAlterConfigs,
//! KIP-339). Pure: what is there goes in, what shall be there comes out, or why not.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;

use super::config::{Configs, Row, find, find_by_broker_name};
use super::defaults::Defaults;
use crate::config::values::{Type, items};

/// Why something is refused: the code, and a text for people.
pub type Refusal = (ResponseError, String);

/// Whose configuration it is: this decides about the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Topic,
    Broker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Set,
    /// Back to the default.
    Delete,
    /// Adds to a list what is not in it.
    Append,
    /// Removes from a list.
    Subtract,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub name: String,
    pub operation: Operation,
    pub value: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edits {
    /// What is not named goes back to its default.
    Replace(Vec<(String, Option<String>)>),
    OneByOne(Vec<Edit>),
}

impl Edits {
    /// Makes the changes. Values are checked by whoever keeps the result; here only what concerns the change itself.
    pub fn apply(&self, scope: Scope, configs: &mut Configs, defaults: &Defaults) -> Result<(), Refusal> {
        match self {
            Edits::Replace(all) => {
                each_once(all.iter().map(|(name, _)| name))?;
                configs.clear();
                for (name, value) in all {
                    let value = value.as_ref().ok_or_else(|| no_value(name))?;
                    configs.insert(name.clone(), value.clone());
                }
                Ok(())
            }
            Edits::OneByOne(edits) => {
                each_once(edits.iter().map(|edit| &edit.name))?;
                edits.iter().try_for_each(|edit| edit.apply(scope, configs, defaults))
            }
        }
    }
}

impl Edit {
    fn apply(&self, scope: Scope, configs: &mut Configs, defaults: &Defaults) -> Result<(), Refusal> {
        let value = match (self.operation, &self.value) {
            (Operation::Delete, _) => {
                configs.remove(&self.name);
                return Ok(());
            }
            (_, None) => return Err(no_value(&self.name)),
            (Operation::Set, Some(value)) => {
                configs.insert(self.name.clone(), value.clone());
                return Ok(());
            }
            (Operation::Append | Operation::Subtract, Some(value)) => value,
        };
        let row = scope.find(&self.name).ok_or_else(|| scope.unknown(&self.name))?;
        if row.values.kind() != Type::List {
            let verb = if self.operation == Operation::Append { "APPEND" } else { "SUBTRACT" };
            let text = format!("Can't {verb} to key {} because its type is not LIST.", self.name);
            return Err((scope.refusal(), text));
        }
        let before = configs.get(&self.name).cloned().unwrap_or_else(|| defaults.value(row));
        let mut list: Vec<&str> = items(&before).collect();
        match self.operation {
            Operation::Append => {
                for item in items(value) {
                    if !list.contains(&item) {
                        list.push(item);
                    }
                }
            }
            _ => list.retain(|item| !items(value).any(|gone| gone == *item)),
        }
        configs.insert(self.name.clone(), list.join(","));
        Ok(())
    }
}

impl Scope {
    fn find(self, name: &str) -> Option<&'static Row> {
        match self {
            Scope::Topic => find(name),
            Scope::Broker => find_by_broker_name(name),
        }
    }

    fn unknown(self, name: &str) -> Refusal {
        let text = match self {
            Scope::Topic => format!("Unknown topic config name: {name}"),
            Scope::Broker => format!("{name} cannot be changed while the broker runs"),
        };
        (self.refusal(), text)
    }

    /// What Kafka answers to a configuration that cannot be.
    fn refusal(self) -> ResponseError {
        match self {
            Scope::Topic => ResponseError::InvalidConfig,
            Scope::Broker => ResponseError::InvalidRequest,
        }
    }
}

fn no_value(name: &str) -> Refusal {
    (ResponseError::InvalidRequest, format!("Null value not supported for : {name}"))
}

fn each_once<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err((ResponseError::InvalidRequest, format!("{name} is named more than once")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
