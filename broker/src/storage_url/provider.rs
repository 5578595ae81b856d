//! Whose object storage a URL means, and the client that speaks to it. Where and who comes from the provider's usual
//! environment variables; time limits too, with defaults of ours where none are set.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, Result, RetryConfig};
use url::Url;

/// Time limits of the client where the environment sets none: the variable after its provider's prefix, its key, our
/// default. Whoever is waited for by a client of ours sets a shorter limit; a part of a long object, and its completion,
/// take their time.
const CLIENT_DEFAULTS: [(&str, ClientConfigKey, &str); 2] = [
    ("CONNECT_TIMEOUT", ClientConfigKey::ConnectTimeout, "3 seconds"),
    ("TIMEOUT", ClientConfigKey::Timeout, "60 seconds"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// And every server that speaks its protocol.
    S3,
    Gcs,
    Azure,
}

impl Provider {
    pub fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" => Some(Self::Azure),
            _ => None,
        }
    }

    /// Does the URL name a bucket, and nothing that would be left out?
    pub fn check(self, url: &Url) -> Result<(), String> {
        if url.host_str().is_none_or(str::is_empty) {
            let example = match self {
                Self::S3 => "s3://bucket/prefix",
                Self::Gcs => "gs://bucket/prefix",
                Self::Azure => "az://container/prefix",
            };
            return Err(format!("it names no bucket: {example}"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.port().is_some() || url.query().is_some() {
            return Err(format!("only a bucket and a prefix belong into the URL; {}", self.credentials()));
        }
        Ok(())
    }

    /// Where credentials come from, for people.
    pub fn credentials(self) -> &'static str {
        match self {
            Self::S3 => {
                "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the machine's role; the \
                 region from AWS_REGION, another server's address from AWS_ENDPOINT_URL"
            }
            Self::Gcs => {
                "credentials come from the file that GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT names, \
                 or from the machine's service account"
            }
            Self::Azure => {
                "the account comes from AZURE_STORAGE_ACCOUNT_NAME, credentials from AZURE_STORAGE_ACCOUNT_KEY, \
                 AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID with AZURE_TENANT_ID and AZURE_CLIENT_SECRET or \
                 AZURE_FEDERATED_TOKEN_FILE, or from the machine's identity"
            }
        }
    }

    /// A client of this bucket. Sends nothing yet.
    pub fn connect(self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        match self {
            Self::S3 => {
                let builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retries());
                let is_chosen = std::env::var_os("AWS_UNSIGNED_PAYLOAD").is_some();
                let builder = if is_chosen { builder } else { signed_as_needed(builder) };
                let builder = limits("AWS")
                    .fold(builder, |builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value));
                Ok(Arc::new(builder.build()?))
            }
            Self::Gcs => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retries());
                let builder = limits("GOOGLE")
                    .fold(builder, |builder, (key, value)| builder.with_config(GoogleConfigKey::Client(key), value));
                Ok(Arc::new(builder.build()?))
            }
            Self::Azure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retries());
                let builder = limits("AZURE")
                    .fold(builder, |builder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value));
                Ok(Arc::new(builder.build()?))
            }
        }
    }
}

/// A signature covers a checksum (SHA-256) of the whole body, unless it says that it does not. Computing that is more than
/// a third of the CPU time of a broker that is written to at full load. Over TLS it adds nothing: nobody can change a body
/// on its way, and what is stored carries checksums of its own. Over plain HTTP nothing else protects it.
fn signed_as_needed(builder: AmazonS3Builder) -> AmazonS3Builder {
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let is_encrypted = endpoint.is_none_or(|endpoint| endpoint.to_ascii_lowercase().starts_with("https://"));
    builder.with_unsigned_payload(is_encrypted)
}

/// The settled write and the reader retry with their own deadlines; what is below them only smooths a blip.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    }
}

fn limits(prefix: &str) -> impl Iterator<Item = (ClientConfigKey, &'static str)> {
    CLIENT_DEFAULTS
        .into_iter()
        .filter(move |(variable, _, _)| std::env::var_os(format!("{prefix}_{variable}")).is_none())
        .map(|(_, key, value)| (key, value))
}

#[cfg(test)]
mod tests;
