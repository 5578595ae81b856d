//! The metadata store on a real etcd: the suite of every backend, and what etcd and the way there can do to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use compat_tests::etcd::{Etcd, open};
use compat_tests::tcp::{Passing, TcpProxy};
use compat_tests::wait::{Dice, scale, until};
use meta::error::{Error, ErrorKind};
use meta::etcd::{EtcdConfig, EtcdStore, EtcdTarget};
use meta::seams::Random;
use meta::store::{MetaStore, Txn, TxnOutcome, Watch};
use tokio::time::{Instant, sleep, timeout};

/// Longer than a call may take, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(30);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

async fn conformance(etcd: &Etcd) {
    let number = AtomicU32::new(0);
    meta::conformance::metastore(async || {
        let prefix = format!("suite/{}", number.fetch_add(1, Ordering::Relaxed));
        Arc::new(etcd.store(&prefix).await) as Arc<dyn MetaStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_on_one_node() {
    let folder = folder();
    conformance(&Etcd::start(folder.path()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_on_three_nodes() {
    let folder = folder();
    conformance(&Etcd::cluster(folder.path(), 3).await).await;
}

/// More entries than one answer holds, while others are written: all as of one revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_listing_is_of_one_revision() {
    let folder = folder();
    let etcd = Etcd::start(folder.path()).await;
    let store = etcd.store("long").await;
    for part in 0..25 {
        let puts = (0..50).fold(Txn::new(), |txn, n| txn.put(format!("k/{:05}", part * 50 + n), "0"));
        store.commit(puts).await.expect("a commit");
    }
    // Two entries far apart always change together.
    let both = |value: u64| Txn::new().put("k/00000", value.to_string()).put("k/01249", value.to_string());
    store.commit(both(0)).await.expect("a commit");
    let writing = Arc::new(AtomicBool::new(true));
    let (writer, going) = (store.clone(), writing.clone());
    let writes = tokio::spawn(async move {
        let mut number = 0_u64;
        while going.load(Ordering::Relaxed) {
            number += 1;
            writer.commit(both(number)).await.expect("a commit");
        }
        number
    });
    for _ in 0..40 {
        let listing = store.list("k/").await.expect("a listing");
        assert_eq!(listing.entries.len(), 1250);
        assert!(listing.entries.is_sorted_by(|a, b| a.key < b.key));
        let (first, last) = (&listing.entries[0], &listing.entries[1249]);
        assert_eq!((&first.value, first.mod_revision), (&last.value, last.mod_revision));
        assert!(listing.entries.iter().all(|entry| entry.mod_revision <= listing.revision));
    }
    writing.store(false, Ordering::Relaxed);
    assert!(writes.await.expect("the writer never panics") > 10);
}

/// Increments of one counter, each by comparing and swapping, one after the other. What each came to is counted.
struct Counting {
    store: EtcdStore,
    committed: u64,
    /// Of these it is not known whether they were counted.
    unknown: u64,
    /// The longest time in which nothing was committed.
    longest: Duration,
    last: Instant,
}

impl Counting {
    fn new(store: EtcdStore) -> Self {
        Self { store, committed: 0, unknown: 0, longest: Duration::ZERO, last: Instant::now() }
    }

    async fn value(&self) -> Result<(u64, u64), Error> {
        let found = self.store.get("counter").await?;
        let number = |entry: &meta::store::KeyValue| std::str::from_utf8(&entry.value).ok()?.parse().ok();
        Ok(found.map_or((0, 0), |entry| (number(&entry).expect("a number"), entry.mod_revision)))
    }

    async fn step(&mut self) {
        let (value, revision) = match self.value().await {
            Ok(found) => found,
            Err(error) => return assert_eq!(error.kind(), ErrorKind::Retriable, "{error}"),
        };
        let txn = Txn::new().if_revision("counter", revision).put("counter", (value + 1).to_string());
        match self.store.commit(txn).await {
            Ok(TxnOutcome::Committed { revision: at }) => {
                assert!(at > revision);
                self.committed += 1;
                self.longest = self.longest.max(self.last.elapsed());
                self.last = Instant::now();
            }
            // An earlier one of unknown outcome was counted meanwhile.
            Ok(TxnOutcome::Conflict { .. }) => assert!(self.unknown > 0, "nobody else counts"),
            Err(error) if error.kind() == ErrorKind::Unknown => self.unknown += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retriable, "{error}"),
        }
    }

    async fn run_until(&mut self, end: Instant) {
        while Instant::now() < end {
            self.step().await;
        }
    }

    /// At the end, with etcd whole again.
    async fn check(&self, what: &str) {
        let mut found = None;
        until("the counter can be read", LIMIT, async || {
            found = self.value().await.ok();
            found.is_some()
        })
        .await;
        let (value, _) = found.expect("it was just read");
        println!("{what}: {} committed, {} unknown, longest gap {:?}", self.committed, self.unknown, self.longest);
        assert!(self.committed > 0);
        let possible = self.committed..=self.committed + self.unknown;
        assert!(possible.contains(&value), "{what}: {value} counted, {possible:?} told");
    }
}

/// Takes everything from a watch: every value of the counter, once and in order, until it is `last`.
async fn counted(mut watch: Watch) -> impl AsyncFnOnce(u64) {
    let (seen, mut news) = tokio::sync::watch::channel(0);
    let watching = tokio::spawn(async move {
        while let Some(batch) = watch.recv().await {
            for event in batch.expect("the watch goes on").events {
                let meta::store::Event::Put(entry) = event else { panic!("nothing is deleted: {event:?}") };
                let value: u64 = String::from_utf8_lossy(&entry.value).parse().expect("a number");
                assert_eq!(value, *seen.borrow() + 1, "once and in order");
                seen.send_replace(value);
            }
        }
    });
    async move |last: u64| {
        let all = timeout(LIMIT, news.wait_for(|seen| *seen >= last)).await;
        let result = all.map(|seen| seen.map(|seen| *seen));
        assert!(matches!(result, Ok(Ok(seen)) if seen == last), "the watch delivers all {last}: {result:?}");
        watching.abort();
    }
}

/// Each of these nodes behind a proxy of its own.
async fn behind_proxies(etcd: &Etcd, prefix: &str) -> (Vec<TcpProxy>, EtcdConfig) {
    let mut proxies = Vec::new();
    for node in &etcd.nodes {
        proxies.push(TcpProxy::before(&node.address).await.expect("a proxy"));
    }
    let addresses: Vec<&str> = proxies.iter().map(|proxy| proxy.address.as_str()).collect();
    let target = EtcdTarget::parse(&format!("etcd://{}/{prefix}", addresses.join(","))).expect("a URL");
    let config = EtcdConfig { target, ..etcd.config(prefix) };
    (proxies, config)
}

/// The answers to some transactions are lost; each was applied, or not, and the store finds out which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_answer_is_lost_is_settled() {
    let folder = folder();
    let etcd = Etcd::start(folder.path()).await;
    let (proxies, config) = behind_proxies(&etcd, "lost").await;
    let store = open(config).await;
    let mut counting = Counting::new(store.clone());
    for _ in 0..3 {
        counting.step().await;
    }
    for (number, passing) in
        [Passing::RequestsOnly, Passing::Refused, Passing::Nothing].into_iter().cycle().take(6).enumerate()
    {
        let (value, revision) = counting.value().await.expect("a read");
        // Lost with the first attempt at this transaction; what comes after gets through.
        proxies[0].set(passing);
        let healing = async {
            sleep(Duration::from_millis(300)).await;
            proxies[0].set(Passing::Everything);
        };
        let txn = Txn::new().if_revision("counter", revision).put("counter", (value + 1).to_string());
        let (outcome, ()) = tokio::join!(store.commit(txn), healing);
        assert!(matches!(outcome, Ok(TxnOutcome::Committed { .. })), "{number}, {passing:?}: {outcome:?}");
        counting.committed += 1;
        // A conflict is told apart from an own attempt that was applied.
        proxies[0].set(passing);
        let stale = Txn::new().if_revision("counter", revision).put("counter", "wrong");
        let healing = async {
            sleep(Duration::from_millis(300)).await;
            proxies[0].set(Passing::Everything);
        };
        let (outcome, ()) = tokio::join!(store.commit(stale), healing);
        assert!(matches!(outcome, Ok(TxnOutcome::Conflict { .. })), "{number}, {passing:?}: {outcome:?}");
    }
    counting.check("lost answers").await;
    assert_eq!(counting.unknown, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_break_at_random_and_nothing_is_lost_or_done_twice() {
    let folder = folder();
    let etcd = Etcd::cluster(folder.path(), 3).await;
    let (proxies, config) = behind_proxies(&etcd, "broken").await;
    let store = open(config).await;
    let watch = counted(store.watch("counter", 0).await.expect("a watch")).await;
    let mut counting = Counting::new(store);
    let mut dice = Dice::new("broken connections");
    let end = Instant::now() + Duration::from_secs(scale("WOODPECKER_TEST_ETCD_FAULTS_S", 12));
    let breaking = tokio::spawn(async move {
        while Instant::now() < end {
            let proxy = &proxies[dice.below(3) as usize];
            proxy.set([Passing::Refused, Passing::RequestsOnly, Passing::Nothing][dice.below(3) as usize]);
            sleep(dice.between(Duration::ZERO, Duration::from_millis(1500))).await;
            proxy.set(Passing::Everything);
            sleep(dice.between(Duration::ZERO, Duration::from_millis(200))).await;
        }
    });
    counting.run_until(end).await;
    breaking.await.expect("the proxies are whole again");
    counting.check("broken connections").await;
    let (last, _) = counting.value().await.expect("a read");
    watch(last).await;
}

async fn leader_is_lost(paused: bool) {
    let folder = folder();
    let mut etcd = Etcd::cluster(folder.path(), 3).await;
    let store = etcd.store("leader").await;
    let watch = counted(store.watch("counter", 0).await.expect("a watch")).await;
    let lease = store.grant_lease(Duration::from_secs(30)).await.expect("a lease");
    let mut counting = Counting::new(store.clone());
    for _ in 0..3 {
        counting.run_until(Instant::now() + Duration::from_secs(1)).await;
        let leader = etcd.leader().await;
        if paused {
            etcd.nodes[leader].pause();
        } else {
            etcd.nodes[leader].kill();
        }
        counting.run_until(Instant::now() + Duration::from_secs(5)).await;
        if paused {
            etcd.nodes[leader].resume();
        } else {
            etcd.nodes[leader].start();
        }
        etcd.healthy(leader).await;
    }
    store.keep_alive(lease).await.expect("the lease outlives the leader");
    counting.check(if paused { "leader paused" } else { "leader killed" }).await;
    assert!(counting.longest < Duration::from_secs(10), "the longest gap was {:?}", counting.longest);
    let (last, _) = counting.value().await.expect("a read");
    watch(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced() {
    leader_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_is_replaced() {
    leader_is_lost(true).await;
}

async fn compact(etcd: &Etcd, revision: u64) {
    let operator = etcd_client::Client::connect([&etcd.nodes[0].address], None).await.expect("etcd is there");
    operator.kv_client().compact(revision as i64, None).await.expect("an operator may compact");
}

async fn next(watch: &mut Watch) -> Result<u64, Error> {
    let next = timeout(LIMIT, watch.recv()).await.expect("the watch delivers");
    next.expect("the watch goes on or says why not").map(|batch| batch.revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_what_was_compacted_says_so() {
    let folder = folder();
    let etcd = Etcd::start(folder.path()).await;
    let (proxies, config) = behind_proxies(&etcd, "compacted").await;
    let (near, far) = (etcd.store("compacted").await, open(config).await);
    let put = async |value: &str| match near.commit(Txn::new().put("key", value.to_owned())).await {
        Ok(TxnOutcome::Committed { revision }) => revision,
        other => panic!("{other:?}"),
    };
    let first = put("1").await;
    let mut cut_off = far.watch("key", first).await.expect("a watch");
    assert_eq!(next(&mut cut_off).await.expect("the first"), first);
    proxies[0].set(Passing::Refused);
    let second = put("2").await;
    let third = put("3").await;
    compact(&etcd, third).await;

    let mut late = near.watch("key", first).await.expect("a watch");
    let ended = next(&mut late).await;
    assert!(
        matches!(ended, Err(Error::Compacted { requested, oldest }) if requested == first && oldest > second),
        "{ended:?}"
    );
    assert!(timeout(LIMIT, late.recv()).await.expect("it has ended").is_none());

    // Whoever was cut off meanwhile is told as well, and not just given what came after.
    proxies[0].set(Passing::Everything);
    let ended = next(&mut cut_off).await;
    assert!(matches!(ended, Err(Error::Compacted { .. })), "{ended:?}");

    // List, and go on from there.
    let listing = near.list("key").await.expect("a listing");
    assert_eq!(listing.entries[0].value, "3");
    let mut again = near.watch("key", listing.revision + 1).await.expect("a watch");
    let fourth = put("4").await;
    assert_eq!(next(&mut again).await.expect("the fourth"), fourth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_one_who_is_cut_off_expires() {
    let folder = folder();
    let etcd = Etcd::start(folder.path()).await;
    let (proxies, config) = behind_proxies(&etcd, "lease").await;
    let (near, far) = (etcd.store("lease").await, open(config).await);
    let lease = far.grant_lease(Duration::from_secs(2)).await.expect("a lease");
    far.commit(Txn::new().put_leased("alive", "yes", lease)).await.expect("a commit");
    assert_eq!(near.get("alive").await.expect("a read").and_then(|entry| entry.lease), Some(lease));
    proxies[0].set(Passing::Nothing);
    until("the key is gone", LIMIT, async || near.get("alive").await.expect("a read").is_none()).await;
    assert!(far.keep_alive(lease).await.is_err_and(|error| error.kind() == ErrorKind::Retriable), "it is cut off");
    proxies[0].set(Passing::Everything);
    until("it hears that the lease has expired", LIMIT, async || match far.keep_alive(lease).await {
        Err(error) if error.kind() == ErrorKind::Invalid => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Retriable, "{error}");
            false
        }
        Ok(()) => panic!("an expired lease was kept alive"),
    })
    .await;
}

/// With etcd away calls fail in time, then at once; when it is back they succeed without anybody's help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_told_at_once_and_heals_by_itself() {
    let folder = folder();
    let mut etcd = Etcd::start(folder.path()).await;
    let store = etcd.store("outage").await;
    let watch = counted(store.watch("counter", 0).await.expect("a watch")).await;
    let mut counting = Counting::new(store.clone());
    for killed in [false, true] {
        counting.step().await;
        if killed {
            etcd.nodes[0].kill();
        } else {
            etcd.nodes[0].pause();
        }
        let began = Instant::now();
        let first = store.commit(Txn::new().put("other", "1")).await;
        let kind = first.as_ref().map_err(Error::kind);
        assert!(matches!(kind, Err(ErrorKind::Retriable | ErrorKind::Unknown)), "{first:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "told after {:?}", began.elapsed());
        sleep(Duration::from_secs(4)).await;
        let began = Instant::now();
        for _ in 0..20 {
            assert!(store.get("counter").await.is_err_and(|error| error.kind() == ErrorKind::Retriable));
            assert!(
                store
                    .commit(Txn::new().put("other", "2"))
                    .await
                    .is_err_and(|error| error.kind() == ErrorKind::Retriable)
            );
        }
        assert!(began.elapsed() < Duration::from_secs(4), "40 calls took {:?}", began.elapsed());
        if killed {
            etcd.nodes[0].start();
        } else {
            etcd.nodes[0].resume();
        }
        etcd.healthy(0).await;
        until("it has healed", Duration::from_secs(10), async || store.get("counter").await.is_ok()).await;
        counting.step().await;
    }
    counting.check("outage").await;
    let (last, _) = counting.value().await.expect("a read");
    assert_eq!((last, counting.committed), (4, 4));
    watch(last).await;
}

/// Makes etcd ask for a user and a password from now on.
async fn ask_for_passwords(etcd: &Etcd) {
    use etcd_client::{Certificate, ConnectOptions, Identity, Permission, PermissionType, TlsOptions};
    let folder = etcd.certificates().expect("etcd speaks TLS");
    let read = |name: &str| std::fs::read(Path::new(folder).join(name)).expect("a file of the authority");
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("client.pem"), read("client.key")));
    let url = format!("https://{}", etcd.nodes[0].address);
    let operator = etcd_client::Client::connect([url], Some(ConnectOptions::new().with_tls(tls))).await.expect("etcd");
    let mut auth = operator.auth_client();
    auth.user_add("root", "root's", None).await.expect("a user");
    auth.user_grant_role("root", "root").await.expect("a role");
    auth.role_add("brokers").await.expect("a role");
    let permission = Permission::new(PermissionType::Readwrite, "ours/").with_prefix();
    auth.role_grant_permission("brokers", permission).await.expect("a permission");
    auth.user_add("broker", "s@/cret", None).await.expect("a user");
    auth.user_grant_role("broker", "brokers").await.expect("a role");
    auth.auth_enable().await.expect("passwords are asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_passwords() {
    let folder = folder();
    let etcd = Etcd::with_tls(folder.path(), &["--auth-token-ttl=1"]).await;
    ask_for_passwords(&etcd).await;
    let address = &etcd.nodes[0].address;
    let config = |user: &str, prefix: &str| {
        let target = EtcdTarget::parse(&format!("etcd://{user}{address}/{prefix}")).expect("a URL");
        EtcdConfig { target, ..etcd.config(prefix) }
    };
    let store = open(config("broker:s%40%2Fcret@", "ours")).await;
    let mut watch = store.watch("key", 0).await.expect("a watch");
    for value in ["1", "2"] {
        let commit = store.commit(Txn::new().put("key", value)).await;
        assert!(matches!(commit, Ok(TxnOutcome::Committed { .. })), "{commit:?}");
        next(&mut watch).await.expect("the watch delivers");
        let lease = store.grant_lease(Duration::from_secs(5)).await.expect("a lease");
        store.keep_alive(lease).await.expect("it is alive");
        // Longer than the token lives by which etcd knows us.
        sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(store.list("").await.expect("a listing").entries.len(), 1);

    let kind = async |config: EtcdConfig| match EtcdStore::open(config, &Random::from_os()).await {
        Ok(_) => panic!("etcd let us in"),
        Err(error) => {
            assert!(!error.to_string().contains("cret"), "{error}");
            error.kind()
        }
    };
    assert_eq!(kind(config("broker:wrong@", "ours")).await, ErrorKind::Invalid);
    assert_eq!(kind(config("", "ours")).await, ErrorKind::Invalid, "without a user");
    assert_eq!(kind(config("broker:s%40%2Fcret@", "theirs")).await, ErrorKind::Invalid, "where it may not read");
    let right = config("broker:s%40%2Fcret@", "ours");
    assert_eq!(kind(EtcdConfig { tls: None, ..right.clone() }).await, ErrorKind::Retriable, "without TLS");
    let nameless = right.tls.clone().map(|tls| meta::etcd::EtcdTls { identity: None, ..tls });
    assert_eq!(
        kind(EtcdConfig { tls: nameless, ..right.clone() }).await,
        ErrorKind::Retriable,
        "without a certificate"
    );
}
