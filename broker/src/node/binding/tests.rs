//! Every pair of a storage and a metadata store, matching or not.

use meta::memory::MemoryStore;
use object_store::memory::InMemory;

use super::*;

struct Pair {
    store: Arc<dyn ObjectStore>,
    meta: MemoryStore,
}

impl Pair {
    fn new() -> Self {
        Self { store: Arc::new(InMemory::new()), meta: MemoryStore::new() }
    }

    async fn bind(&self) -> Result<(), StartError> {
        bind(&self.store, &self.meta, &Random::from_os()).await
    }

    async fn put(&self, path: Path) {
        self.store.put(&path, PutPayload::from("something")).await.unwrap();
    }
}

fn is_mismatch(result: Result<(), StartError>) -> bool {
    matches!(result, Err(StartError::Mismatch(_)))
}

#[tokio::test]
async fn a_pair_stays_a_pair() {
    let (one, other) = (Pair::new(), Pair::new());
    refuse_bound(&one.store).await.unwrap();
    for pair in [&one, &other] {
        pair.bind().await.unwrap();
        pair.put(object::fragment(1, 0, 0)).await;
        pair.bind().await.unwrap();
        assert!(is_mismatch(refuse_bound(&pair.store).await), "its metadata is elsewhere");
    }
    let crossed = Pair { store: one.store.clone(), meta: other.meta.clone() };
    assert!(is_mismatch(crossed.bind().await));
    let new_storage = Pair { meta: one.meta.clone(), ..Pair::new() };
    assert!(is_mismatch(new_storage.bind().await), "the metadata is another storage's");
    let lost_metadata = Pair { store: one.store.clone(), ..Pair::new() };
    assert!(is_mismatch(lost_metadata.bind().await), "the storage has data that this metadata does not know");
}

#[tokio::test]
async fn a_first_start_that_ended_half_way_is_finished() {
    let pair = Pair::new();
    create_object(&pair.store, &Random::from_seed(1)).await.unwrap();
    assert!(pair.meta.get(keys::STORAGE).await.unwrap().is_none());
    pair.bind().await.unwrap();
    assert!(pair.meta.get(keys::STORAGE).await.unwrap().is_some());
}

#[tokio::test]
async fn two_first_starts_at_once_agree() {
    for _ in 0..20 {
        let pair = Pair::new();
        let (one, other) = tokio::join!(pair.bind(), pair.bind());
        one.and(other).unwrap();
        pair.bind().await.unwrap();
    }
}

#[tokio::test]
async fn a_storage_with_embedded_metadata_is_refused() {
    let pair = Pair::new();
    pair.put(object::journal(1)).await;
    assert!(is_mismatch(pair.bind().await));
    refuse_bound(&pair.store).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_corrupt_and_never_an_id() {
    use meta::error::ErrorKind;
    let pair = Pair::new();
    pair.bind().await.unwrap();
    let intact = pair.store.get(&object::binding()).await.unwrap().bytes().await.unwrap();
    for at in 0..=intact.len() {
        let mut damaged = intact.to_vec();
        match damaged.get_mut(at) {
            Some(byte) => *byte ^= 1,
            None => damaged.truncate(at - 1),
        }
        pair.store.put(&object::binding(), PutPayload::from(damaged)).await.unwrap();
        for refused in [pair.bind().await, check(&pair.store, &pair.meta).await, refuse_bound(&pair.store).await] {
            let Err(StartError::Storage(error)) = refused else { panic!("byte {at}: {refused:?}") };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        }
    }
}
