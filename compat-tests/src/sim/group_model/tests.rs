//! The model of groups finds what it is there to find: each rule is broken once, and must be told.

use super::*;
use crate::checker::partition;

struct Bench {
    trace: Arc<Trace>,
    model: GroupModel,
}

fn bench() -> Bench {
    let trace = Arc::new(Trace::new(false));
    Bench { model: GroupModel::new(Arc::clone(&trace)), trace }
}

impl Bench {
    fn commit(&self, offset: i64, generation: i32, epoch: i32) -> CommitId {
        self.model.committing("g", &partition("t", 0), offset, generation, epoch)
    }

    fn acked(&self, offset: i64, generation: i32, epoch: i32) -> CommitId {
        let id = self.commit(offset, generation, epoch);
        self.model.committed(id);
        id
    }

    /// The violation that follows if a broker of this epoch shows this.
    fn shows(&self, offset: i64, metadata: &str, epoch: i32) -> String {
        let before = self.trace.violations().len();
        let shown = Shown { partition: partition("t", 0), offset, metadata: metadata.to_owned() };
        self.model.shown("g", &shown, epoch, self.model.now());
        self.trace.violations().get(before).cloned().unwrap_or_default()
    }

    fn shows_commit(&self, id: CommitId, epoch: i32) -> String {
        let offset = self.model.state.lock().commits[id].offset;
        self.shows(offset, &id.to_string(), epoch)
    }

    fn assigned(&self, holder: &str, generation: i32, partitions: &[i32]) {
        let partitions = partitions.iter().map(|index| partition("t", *index)).collect();
        self.model.assigned(&Assignment { group: "g", holder, generation, epoch: 1, partitions: &partitions });
    }
}

#[tokio::test]
async fn an_acknowledged_commit_is_shown_until_a_later_one() {
    let bench = bench();
    assert_eq!(bench.shows(-1, "", 1), "");
    let first = bench.acked(5, 1, 1);
    assert_eq!(bench.shows_commit(first, 1), "");
    assert!(bench.shows(-1, "", 1).contains("nothing is committed, but 5 was"));
    let second = bench.acked(7, 1, 1);
    assert_eq!(bench.shows_commit(second, 1), "");
    assert!(bench.shows_commit(first, 1).contains("commit 1 of 7 was acknowledged after that"));
    assert!(bench.shows_commit(first, 2).contains("commit 1 of 7 was acknowledged after that"));
}

#[tokio::test]
async fn what_nobody_sent_or_what_was_refused_is_not_shown() {
    let bench = bench();
    assert!(bench.shows(3, "0", 1).contains("nobody committed that"));
    let refused = bench.commit(3, 1, 1);
    bench.model.commit_refused(refused);
    assert!(bench.shows_commit(refused, 1).contains("was refused"));
    assert!(bench.shows(4, "0", 1).contains("another one"));
    let later = bench.commit(9, 1, 2);
    assert!(bench.shows_commit(later, 1).contains("was sent to epoch 2"));
}

#[tokio::test]
async fn a_commit_without_an_answer_may_count_unless_it_must_be_older() {
    let bench = bench();
    let lost = bench.commit(3, 1, 1);
    let same_generation = bench.acked(5, 1, 1);
    assert_eq!(bench.shows_commit(lost, 1), "", "it may have been taken after the other one");
    assert_eq!(bench.shows_commit(same_generation, 1), "");
    bench.acked(6, 2, 1);
    assert!(bench.shows_commit(lost, 1).contains("was acknowledged after that"), "of an older generation");
    let lost = bench.commit(7, 2, 1);
    assert_eq!(bench.shows_commit(lost, 1), "");
    bench.acked(8, 2, 2);
    assert_eq!(bench.shows_commit(lost, 1), "", "a broker that was overtaken does not know its successor's commits");
    assert!(bench.shows_commit(lost, 2).contains("was acknowledged after that"), "sent to an older broker");
}

#[tokio::test]
async fn final_offsets_stay() {
    let bench = bench();
    let shown = |metadata: &str| Shown { partition: partition("t", 0), offset: 1, metadata: metadata.to_owned() };
    bench.model.shown_finally("g", &shown("4"));
    bench.model.shown_finally("g", &shown("4"));
    assert_eq!(bench.trace.violations(), Vec::<String>::new());
    bench.model.shown_finally("g", &shown("3"));
    assert!(bench.trace.violations()[0].starts_with("commit-durable"));
}

#[tokio::test]
async fn a_partition_has_one_owner_in_a_generation() {
    let bench = bench();
    bench.assigned("a", 1, &[0, 1]);
    bench.assigned("b", 1, &[2]);
    bench.assigned("a", 1, &[0, 1]);
    bench.assigned("b", 2, &[0, 1, 2]);
    assert_eq!(bench.trace.violations(), Vec::<String>::new());
    bench.assigned("c", 2, &[1]);
    assert!(bench.trace.violations()[0].starts_with("one-owner"), "{:?}", bench.trace.violations());
    bench.assigned("a", 1, &[0]);
    assert_eq!(bench.trace.violations().len(), 2, "a member's own assignment changed");
}

#[tokio::test]
async fn generations_do_not_fall() {
    let bench = bench();
    let before = bench.model.now();
    bench.assigned("a", 3, &[0]);
    bench.model.joined("g", 3, 1, bench.model.now());
    bench.model.joined("g", 2, 1, before);
    bench.model.joined("g", 2, 0, bench.model.now());
    assert_eq!(bench.trace.violations(), Vec::<String>::new());
    bench.model.joined("g", 2, 1, bench.model.now());
    assert!(bench.trace.violations()[0].starts_with("generation-monotonic"));
}

#[tokio::test]
async fn a_group_is_settled_when_everybody_knows_the_same_generation() {
    let bench = bench();
    let all = [partition("t", 0), partition("t", 1)];
    let one = |index: usize| BTreeSet::from([all[index].clone()]);
    let settled = || bench.model.is_settled("g", &all);
    assert!(!settled());
    bench.model.holds("g", 0, 4, &one(0));
    bench.model.proved("g", 0);
    assert!(!settled(), "not all partitions");
    bench.model.holds("g", 1, 5, &one(1));
    bench.model.proved("g", 1);
    assert!(!settled(), "two generations");
    bench.model.holds("g", 0, 5, &one(0));
    bench.model.holds_nothing("g", 2);
    assert!(!settled(), "one has not got through");
    bench.model.holds("g", 2, 5, &BTreeSet::new());
    assert!(settled());
}
