//! Tests of reading indexes, runs and bytes, and of what damage comes to.

use object_store::PutMode;

use super::*;

/// A sealed log of one segment with so many fragments, of two partitions.
async fn written(world: &World, fragments: i64, body_bytes: usize) -> u64 {
    let writer = world.writer().await;
    for offset in 0..fragments {
        for topic in [1, 2] {
            for n in 0..3 {
                writer.log.enqueue(entry(partition(topic, 0), 3 * offset + n, 1, body_bytes));
            }
        }
        sleep(Duration::from_millis(60)).await;
    }
    writer.log.close().await.unwrap();
    assert_eq!(writer.log.durable_end().fragment, fragments as u64);
    writer.number()
}

async fn indexes(world: &World, number: u64, end: u64) -> Result<Vec<FragmentIndex>> {
    let mut indexes = Vec::new();
    let mut keep = |index| {
        indexes.push(index);
        Ok(())
    };
    world.logs(&world.store).read_indexes(number, 0, 0, end, &mut keep).await?;
    Ok(indexes)
}

async fn replace(world: &World, number: u64, fragment: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let path = object::fragment(number, 0, fragment);
    let mut bytes = world.store.inner().get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    change(&mut bytes);
    let options = PutMode::Overwrite.into();
    world.store.inner().put_opts(&path, bytes.into(), options).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn indexes_arrive_in_order_and_runs_and_entries_can_be_read() {
    let world = World::new();
    let number = written(&world, 100, 500).await;
    world.store.set_plan(FaultPlan::slow(Duration::from_millis(1)..=Duration::from_millis(90)));
    let logs = world.logs(&world.store);
    let indexes = indexes(&world, number, 100).await.unwrap();
    assert_eq!(indexes.iter().map(|index| index.fragment.fragment).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    let indexed = &indexes[42].runs[1];
    assert_eq!((indexed.run.base_offset, indexed.run.next_offset), (126, 129));
    assert_eq!(logs.read_run_index(&indexed.run).await.unwrap(), indexed.entries);
    let second = &indexed.entries[1];
    let bytes = logs.read(&indexed.run, second.position, second.length).await.unwrap();
    assert_eq!(entry_checksum(&bytes), Some(second.checksum));
    assert_eq!(bytes.len(), 521);
    assert!(logs.read(&indexed.run, second.position, 0).await.unwrap().is_empty());
    let beyond = logs.read(&indexed.run, second.position, indexed.run.length).await;
    assert_eq!(beyond.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_footer_longer_than_the_guess_is_read_again() {
    let world = World::new();
    let writer = world.writer().await;
    all(&writer.append([0])).await;
    let pending: Vec<_> = (1..3_001).map(|n| writer.log.enqueue(entry(partition(1, 0), n, 1, 1))).collect();
    all(&pending).await;
    writer.log.close().await.unwrap();
    let before = world.store.counts().gets;
    let indexes = indexes(&world, 1, 2).await.unwrap();
    assert_eq!(world.store.counts().gets - before, 3);
    assert_eq!(indexes[1].runs[0].entries.len(), 3_000);
    assert_eq!(world.content(1).await, offsets(0..3_001));
}

/// As on Azure: one GET for a small fragment all the same, two for one that is longer than the guess.
#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_asked_for_an_objects_end_is_read_from_its_beginning() {
    let world = World::new();
    let logs = [(written(&world, 5, 10).await, 5, 1), (written(&world, 3, 100_000).await, 3, 2)];
    let mut expected = Vec::new();
    for (number, fragments, _) in logs {
        expected.push(indexes(&world, number, fragments).await.unwrap());
    }
    world.store.refuse_suffixes();
    for ((number, fragments, gets_each), expected) in logs.into_iter().zip(expected) {
        let before = world.store.counts().gets;
        assert_eq!(indexes(&world, number, fragments).await.unwrap(), expected);
        assert_eq!(world.store.counts().gets - before, gets_each * fragments);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hole_below_the_end_is_corruption_by_name() {
    let world = World::new();
    let number = written(&world, 5, 10).await;
    world.store.inner().delete(&object::fragment(number, 0, 3)).await.unwrap();
    let error = indexes(&world, number, 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&key(number, 0, 3)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fence_or_anything_strange_below_the_end_is_corruption() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 5] = [
        ("a fence", |bytes| {
            let id = FragmentId { log: 1, segment: 0, fragment: 2 };
            *bytes = crate::fragment::FragmentHeader::fence(id, SEALER, None).encode().to_vec();
        }),
        ("cut off", |bytes| bytes.truncate(bytes.len() - 1)),
        ("cut off in front", |bytes| drop(bytes.drain(..200))),
        ("a flipped bit in the index", |bytes| {
            let at = bytes.len() - 200;
            bytes[at] ^= 4;
        }),
        ("a flipped bit in the header", |bytes| bytes[30] ^= 4),
    ];
    for (what, change) in changes {
        let world = World::new();
        let number = written(&world, 4, 10).await;
        replace(&world, number, 2, change).await;
        let error = indexes(&world, number, 4).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.to_string().contains(&key(number, 0, 2)), "{what}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_answers_are_asked_for_again_and_never_served() {
    let world = World::new();
    let number = written(&world, 30, 300).await;
    let expected = indexes(&world, number, 30).await.unwrap();
    for fault in [Fault::TruncatedGet, Fault::BitFlip, Fault::FailBefore, Fault::Hang] {
        world.store.set_plan(FaultPlan { get: vec![(0.1, fault)], ..FaultPlan::default() });
        assert_eq!(indexes(&world, number, 30).await.unwrap(), expected, "{fault:?}");
        let logs = world.logs(&world.store);
        for indexed in expected.iter().flat_map(|index| &index.runs) {
            assert_eq!(logs.read_run_index(&indexed.run).await.unwrap(), indexed.entries, "{fault:?}");
            let bytes = logs.read(&indexed.run, indexed.run.position, indexed.run.length).await.unwrap();
            assert_eq!(bytes.len(), indexed.run.length as usize, "{fault:?}");
        }
    }
    world.store.set_plan(FaultPlan { get: vec![(1.0, Fault::TruncatedGet)], ..FaultPlan::default() });
    let run = &expected[0].runs[0].run;
    let error = world.logs(&world.store).read(run, run.position, run.length).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retriable, "a truncated answer is an error: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_learns_that_an_object_is_gone() {
    let world = World::new();
    let number = written(&world, 2, 10).await;
    let run = indexes(&world, number, 2).await.unwrap()[1].runs[0].run;
    world.store.inner().delete(&object::fragment(number, 0, 1)).await.unwrap();
    let logs = world.logs(&world.store);
    assert!(matches!(logs.read(&run, run.position, 5).await, Err(Error::Missing { .. })));
    assert!(matches!(logs.read_run_index(&run).await, Err(Error::Missing { .. })));
}
