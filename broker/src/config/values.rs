//! What the value of a configuration under one of Kafka's names may look like, and how a wrong one is refused.

/// Kafka's types, by their numbers in DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// What is legal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    Boolean,
    /// Whole numbers of 32 bits, both ends included.
    Int(i32, i32),
    /// Whole numbers of 64 bits, both ends included.
    Long(i64, i64),
    /// Decimal fractions, both ends included.
    Double(f64, f64),
    OneOf(&'static [&'static str]),
    /// A comma-separated list of these; may be empty.
    ListOf(&'static [&'static str]),
    /// `*`, or a comma-separated list of `partition:broker`.
    Replicas,
    /// 1 to 9, or -1 for the codec's own choice.
    GzipLevel,
}

impl Values {
    pub fn kind(self) -> Type {
        match self {
            Values::Boolean => Type::Boolean,
            Values::Int(..) | Values::GzipLevel => Type::Int,
            Values::Long(..) => Type::Long,
            Values::Double(..) => Type::Double,
            Values::OneOf(_) => Type::String,
            Values::ListOf(_) | Values::Replicas => Type::List,
        }
    }

    /// Is this text such a value? The error says what is allowed.
    pub fn check(self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let one_of = |allowed: &[&str]| format!("String must be one of: {}", allowed.join(", "));
        match self {
            Values::Boolean if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") => Ok(()),
            Values::Boolean => Err("Expected value to be either true or false".to_owned()),
            Values::Int(min, max) => within(text.parse::<i32>().ok(), min, max, "INT"),
            Values::Long(min, max) => within(text.parse::<i64>().ok(), min, max, "LONG"),
            Values::Double(min, max) => within(text.parse().ok().filter(|it: &f64| it.is_finite()), min, max, "DOUBLE"),
            Values::OneOf(allowed) if allowed.contains(&text) => Ok(()),
            Values::OneOf(allowed) => Err(one_of(allowed)),
            Values::ListOf(allowed) if items(text).all(|item| allowed.contains(&item)) => Ok(()),
            Values::ListOf(allowed) => Err(one_of(allowed)),
            Values::Replicas if text == "*" || items(text).all(is_replica) => Ok(()),
            Values::Replicas => {
                Err("Must be * or a list of [partitionId]:[brokerId],[partitionId]:[brokerId],...".to_owned())
            }
            Values::GzipLevel if text == "0" => Err("Value must be between 1 and 9, or -1".to_owned()),
            Values::GzipLevel => within(text.parse::<i32>().ok(), -1, 9, "INT"),
        }
    }

    /// What is allowed, for people.
    pub fn describe(self) -> String {
        match self {
            Values::Boolean => "true, false".to_owned(),
            Values::Int(min, i32::MAX) => format!("{min} or more"),
            Values::Int(min, max) => format!("{min} to {max}"),
            Values::Long(i64::MIN, i64::MAX) => "any".to_owned(),
            Values::Long(min, i64::MAX) => format!("{min} or more"),
            Values::Long(min, max) => format!("{min} to {max}"),
            Values::Double(min, max) => format!("{min} to {max}"),
            Values::OneOf(allowed) => allowed.join(", "),
            Values::ListOf(allowed) => format!("a list of {}", allowed.join(", ")),
            Values::Replicas => "* or a list of partition:broker".to_owned(),
            Values::GzipLevel => "1 to 9, or -1".to_owned(),
        }
    }
}

/// The items of a list; an empty text is an empty list.
pub fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn within<T: PartialOrd + std::fmt::Display>(number: Option<T>, min: T, max: T, kind: &str) -> Result<(), String> {
    match number {
        None => Err(format!("Not a number of type {kind}")),
        Some(number) if number < min => Err(format!("Value must be at least {min}")),
        Some(number) if number > max => Err(format!("Value must be no more than {max}")),
        Some(_) => Ok(()),
    }
}

fn is_replica(item: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    item.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
}

#[cfg(test)]
mod tests;
