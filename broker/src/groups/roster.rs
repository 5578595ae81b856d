//! The members of a group.
//!
//! Invariants: there is a leader exactly if there are members, and it is one of them; a `group.instance.id` belongs to
//! one member; the tally counts the members that offer a protocol. Whoever waits for an answer gets one before its
//! member goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::messages::{DescribedMember, Join, Joined, JoinedMember, Protocol, Synced};
use super::records::MemberMetadata;

#[derive(Debug)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    /// In order of preference, no name twice.
    protocols: Vec<Protocol>,
    /// In the current generation.
    pub assignment: Bytes,
    /// It has not been in a generation yet.
    pub is_new: bool,
    /// It has not asked for its assignment in this generation.
    pub must_sync: bool,
    session_end: Instant,
    joining: Option<oneshot::Sender<Joined>>,
    syncing: Option<oneshot::Sender<Synced>>,
}

/// Small, and kept for long: a slice would keep the whole frame that it came in.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn unique(protocols: &[Protocol]) -> Vec<Protocol> {
    let mut seen = BTreeSet::new();
    let first = protocols.iter().filter(|protocol| seen.insert(protocol.name.as_str()));
    first.map(|protocol| Protocol { name: protocol.name.clone(), metadata: copied(&protocol.metadata) }).collect()
}

impl Member {
    pub fn new(id: String, join: &Join, session_end: Instant) -> Self {
        Self {
            id,
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: unique(&join.protocols),
            assignment: Bytes::new(),
            is_new: true,
            must_sync: false,
            session_end,
            joining: None,
            syncing: None,
        }
    }

    /// As its group's record describes it. Only what it said for the chosen protocol is known.
    pub fn restore(record: MemberMetadata, protocol: &str, now: Instant) -> Self {
        let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let session_timeout = millis(record.session_timeout_ms);
        Self {
            id: record.member_id,
            instance_id: record.instance_id,
            client_id: record.client_id,
            client_host: record.client_host,
            session_timeout,
            rebalance_timeout: millis(record.rebalance_timeout_ms),
            protocols: vec![Protocol { name: protocol.to_owned(), metadata: copied(&record.subscription) }],
            assignment: copied(&record.assignment),
            is_new: false,
            must_sync: false,
            session_end: now + session_timeout,
            joining: None,
            syncing: None,
        }
    }

    pub fn record(&self, protocol: &str, assignment: Bytes) -> MemberMetadata {
        let millis = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        MemberMetadata {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: millis(self.rebalance_timeout),
            session_timeout_ms: millis(self.session_timeout),
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    /// What it says to the leader in this protocol; nothing if it does not offer it.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|own| own.name == protocol).map(|own| own.metadata.clone()).unwrap_or_default()
    }

    /// Does it offer exactly this, in this order?
    pub fn offers(&self, protocols: &[Protocol]) -> bool {
        self.protocols == protocols
    }

    pub fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// It was heard of.
    pub fn renew(&mut self, now: Instant) {
        self.session_end = now + self.session_timeout;
    }

    /// When its session ends. Members that wait for an answer cannot send heartbeats, and need not; but new ones do not
    /// wait for ever, as nobody knows whether they are still there.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits).then_some(self.session_end)
    }

    pub fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// A second request of the same member takes the place of the first, which is told to come again.
    pub fn wait_for_join(&mut self, answer: oneshot::Sender<Joined>) {
        self.refuse_join(ResponseError::RebalanceInProgress);
        self.joining = Some(answer);
    }

    pub fn wait_for_sync(&mut self, answer: oneshot::Sender<Synced>) {
        self.refuse_sync(ResponseError::RebalanceInProgress);
        self.syncing = Some(answer);
    }

    /// Nothing if it does not wait. Who waited could not send heartbeats: its session begins anew.
    pub fn answer_join(&mut self, joined: Joined, now: Instant) {
        if let Some(answer) = self.joining.take() {
            // If nobody listens any more, its session tells.
            _ = answer.send(joined);
            self.renew(now);
        }
    }

    /// Nothing if it does not wait, like `answer_join`.
    pub fn answer_sync(&mut self, synced: Synced, now: Instant) {
        if let Some(answer) = self.syncing.take() {
            _ = answer.send(synced);
            self.renew(now);
        }
    }

    /// Whatever it waits for; it is no member any more.
    pub fn refuse(&mut self, error: ResponseError) {
        self.refuse_join(error);
        self.refuse_sync(error);
    }

    fn refuse_join(&mut self, error: ResponseError) {
        if let Some(answer) = self.joining.take() {
            _ = answer.send(Joined::refused(error, self.id.clone()));
        }
    }

