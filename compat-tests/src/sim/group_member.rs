//! Members of consumer groups: they join, read what they are assigned, commit, leave, crash and come back, under their
//! old name or as somebody new. A member that loses its connection goes on with what it holds, as consumers do, until
//! the coordinator tells it otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::JoinGroupResponse;
use kafka_protocol::protocol::StrBytes;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

use super::connection::NoReply;
use super::dice::Dice;
use super::group_calls::{Identity, Refusal, Versions, code, decode_assignment, encode_assignment};
use super::group_model::Assignment;
use super::reader::Reader;
use super::session::{self, Clients, Phase, Session};
use crate::checker::Partition;

/// As readers, members have numbers from here on.
const FIRST_READER: u32 = 2_000;

/// A group of a simulation, and what its members read.
#[derive(Debug, Clone)]
pub struct Group {
    pub name: String,
    pub partitions: Vec<Partition>,
}

impl Group {
    pub fn topics(&self) -> Vec<String> {
        let topics: BTreeSet<String> = self.partitions.iter().map(|partition| partition.topic.clone()).collect();
        topics.into_iter().collect()
    }
}

/// The groups of a seed: mostly none, as they take time.
pub fn groups(seed: u64, partitions: &[Partition]) -> Vec<Group> {
    let dice = Dice::new(seed, "groups");
    if !dice.chance(40) {
        return Vec::new();
    }
    let count = 1 + dice.below(2) as usize;
    let of = |index: usize| {
        let group = Group { name: format!("group-{index}"), partitions: partitions.to_vec() };
        // The second one reads a part of it: some of its members may have nothing to do.
        if index == 0 { group } else { Group { partitions: partitions[..2].to_vec(), ..group } }
    };
    (0..count).map(of).collect()
}

/// Starts the members of a group.
pub fn start(seed: u64, clients: &Arc<Clients>, group: &Group, members: &mut JoinSet<()>) {
    let dice = Dice::new(seed, &group.name);
    for id in 0..2 + dice.below(3) as u32 {
        let role = Dice::new(seed, &format!("{} member {id}", group.name));
        let instance = dice.chance(40).then(|| format!("static-{id}"));
        members.spawn(Member::new(clients, id, role, group.clone(), instance).run());
    }
}

