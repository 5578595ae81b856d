//! Tests of the table of APIs.

mod groups;

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsResponse;

use super::*;
use crate::request::{Principal, Response};

fn context(api_version: i16) -> RequestContext {
    RequestContext {
        api_key: 18,
        api_version,
        correlation_id: 1,
        client_id: None,
        principal: Principal::Anonymous,
        peer: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
        received: tokio::time::Instant::now(),
    }
}

fn decoded(response: Response, version: i16) -> ApiVersionsResponse {
    let mut bytes = Bytes::from(response.parts.concat());
    let decoded = ApiVersionsResponse::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty());
    decoded
}

#[test]
fn the_table_is_in_order_and_within_what_can_be_decoded() {
    assert!(APIS.is_sorted_by_key(|api| api.shape.api_key));
    for api in APIS {
        let name = api.shape.name;
        assert!(api.advertised_min <= api.accepted.min && api.accepted.min <= api.accepted.max, "{name}");
        assert!(shapes::by_key(api.shape.api_key).is_some_and(|shape| std::ptr::eq(shape, api.shape)), "{name}");
    }
}

#[test]
fn a_version_too_new_is_answered_so_that_every_client_can_read_it() {
    let response = decoded(api_versions::unsupported(context(99)).unwrap(), 0);
    assert_eq!(response.error_code, 35);
    let versions: Vec<_> =
        response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    assert_eq!(versions, [(18, 0, 4)]);
}

#[test]
fn every_version_of_the_answer_names_the_whole_table() {
    for version in 0..=4 {
        let response = decoded(codec::encode(&context(version), &api_versions::answer()).unwrap(), version);
        let named: Vec<_> = response.api_keys.iter().map(|api| api.api_key).collect();
        assert_eq!(named, APIS.iter().map(|api| api.shape.api_key).collect::<Vec<_>>());
        assert!(response.finalized_features.is_empty() && response.supported_features.is_empty());
    }
}
