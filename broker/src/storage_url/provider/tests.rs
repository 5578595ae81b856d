//! What requests to a bucket are protected by.

use super::*;

#[test]
fn bodies_are_signed_where_nothing_else_protects_them() {
    let is_unsigned = |builder: AmazonS3Builder| {
        signed_as_needed(builder).get_config_value(&AmazonS3ConfigKey::UnsignedPayload).expect("it has a value")
    };
    let with = |endpoint: &str| AmazonS3Builder::new().with_endpoint(endpoint);
    assert_eq!(is_unsigned(AmazonS3Builder::new()), "true", "the provider's own endpoint speaks TLS");
    assert_eq!(is_unsigned(with("https://storage.example")), "true");
    assert_eq!(is_unsigned(with("HTTPS://storage.example")), "true");
    assert_eq!(is_unsigned(with("http://127.0.0.1:9000")), "false");
}
