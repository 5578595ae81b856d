//! What administrators ask about groups.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use crate::groups::{Description, State};

use super::shard::Shard;

/// One line of a list of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub group: String,
    pub protocol_type: String,
    pub state: State,
}

impl Shard {
    /// All groups, by name.
    pub fn list(&self) -> Result<Vec<Listed>, ResponseError> {
        let inner = self.active()?;
        let listed = inner.groups.iter().filter(|(_, cell)| cell.group.state() != State::Dead).map(|(name, cell)| {
            let protocol_type = cell.group.protocol_type().to_owned();
            Listed { group: name.clone(), protocol_type, state: cell.group.state() }
        });
        Ok(listed.collect())
    }

    /// None: there is no such group.
    pub fn describe(&self, name: &str) -> Result<Option<Description>, ResponseError> {
        let inner = self.active()?;
        Ok(inner.groups.get(name).map(|cell| cell.group.describe()))
    }

    /// DeleteGroups: the group, which must be empty, and its offsets. Returns when that is durable.
    pub async fn delete(self: &Arc<Self>, name: &str) -> Result<(), ResponseError> {
        let (answer, durable) = oneshot::channel();
        {
            let mut inner = self.active()?;
            let now = self.shared.now();
            let cell = inner.groups.get_mut(name).ok_or(ResponseError::GroupIdNotFound)?;
            let step = cell.group.delete(now)?;
            let Some(write) = step.write else { return Err(ResponseError::UnknownServerError) };
            if let Err(code) = self.write(&mut inner, name, &write, Some(answer)) {
                if let Some(cell) = inner.groups.get_mut(name) {
                    let step = cell.group.written(write.id, Err(code), now);
                    self.follow(&mut inner, name, step);
                }
                return Err(code);
            }
        }
        durable.await.unwrap_or(Err(ResponseError::NotCoordinator))
    }
}
