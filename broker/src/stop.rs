//! A switch that many tasks wait for. Once thrown it stays so.
//!
//! It wakes them in the order in which they began to wait. `tokio::sync::watch` would do all else, but it wakes at
//! random, and then two simulations of one seed take different courses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    thrown: AtomicBool,
    waiting: Notify,
}

/// Throws the switch; dropping it does so too: nobody is left who could.
#[derive(Debug)]
pub struct Switch(Arc<State>);

/// Waits for the switch.
#[derive(Debug, Clone)]
pub struct Stop(Arc<State>);

pub fn switch() -> (Switch, Stop) {
    let state = Arc::new(State::default());
    (Switch(Arc::clone(&state)), Stop(state))
}

impl Switch {
    pub fn throw(&self) {
        self.0.thrown.store(true, Ordering::SeqCst);
        self.0.waiting.notify_waiters();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.throw();
    }
}

impl Stop {
    pub fn is_thrown(&self) -> bool {
        self.0.thrown.load(Ordering::SeqCst)
    }

    /// Returns once the switch is thrown. May be dropped while it waits.
    pub async fn stopped(&self) {
        let mut waiting = std::pin::pin!(self.0.waiting.notified());
        // Before the look, so that nothing is missed between the two.
        waiting.as_mut().enable();
        if !self.is_thrown() {
            waiting.await;
        }
    }
}
