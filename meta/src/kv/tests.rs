//! The state machine against the obvious model.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// The obvious model: key to value, creation, change and lease.
type Model = BTreeMap<String, (Bytes, u64, u64, Option<LeaseId>)>;

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a/1", "a/2", "a/10", "b", "b/1", "c"]).prop_map(str::to_owned)
}

fn op() -> impl Strategy<Value = Op> {
    let lease = prop::option::weighted(0.3, (1..3u64).prop_map(LeaseId));
    prop_oneof![
        3 => (key(), prop::collection::vec(0..3u8, 0..3), lease)
            .prop_map(|(key, value, lease)| Op::Put { key, value: value.into(), lease }),
        1 => key().prop_map(|key| Op::Delete { key }),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![
        (key(), 0..8u64).prop_map(|(key, revision)| Compare::ModRevision { key, revision }),
        (key(), prop::collection::vec(0..3u8, 0..3))
            .prop_map(|(key, value)| Compare::Value { key, value: value.into() }),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    (prop::collection::vec(compare(), 0..2), prop::collection::vec(op(), 0..4))
        .prop_map(|(compares, ops)| Txn { compares, ops })
}

fn model_holds(model: &Model, compare: &Compare) -> bool {
    match compare {
        Compare::ModRevision { key, revision: 0 } => !model.contains_key(key),
        Compare::ModRevision { key, revision } => model.get(key).is_some_and(|entry| entry.2 == *revision),
        Compare::Value { key, value } => model.get(key).is_some_and(|entry| entry.0 == *value),
    }
}

fn model_apply(model: &mut Model, revision: &mut u64, ops: &[Op]) {
    let before = model.clone();
    for op in ops {
        match op {
            Op::Put { key, value, lease } => {
                let created = before.get(key).map_or(*revision + 1, |entry| entry.1);
                model.insert(key.clone(), (value.clone(), created, *revision + 1, *lease));
            }
            Op::Delete { key } => drop(model.remove(key)),
        }
    }
    let put = ops.iter().any(|op| matches!(op, Op::Put { .. }));
    *revision += u64::from(put || before.len() != model.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model(txns in prop::collection::vec(txn(), 0..40)) {
        let (mut kv, mut model, mut revision) = (Kv::default(), Model::new(), 0);
        // What a watcher of everything would know.
        let mut watched: BTreeMap<String, KeyValue> = BTreeMap::new();
        for txn in txns {
            if validate(&txn).is_err() {
                continue;
            }
            let holds = txn.compares.iter().all(|compare| model_holds(&model, compare));
            prop_assert_eq!(kv.holds(&txn.compares), holds);
            if holds {
                let before = kv.revision();
                model_apply(&mut model, &mut revision, &txn.ops);
                let batch = kv.apply(&txn.ops);
                prop_assert_eq!(batch.revision, revision);
                prop_assert_eq!(batch.events.is_empty(), before == revision);
                for event in batch.events {
                    match event {
                        Event::Put(entry) => drop(watched.insert(entry.key.clone(), entry)),
                        Event::Delete { key, .. } => drop(watched.remove(&key)),
                    }
                }
            }
            prop_assert_eq!(kv.revision(), revision);
            let expected: Vec<KeyValue> = model.iter().map(|(key, (value, created, changed, lease))| KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: *created,
                mod_revision: *changed,
                lease: *lease,
            }).collect();
            prop_assert_eq!(&kv.list("").entries, &expected);
            prop_assert!(watched.values().eq(expected.iter()));
            let under_a: Vec<_> = expected.iter().filter(|entry| entry.key.starts_with("a/")).cloned().collect();
            prop_assert_eq!(kv.list("a/").entries, under_a);
            for lease in [LeaseId(1), LeaseId(2)] {
                let keys: Vec<_> = expected.iter().filter(|e| e.lease == Some(lease)).map(|e| e.key.clone()).collect();
                prop_assert_eq!(kv.leased(lease), keys);
            }
            prop_assert_eq!(&Kv::restore(kv.revision(), kv.entries().cloned()), &kv);
        }
    }
}

#[test]
fn a_key_may_occur_once() {
    assert!(validate(&Txn::new().put("a", "1").delete("a")).is_err());
    assert!(validate(&Txn::new().put("", "1")).is_err());
    assert!(validate(&Txn::new().if_absent("a").if_value("a", "").put("a", "1").delete("b")).is_ok());
}