    fn refuse_sync(&mut self, error: ResponseError) {
        if let Some(answer) = self.syncing.take() {
            _ = answer.send(Synced::refused(error));
        }
    }

    pub fn joined(&self, protocol: &str) -> JoinedMember {
        JoinedMember {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            metadata: self.metadata(protocol),
        }
    }

    /// `protocol` is that of a stable group.
    pub fn described(&self, protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol.map(|protocol| self.metadata(protocol)).unwrap_or_default(),
            assignment: protocol.map(|_| self.assignment.clone()).unwrap_or_default(),
        }
    }
}

#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<String, Member>,
    /// Member ids by instance id.
    statics: BTreeMap<String, String>,
    /// How many members offer a protocol.
    tally: BTreeMap<String, usize>,
    leader: Option<String>,
}

impl Roster {
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn contains(&self, member_id: &str) -> bool {
        self.members.contains_key(member_id)
    }

    pub fn get(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    pub fn get_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    pub fn ids(&self, of: impl Fn(&Member) -> bool) -> Vec<String> {
        self.members.values().filter(|member| of(member)).map(|member| member.id.clone()).collect()
    }

    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader() == Some(member_id)
    }

    /// Nothing if there is no such member.
    pub fn lead(&mut self, member_id: &str) {
        if self.contains(member_id) {
            self.leader = Some(member_id.to_owned());
        }
    }

    pub fn static_id(&self, instance_id: &str) -> Option<&str> {
        self.statics.get(instance_id).map(String::as_str)
    }

    /// The first member leads. One with the same id or the same instance id is gone, told that it is fenced.
    pub fn insert(&mut self, member: Member) {
        let former = member.instance_id.as_ref().and_then(|instance_id| self.statics.get(instance_id)).cloned();
        for id in former.into_iter().chain([member.id.clone()]) {
            if let Some(mut former) = self.remove(&id) {
                former.refuse(ResponseError::FencedInstanceId);
            }
        }
        for protocol in &member.protocols {
            *self.tally.entry(protocol.name.clone()).or_default() += 1;
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.members.insert(member.id.clone(), member);
    }

    /// Another member leads if this one did. The caller answers what the member waits for.
    #[must_use]
    pub fn remove(&mut self, member_id: &str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.discount(&member.protocols);
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    fn discount(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.tally.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.tally.remove(&protocol.name);
                }
            }
        }
    }

    /// Takes over everything that a member says when it joins again. It waits.
    pub fn update(&mut self, join: &Join, answer: oneshot::Sender<Joined>) {
        let Some(member) = self.members.get_mut(&join.member_id) else { return };
        member.wait_for_join(answer);
        let former = std::mem::replace(&mut member.protocols, unique(&join.protocols));
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id.clone();
        member.client_host = join.client_host.clone();
        for protocol in &member.protocols {
            *self.tally.entry(protocol.name.clone()).or_default() += 1;
        }
        self.discount(&former);
    }

    /// Is this a member, and if it says that it is a static one, the current holder of that name (KIP-345)?
    pub fn check(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ResponseError> {
        match instance_id.map(|instance_id| self.static_id(instance_id)) {
            Some(None) => Err(ResponseError::UnknownMemberId),
            Some(Some(holder)) if holder != member_id => Err(ResponseError::FencedInstanceId),
            _ if !self.contains(member_id) => Err(ResponseError::UnknownMemberId),
            _ => Ok(()),
        }
    }

    /// Is there one among these that every member offers?
    pub fn supports_any(&self, protocols: &[Protocol]) -> bool {
        protocols.iter().any(|protocol| self.tally.get(&protocol.name).copied().unwrap_or(0) == self.len())
    }

    /// Each member votes for the one it likes best among those that all offer; of equals the first by name wins.
    pub fn elect_protocol(&self) -> Option<String> {
        let all = self.len();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let known_to_all = |protocol: &&Protocol| self.tally.get(&protocol.name) == Some(&all);
            if let Some(best) = member.protocols.iter().find(known_to_all) {
                *votes.entry(&best.name).or_default() += 1;
            }
        }
        // The last of equal maxima is returned: backwards by name, that is the first.
        votes.iter().rev().max_by_key(|(_, votes)| **votes).map(|(name, _)| (*name).to_owned())
    }

    /// The longest of all members; zero without any.
    pub fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    pub fn all_joining(&self) -> bool {
        self.members.values().all(Member::is_joining)
    }

    pub fn joining_count(&self) -> usize {
        self.members.values().filter(|member| member.is_joining()).count()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.members.values().filter_map(Member::deadline).min()
    }
}
