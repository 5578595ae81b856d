//! Consumer groups: members of the classic protocol, each a small state machine on a connection of its own, doing what
//! a consumer does and nothing else: join, sync, heartbeat, join again when told to, leave.
//!
//! A group counts as stable when all its members have their assignment of one generation and its leader was told of
//! exactly as many. What users wait for is mostly the members' own heartbeats, which tell them of a rebalance; so the
//! time from the last JoinGroup on, which is the broker's alone, is measured too.
//!
//! Shapes follow the message definitions of Apache Kafka: JoinGroup 4, SyncGroup 2, Heartbeat 2, LeaveGroup 2.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    clock::now,
    crowd::{Crowd, find_coordinator},
    wire::{Encoder, HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, SYNC_GROUP, failed},
};

const JOIN_GROUP_VERSION: i16 = 4;
const SYNC_GROUP_VERSION: i16 = 2;
const HEARTBEAT_VERSION: i16 = 2;
const LEAVE_GROUP_VERSION: i16 = 2;

const SESSION_TIMEOUT_MS: i32 = 30_000;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const STABLE_LIMIT: Duration = Duration::from_secs(90);
/// Before a coordinator that is not ready is asked again.
const RETRY: Duration = Duration::from_millis(20);

const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const ILLEGAL_GENERATION: i16 = 22;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Has not joined; or a coordinator that was not ready has to be asked again.
    Outside,
    Joining,
    Syncing,
    /// Has its assignment.
    Stable,
    Leaving,
    Gone,
}

#[derive(Debug)]
struct Member {
    group: String,
    /// Empty until the coordinator has given one.
    id: String,
    generation: i32,
    state: State,
    /// The members of this generation, if this one leads it.
    led: Vec<String>,
    /// When a heartbeat, or another JoinGroup, is due.
    due: Option<Instant>,
}

impl Member {
    fn new(group: String) -> Self {
        Self { group, id: String::new(), generation: -1, state: State::Outside, led: Vec::new(), due: None }
    }

    fn is_present(&self) -> bool {
        !matches!(self.state, State::Leaving | State::Gone)
    }

    fn join_request(&self, topic: &str) -> Encoder {
        let mut subscription = Encoder::default();
        subscription.i16(0).count(1).string(topic).i32(-1);
        let mut request = Encoder::request(JOIN_GROUP, JOIN_GROUP_VERSION);
        request.string(&self.group).i32(SESSION_TIMEOUT_MS).i32(REBALANCE_TIMEOUT_MS).string(&self.id);
        request.string("consumer").count(1).string("range").bytes(&subscription.into_bytes());
        request
    }

    /// A leader gives everybody one partition.
    fn sync_request(&self, topic: &str) -> Encoder {
        let mut request = Encoder::request(SYNC_GROUP, SYNC_GROUP_VERSION);
        request.string(&self.group).i32(self.generation).string(&self.id).count(self.led.len());
        for (partition, id) in self.led.iter().enumerate() {
            let mut assignment = Encoder::default();
            assignment.i16(0).count(1).string(topic).count(1).i32(partition as i32).i32(-1);
            request.string(id).bytes(&assignment.into_bytes());
        }
        request
    }

    fn heartbeat_request(&self) -> Encoder {
        let mut request = Encoder::request(HEARTBEAT, HEARTBEAT_VERSION);
        request.string(&self.group).i32(self.generation).string(&self.id);
        request
    }

    fn leave_request(&self) -> Encoder {
        let mut request = Encoder::request(LEAVE_GROUP, LEAVE_GROUP_VERSION);
        request.string(&self.group).string(&self.id);
        request
    }
}

/// How long it took until all groups were stable.
#[derive(Debug, Clone, Copy)]
pub struct Rebalance {
    pub total: Duration,
    /// From when the last JoinGroup was sent.
    pub after_last_join: Duration,
}

/// Which groups, and how their members behave.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: String,
    pub topic: String,
    pub groups: usize,
    pub members_each: usize,
    pub heartbeat: Duration,
}

#[derive(Debug)]
pub struct Gathering {
    crowd: Crowd,
    members: Vec<Member>,
    topic: String,
    heartbeat: Duration,
    last_join: Instant,
    closing: bool,
}

