//! Tests of what values may look like.

use super::*;

#[test]
fn wrong_values_are_refused_in_kafkas_words() {
    let cases: [(Values, &str, &str); 11] = [
        (Values::Boolean, "yes", "Expected value to be either true or false"),
        (Values::Int(1, 5), "many", "Not a number of type INT"),
        (Values::Int(1, 5), "0", "Value must be at least 1"),
        (Values::Int(1, 5), "6", "Value must be no more than 5"),
        (Values::Long(0, i64::MAX), "9223372036854775808", "Not a number of type LONG"),
        (Values::Double(0.0, 1.0), "NaN", "Not a number of type DOUBLE"),
        (Values::Double(0.0, 1.0), "1.5", "Value must be no more than 1"),
        (Values::OneOf(&["a", "b"]), "c", "String must be one of: a, b"),
        (Values::ListOf(&["a", "b"]), "a,c", "String must be one of: a, b"),
        (Values::GzipLevel, "0", "Value must be between 1 and 9, or -1"),
        (Values::Replicas, "1:2,x", "Must be * or a list of [partitionId]:[brokerId],[partitionId]:[brokerId],..."),
    ];
    for (values, text, why) in cases {
        assert_eq!(values.check(text), Err(why.to_owned()), "{values:?} {text}");
    }
}

#[test]
fn right_values_are_taken_with_blanks_around_them() {
    let cases: [(Values, &str); 12] = [
        (Values::Boolean, " TRUE"),
        (Values::Int(1, 5), "5 "),
        (Values::Long(-1, i64::MAX), "-1"),
        (Values::Double(0.0, 1.0), "0.01"),
        (Values::OneOf(&["a", "b"]), "b"),
        (Values::ListOf(&["a", "b"]), "b, a"),
        (Values::ListOf(&["a", "b"]), ""),
        (Values::Replicas, "*"),
        (Values::Replicas, "0:1, 2:3"),
        (Values::Replicas, ""),
        (Values::GzipLevel, "-1"),
        (Values::GzipLevel, "9"),
    ];
    for (values, text) in cases {
        assert_eq!(values.check(text), Ok(()), "{values:?} {text}");
    }
}
