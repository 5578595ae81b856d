//! A scrub finds a change of any single byte, whatever the byte is for, and every reference that does not fit.

use super::*;
use crate::entry::FragmentId;
use crate::view::testing::{WRITER, World, folder, id};

/// Has no objections.
struct Anything;

impl EntryCheck for Anything {
    fn check(&self, _entry: &IndexedEntry, _prefix: &[u8], _body_crc: u32) -> Result<(), String> {
        Ok(())
    }
}

async fn scrubbed(world: &World, unit: FragmentId, needed: &Needed) -> Result<Scrubbed> {
    scrub(&world.source, unit, needed, Some(WRITER), &Anything).await
}

#[tokio::test(start_paused = true)]
async fn a_change_of_any_byte_of_an_object_is_found() {
    let world = World::new().await;
    let log = world.log().await;
    world.append(&*log, 0..1).await;
    world.tiered(1, 0, 0..2).await;
    for unit in [id(1, 0), FragmentId::tiered(1, 0)] {
        let needed = world.view().await.needed(&world.source).remove(&unit).unwrap_or_default();
        let original = world.bytes(&unit.key()).await;
        let intact = scrubbed(&world, unit, &needed).await.unwrap();
        assert_eq!((intact.faults, intact.bytes), (vec![], original.len() as u64));
        for at in 0..original.len() {
            let mut flipped = original.clone();
            flipped[at] ^= 1 << (at % 8);
            world.put(&unit.key(), flipped).await;
            let faults = scrubbed(&world, unit, &needed).await.unwrap().faults;
            assert!(!faults.is_empty(), "byte {at} of {} in {unit}", original.len());
        }
        for length in 0..original.len() {
            world.put(&unit.key(), original[..length].to_vec()).await;
            let found = scrubbed(&world, unit, &needed).await;
            assert!(found.as_ref().map_or(true, |found| !found.faults.is_empty()), "{length} bytes: {found:?}");
        }
        world.put(&unit.key(), original).await;
    }
    let missing = scrubbed(&world, id(1, 7), &Needed::default()).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_does_not_fit_is_told_apart_from_damage() {
    let world = World::new().await;
    world.log().await;
    let runs = world.tiered(1, 0, 0..2).await;
    let unit = FragmentId::tiered(1, 0);
    let changes: [fn(&mut Run); 5] = [
        |run| run.next_offset += 1,
        |run| run.position += 61,
        |run| run.length -= 61,
        |run| run.index_position -= 1,
        |run| run.max_timestamp += 1,
    ];
    for change in changes {
        let mut wrong = runs[1];
        change(&mut wrong.1);
        let needed = Needed { runs: vec![runs[0], wrong], fragments: 1 };
        let faults = scrubbed(&world, unit, &needed).await.unwrap().faults;
        assert_eq!(faults.iter().map(|fault| fault.run).collect::<Vec<_>>(), vec![Some(wrong)]);
    }
    let stranger = scrub(&world.source, unit, &Needed::default(), Some(Incarnation(5)), &Anything).await.unwrap();
    assert!(stranger.faults[0].why.contains("writer"), "{stranger:?}");
}

/// Each reference counts for its own fragment of the file.
#[tokio::test]
async fn a_reference_that_does_not_fit_a_file_is_told() {
    let (world, _folder, _) = folder(4).await;
    let unit = id(1, 0);
    let needed = world.view().await.needed(&world.source).remove(&unit).unwrap();
    assert_eq!((needed.runs.len(), needed.fragments), (4, 4));
    let intact = scrubbed(&world, unit, &needed).await.unwrap();
    assert_eq!((intact.faults, intact.fragments, intact.entries), (vec![], 4, 4));
    for (place, fragment) in [(0, 1), (2, 1), (3, 2), (1, 7)] {
        let mut wrong = needed.clone();
        wrong.runs[place].1.fragment.fragment = fragment;
        let faults = scrubbed(&world, unit, &wrong).await.unwrap().faults;
        assert_eq!(faults.iter().map(|fault| fault.run).collect::<Vec<_>>(), vec![Some(wrong.runs[place])]);
    }
}

/// A torn tail is neither content nor damage, to whom looks first and scrubs then.
#[tokio::test]
async fn damaged_data_is_told_only_if_it_was_durable() {
    let (world, _folder, file) = folder(4).await;
    let unit = id(1, 0);
    let pieces = world.view().await.spans[0].fragments.clone();
    let whole = std::fs::read(&file).unwrap();
    for (fragment, expected, faults) in [(3, 3, 0), (2, 4, 1)] {
        let mut flipped = whole.clone();
        flipped[pieces[fragment].position as usize + HEADER_BYTES + 30] ^= 1;
        std::fs::write(&file, flipped).unwrap();
        let needed = world.view().await.needed(&world.source).remove(&unit).unwrap();
        let found = scrubbed(&world, unit, &needed).await.unwrap();
        assert_eq!((needed.fragments, found.faults.len()), (expected, faults), "{found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_fence_is_told() {
    let world = World::new().await;
    world.log().await;
    let end = id(1, 3);
    let told = async || scrub_fence(&world.source, end).await.unwrap();
    assert_eq!(told().await, None, "there does not have to be one");
    let fence = FragmentHeader::fence(end, Incarnation(5), None).encode().to_vec();
    world.put(&end.key(), fence.clone()).await;
    assert_eq!(told().await, None);
    for at in 0..fence.len() {
        let mut flipped = fence.clone();
        flipped[at] ^= 1;
        world.put(&end.key(), flipped).await;
        assert!(told().await.is_some(), "byte {at}");
    }
    world.put(&end.key(), fence[..40].to_vec()).await;
    assert!(told().await.is_some(), "half of it");
    world.put(&end.key(), FragmentHeader::fence(id(1, 4), Incarnation(5), None).encode().to_vec()).await;
    assert!(told().await.is_some(), "another's");
}

/// What the check is shown is the same however the bytes come.
#[tokio::test(start_paused = true)]
async fn entries_are_the_same_in_pieces_of_any_length() {
    use parking_lot::Mutex;
    #[derive(Default)]
    struct Seen(Mutex<Vec<(i64, Vec<u8>, u32)>>);
    impl EntryCheck for Seen {
        fn check(&self, entry: &IndexedEntry, prefix: &[u8], body_crc: u32) -> Result<(), String> {
            self.0.lock().push((entry.meta.base_offset, prefix.to_vec(), body_crc));
            Ok(())
        }
    }
    let world = World::new().await;
    let log = world.log().await;
    world.append(&*log, 0..1).await;
    let bytes = world.bytes(&id(1, 0).key()).await;
    let Stored::Data(header, index) = read_stored(&world.source.gets, id(1, 0)).await.unwrap() else { panic!() };
    let data = &bytes[HEADER_BYTES..header.footer_position() as usize];
    let shown = |length: usize| {
        let seen = Seen::default();
        let mut entries = Entries::new(&index, &seen);
        data.chunks(length).for_each(|piece| entries.feed(piece, |entry, why| panic!("{entry:?}: {why}")));
        drop(entries);
        seen.0.into_inner()
    };
    let whole = shown(data.len());
    assert_eq!(whole.len(), 2);
    assert_eq!(whole[0].2, crc32c::crc32c(&data[21..61]));
    for length in 1..70 {
        assert_eq!(shown(length), whole);
    }
}
