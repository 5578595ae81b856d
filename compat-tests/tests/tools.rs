//! `woodpecker inspect` and `woodpecker verify` as a user meets them: beside a running broker that moves and deletes data all
//! the time, on what a dead one has left, and on damage of every kind. They leave no trace. `WOODPECKER_TEST_VERIFY_ROUNDS`
//! makes it more verifications beside each broker, and more flipped bits.

use compat_tests::checker::Rules;
use compat_tests::clients::{self, LIMIT, watermarks};
use compat_tests::looking::{FAILED, INTACT, REFUSED, bytes, damage, json, left_behind, listing, put, verify};
use compat_tests::process::{Launch, free_port};
use compat_tests::s3::{self, Backend, Prefix};
use compat_tests::wait::{alone, scale};
use compat_tests::workload::{Load, Workload};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

fn rounds() -> u64 {
    scale("WOODPECKER_TEST_VERIFY_ROUNDS", 2)
}

/// A broker of this kind, what it stores in, and how it is launched.
async fn place(backend: Backend, folder: &std::path::Path) -> (Launch, Box<dyn ObjectStore>) {
    let launch = Launch::new(folder);
    if backend == Backend::Folder {
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("a folder");
        let store = LocalFileSystem::new_with_prefix(&data).expect("a folder");
        return (launch.storage(data.to_string_lossy()), Box::new(store));
    }
    let prefix = s3::prefix().await;
    let launch = prefix.on(launch);
    let launch = match backend {
        Backend::S3AndEtcd => launch.arg("--metadata").arg(compat_tests::etcd::url().await),
        _ => launch,
    };
    (launch, Box::new(prefix.store()))
}

/// What `inspect partitions` says: begin and end of each.
fn offsets(launch: &Launch, topic: &str) -> Vec<(i64, i64)> {
    let (ran, report) = json(launch, &["inspect", "partitions"]);
    assert_eq!(ran.code, INTACT, "{}\n{}", ran.out, ran.err);
    let rows = report["partitions"].as_array().expect("a list").iter().filter(|row| row["topic"] == topic);
    let number = |row: &Value, name: &str| row[name].as_i64().expect("a number");
    rows.map(|row| (number(row, "log_start"), number(row, "end"))).collect()
}

/// Runs under load and upkeep: every verification passes, the broker notices nothing, the storage neither.
async fn beside_a_running_broker(backend: Backend) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (launch, store) = place(backend, folder.path()).await;
    // What is moved is deleted at once: some of it under a verification's eyes.
    let launch = launch.busy_upkeep().set("flush_interval_ms", 2).set("delete_delay_ms", 1);
    let launch = launch.set("tier_interval_ms", 50);
    assert_eq!(launch.tool(&["verify"]).code, FAILED, "nothing is stored here");
    let mut broker = launch.start().await;
    let load = Load { value_bytes: 300, ..Load::small("moving", true) };
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    let (mut passes, mut orphans) = (0, 0);
    for _ in 0..rounds() {
        workload.progress(300).await;
        let report = verify(&launch);
        passes += report["checked"]["passes"].as_u64().expect("a number");
        orphans += report["orphans"].as_array().expect("a list").len();
        assert!(report["checked"]["batches"].as_u64().expect("a number") > 0);
        assert_eq!(report["strange"], serde_json::json!([]), "{report}");
    }
    println!("{backend:?}: {passes} passes for {} verifications, {orphans} kinds of orphans", rounds());
    let overview = launch.tool(&["inspect"]);
    assert_eq!(overview.code, INTACT, "{overview:?}");
    assert!(broker.exited().is_none(), "it was not fenced");
    let kafka = launch.kafka.clone();
    workload.finish(&kafka).await.assert_sound(&Rules::idempotent(), "beside verifications");
    let mut expected = Vec::new();
    for partition in 0..3 {
        expected.push(watermarks(&kafka, "moving", partition).await);
    }
    assert_eq!(offsets(&launch, "moving"), expected, "of a running broker");

    // Dead, with its log left open: the ends are found.
    broker.kill().await;
    assert_eq!(offsets(&launch, "moving"), expected, "of a dead broker");
    let before = listing(&*store).await;
    verify(&launch);
    for what in [&["inspect"][..], &["inspect", "fragments"], &["inspect", "partition", "moving", "1"]] {
        let ran = launch.tool(what);
        assert_eq!(ran.code, INTACT, "{ran:?}");
    }
    assert_eq!(listing(&*store).await, before, "nothing was written");
    let mut broker = broker.again().await;
    assert_eq!(watermarks(&kafka, "moving", 0).await, expected[0]);
    broker.terminate();
    assert_eq!(broker.wait(LIMIT).await, Some(0));
    verify(&launch);
    if backend != Backend::Folder {
        damaged_ends_are_named(&launch, &*store).await;
    }
}

