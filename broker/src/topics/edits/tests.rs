//! Every operation on every kind of value.

use super::*;
use crate::config::BrokerConfig;

fn configs(pairs: &[(&str, &str)]) -> Configs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn edit(name: &str, operation: Operation, value: Option<&str>) -> Edits {
    Edits::OneByOne(vec![Edit { name: name.to_owned(), operation, value: value.map(str::to_owned) }])
}

fn apply(edits: &Edits, scope: Scope, before: &[(&str, &str)]) -> Result<Configs, Refusal> {
    let mut after = configs(before);
    edits.apply(scope, &mut after, &Defaults::new(&BrokerConfig::default()))?;
    Ok(after)
}

#[test]
fn single_values_are_set_and_go_back_to_the_default() {
    let set = edit("retention.ms", Operation::Set, Some("5"));
    assert_eq!(apply(&set, Scope::Topic, &[("a", "1")]), Ok(configs(&[("a", "1"), ("retention.ms", "5")])));
    let delete = edit("retention.ms", Operation::Delete, None);
    assert_eq!(apply(&delete, Scope::Topic, &[("a", "1"), ("retention.ms", "5")]), Ok(configs(&[("a", "1")])));
    assert_eq!(apply(&delete, Scope::Topic, &[]), Ok(configs(&[])), "what is not there may be deleted");
}

#[test]
fn lists_grow_and_shrink_from_what_holds_now() {
    let append = |value| edit("cleanup.policy", Operation::Append, Some(value));
    let subtract = |value| edit("cleanup.policy", Operation::Subtract, Some(value));
    let both = configs(&[("cleanup.policy", "delete,compact")]);
    assert_eq!(apply(&append("compact"), Scope::Topic, &[]), Ok(both.clone()), "the default is delete");
    assert_eq!(apply(&append("compact"), Scope::Topic, &[("cleanup.policy", "delete,compact")]), Ok(both));
    let rest = configs(&[("cleanup.policy", "compact")]);
    assert_eq!(apply(&subtract("delete"), Scope::Topic, &[("cleanup.policy", "compact, delete")]), Ok(rest));
    let none = configs(&[("cleanup.policy", "")]);
    assert_eq!(apply(&subtract("delete,compact"), Scope::Topic, &[]), Ok(none));
    let broker = edit("log.cleanup.policy", Operation::Append, Some("compact"));
    let both = configs(&[("log.cleanup.policy", "delete,compact")]);
    assert_eq!(apply(&broker, Scope::Broker, &[]), Ok(both));
}

#[test]
fn what_makes_no_sense_is_refused() {
    use ResponseError::{InvalidConfig, InvalidRequest};
    for (edits, scope, code) in [
        (edit("retention.ms", Operation::Append, Some("5")), Scope::Topic, InvalidConfig),
        (edit("retention.ms", Operation::Subtract, Some("5")), Scope::Topic, InvalidConfig),
        (edit("no.such.thing", Operation::Append, Some("5")), Scope::Topic, InvalidConfig),
        (edit("cleanup.policy", Operation::Append, Some("compact")), Scope::Broker, InvalidRequest),
        (edit("retention.ms", Operation::Set, None), Scope::Topic, InvalidRequest),
        (edit("cleanup.policy", Operation::Append, None), Scope::Topic, InvalidRequest),
        (Edits::Replace(vec![("retention.ms".to_owned(), None)]), Scope::Topic, InvalidRequest),
        (
            Edits::Replace(vec![("a".to_owned(), Some(String::new())), ("a".to_owned(), Some(String::new()))]),
            Scope::Topic,
            InvalidRequest,
        ),
    ] {
        assert_eq!(apply(&edits, scope, &[]).unwrap_err().0, code, "{edits:?}");
    }
}

#[test]
fn all_anew_forgets_what_is_not_named() {
    let replace = Edits::Replace(vec![("b".to_owned(), Some("2".to_owned()))]);
    assert_eq!(apply(&replace, Scope::Topic, &[("a", "1")]), Ok(configs(&[("b", "2")])));
    assert_eq!(apply(&Edits::Replace(Vec::new()), Scope::Topic, &[("a", "1")]), Ok(configs(&[])));
}
