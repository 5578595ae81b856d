//! The window of five, its edges, and a long random history against a model that forgets nothing.

use proptest::prelude::*;

use super::*;

fn batch(producer_id: i64, producer_epoch: i16, base_sequence: i32, count: i32) -> ProducerBatch {
    ProducerBatch { producer_id, producer_epoch, base_sequence, count }
}

/// Five batches of ten records each, at offsets 0, 10, ..
fn five() -> Producers {
    let mut producers = Producers::new(10);
    for n in 0..5 {
        let batch = batch(1, 0, n * 10, 10);
        assert_eq!(producers.check(&batch), Verdict::Append);
        producers.record(&batch, i64::from(n) * 10);
    }
    producers
}

#[test]
fn retries_of_the_last_five_get_their_first_offset() {
    let mut producers = five();
    for n in 0..5 {
        let verdict = producers.check(&batch(1, 0, n * 10, 10));
        assert_eq!(verdict, Verdict::Duplicate { base_offset: i64::from(n) * 10 });
    }
    producers.record(&batch(1, 0, 50, 10), 50);
    assert_eq!(producers.check(&batch(1, 0, 0, 10)), Verdict::OldDuplicate { before_offset: 10 });
    assert_eq!(producers.check(&batch(1, 0, 10, 10)), Verdict::Duplicate { base_offset: 10 });
}

#[test]
fn gaps_and_batches_cut_otherwise_are_out_of_order() {
    let producers = five();
    let refused = Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber);
    for (sequence, count) in [(51, 1), (60, 10), (45, 5), (40, 11), (0, 9), (5, 10), (i32::MAX, 1)] {
        let verdict = producers.check(&batch(1, 0, sequence, count));
        let expected = if sequence == i32::MAX { Verdict::OldDuplicate { before_offset: 0 } } else { refused };
        assert_eq!(verdict, expected, "{sequence} {count}");
    }
    assert_eq!(producers.check(&batch(1, 0, 50, 1)), Verdict::Append);
}

#[test]
fn epochs_only_rise_and_begin_at_zero() {
    let mut producers = five();
    assert_eq!(producers.check(&batch(1, 1, 50, 1)), Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber));
    assert_eq!(producers.check(&batch(1, 1, 0, 2)), Verdict::Append);
    producers.record(&batch(1, 1, 0, 2), 50);
    assert_eq!(producers.check(&batch(1, 0, 50, 1)), Verdict::Refuse(ResponseError::InvalidProducerEpoch));
    assert_eq!(producers.check(&batch(1, 1, 0, 2)), Verdict::Duplicate { base_offset: 50 });
    assert_eq!(producers.check(&batch(1, 1, 2, 1)), Verdict::Append);
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    // One that was idle for long must not get OUT_OF_ORDER (rp#22670).
    assert_eq!(five().check(&batch(2, 7, 123, 1)), Verdict::Append);
}

#[test]
fn sequences_wrap_to_zero() {
    let mut producers = Producers::new(10);
    producers.record(&batch(1, 0, i32::MAX - 1, 2), 0);
    assert_eq!(producers.check(&batch(1, 0, 0, 1)), Verdict::Append);
    producers.record(&batch(1, 0, 0, 1), 2);
    assert_eq!(producers.check(&batch(1, 0, i32::MAX - 1, 2)), Verdict::Duplicate { base_offset: 0 });
    assert_eq!(advanced(i32::MAX, 1), 0);
    assert_eq!(advanced(i32::MAX - 2, 5), 2);
    // A batch can lie across the wrap itself.
    let mut across = Producers::new(10);
    across.record(&batch(1, 0, i32::MAX, 3), 0);
    assert_eq!(across.check(&batch(1, 0, 2, 1)), Verdict::Append);
}

