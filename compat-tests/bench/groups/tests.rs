//! When groups count as stable.

use super::*;

fn member(group: &str, generation: i32, state: State, led: usize) -> Member {
    Member { generation, state, led: vec![String::new(); led], ..Member::new(group.to_owned()) }
}

#[test]
fn a_complete_generation_is_stable() {
    let (a, b) = (member("g", 3, State::Stable, 2), member("g", 3, State::Stable, 0));
    assert!(stable([&a, &b].into_iter()));
    // The coordinator told the leader of somebody else: another rebalance is due that nobody has heard of.
    assert!(!stable([&a].into_iter()));
    let other = member("h", 1, State::Stable, 1);
    assert!(stable([&a, &b, &other].into_iter()));
}

#[test]
fn members_of_different_generations_are_not() {
    let (a, b) = (member("g", 3, State::Stable, 2), member("g", 2, State::Stable, 0));
    assert!(!stable([&a, &b].into_iter()));
    let b = member("g", 3, State::Syncing, 0);
    assert!(!stable([&a, &b].into_iter()));
}
