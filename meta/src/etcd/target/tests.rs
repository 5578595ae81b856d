//! What URLs mean, and that nothing secret shows.

use super::*;

#[test]
fn urls_are_understood() {
    let plain = EtcdTarget::parse("etcd://127.0.0.1:2379").unwrap();
    assert_eq!(plain.endpoints, ["127.0.0.1:2379"]);
    assert_eq!((plain.prefix.as_str(), plain.user), ("woodpecker", None));

    let full = EtcdTarget::parse("etcd://me:s%40%2Fcret%3a@a.example:1,b,[::1]:3,[fe80::2]/some/where/").unwrap();
    assert_eq!(full.endpoints, ["a.example:1", "b:2379", "[::1]:3", "[fe80::2]:2379"]);
    assert_eq!(full.prefix, "some/where");
    assert_eq!(full.user, Some(("me".to_owned(), "s@/cret:".to_owned())));
}

#[test]
fn what_is_wrong_is_refused() {
    let wrong = [
        "http://a:1",
        "etcd://",
        "etcd:///prefix",
        "etcd://a:1,",
        "etcd://a:port",
        "etcd://a:0",
        "etcd://::1:2379",
        "etcd://user@a:1",
        "etcd://:password@a:1",
        "etcd://user:%zz@a:1",
        "etcd://a b:1",
        "etcd://a:1/with space",
    ];
    for url in wrong {
        let error = EtcdTarget::parse(url).expect_err(url);
        assert!(!error.contains("password@a"), "{error}");
    }
}

#[test]
fn secrets_do_not_show() {
    let target = EtcdTarget::parse("etcd://me:hush@a:1/p").unwrap();
    let tls = EtcdTls { ca: b"ca".to_vec(), identity: Some((b"cert".to_vec(), b"hush".to_vec())) };
    let hush: Vec<u8> = b"hush".to_vec();
    assert_eq!(target.to_string(), "etcd://a:1/p");
    let config = EtcdConfig { target, tls: Some(tls), timing: EtcdTiming::default() };
    let shown = format!("{config:?}");
    assert!(!shown.contains("hush") && !shown.contains(&format!("{hush:?}")), "{shown}");
}
