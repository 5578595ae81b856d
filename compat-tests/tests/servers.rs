//! What the other suites rest on: the S3 server that they start keeps conditional writes apart, and the proxy before it
//! does to requests what it says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use compat_tests::clients::LIMIT;
use compat_tests::proxy::Proxy;
use compat_tests::s3;
use compat_tests::wait::until;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::Instant;

fn create() -> PutOptions {
    PutOptions::from(PutMode::Create)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_creates_exactly_one_wins() {
    let store = s3::prefix().await.store();
    for round in 0..50 {
        let path = Path::from(format!("race/{round}"));
        let racers = (0..16).map(|racer: u32| {
            let (store, path) = (Arc::clone(&store), path.clone());
            tokio::spawn(async move { store.put_opts(&path, PutPayload::from(format!("{racer}")), create()).await })
        });
        let racers: Vec<_> = racers.collect();
        let mut winners = Vec::new();
        for (racer, answer) in racers.into_iter().enumerate() {
            if answer.await.expect("a racer never panics").is_ok() {
                winners.push(racer.to_string());
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: winners {winners:?}");
        let held = store.get(&path).await.expect("an object").bytes().await.expect("its bytes");
        assert_eq!(held, winners[0].as_bytes(), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_delays_cuts_swallows_and_counts() {
    let place = s3::prefix().await;
    let proxy = Proxy::before(&place.endpoint).await.expect("a proxy");
    let store = place.through(&proxy.address).store();
    let put = async |name: &str| store.put_opts(&Path::from(name), PutPayload::from("body"), create()).await;

    put("plain").await.expect("a PUT passes");
    assert_eq!(proxy.faults.puts.load(Ordering::Relaxed), 1);
    assert_eq!(proxy.faults.put_bytes.load(Ordering::Relaxed), 4);

    // Its client has the answer a little before the proxy is done with it.
    until("the first PUT is over", LIMIT, async || proxy.faults.puts_in_flight.load(Ordering::Relaxed) == 0).await;
    proxy.faults.put_delay_ms.store(300, Ordering::Relaxed);
    let start = Instant::now();
    let (one, other) = tokio::join!(put("slow"), put("as slow"));
    one.and(other).expect("slow PUTs pass");
    assert!(start.elapsed() >= Duration::from_millis(300), "two slow PUTs: {:?}", start.elapsed());
    assert_eq!(proxy.faults.most_puts_in_flight.load(Ordering::Relaxed), 2, "side by side");
    proxy.faults.put_delay_ms.store(0, Ordering::Relaxed);

    proxy.faults.cut.store(true, Ordering::Relaxed);
    put("cut").await.expect_err("nothing passes");
    proxy.faults.cut.store(false, Ordering::Relaxed);
    store.head(&Path::from("cut")).await.expect_err("nothing passed");

    proxy.faults.swallow_put_answers.store(true, Ordering::Relaxed);
    put("swallowed").await.expect_err("no answer");
    proxy.faults.swallow_put_answers.store(false, Ordering::Relaxed);
    store.head(&Path::from("swallowed")).await.expect("it landed all the same");

    proxy.faults.put_bytes_per_second.store(20, Ordering::Relaxed);
    let start = Instant::now();
    put("narrow").await.expect("narrow PUTs pass");
    assert!(start.elapsed() >= Duration::from_millis(200), "4 bytes at 20 bytes per second: {:?}", start.elapsed());
}