/// The fence of the broker that was killed, and what says that the metadata is in etcd.
async fn damaged_ends_are_named(launch: &Launch, store: &dyn ObjectStore) {
    let listed = listing(store).await;
    let needed = |(key, size, _): &&(String, u64, String)| match key.starts_with("logs/") {
        true => *size == 80,
        false => key == "meta/kept-elsewhere",
    };
    let found: Vec<_> = listed.iter().filter(needed).map(|(key, ..)| key.clone()).collect();
    assert!(!found.is_empty(), "{listed:?}");
    for key in found {
        let original = bytes(store, &key).await;
        let mut flipped = original.clone();
        flipped[20] ^= 0x10;
        put(store, &key, flipped).await;
        assert_eq!(damage(launch).into_keys().collect::<Vec<_>>(), vec![key.clone()]);
        put(store, &key, original).await;
    }
    verify(launch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_broker_on_a_folder() {
    beside_a_running_broker(Backend::Folder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_broker_on_a_bucket() {
    beside_a_running_broker(Backend::S3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_broker_with_etcd() {
    beside_a_running_broker(Backend::S3AndEtcd).await;
}

/// Each thing that is needed is flipped in one of three places (in all of them if there are more rounds), truncated and
/// deleted: each time it is named.
async fn damage_is_named(backend: Backend) {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (launch, store) = place(backend, folder.path()).await;
    let (launch, report) = left_behind(launch, &*store).await;
    let orphans: Vec<_> = report["orphans"].as_array().expect("a list").iter().map(|o| o["keys"].to_string()).collect();
    let listed = listing(&*store).await;
    let needed = |part: &str| {
        let mut found = listed.iter().filter(|(key, size, _)| {
            key.contains(part) && *size > 80 && !orphans.iter().any(|orphans| orphans.contains(key.as_str()))
        });
        found.next_back().unwrap_or_else(|| panic!("nothing like {part} is needed: {listed:?}")).0.clone()
    };
    let untiered = if backend == Backend::Folder { ".seg" } else { "/000000/" };
    let mut victims = vec![needed("/tiered/"), needed(untiered), needed(".mf")];
    victims.extend((backend != Backend::S3AndEtcd).then(|| needed("meta/journal/")));
    for (number, key) in victims.into_iter().enumerate() {
        let original = bytes(&*store, &key).await;
        let named = |what: &str| {
            let damage = damage(&launch);
            assert!(damage.contains_key(&key), "{what} of {key}: {damage:?}");
        };
        let places = [30, original.len() / 2, original.len() - 30];
        let flips = if rounds() > 2 { &places[..] } else { &places[number % 3..][..1] };
        for &at in flips {
            let mut flipped = original.clone();
            flipped[at] ^= 0x10;
            put(&*store, &key, flipped).await;
            named(&format!("a flipped bit at {at} of {}", original.len()));
        }
        put(&*store, &key, original[..original.len() - 1].to_vec()).await;
        named("the last byte");
        store.delete(&Key::from(key.as_str())).await.expect("it can be deleted");
        // What comes after the newest record of a journal is not known to be missing.
        if !key.contains("journal") {
            named("the absence");
        }
        put(&*store, &key, original).await;
    }
    verify(&launch);
    put(&*store, "logs/notes.txt", b"none of ours".to_vec()).await;
    let strange = verify(&launch)["strange"].clone();
    assert_eq!(strange, serde_json::json!([{"key": "logs/notes.txt", "bytes": 12}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_folder_is_named() {
    damage_is_named(Backend::Folder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_bucket_is_named() {
    damage_is_named(Backend::S3).await;
}

/// What is damaged under a running broker is found as well, and the broker goes on with everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_beside_a_running_broker_is_named() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (launch, store) = place(Backend::S3, folder.path()).await;
    let (launch, _) = left_behind(launch, &*store).await;
    let (_, chain) = json(&launch, &["inspect", "partition", "t", "1"]);
    let runs = chain["partitions"][0]["chain"].as_array().expect("a chain").clone();
    let run = runs.iter().find(|run| run["tiered"] == true).expect("a tiered run");
    let key = run["key"].as_str().expect("a key");
    let mut flipped = bytes(&*store, key).await;
    let position = run["position"].as_u64().expect("a position") as usize;
    flipped[position + 70] ^= 1;
    put(&*store, key, flipped).await;
    let mut broker = launch.start().await;
    // It only has to go on: what moves a lot is looked at beside brokers without damage.
    let load = Load { producers: 1, ..Load::small("other", true) };
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    for _ in 0..2 {
        workload.progress(300).await;
        let found = damage(&launch);
        assert_eq!(found.keys().collect::<Vec<_>>(), vec![key], "{found:?}");
        assert!(found[key].contains("fails its checksum") && found[key].contains(&format!("position {position}")));
    }
    workload.finish(&launch.kafka).await.assert_sound(&Rules::idempotent(), "beside damage");
    let report = launch.tool(&["verify"]);
    assert!(report.out.contains(&format!("DAMAGE: {key}: ")) && report.out.contains("t-1"), "{}", report.out);
    assert!(broker.exited().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_shown_run_by_run() {
    let _turn = alone().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (launch, store) = place(Backend::Folder, folder.path()).await;
    let (launch, _) = left_behind(launch, &*store).await;
    let (_, report) = json(&launch, &["inspect", "partition", "t", "0"]);
    let row = &report["partitions"][0];
    let mut next = row["log_start"].as_i64().expect("a number");
    for run in row["chain"].as_array().expect("a chain") {
        assert_eq!(run["base_offset"].as_i64(), Some(next), "each begins where the one before ended");
        next = run["next_offset"].as_i64().expect("a number");
        assert!(run["key"].as_str().expect("a key").starts_with("logs/"));
    }
    assert_eq!(row["end"].as_i64(), Some(next));
    let (ran, report) = json(&launch, &["inspect", "partition", "t", "7"]);
    assert_eq!(ran.code, REFUSED, "{ran:?}");
    assert_eq!(report["unchecked"][0]["why"], "there is no partition t-7");
    let text = launch.tool(&["inspect", "partition", "t", "0"]).out;
    assert!(text.contains(&format!("..{next}")) && text.contains("tiered"), "{text}");
    let (_, overview) = json(&launch, &["inspect"]);
    assert_eq!(overview["logs"][0]["state"], "sealed");
    assert_eq!(overview["manifest"]["position"]["log"], 1);
    let progress = launch.tool(&["verify", "--progress"]);
    assert!(progress.err.contains("verifying: 0 of"), "{progress:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_looked_at_is_said_with_a_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let absent = Launch::new(folder.path()).storage("absent");
    let ran = absent.tool(&["verify"]);
    assert_eq!((ran.code, ran.out.as_str()), (FAILED, ""), "{ran:?}");
    assert!(ran.err.contains("absent") && !folder.path().join("absent").exists(), "{ran:?}");
    let memory = Launch::new(folder.path()).storage("memory://").tool(&["inspect"]);
    assert_eq!(memory.code, REFUSED, "{memory:?}");
    assert_eq!(Launch::new(folder.path()).tool(&["verify", "--listen", "x:1"]).code, REFUSED);
}

/// Who reads JSON gets a document all the same: of what, that nothing of it was looked at, and why not.
#[test]
fn what_fails_before_anything_is_seen_is_a_document_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let on = |storage: &str| Launch::new(folder.path()).storage(storage);
    let nobody = format!("127.0.0.1:{}", free_port());
    let bucket = Prefix { url: "s3://woodpecker/away".to_owned(), endpoint: nobody.clone() };
    // Says that its metadata is in an etcd.
    let id = "0".repeat(32);
    std::fs::create_dir_all(folder.path().join("bound/meta")).expect("a folder");
    let binding = format!("{id}{:08x}", crc32c::crc32c(id.as_bytes()));
    std::fs::write(folder.path().join("bound/meta/kept-elsewhere"), binding).expect("a file");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    let cases = [
        (on("absent"), "absent", "embedded", FAILED, "No such file"),
        (bucket.on(Launch::new(folder.path())), "s3://woodpecker/away", "embedded", FAILED, "is unavailable"),
        (on("empty").arg("--metadata").arg(format!("etcd://{nobody}/p")), "empty", "etcd://", FAILED, "is unavailable"),
        (on("bound"), "bound", "embedded", FAILED, "the metadata of this storage is in etcd"),
        (on("empty"), "empty", "embedded", FAILED, "nothing is stored here"),
        (on("memory://"), "memory://", "embedded", REFUSED, "gone with its process"),
    ];
    let told = |(launch, storage, metadata, code, why): &(Launch, &str, &str, Option<i32>, &str), tool: &str| {
        let (ran, document) = json(launch, &[tool]);
        assert_eq!(ran.code, *code, "{ran:?}");
        let says = |name: &str, part: &str| document[name].as_str().is_some_and(|text| text.contains(part));
        assert!(says("storage", storage) && says("metadata", metadata), "{document}");
        assert_eq!((&document["format"], &document["damage"]), (&json!(1), &json!([])), "{document}");
        assert_eq!(document["result"], if tool == "verify" { json!("incomplete") } else { Value::Null });
        let [unchecked] = &document["unchecked"].as_array().expect("a list")[..] else { panic!("{document}") };
        let reason = unchecked["why"].as_str().expect("a text");
        assert!(unchecked["key"] == "everything" && reason.contains(why), "{document}");
        assert!(ran.err.contains(reason), "{ran:?}");
    };
    // At the same time: some of them wait for somebody who never answers.
    std::thread::scope(|scope| {
        for case in &cases {
            for tool in ["verify", "inspect"] {
                scope.spawn(move || told(case, tool));
            }
        }
    });
}
