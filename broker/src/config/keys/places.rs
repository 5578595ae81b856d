//! Where data and metadata are kept.

use meta::etcd::EtcdTarget;

use super::{Flag, Key, Kind, plain};
use crate::config::MetadataSetting;

/// The path of a file, or none.
macro_rules! file {
    ($field:ident) => {
        Kind::Text {
            get: |settings| settings.$field.clone().unwrap_or_else(|| "none".to_owned()),
            set: |settings, text| {
                settings.$field = match text {
                    "" => return Err("must be the path of a file, or none".to_owned()),
                    "none" => None,
                    path => Some(path.to_owned()),
                };
                Ok(())
            },
        }
    };
}

pub const KEYS: &[Key] = &[
    Key {
        name: "storage",
        flag: Some(Flag { name: "storage", value: "URL|FOLDER" }),
        help: "Where data is kept: a folder, file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or \
               memory:// (lost at exit).",
        kind: Kind::Text {
            get: |settings| settings.storage.clone(),
            set: |settings, text| {
                if text.is_empty() {
                    return Err("must be a folder or a URL".to_owned());
                }
                settings.storage = text.to_owned();
                Ok(())
            },
        },
    },
    Key {
        name: "metadata",
        flag: Some(Flag { name: "metadata", value: "embedded|etcd://HOST:PORT,.../PREFIX" }),
        help: "Where metadata is kept: embedded (in the storage itself) or etcd, with [USER:PASSWORD@] before the \
               hosts if it asks for them (better in the variable or the file than on the command line).",
        kind: Kind::Text {
            get: |settings| match &settings.metadata {
                MetadataSetting::Embedded => "embedded".to_owned(),
                MetadataSetting::Etcd(target) => target.to_string(),
            },
            set: |settings, text| {
                settings.metadata = match text {
                    "embedded" => MetadataSetting::Embedded,
                    _ if text.starts_with("etcd://") => MetadataSetting::Etcd(EtcdTarget::parse(text)?),
                    _ => return Err("must be embedded, or etcd://...".to_owned()),
                };
                Ok(())
            },
        },
    },
    plain(
        "etcd_ca_file",
        "PEM file of whoever signed etcd's certificate; with it etcd is spoken to over TLS. none for no TLS.",
        file!(etcd_ca_file),
    ),
    plain(
        "etcd_cert_file",
        "PEM file of the certificate by which etcd knows this broker; none for no certificate.",
        file!(etcd_cert_file),
    ),
    plain("etcd_key_file", "PEM file of the key of etcd_cert_file.", file!(etcd_key_file)),
];