impl Gathering {
    /// Everybody is connected and nobody has joined.
    pub fn open(address: SocketAddr, shape: &Shape) -> io::Result<Self> {
        find_coordinator(address, &shape.name)?;
        let mut crowd = Crowd::new()?;
        crowd.open(address, shape.groups * shape.members_each, &shape.topic)?;
        let groups = (0..shape.groups).map(|group| format!("{}-{group}", shape.name));
        let members = groups.flat_map(|group| (0..shape.members_each).map(move |_| Member::new(group.clone())));
        let (topic, heartbeat) = (shape.topic.clone(), shape.heartbeat);
        Ok(Self { crowd, members: members.collect(), topic, heartbeat, last_join: now(), closing: false })
    }

    /// Everybody joins at once.
    pub fn join_all(&mut self) -> io::Result<Rebalance> {
        let since = now();
        for who in 0..self.members.len() {
            self.join(who)?;
        }
        self.until_stable(since)
    }

    /// One member leaves, which is the last that joined and hardly ever the leader; the others go on without it.
    pub fn one_leaves(&mut self) -> io::Result<Rebalance> {
        let who = self.members.iter().rposition(|member| member.state == State::Stable && member.led.is_empty());
        let who = who.ok_or_else(|| failed("nobody is there to leave"))?;
        self.members[who].due = None;
        self.drive("a heartbeat is not answered", |this| !this.crowd.is_asking(who))?;
        let since = now();
        self.leave(who)?;
        self.until_stable(since)
    }

    /// Time goes by as it does for a group that nothing happens to.
    pub fn idle(&mut self, duration: Duration) -> io::Result<()> {
        let until = now() + duration;
        self.drive("idle", |_| now() >= until)
    }

    /// Everybody leaves, so that nothing is left that expires during another measurement.
    pub fn close(mut self) -> io::Result<()> {
        self.closing = true;
        for who in 0..self.members.len() {
            if self.members[who].is_present() && !self.crowd.is_asking(who) {
                self.leave(who)?;
            }
        }
        self.drive("some members cannot leave", |this| this.members.iter().all(|m| m.state == State::Gone))
    }

    fn until_stable(&mut self, since: Instant) -> io::Result<Rebalance> {
        self.drive("groups are not stable", Self::is_stable)?;
        let stable = now();
        Ok(Rebalance { total: stable - since, after_last_join: stable - self.last_join })
    }

    fn is_stable(&self) -> bool {
        stable(self.members.iter().filter(|member| member.is_present()))
    }

