//! The schedule: what goes wrong, when. Everything is drawn from the seed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meta::faults::FaultPlan;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Host, MACHINES};
use super::dice::Dice;

/// What a seed is about: a mixture of everything would rarely leave room for the long stories.
#[derive(Debug, Clone, Copy)]
pub struct Mood {
    /// Milliseconds between two events, on average.
    pub pause_ms: u64,
    /// Percent of operations of the store that go wrong.
    pub faults_percent: u64,
    pub store_latency_ms: (u64, u64),
    pub faulty_for: Duration,
    /// One kind of event more often than the others.
    pub favourite: u64,
}

const KINDS: u64 = 10;

impl Mood {
    pub fn draw(dice: &Dice) -> Self {
        Self {
            pause_ms: *dice.pick(&[400, 1000, 2500]),
            faults_percent: *dice.pick(&[0, 1, 5, 20]),
            store_latency_ms: *dice.pick(&[(1, 5), (10, 60), (20, 250)]),
            faulty_for: dice.ms(8_000..=40_000),
            favourite: dice.below(KINDS),
        }
    }

    pub fn plan(&self) -> FaultPlan {
        FaultPlan { latency: self.latency(1), ..FaultPlan::ambiguous(self.faults_percent as f64 / 100.0) }
    }

    /// The store as it is when nothing is wrong with it.
    pub fn sound_plan(&self) -> FaultPlan {
        FaultPlan::slow(self.latency(1))
    }

    fn latency(&self, times: u64) -> std::ops::RangeInclusive<Duration> {
        let (least, most) = self.store_latency_ms;
        Duration::from_millis(least * times)..=Duration::from_millis(most * times)
    }
}

/// Lets faults strike until the mood's time is over; returns with everything still broken.
pub async fn strike(cluster: &Arc<Cluster>, dice: &Dice, mood: &Mood) {
    let end = Instant::now() + mood.faulty_for;
    cluster.store.set_plan(mood.plan());
    while Instant::now() < end {
        sleep(dice.ms(mood.pause_ms / 2..=mood.pause_ms * 3 / 2)).await;
        let kind = if dice.chance(35) { mood.favourite } else { dice.below(KINDS) };
        event(cluster, dice, mood, kind).await;
    }
}

async fn event(cluster: &Arc<Cluster>, dice: &Dice, mood: &Mood, kind: u64) {
    let alive = cluster.alive();
    let Some(newest) = alive.last() else { return };
    let any = dice.pick(&alive);
    match kind {
        0 => cluster.kill(newest),
        1 => take_over(cluster, dice),
        2 => kill_during_recovery(cluster, dice).await,
        3 => pause_and_take_over(cluster, dice, newest),
        4 => for_a_while(cluster, dice.ms(200..=6000), any, |cluster, host, on| cluster.set_frozen(host, on)),
        5 => {
            let (cut_in, cut_out) = *dice.pick(&[(true, true), (true, false), (false, true)]);
            for_a_while(cluster, dice.ms(200..=8000), any, move |cluster, host, on| {
                cluster.set_cut(host, on && cut_in, on && cut_out);
            });
        }
        6 => outage(cluster, dice),
        7 => slow_store(cluster, dice, mood),
        8 => {
            let by = *dice.pick(&[3_600_000, -3_600_000, 400_000_000_000, -900, 10_000]);
            cluster.jump_clock(any, by);
        }
        _ => {
            cluster.trace.note(format_args!("host {} is asked to drain", newest.id));
            newest.drain.send_replace(true);
        }
    }
}

/// Another incarnation starts while this one runs: on the other machine mostly, or as a second process on the same.
fn take_over(cluster: &Arc<Cluster>, dice: &Dice) {
    let machine = dice.below(MACHINES as u64) as usize;
    // Nobody runs three brokers on one bucket for long.
    if cluster.alive().len() < 3 {
        cluster.start(machine);
    }
}

/// A crash, a start, a crash before it can have recovered, again and again.
async fn kill_during_recovery(cluster: &Arc<Cluster>, dice: &Dice) {
    for _ in 0..1 + dice.below(3) {
        if cluster.alive().len() >= 3 {
            break;
        }
        let host = cluster.start(dice.below(MACHINES as u64) as usize);
        sleep(dice.ms(0..=900)).await;
        if host.life.is_alive() {
            cluster.kill(&host);
        }
    }
}

/// The owner stops for a while, somebody else takes over, the old owner wakes up and believes what it believed.
fn pause_and_take_over(cluster: &Arc<Cluster>, dice: &Dice, owner: &Arc<Host>) {
    if cluster.alive().len() >= 3 {
        return;
    }
    let rest = dice.ms(300..=7000);
    for_a_while(cluster, rest, owner, |cluster, host, on| cluster.set_frozen(host, on));
    let (cluster, dice) = (Arc::clone(cluster), dice.clone());
    let other = (owner.machine + 1) % MACHINES;
    tokio::spawn(async move {
        sleep(dice.ms(0..=500)).await;
        if !cluster.healed.load(Ordering::SeqCst) {
            cluster.start(other);
        }
    });
}

fn for_a_while(
    cluster: &Arc<Cluster>,
    how_long: Duration,
    host: &Arc<Host>,
    change: impl Fn(&Cluster, &Host, bool) + Send + 'static,
) {
    change(cluster, host, true);
    let (cluster, host) = (Arc::clone(cluster), Arc::clone(host));
    tokio::spawn(async move {
        sleep(how_long).await;
        if host.life.is_alive() {
            change(&cluster, &host, false);
        }
    });
}

fn outage(cluster: &Arc<Cluster>, dice: &Dice) {
    // Mostly seconds, now and then longer than anybody's patience.
    let how_long = if dice.chance(5) { dice.ms(60_000..=600_000) } else { dice.ms(300..=8000) };
    if let Some(shared) = cluster.shared.clone().filter(|_| dice.chance(60)) {
        cluster.trace.note(format_args!("the metadata is down for {} ms", how_long.as_millis()));
        shared.set_down(true);
        tokio::spawn(async move {
            sleep(how_long).await;
            shared.set_down(false);
        });
        return;
    }
    cluster.trace.note(format_args!("the store is down for {} ms", how_long.as_millis()));
    cluster.store.set_down(true);
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move {
        sleep(how_long).await;
        cluster.store.set_down(false);
    });
}

fn slow_store(cluster: &Arc<Cluster>, dice: &Dice, mood: &Mood) {
    let times = *dice.pick(&[4, 15]);
    cluster.trace.note(format_args!("the store is {times} times slower"));
    cluster.store.set_plan(FaultPlan { latency: mood.latency(times), ..mood.plan() });
    let (cluster, mood, how_long) = (Arc::clone(cluster), *mood, dice.ms(500..=6000));
    tokio::spawn(async move {
        sleep(how_long).await;
        if !cluster.healed.load(Ordering::SeqCst) {
            cluster.store.set_plan(mood.plan());
        }
    });
}
