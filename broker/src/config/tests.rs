//! Tests of the settings and their limits.

use super::keys;
use super::*;

fn set(name: &str, value: &str) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    keys::find(name).unwrap().set(&mut settings, value, "test")?;
    Ok(settings)
}

#[test]
fn the_defaults_are_accepted() {
    Settings::default().check().unwrap();
}

#[test]
fn every_default_can_be_set() {
    for key in keys::all().filter(|key| key.name != "advertise") {
        let shown = key.value(&Settings::default());
        let settings = set(key.name, &shown).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(key.value(&settings), shown, "{}", key.name);
    }
}

#[test]
fn every_number_and_switch_reaches_its_own_setting() {
    let numbers: Vec<_> = keys::all().filter(|key| key.value(&Settings::default()).parse::<u64>().is_ok()).collect();
    assert!(numbers.len() >= 12);
    for key in &numbers {
        let changed = key.value(&Settings::default()).parse::<u64>().unwrap() + 1;
        let settings = set(key.name, &changed.to_string()).unwrap();
        for other in &numbers {
            let expected = if other.name == key.name { changed.to_string() } else { other.value(&Settings::default()) };
            assert_eq!(other.value(&settings), expected, "{} after setting {}", other.name, key.name);
        }
    }
    assert!(!set("auto_create_topics", "false").unwrap().broker.auto_create_topics);
}

#[test]
fn keys_are_unique_and_say_their_units() {
    let mut names: Vec<_> = keys::all().map(|key| key.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    for name in names {
        assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{name}");
    }
}

#[test]
fn bad_values_are_refused_with_key_value_and_what_is_allowed() {
    let cases = [
        ("num_partitions", "0", "test: num_partitions=0: must be a whole number from 1 to 10000"),
        ("num_partitions", "many", "test: num_partitions=many: must be a whole number from 1 to 10000"),
        ("auto_create_topics", "yes", "test: auto_create_topics=yes: must be true or false"),
        ("listen", "9092", "test: listen=9092: must be HOST:PORT"),
        ("listen", "::1:9092", "test: listen=::1:9092: must be HOST:PORT"),
        ("http", "on", "test: http=on: must be HOST:PORT, or off"),
        ("advertise", "0.0.0.0:9092", "test: advertise=0.0.0.0:9092: must be HOST:PORT that clients can connect to"),
        ("metadata", "zookeeper", "test: metadata=zookeeper: must be embedded, or etcd://..."),
        ("etcd_ca_file", "", "test: etcd_ca_file=: must be the path of a file, or none"),
        ("log_format", "xml", "test: log_format=xml: must be text or json"),
        ("storage", "", "test: storage=: must be a folder or a URL"),
    ];
    for (key, value, expected) in cases {
        assert_eq!(set(key, value).unwrap_err().to_string(), expected);
    }
    assert!(set("log", "info,broker=loud").is_err());
}

#[test]
fn limits_that_involve_two_keys_are_checked() {
    let refused = |change: fn(&mut BrokerConfig), names: [&str; 2]| {
        let mut settings = Settings::default();
        change(&mut settings.broker);
        let error = settings.check().unwrap_err().to_string();
        assert!(names.iter().all(|name| error.contains(name)), "{error}");
    };
    refused(|broker| broker.memory_bytes = 2 * broker.request_max_bytes - 1, ["memory_bytes=", "request_max_bytes"]);
    refused(
        |broker| broker.message_max_bytes = broker.request_max_bytes + 1,
        ["message_max_bytes=", "request_max_bytes"],
    );
    refused(|broker| broker.tail_bytes = broker.memory_bytes, ["tail_bytes=", "memory_bytes"]);
    refused(|broker| broker.flush_bytes = broker.memory_bytes, ["flush_bytes=", "memory_bytes"]);
    refused(|broker| broker.fetch_max_bytes = broker.memory_bytes + 1, ["fetch_max_bytes=", "memory_bytes"]);
}

#[test]
fn clients_are_told_where_to_connect() {
    let advertised = |listen: &str, advertise: Option<&str>| {
        let mut settings =
            Settings { listen: listen.to_owned(), advertise: advertise.map(str::to_owned), ..Settings::default() };
        settings.check().map(|()| (settings.broker.advertised_host, settings.broker.advertised_port))
    };
    assert_eq!(advertised("127.0.0.1:1234", None).unwrap(), ("127.0.0.1".to_owned(), 1234));
    assert_eq!(advertised("[::1]:1234", None).unwrap(), ("::1".to_owned(), 1234));
    assert_eq!(advertised("0.0.0.0:1234", Some("kafka.example:9")).unwrap(), ("kafka.example".to_owned(), 9));
    for wildcard in ["0.0.0.0:9092", "[::]:9092"] {
        let error = advertised(wildcard, None).unwrap_err().to_string();
        assert!(error.contains(wildcard) && error.contains("advertise"), "{error}");
    }
}

#[test]
fn unknown_keys_are_named_with_what_was_probably_meant() {
    let message = |name: &str| ConfigError::UnknownKey { origin: "x".to_owned(), name: name.to_owned() }.to_string();
    assert_eq!(message("memory"), "x: there is no setting memory; did you mean memory_bytes?");
    assert_eq!(
        message("max_bytes_message"),
        "x: there is no setting max_bytes_message; did you mean message_max_bytes?"
    );
    assert_eq!(message("colour"), "x: there is no setting colour");
}

#[test]
fn etcd_is_described_by_settings_that_fit_together() {
    let settings = |etcd: bool, files: [bool; 3]| {
        let mut settings = Settings::default();
        let mut give = |name: &str, value: &str| keys::find(name).unwrap().set(&mut settings, value, "test").unwrap();
        if etcd {
            give("metadata", "etcd://me:hush@a,b:1/p");
        }
        for (name, given) in ["etcd_ca_file", "etcd_cert_file", "etcd_key_file"].into_iter().zip(files) {
            if given {
                give(name, "file.pem");
            }
        }
        settings
    };
    for files in [[false; 3], [true, false, false], [true; 3]] {
        settings(true, files).check().unwrap();
    }
    for files in [[false, true, false], [false, true, true], [true, false, true], [true, true, false]] {
        let refused = settings(true, files).check().unwrap_err().to_string();
        assert!(refused.contains("go together"), "{refused}");
    }
    assert!(settings(false, [true, false, false]).check().unwrap_err().to_string().contains("etcd_ca_file"));
    let shown = keys::find("metadata").unwrap().value(&settings(true, [false; 3]));
    assert_eq!(shown, "etcd://a:2379,b:1/p", "without the password");
    assert!(!format!("{:?}", settings(true, [false; 3])).contains("hush"));
}