    /// Sends what is due and takes answers, until it is `done`.
    fn drive(&mut self, otherwise: &str, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        let limit = now() + STABLE_LIMIT;
        while !done(self) {
            let at = now();
            if at > limit {
                return Err(failed(format!("{otherwise} after {STABLE_LIMIT:?}")));
            }
            for who in 0..self.members.len() {
                if self.members[who].due.is_some_and(|due| due <= at) {
                    self.act(who)?;
                }
            }
            let next = self.members.iter().filter_map(|member| member.due).min();
            // Whoever waits for a point in time alone is not kept longer than this.
            let until = next.unwrap_or(limit).min(at + RETRY);
            for who in self.crowd.answered(until)? {
                self.take(who)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, who: usize) -> io::Result<()> {
        let member = &mut self.members[who];
        member.due = None;
        match member.state {
            State::Stable => {
                let request = member.heartbeat_request();
                self.crowd.ask(who, request)
            }
            _ => self.join(who),
        }
    }

    fn join(&mut self, who: usize) -> io::Result<()> {
        let member = &mut self.members[who];
        (member.state, member.due) = (State::Joining, None);
        member.led.clear();
        let request = member.join_request(&self.topic);
        self.last_join = now();
        self.crowd.ask(who, request)
    }

    fn leave(&mut self, who: usize) -> io::Result<()> {
        let member = &mut self.members[who];
        (member.state, member.due) = (State::Leaving, None);
        let request = member.leave_request();
        self.crowd.ask(who, request)
    }

    fn take(&mut self, who: usize) -> io::Result<()> {
        match self.members[who].state {
            State::Joining => self.joined(who)?,
            State::Syncing => self.synced(who)?,
            State::Stable => self.heard(who)?,
            State::Leaving => self.left(who)?,
            State::Outside | State::Gone => return Err(failed("an answer to somebody outside")),
        }
        // Who is to leave does so as soon as it may ask again; without an id it has never been inside.
        if self.closing && self.members[who].is_present() && !self.crowd.is_asking(who) {
            self.leave(who)?;
        }
        Ok(())
    }

    fn joined(&mut self, who: usize) -> io::Result<()> {
        let mut answer = self.crowd.answer(who)?;
        answer.i32()?;
        let (error, generation) = (answer.i16()?, answer.i32()?);
        answer.string()?;
        let (leader, id) = (answer.text()?, answer.text()?);
        let mut members = Vec::new();
        for _ in 0..answer.i32()? {
            members.push(answer.text()?);
            answer.bytes()?;
        }
        let member = &mut self.members[who];
        match error {
            0 => {
                member.led = if leader == id { members } else { Vec::new() };
                (member.id, member.generation, member.state) = (id, generation, State::Syncing);
                let request = member.sync_request(&self.topic);
                self.crowd.ask(who, request)
            }
            MEMBER_ID_REQUIRED => {
                member.id = id;
                self.join(who)
            }
            COORDINATOR_LOAD_IN_PROGRESS | COORDINATOR_NOT_AVAILABLE | NOT_COORDINATOR => {
                (member.state, member.due) = (State::Outside, Some(now() + RETRY));
                Ok(())
            }
            REBALANCE_IN_PROGRESS => self.join(who),
            error => Err(failed(format!("JoinGroup of {}: Kafka error {error}", member.group))),
        }
    }

    fn synced(&mut self, who: usize) -> io::Result<()> {
        let mut answer = self.crowd.answer(who)?;
        answer.i32()?;
        let (error, assigned) = (answer.i16()?, answer.bytes()?.len());
        let (heartbeat, size) = (self.heartbeat, self.members.len() as u32);
        let member = &mut self.members[who];
        match error {
            0 if assigned == 0 => Err(failed(format!("SyncGroup of {} assigns nothing", member.group))),
            0 => {
                // The first heartbeats are spread over the interval, as those of consumers are that started apart.
                (member.state, member.due) = (State::Stable, Some(now() + heartbeat * (who as u32 + 1) / size));
                Ok(())
            }
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => self.join(who),
            error => Err(failed(format!("SyncGroup of {}: Kafka error {error}", member.group))),
        }
    }

    fn heard(&mut self, who: usize) -> io::Result<()> {
        let mut answer = self.crowd.answer(who)?;
        answer.i32()?;
        let error = answer.i16()?;
        let member = &mut self.members[who];
        match error {
            0 => {
                member.due = Some(now() + self.heartbeat);
                Ok(())
            }
            // Who leaves next only had to hear the answer.
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION if self.closing => Ok(()),
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => self.join(who),
            error => Err(failed(format!("heartbeat of {}: Kafka error {error}", member.group))),
        }
    }

    fn left(&mut self, who: usize) -> io::Result<()> {
        let mut answer = self.crowd.answer(who)?;
        answer.i32()?;
        let error = answer.i16()?;
        let member = &mut self.members[who];
        member.state = State::Gone;
        match error {
            0 => Ok(()),
            error => Err(failed(format!("LeaveGroup of {}: Kafka error {error}", member.group))),
        }
    }
}

/// Whether every group has one generation, its leader was told of exactly these members, and all have their
/// assignment. A generation that its coordinator has given up still looks stable to its members, but not complete.
fn stable<'a>(members: impl Iterator<Item = &'a Member>) -> bool {
    let mut groups = BTreeMap::<&str, (i32, usize, usize)>::new();
    for member in members {
        let (generation, present, led) = groups.entry(&member.group).or_insert((member.generation, 0, 0));
        if member.state != State::Stable || member.generation != *generation {
            return false;
        }
        *present += 1;
        *led += member.led.len();
    }
    groups.values().all(|(_, present, led)| present == led)
}

#[cfg(test)]
mod tests;