#[test]
fn the_longest_unused_producer_is_forgotten_first() {
    let mut producers = Producers::new(2);
    producers.record(&batch(1, 0, 0, 1), 0);
    producers.record(&batch(2, 0, 0, 1), 1);
    producers.record(&batch(1, 0, 1, 1), 2);
    producers.record(&batch(3, 0, 0, 1), 3);
    assert_eq!(producers.by_id.len(), 2);
    assert_eq!(producers.check(&batch(1, 0, 1, 1)), Verdict::Duplicate { base_offset: 2 });
    assert_eq!(producers.check(&batch(2, 0, 0, 1)), Verdict::Append, "forgotten");
}

/// A batch's unwrapped sequence, its count, its offset.
type ModelBatch = (u64, i32, i64);

/// Remembers everything, with sequences that never wrap.
#[derive(Default)]
struct Model {
    /// Epoch and batches, by producer id.
    producers: BTreeMap<i64, (i16, Vec<ModelBatch>)>,
}

const CIRCLE: u64 = 1 << 31;

impl Model {
    fn check(&self, batch: &ProducerBatch) -> Verdict {
        let Some((epoch, batches)) = self.producers.get(&batch.producer_id) else { return Verdict::Append };
        if batch.producer_epoch != *epoch {
            return match (batch.producer_epoch < *epoch, batch.base_sequence) {
                (true, _) => Verdict::Refuse(ResponseError::InvalidProducerEpoch),
                (false, 0) => Verdict::Append,
                (false, _) => Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        let window = &batches[batches.len().saturating_sub(5)..];
        let sequence = batch.base_sequence as u64;
        for (unwrapped, count, offset) in window {
            if unwrapped % CIRCLE == sequence && *count == batch.count {
                return Verdict::Duplicate { base_offset: *offset };
            }
        }
        let (last, count, _) = window[window.len() - 1];
        if (last + count as u64) % CIRCLE == sequence {
            return Verdict::Append;
        }
        let (oldest, _, offset) = window[0];
        let below = (oldest + CIRCLE - sequence) % CIRCLE;
        if below < CIRCLE / 2 - 1 && below >= batch.count as u64 {
            return Verdict::OldDuplicate { before_offset: offset };
        }
        Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber)
    }

    fn record(&mut self, batch: &ProducerBatch, offset: i64) {
        let (epoch, batches) = self.producers.entry(batch.producer_id).or_default();
        if *epoch != batch.producer_epoch {
            *epoch = batch.producer_epoch;
            batches.clear();
        }
        let unwrapped = match batches.last() {
            Some((last, count, _)) => last + *count as u64,
            // Room below, for what may come before.
            None => CIRCLE * 4 + batch.base_sequence as u64,
        };
        batches.push((unwrapped, batch.count, offset));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_is_judged_as_by_a_model_that_forgets_nothing(
        steps in proptest::collection::vec((0_i64..3, 0_u8..8, 0_usize..8, 1_i32..5, any::<bool>()), 1..120),
    ) {
        let mut producers = Producers::new(100);
        let mut model = Model::default();
        let mut sent: BTreeMap<i64, Vec<ProducerBatch>> = BTreeMap::new();
        let mut offset = 0;
        for (id, kind, back, count, high) in steps {
            let history = sent.entry(id).or_default();
            let start = if high { i32::MAX - 6 } else { 0 };
            let next = history.last().map_or(batch(id, 0, start, count), |last| {
                batch(id, last.producer_epoch, advanced(last.base_sequence, last.count), count)
            });
            let tried = match (kind, history.len().checked_sub(back + 1)) {
                (0..=3, _) | (_, None) => next,
                (4 | 5, Some(place)) => history[place],
                (6, _) if back < 2 => batch(id, next.producer_epoch + 1, if high { 1 } else { 0 }, count),
                (6, _) => batch(id, next.producer_epoch - 1, 0, count),
                _ => batch(id, next.producer_epoch, advanced(next.base_sequence, back as i32 + 1), count),
            };
            if tried.producer_epoch < 0 {
                continue;
            }
            let verdict = producers.check(&tried);
            prop_assert_eq!(verdict, model.check(&tried), "{:?}", tried);
            if verdict == Verdict::Append {
                producers.record(&tried, offset);
                model.record(&tried, offset);
                history.push(tried);
                offset += i64::from(count);
            }
        }
    }
}
