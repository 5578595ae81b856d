//! Several brokers that all believe to be the owner, under every ambiguity of the store: one history comes out of it.

use std::collections::BTreeMap;

use super::*;

/// What one broker was told of the transactions that it tried.
#[derive(Debug, Default)]
struct Told {
    committed: BTreeMap<String, u64>,
    refused: Vec<String>,
    /// The counter, at each read, and the revision it was read at.
    opened: u32,
}

/// Opens again and again, and commits marks, each with an increment of the one counter, until time is up.
async fn broker(store: &FaultStore, id: u64, seed: u64) -> Told {
    let random = Random::from_seed(seed * 100 + id);
    let patience =
        Patience { deadline: Duration::from_secs(4), call_timeout: Duration::from_millis(400), ..Patience::default() };
    let options = EmbeddedOptions { exclusive: false, snapshot_every: 5, patience };
    let mut told = Told::default();
    let mut marks = 0;
    for _ in 0..3 {
        sleep(Duration::from_millis(random.next_u64() % 2000)).await;
        let opened =
            EmbeddedStore::open(Arc::new(store.handle()), Incarnation::generate(&random), &random, options).await;
        let Ok(owner) = opened else { continue };
        told.opened += 1;
        while marks < 40 {
            if random.next_u64().is_multiple_of(8) {
                // A pause, as of a stopped process.
                sleep(Duration::from_millis(random.next_u64() % 3000)).await;
            }
            match mark(&owner, &mut told, &format!("mark/{id}/{marks:03}")).await {
                Ok(()) => marks += 1,
                Err(error) if error.kind() == ErrorKind::Fenced => break,
                // Maybe it was committed: not again under the same name.
                Err(error) if error.kind() == ErrorKind::Unknown => marks += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retriable, "seed {seed}: {error}"),
            }
        }
    }
    told
}

async fn mark(owner: &EmbeddedStore, told: &mut Told, name: &str) -> Result<()> {
    let counter = owner.get("counter").await?;
    let (count, revision) = counter.map_or((0, 0), |entry| (number(&entry.value), entry.mod_revision));
    let txn = Txn::new().if_revision("counter", revision).put("counter", format!("{}", count + 1)).put(name, "");
    match owner.commit(txn).await? {
        TxnOutcome::Committed { revision } => drop(told.committed.insert(name.to_owned(), revision)),
        TxnOutcome::Conflict { .. } => told.refused.push(name.to_owned()),
    }
    Ok(())
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_history_comes_out_of_it() {
    let (mut committed, mut takeovers) = (0, 0);
    for seed in 0..40 {
        let plan = FaultPlan {
            latency: Duration::from_millis(1)..=Duration::from_millis(60),
            ..FaultPlan::ambiguous([0.0, 0.1, 0.4][seed as usize % 3])
        };
        let store = FaultStore::new(Arc::new(InMemory::new()), Random::from_seed(seed), plan);
        let told = join_all((0..3).map(|id| broker(&store, id, seed))).await;
        store.set_plan(FaultPlan::default());
        settle_down().await;
        store.land_due().await;

        let last = open(&store, 7_000 + seed).await;
        let marks: BTreeMap<String, u64> = last
            .list("mark/")
            .await
            .unwrap()
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry.create_revision))
            .collect();
        let count = last.get("counter").await.unwrap().map_or(0, |entry| number(&entry.value));
        assert_eq!(count, marks.len() as u64, "seed {seed}: an increment was lost or doubled");
        for told in &told {
            for (name, revision) in &told.committed {
                assert_eq!(marks.get(name), Some(revision), "seed {seed}: {name} was acknowledged");
            }
            for name in &told.refused {
                assert!(!marks.contains_key(name) || told.committed.contains_key(name), "seed {seed}: {name}");
            }
            committed += told.committed.len();
            takeovers += told.opened;
        }
    }
    assert!(committed > 1000 && takeovers > 150, "{committed} commits, {takeovers} takeovers: too quiet to prove much");
}

#[tokio::test(start_paused = true)]
async fn of_openers_at_once_one_remains() {
    for seed in 0..20 {
        let plan = FaultPlan::slow(Duration::from_millis(1)..=Duration::from_millis(50));
        let store = FaultStore::new(Arc::new(InMemory::new()), Random::from_seed(seed), plan);
        let openers = join_all((0..5).map(|id| open(&store, seed * 10 + id))).await;
        let mut owners = 0;
        for (id, opener) in openers.iter().enumerate() {
            match put(opener, &format!("{id}"), "").await {
                Ok(_) => owners += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced, "seed {seed}"),
            }
        }
        assert_eq!(owners, 1, "seed {seed}");
        assert_eq!(open(&store, 1_000 + seed).await.list("").await.unwrap().entries.len(), 1);
    }
}
