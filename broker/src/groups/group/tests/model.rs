//! Random walks: clients that do anything at any time, and clients that keep to the protocol while others come and go.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError::*;
use meta::seams::Random;
use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::*;
use crate::groups::messages::{Joined, SyncAssignment, Synced};

#[derive(Default)]
struct Client {
    instance_id: Option<String>,
    member_id: String,
    /// As its last JoinGroup said.
    joined: Option<Joined>,
    joining: Option<Receiver<Joined>>,
    syncing: Option<Receiver<Synced>>,
}

struct Walk {
    random: Random,
    bench: Bench,
    clients: Vec<Client>,
    /// Whose member ids are whose.
    owners: BTreeMap<String, usize>,
    /// What members were told of a generation: its protocol, and whose client leads.
    generations: BTreeMap<i32, (Option<String>, usize)>,
    /// Generations whose assignment is durable.
    durable: BTreeSet<i32>,
    last_record: Option<GroupMetadata>,
    answers: usize,
}

impl Walk {
    fn new(seed: u64, clients: usize) -> Self {
        let static_every_third = |client: usize| (client % 3 == 2).then(|| format!("instance-{client}"));
        let client = |client| Client { instance_id: static_every_third(client), ..Client::default() };
        Self {
            random: Random::from_seed(seed),
            bench: Bench::new(),
            clients: (0..clients).map(client).collect(),
            owners: BTreeMap::new(),
            generations: BTreeMap::new(),
            durable: BTreeSet::new(),
            last_record: None,
            answers: 0,
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    fn join(&mut self, at: usize, offers: &[&str]) {
        let client = &self.clients[at];
        let join = Join {
            instance_id: client.instance_id.clone(),
            protocols: protocols(offers),
            require_known_member_id: true,
            can_skip_assignment: true,
            rebalance_timeout: secs(20),
            ..join(&client.member_id)
        };
        self.clients[at].joining = Some(self.bench.join(join));
    }

    fn sync(&mut self, at: usize) {
        let client = &self.clients[at];
        let Some(joined) = &client.joined else { return };
        let assignments = joined.members.iter().filter(|_| !joined.skip_assignment).map(|member| {
            (member.member_id.clone(), Bytes::from(format!("{}:{}", joined.generation, self.owners[&member.member_id])))
        });
        let sync = SyncAssignment {
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            generation: joined.generation,
            protocol_type: joined.protocol_type.clone(),
            protocol: joined.protocol.clone(),
            assignments: assignments.collect(),
        };
        self.clients[at].syncing = Some(self.bench.sync_with(sync));
    }

    fn written(&mut self, outcome: Result<(), ResponseError>) {
        if self.bench.writes.is_empty() {
            return;
        }
        if outcome.is_ok()
            && let WriteKind::Metadata(record) = &self.bench.writes[0].kind
        {
            self.last_record = Some(record.clone());
            self.durable.insert(record.generation);
        }
        self.bench.written(outcome);
    }

    /// The coordinator dies and is loaded elsewhere from what is durable.
    fn crash(&mut self) {
        let now = self.bench.now;
        let durable = self.last_record.as_ref().map_or(0, |record| record.generation);
        self.bench.group =
            self.last_record.clone().map_or_else(|| Group::new("g", now), |record| Group::restore("g", record, now));
        self.bench.writes.clear();
        self.generations.retain(|generation, _| *generation <= durable);
        for client in &mut self.clients {
            (client.joined, client.joining, client.syncing) = (None, None, None);
        }
    }

    /// Looks for answers, and holds each against what is known. Returns the errors.
    fn collect(&mut self) -> Vec<(usize, ResponseError)> {
        let mut errors = Vec::new();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let joined = client.joining.as_mut().map(Receiver::try_recv);
            let synced = client.syncing.as_mut().map(Receiver::try_recv);
            assert_ne!(joined, Some(Err(TryRecvError::Closed)), "a JoinGroup was forgotten");
            assert_ne!(synced, Some(Err(TryRecvError::Closed)), "a SyncGroup was forgotten");
            if let Some(Ok(joined)) = joined {
                self.clients[at].joining = None;
                errors.extend(joined.error.map(|error| (at, error)));
                self.check_joined(at, joined);
            }
            if let Some(Ok(synced)) = synced {
                self.clients[at].syncing = None;
                errors.extend(synced.error.map(|error| (at, error)));
                self.check_synced(at, &synced);
            }
        }
        errors
    }

    fn check_joined(&mut self, at: usize, joined: Joined) {
        self.answers += 1;
        match joined.error {
            None | Some(MemberIdRequired) => {}
            Some(UnknownMemberId | FencedInstanceId | GroupMaxSizeReached) => {
                self.clients[at].member_id.clear();
                self.clients[at].joined = None;
                return;
            }
            Some(_) => return,
        }
        self.owners.insert(joined.member_id.clone(), at);
        self.clients[at].member_id = joined.member_id.clone();
        if joined.error.is_some() {
            return;
        }
        // The leader may have been told of members whose owners do not know their ids yet.
        for member in &joined.members {
            let instance = member.instance_id.as_ref();
            let owner = instance
                .and_then(|instance| self.clients.iter().position(|c| c.instance_id.as_ref() == Some(instance)));
            self.owners.entry(member.member_id.clone()).or_insert(owner.unwrap_or(at));
        }
        if let Some(leader) = self.owners.get(&joined.leader) {
            let said = (joined.protocol.clone(), *leader);
            let known = self.generations.entry(joined.generation).or_insert_with(|| said.clone());
            assert_eq!(*known, said, "generation {}", joined.generation);
        }
        let leads = joined.leader == joined.member_id;
        assert_eq!(leads, joined.members.iter().any(|member| member.member_id == joined.member_id));
        assert!(leads || joined.members.is_empty(), "only the leader learns the others");
        self.clients[at].joined = Some(joined);
    }

    fn check_synced(&mut self, at: usize, synced: &Synced) {
        self.answers += 1;
        let client = &mut self.clients[at];
        match (synced.error, &client.joined) {
            (None, Some(joined)) => {
                assert!(self.durable.contains(&joined.generation), "generation {} is not durable", joined.generation);
                assert_eq!(synced.protocol, joined.protocol);
                assert_eq!(synced.assignment, format!("{}:{at}", joined.generation));
            }
            (Some(UnknownMemberId | FencedInstanceId), _) => {
                client.member_id.clear();
                client.joined = None;
            }
            _ => client.joined = None,
        }
    }

    /// What holds at any time.
    fn check_group(&self) {
        let group = &self.bench.group;
        let members = group.roster.len();
        let empty = matches!(group.state(), State::Empty);
        assert_eq!(group.roster.leader().is_some(), members > 0);
        assert!(!empty || members == 0, "{:?} with {members} members", group.state());
        let waiting = self.clients.iter().any(|client| client.joining.is_some() || client.syncing.is_some());
        assert!(!waiting || group.next_deadline().is_some() || !self.bench.writes.is_empty(), "a wait without end");
        if group.state() == State::Stable {
            assert!(self.durable.contains(&group.generation()), "stable, but not durable");
        }
        let instances: Vec<_> = group.roster.iter().filter_map(|member| member.instance_id.as_ref()).collect();
        assert_eq!(instances.len(), instances.iter().collect::<BTreeSet<_>>().len(), "an instance twice");
    }
}

/// Any client does anything.
fn anything(walk: &mut Walk) {
    let at = walk.below(walk.clients.len() as u64) as usize;
    let offers: &[&str] = [&["range"][..], &["range", "sticky"], &["sticky", "range"]][walk.below(3) as usize];
    let (member_id, instance_id) = (walk.clients[at].member_id.clone(), walk.clients[at].instance_id.clone());
    let generation = walk.clients[at].joined.as_ref().map_or(-1, |joined| joined.generation);
    let now = walk.bench.now;
    match walk.below(32) {
        0..8 if walk.clients[at].joining.is_none() => walk.join(at, offers),
        8..16 if walk.clients[at].syncing.is_none() => walk.sync(at),
        16..19 => _ = walk.bench.group.heartbeat(&member_id, instance_id.as_deref(), generation, now),
        19 => _ = walk.bench.group.check_commit(&member_id, instance_id.as_deref(), generation, now),
        20 => _ = walk.bench.leave(&[(&member_id, instance_id.as_deref())]),
        21 => {
            // The process dies; its requests are answered to nobody.
            let client = &mut walk.clients[at];
            *client = Client { instance_id: client.instance_id.take(), ..Client::default() };
        }
        22..26 => walk.bench.pass(secs(walk.below(9))),
        26..30 => walk.written(Ok(())),
        30 => walk.written(Err(CoordinatorNotAvailable)),
        31 if walk.below(8) == 0 => walk.crash(),
        _ => {}
    }
}

#[test]
fn whatever_clients_do_generations_are_consistent_and_everybody_is_answered() {
    let mut answers = 0;
    let mut generations = 0;
    for seed in 0..400 {
        let mut walk = Walk::new(seed, 6);
        if seed % 4 == 3 {
            walk.bench.limits.max_members = 3;
        }
        for _ in 0..500 {
            anything(&mut walk);
            walk.collect();
            walk.check_group();
        }
        generations += walk.bench.group.generation();
        while !walk.bench.writes.is_empty() {
            walk.written(Ok(()));
        }
        walk.bench.pass(secs(4_000));
        walk.collect();
        let waits = walk.clients.iter().filter(|client| client.joining.is_some() || client.syncing.is_some());
        assert_eq!(waits.count(), 0, "seed {seed}");
        assert_eq!((walk.bench.group.state(), walk.bench.group.next_deadline()), (State::Empty, None), "seed {seed}");
        answers += walk.answers;
    }
    assert!(answers > 20_000 && generations > 4_000, "{answers} answers in {generations} generations");
}

/// What a consumer does all the time.
fn behave(walk: &mut Walk, at: usize) {
    let client = &walk.clients[at];
    if client.joining.is_some() || client.syncing.is_some() {
        return;
    }
    let Some(generation) = client.joined.as_ref().map(|joined| joined.generation) else {
        let offers: &[&str] = if walk.below(2) == 0 { &["range", "sticky"] } else { &["sticky", "range"] };
        return walk.join(at, offers);
    };
    let (member_id, instance_id) = (client.member_id.clone(), client.instance_id.clone());
    let now = walk.bench.now;
    match walk.bench.group.heartbeat(&member_id, instance_id.as_deref(), generation, now) {
        Ok(()) => walk.sync(at),
        Err(RebalanceInProgress | IllegalGeneration) => walk.clients[at].joined = None,
        Err(error) => panic!("a living member is told {error:?}"),
    }
}

#[test]
fn who_keeps_to_the_protocol_is_never_unknown() {
    for seed in 0..200 {
        let mut walk = Walk::new(seed, 7);
        let living = 4;
        for round in 0..150 {
            (0..living).for_each(|at| behave(&mut walk, at));
            // The others join, change their minds, and vanish.
            let at = living + walk.below(3) as usize;
            match walk.below(6) {
                0 | 1 if walk.clients[at].joining.is_none() => walk.join(at, &["sticky", "range"]),
                2 if walk.clients[at].syncing.is_none() => walk.sync(at),
                3 if !walk.clients[at].member_id.is_empty() => {
                    let (member_id, instance_id) =
                        (walk.clients[at].member_id.clone(), walk.clients[at].instance_id.clone());
                    walk.bench.leave(&[(&member_id, instance_id.as_deref())]);
                }
                4 => {
                    let client = &mut walk.clients[at];
                    *client = Client { instance_id: client.instance_id.take(), ..Client::default() };
                }
                _ => {}
            }
            if walk.below(3) > 0 {
                walk.written(if walk.below(10) == 0 { Err(CoordinatorNotAvailable) } else { Ok(()) });
            }
            walk.bench.pass(secs(walk.below(4)));
            for (at, error) in walk.collect() {
                let fair = matches!(
                    error,
                    MemberIdRequired | RebalanceInProgress | CoordinatorNotAvailable | IllegalGeneration
                );
                assert!(at >= living || fair, "seed {seed}, round {round}: client {at} is told {error:?}");
            }
            walk.check_group();
        }
        // Left alone, they come to rest.
        for _ in 0..60 {
            (0..living).for_each(|at| behave(&mut walk, at));
            while !walk.bench.writes.is_empty() {
                walk.written(Ok(()));
            }
            walk.bench.pass(secs(3));
            walk.collect();
        }
        assert_eq!((walk.bench.group.state(), walk.bench.group.roster.len()), (State::Stable, living), "seed {seed}");
    }
}
