//! Uploads in parts that are under way, and how an orderly end gives them up.
//!
//! All else that upkeep does may be dropped at any await. What is left of an upload, though, is stored until a rule of the
//! bucket ends it, and no listing shows it: so who writes one is told of the end, gives it up, and is waited for.

use std::sync::Arc;
use std::time::Duration;

use storage::error::{Error, Result};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

use crate::stop::{self, Stop, Switch};

/// Giving up is one short request, of every upload. A stop does not wait for a store that does not answer.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Told of the end. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    stop: Stop,
    /// Shared by all that are under way.
    under_way: Arc<RwLock<()>>,
}

/// Ends them, in good order or by being dropped, which waits for nobody.
pub struct End {
    switch: Switch,
    under_way: Arc<RwLock<()>>,
}

/// Held for as long as an upload may have to be given up.
pub struct UnderWay(#[allow(dead_code)] OwnedRwLockReadGuard<()>);

/// While it is held, none is under way and none begins.
pub struct NoneLeft(#[allow(dead_code)] OwnedRwLockWriteGuard<()>);

pub fn uploads() -> (End, Uploads) {
    let (switch, stop) = stop::switch();
    let under_way = Arc::new(RwLock::new(()));
    (End { switch, under_way: under_way.clone() }, Uploads { stop, under_way })
}

impl Uploads {
    /// Before an upload is begun. Fails once the end has come.
    pub async fn begin(&self) -> Result<UnderWay> {
        let under_way = UnderWay(self.under_way.clone().read_owned().await);
        match self.stop.is_thrown() {
            true => Err(closed()),
            false => Ok(under_way),
        }
    }

    /// Does it, unless the end comes first.
    pub async fn unless_ended<T>(&self, what: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.stop.stopped() => Err(closed()),
            done = what => done,
        }
    }
}

impl End {
    /// Lets all that are under way be given up. None if that takes too long.
    pub async fn given_up(&self) -> Option<NoneLeft> {
        self.switch.throw();
        timeout(ENDS_WITHIN, self.under_way.clone().write_owned()).await.ok().map(NoneLeft)
    }
}

fn closed() -> Error {
    Error::Closed { what: "upkeep" }
}
