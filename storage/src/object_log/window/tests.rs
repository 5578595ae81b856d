//! Tests of the order in which fragments leave.

use proptest::prelude::*;

use super::*;

fn foreign(text: &'static str) -> Settled {
    Settled::Theirs { found: Bytes::from_static(text.as_bytes()) }
}

fn unknown() -> Settled {
    Settled::Unknown { why: "silence".to_owned() }
}

#[test]
fn fragments_leave_in_order_however_they_settle() {
    let mut window = Window::new();
    assert_eq!(window.head(), Head::Empty);
    for (number, item) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(window.launch(item), number as u64);
    }
    window.settle(2, Settled::Ours);
    window.settle(1, Settled::Ours);
    assert_eq!(window.head(), Head::Flying);
    assert_eq!(window.durable_end(), 0);
    window.settle(0, Settled::Ours);
    assert_eq!(window.head(), Head::Durable { fragment: 0, item: "a" });
    assert_eq!(window.durable_end(), 1);
    assert_eq!(window.head(), Head::Durable { fragment: 1, item: "b" });
    assert_eq!(window.head(), Head::Durable { fragment: 2, item: "c" });
    assert_eq!((window.head(), window.durable_end(), window.next()), (Head::Empty, 3, 3));
}

#[test]
fn a_foreign_head_blocks_what_is_above_it() {
    let mut window = Window::new();
    window.launch("a");
    window.launch("b");
    window.settle(1, Settled::Ours);
    window.settle(0, foreign("fence"));
    for _ in 0..2 {
        assert_eq!(window.head(), Head::Foreign { fragment: 0, found: Bytes::from_static(b"fence") });
    }
    assert_eq!(window.restart(), ["a", "b"]);
}

#[test]
fn an_unknown_head_may_still_turn_out_to_be_durable() {
    let mut window = Window::new();
    window.launch("a");
    window.settle(0, unknown());
    assert_eq!(window.head(), Head::Unsettled { fragment: 0, why: "silence".to_owned() });
    window.settle(0, Settled::Ours);
    assert_eq!(window.head(), Head::Durable { fragment: 0, item: "a" });
}

#[test]
#[should_panic(expected = "settled twice")]
fn what_is_known_never_changes() {
    let mut window = Window::new();
    window.launch("a");
    window.settle(0, Settled::Ours);
    window.settle(0, foreign("fence"));
}

#[test]
fn a_new_segment_starts_at_nothing() {
    let mut window = Window::new();
    window.launch("a");
    window.settle(0, Settled::Ours);
    window.head();
    window.launch("b");
    assert_eq!(window.restart(), ["b"]);
    assert_eq!((window.next(), window.durable_end(), window.len()), (0, 0, 0));
}

proptest! {
    // Fails when a bug is planted: that is no regression to keep.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order of launches and answers: what leaves is a prefix, in order, of fragments that are ours.
    #[test]
    fn only_a_prefix_of_our_own_ever_leaves(steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..80)) {
        let mut window = Window::new();
        let mut answers: Vec<Option<bool>> = Vec::new();
        let mut left = Vec::new();
        for (kind, at) in steps {
            let open: Vec<usize> = (0..answers.len()).filter(|n| answers[*n].is_none()).collect();
            match kind {
                0 => {
                    let number = window.launch(answers.len());
                    prop_assert_eq!(number as usize, answers.len());
                    answers.push(None);
                }
                1 | 2 if !open.is_empty() => {
                    let fragment = open[at.index(open.len())];
                    answers[fragment] = Some(kind == 1);
                    window.settle(fragment as u64, if kind == 1 { Settled::Ours } else { foreign("x") });
                }
                _ => while let Head::Durable { fragment, item } = window.head() {
                    prop_assert_eq!(fragment as usize, item);
                    left.push(item);
                },
            }
            prop_assert!(left.iter().copied().eq(0..left.len()));
            prop_assert!(left.iter().all(|n| answers[*n] == Some(true)));
        }
    }
}
