//! The whole table of topic configurations, row by row: none is stored and ignored.

use std::collections::BTreeSet;

use super::super::config::Role;
use super::super::config::table::TABLE;
use super::*;
use crate::config::BrokerConfig;
use crate::config::values::Values;

fn defaults() -> Defaults {
    Defaults::new(&BrokerConfig::default())
}

fn with(name: &str, value: &str) -> Result<TopicConfig, ConfigError> {
    TopicConfig::resolve(&[(name.to_owned(), value.to_owned())].into(), &defaults())
}

/// Legal values other than the default.
fn others(values: Values, default: &str) -> Vec<String> {
    let all: Vec<String> = match values {
        Values::Boolean => vec!["true".to_owned(), "false".to_owned()],
        Values::Int(min, max) => [min, min + 1, max].map(|number| number.to_string()).to_vec(),
        Values::Long(min, max) => [min, min + 1, max].map(|number| number.to_string()).to_vec(),
        Values::Double(min, max) => [min, max].map(|number| number.to_string()).to_vec(),
        Values::OneOf(allowed) => allowed.iter().map(|it| (*it).to_owned()).collect(),
        Values::ListOf(allowed) => vec![String::new(), allowed[1].to_owned(), allowed.join(",")],
        Values::Replicas => vec!["*".to_owned(), "0:1,2:3".to_owned()],
        Values::GzipLevel => vec!["1".to_owned(), "9".to_owned()],
    };
    all.into_iter().filter(|value| value != default).collect()
}

#[test]
fn names_are_kafkas_in_order_and_defaults_are_legal() {
    assert!(TABLE.is_sorted_by_key(|row| row.name));
    assert_eq!(TABLE.iter().map(|row| row.name).collect::<BTreeSet<_>>().len(), TABLE.len());
    let broker: Vec<_> = TABLE.iter().filter_map(|row| row.broker).collect();
    assert_eq!(broker.iter().collect::<BTreeSet<_>>().len(), broker.len());
    for row in TABLE {
        assert_eq!(row.check(row.name, row.default), Ok(()), "{}", row.name);
        assert_eq!(defaults().value(row), row.default, "{}: what a broker is started with", row.name);
        assert!(row.help.len() > 20 && row.help.ends_with('.'), "{}", row.name);
    }
}

#[test]
fn every_row_is_enforced_or_fulfilled_or_stored_or_refused() {
    let plain = TopicConfig::resolve(&Configs::new(), &defaults()).unwrap();
    for row in TABLE {
        let others = others(row.values, row.default);
        assert!(!others.is_empty(), "{}", row.name);
        for value in others {
            let resolved = with(row.name, &value);
            match row.role {
                // The broker acts on what is resolved: the tests of Produce and DeleteRecords show how.
                Role::Enforced => assert_ne!(resolved.unwrap(), plain, "{}={value} changes nothing", row.name),
                Role::Fulfilled => assert_eq!(resolved.unwrap(), plain, "{}={value}", row.name),
                Role::Only(allowed) => {
                    let refused = resolved.unwrap_err().to_string();
                    assert!(refused.contains(row.name) && refused.contains(&allowed.join(", ")), "{refused}");
                }
            }
        }
    }
}

/// Whatever is said to be enforced must be known here, so that a new row cannot claim it without a test.
#[test]
fn what_is_enforced_reaches_what_the_broker_acts_on() {
    let number = |name: &str, of: fn(&TopicConfig) -> i64| assert_eq!(of(&with(name, "1234").unwrap()), 1234, "{name}");
    for row in TABLE.iter().filter(|row| row.role == Role::Enforced) {
        match row.name {
            "max.message.bytes" => number(row.name, |config| config.max_message_bytes as i64),
            "message.timestamp.before.max.ms" => number(row.name, |config| config.timestamp_before_max_ms),
            "message.timestamp.after.max.ms" => number(row.name, |config| config.timestamp_after_max_ms),
            "compression.type" => {
                let of = |value: &str| with("compression.type", value).unwrap().compression.codec;
                assert_eq!([of("producer"), of("uncompressed")], [None, Some(Codec::None)]);
                assert_eq!([of("gzip"), of("snappy")], [Some(Codec::Gzip), Some(Codec::Snappy)]);
                assert_eq!([of("lz4"), of("zstd")], [Some(Codec::Lz4), Some(Codec::Zstd)]);
            }
            "compression.gzip.level" => assert_eq!(with(row.name, "7").unwrap().compression.levels.gzip, 7),
            "compression.zstd.level" => assert_eq!(with(row.name, "-7").unwrap().compression.levels.zstd, -7),
            "delete.retention.ms" => number(row.name, |config| config.delete_retention_ms),
            "min.compaction.lag.ms" => number(row.name, |config| config.min_compaction_lag_ms),
            "max.compaction.lag.ms" => number(row.name, |config| config.max_compaction_lag_ms),
            "min.cleanable.dirty.ratio" => assert_eq!(with(row.name, "0.25").unwrap().min_dirty_millionths, 250_000),
            "retention.ms" => number(row.name, |config| config.retention_ms),
            "retention.bytes" => number(row.name, |config| config.retention_bytes),
            "segment.bytes" => assert_eq!(with(row.name, "1048577").unwrap().segment_bytes, 1_048_577),
            "message.timestamp.type" => assert!(with(row.name, "LogAppendTime").unwrap().log_append_time),
            "cleanup.policy" => {
                let of = |value: &str| with("cleanup.policy", value).map(|it| (it.compacted, it.deletable)).unwrap();
                assert_eq!([of("delete"), of("compact")], [(false, true), (true, false)]);
                assert_eq!([of("compact, delete"), of("")], [(true, true), (false, false)]);
            }
            name => panic!("{name} is said to be enforced: by what?"),
        }
    }
}

#[test]
fn refusals_are_in_kafkas_words() {
    for (name, value, expected) in [
        ("no.such.thing", "1", "Unknown topic config name: no.such.thing"),
        ("retention.ms", "soon", "Invalid value soon for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
        (
            "cleanup.policy",
            "shred",
            "Invalid value shred for configuration cleanup.policy: String must be one of: delete, compact",
        ),
        (
            "unclean.leader.election.enable",
            "true",
            "Invalid value true for configuration unclean.leader.election.enable: this broker has only false",
        ),
    ] {
        assert_eq!(with(name, value).unwrap_err().to_string(), expected);
    }
    let contradiction: Configs =
        [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")].map(|(n, v)| (n.into(), v.into())).into();
    let refused = TopicConfig::resolve(&contradiction, &defaults()).unwrap_err().to_string();
    assert!(refused.contains("min.compaction.lag.ms") && refused.contains("max.compaction.lag.ms"), "{refused}");
}
