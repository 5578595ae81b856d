//! Which names a topic may have.

/// Longest legal topic name, as in Kafka.
const MAX_LENGTH: usize = 249;

/// Kafka's rule. The error says what is wrong with the name.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the topic name is empty".to_owned());
    }
    if name == "." || name == ".." {
        return Err(format!("the topic name cannot be \"{name}\""));
    }
    if name.len() > MAX_LENGTH {
        return Err(format!("the topic name is {} characters long, the longest allowed is {MAX_LENGTH}", name.len()));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(c) => Err(format!("the topic name contains {c:?}; legal are ASCII letters and digits, '.', '_' and '-'")),
        None => Ok(()),
    }
}