/// Returns when all groups have come to rest: everybody has its share, and was able to commit.
pub async fn settled(clients: &Clients, groups: &[Group]) {
    while !groups.iter().all(|group| clients.groups.is_settled(&group.name, &group.partitions)) {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Asks for the committed offsets of groups that nobody is a member of any more. Returns those that did not answer.
pub async fn read_offsets(clients: &Clients, dice: &Dice, groups: &[Group], within: Duration) -> Vec<String> {
    let mut left = Vec::new();
    for group in groups {
        let deadline = Instant::now() + within;
        let mut done = false;
        while !done && Instant::now() < deadline {
            done = read_offsets_once(clients, dice, group).await.is_some();
            if !done {
                sleep(Duration::from_millis(200)).await;
            }
        }
        if !done {
            left.push(group.name.clone());
        }
    }
    left
}

async fn read_offsets_once(clients: &Clients, dice: &Dice, group: &Group) -> Option<()> {
    let session = session::open(clients, dice, &group.topics(), -1, false).await?;
    let identity = Identity {
        group: group.name.clone(),
        member_id: String::new(),
        instance_id: None,
        generation: -1,
        versions: Versions::draw(dice, false),
    };
    identity.find_coordinator(&session).await.ok()?;
    let asked = clients.groups.now();
    let all = identity.fetch_offsets(&session, group.partitions.iter()).await.ok()?;
    for shown in &all {
        clients.groups.shown(&group.name, shown, session.epoch, asked);
        clients.groups.shown_finally(&group.name, shown);
    }
    clients.trace.note(format_args!("{}: {} offsets in the end", group.name, all.len()));
    (all.len() == group.partitions.len()).then_some(())
}

pub struct Member {
    clients: Arc<Clients>,
    id: u32,
    dice: Dice,
    group: Group,
    topics: Vec<String>,
    identity: Identity,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
    epoch: i32,
    /// Reads what it was assigned in the generation that it believes to be in.
    held: Option<Reader>,
    /// It has committed since the faults stopped.
    proved: bool,
}

/// What a member does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    On,
    /// The same connection is good, but it has to join again.
    Join,
    Reconnect,
    /// It ends without a word, and comes back later.
    Crash,
    Leave,
}

impl Member {
    fn new(clients: &Arc<Clients>, id: u32, dice: Dice, group: Group, instance_id: Option<String>) -> Self {
        let identity = Identity {
            group: group.name.clone(),
            member_id: String::new(),
            versions: Versions::draw(&dice, instance_id.is_some()),
            instance_id,
            generation: -1,
        };
        Self {
            clients: Arc::clone(clients),
            id,
            topics: group.topics(),
            session_timeout_ms: *dice.pick(&[1_500, 3_000, 6_000]),
            rebalance_timeout_ms: *dice.pick(&[2_000, 8_000]),
            dice,
            group,
            identity,
            epoch: -1,
            held: None,
            proved: false,
        }
    }

    async fn run(mut self) {
        self.release();
        while self.clients.phase() < Phase::Stop {
            let healed = self.clients.phase() >= Phase::Healed;
            if let Some(session) = session::open(&self.clients, &self.dice, &self.topics, self.epoch, true).await {
                self.epoch = session.epoch;
                let next = self.serve(&session, healed).await;
                self.note(format_args!("{next:?}"));
                self.part(&session, next).await;
            }
            sleep(self.dice.ms(20..=400)).await;
        }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.clients.trace.note(format_args!("{} member {}: {what}", self.group.name, self.id));
    }

    /// It has no part in a generation any more.
    fn release(&mut self) {
        self.held = None;
        self.clients.groups.holds_nothing(&self.group.name, self.id);
    }

    /// Does what is left to do with a session.
    async fn part(&mut self, session: &Session, next: Next) {
        let ends = self.clients.phase() >= Phase::Stop;
        if next == Next::Leave || (ends && self.dice.chance(50)) {
            let left = self.identity.leave(session).await;
            self.note(format_args!("leaves: {left:?}"));
        }
        if !ends && matches!(next, Next::Leave | Next::Crash) {
            self.release();
            self.identity.member_id.clear();
            self.identity.versions = Versions::draw(&self.dice, self.identity.instance_id.is_some());
            sleep(self.dice.ms(0..=5_000)).await;
        }
    }

    /// `healed`: the session was opened after the faults.
    async fn serve(&mut self, session: &Session, healed: bool) -> Next {
        if let Err(refusal) = self.identity.find_coordinator(session).await {
            return self.refused("find", &refusal, healed);
        }
        while self.clients.phase() < Phase::Stop {
            let next = if self.held.is_none() {
                self.enter(session, healed).await
            } else {
                sleep(self.dice.ms(50..=500)).await;
                self.step(session, healed).await
            };
            match next {
                Next::On => {}
                Next::Join => {
                    self.release();
                    sleep(self.dice.ms(0..=200)).await;
                }
                _ => return next,
            }
        }
        Next::On
    }

    /// What follows from an answer that is not good.
    fn refused(&mut self, what: &str, refusal: &Refusal, healed: bool) -> Next {
        self.note(format_args!("{what}: {refusal:?}"));
        let error = match refusal {
            Refusal::NoReply(why) => {
                if healed && *why == NoReply::TimedOut {
                    let how = format_args!("{} member {} hangs in {what}", self.group.name, self.id);
                    self.clients.trace.violation("heals", how);
                }
                return Next::Reconnect;
            }
            Refusal::Code(error) => *error,
        };
        match error {
            code::COORDINATOR_LOAD_IN_PROGRESS | code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR => {
                Next::Reconnect
            }
            code::REBALANCE_IN_PROGRESS | code::ILLEGAL_GENERATION => Next::Join,
            code::UNKNOWN_MEMBER_ID | code::FENCED_INSTANCE_ID => {
                self.identity.member_id.clear();
                Next::Join
            }
            unexpected => {
                let how = format_args!("{} member {}: {what} error {unexpected}", self.group.name, self.id);
                self.clients.trace.violation("protocol", how);
                Next::Reconnect
            }
        }
    }

    fn may_fail(&self) -> bool {
        self.clients.phase() < Phase::Healed
    }

    /// JoinGroup and SyncGroup wait for other members: as long as their rebalance timeout (a second or two more while a
    /// group begins). Who knows that nothing is wrong any more gives it plenty.
    fn patience(&self, healed: bool) -> Duration {
        if healed { Duration::from_secs(30) } else { self.dice.ms(4_000..=12_000) }
    }

    /// Joins, learns its assignment and where to go on. Whatever fails, it has to join again.
    async fn enter(&mut self, session: &Session, healed: bool) -> Next {
        let asked = self.clients.groups.now();
        let joining = self
            .identity
            .join(session, &self.topics, self.session_timeout_ms, self.rebalance_timeout_ms, self.patience(healed))
            .await;
        let joined = match joining {
            Ok(joined) => joined,
            Err(why) => return self.refused("join", &why.into(), healed),
        };
        if joined.error_code == code::MEMBER_ID_REQUIRED {
            self.identity.member_id = joined.member_id.to_string();
            return if self.may_fail() && self.dice.chance(5) { Next::Crash } else { Next::Join };
        }
        if joined.error_code != 0 {
            return self.refused("join", &Refusal::Code(joined.error_code), healed);
        }
        self.identity.member_id = joined.member_id.to_string();
        self.identity.generation = joined.generation_id;
        self.note(format_args!("joins generation {} as {}", joined.generation_id, self.identity.member_id));
        self.clients.groups.joined(&self.group.name, joined.generation_id, session.epoch, asked);
        if self.may_fail() && self.dice.chance(4) {
            return Next::Crash;
        }
        sleep(self.dice.ms(0..=100)).await;
        let partitions = match self.identity.sync(session, self.shares(&joined), self.patience(healed)).await {
            Ok(assignment) => decode_assignment(&assignment),
            Err(refusal) => return self.refused("sync", &refusal, healed),
        };
        let Some(partitions) = partitions else {
            self.clients.trace.violation("integrity", format_args!("{}: not an assignment", self.group.name));
            return Next::Join;
        };
        self.clients.groups.assigned(&Assignment {
            group: &self.group.name,
            holder: self.identity.holder(),
            generation: self.identity.generation,
            epoch: session.epoch,
            partitions: &partitions,
        });
        self.resume(session, &partitions, healed).await
    }

    /// As a leader: who gets what. In turn, and in every generation somebody else begins.
    fn shares(&self, joined: &JoinGroupResponse) -> Vec<(StrBytes, Bytes)> {
        if joined.leader != joined.member_id || joined.skip_assignment || joined.members.is_empty() {
            return Vec::new();
        }
        let mut shares: Vec<(StrBytes, BTreeSet<Partition>)> =
            joined.members.iter().map(|member| (member.member_id.clone(), BTreeSet::new())).collect();
        for (index, partition) in self.group.partitions.iter().enumerate() {
            let turn = (index + joined.generation_id.unsigned_abs() as usize) % shares.len();
            shares[turn].1.insert(partition.clone());
        }
        shares.into_iter().map(|(member_id, share)| (member_id, encode_assignment(&share))).collect()
    }

    /// Begins to read where the group has got to.
    async fn resume(&mut self, session: &Session, partitions: &BTreeSet<Partition>, healed: bool) -> Next {
        let mut positions = BTreeMap::new();
        if !partitions.is_empty() {
            let (asked, asked_at) = (self.clients.groups.now(), Instant::now());
            let all = match self.identity.fetch_offsets(session, partitions.iter()).await {
                Ok(all) => all,
                Err(refusal) => return self.refused("offsets", &refusal, healed),
            };
            for shown in all {
                self.clients.groups.shown(&self.group.name, &shown, session.epoch, asked);
                self.clients.model.answered(&shown.partition, session.epoch, asked_at);
                positions.insert(shown.partition, shown.offset.max(0));
            }
        }
        if !positions.keys().eq(partitions.iter()) {
            let how = format_args!("{}: offsets of {partitions:?} are {positions:?}", self.group.name);
            self.clients.trace.violation("protocol", how);
            return Next::Join;
        }
        let reader = FIRST_READER + self.id + if self.group.name.ends_with('0') { 0 } else { 100 };
        self.held = Some(Reader::resume(&self.clients, reader, self.dice.clone(), positions));
        self.clients.groups.holds(&self.group.name, self.id, self.identity.generation, partitions);
        Next::On
    }

    /// A moment of a member's life.
    async fn step(&mut self, session: &Session, healed: bool) -> Next {
        if self.may_fail() {
            match self.dice.below(100) {
                0 | 1 => return Next::Crash,
                2 => return Next::Leave,
                3 => return Next::Reconnect,
                // Longer than its session lasts, perhaps.
                4 => sleep(self.dice.ms(1_000..=8_000)).await,
                _ => {}
            }
        }
        if self.dice.chance(60)
            && let Err(refusal) = self.identity.heartbeat(session).await
        {
            // What it has read is still its own until it joins again, if there is only a rebalance.
            let revoked = refusal == Refusal::Code(code::REBALANCE_IN_PROGRESS);
            if revoked && self.dice.chance(50) {
                self.commit(session, healed).await;
            }
            return self.refused("heartbeat", &refusal, healed);
        }
        if let Some(reader) = self.held.as_mut().filter(|_| self.dice.chance(60))
            && !reader.poll(session).await
        {
            return Next::Reconnect;
        }
        let must = !self.proved && self.clients.phase() >= Phase::Healed;
        if must || self.dice.chance(30) { self.commit(session, healed).await } else { Next::On }
    }

    /// Commits what it has read so far.
    async fn commit(&mut self, session: &Session, healed: bool) -> Next {
        let Some(reader) = &self.held else { return Next::Join };
        let clients = Arc::clone(&self.clients);
        let (group, generation) = (self.group.name.clone(), self.identity.generation);
        let commits: Vec<_> = reader
            .positions()
            .iter()
            .map(|(partition, offset)| {
                let id = clients.groups.committing(&group, partition, *offset, generation, session.epoch);
                (id, partition.clone(), *offset)
            })
            .collect();
        if commits.is_empty() {
            return Next::On;
        }
        let after_faults = self.clients.phase() >= Phase::Healed;
        let codes = match self.identity.commit(session, &commits).await {
            Ok(codes) => codes,
            Err(why) => return self.refused("commit", &why.into(), healed),
        };
        let mut next = Next::On;
        for ((id, partition, _), answer) in commits.iter().zip(codes) {
            match answer {
                Some(0) => clients.groups.committed(*id),
                Some(error) => {
                    // Before anything is appended: a rebalance, or somebody who is no member.
                    if error >= code::ILLEGAL_GENERATION {
                        clients.groups.commit_refused(*id);
                    }
                    next = self.refused("commit", &Refusal::Code(error), healed);
                }
                None => {
                    clients.trace.violation("protocol", format_args!("{group}: no answer about {partition}"));
                    next = Next::Reconnect;
                }
            }
        }
        if next == Next::On && after_faults {
            self.proved = true;
            self.clients.groups.proved(&self.group.name, self.id);
        }
        next
    }
}
