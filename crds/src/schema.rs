//! Building blocks of the schema: what a name, a host or an address looks like, and how lists are merged.
//!
//! Fields name these through `#[schemars(schema_with = "...")]`. Patterns are OpenAPI patterns and not CEL, since a regular
//! expression in CEL is charged by length times items and exhausts the API server's budget.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use crate::peer_type::PeerType;

/// One text format: its pattern, its longest length, and the words in which a refusal explains it.
pub(crate) struct TextFormat {
    /// The regular expression, anchored.
    pub(crate) pattern: &'static str,
    /// Longest text in characters.
    pub(crate) max_length: usize,
    /// What the text must be, after "is not".
    pub(crate) noun: &'static str,
    /// What to do about it: one sentence with an example.
    pub(crate) remedy: &'static str,
}

/// Declares marker types that stand for a text format in `schema_with` attributes.
macro_rules! text_formats {
    ($( $(#[$meta:meta])* $name:ident { $pattern:expr, $max:expr, $noun:literal, $remedy:literal } )+) => {
        $(
            $(#[$meta])*
            pub(crate) struct $name;

            impl Format for $name {
                const FORMAT: TextFormat =
                    TextFormat { pattern: $pattern, max_length: $max, noun: $noun, remedy: $remedy };
            }

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": "string", "pattern": $pattern, "maxLength": $max })
                }
            }
        )+

        /// Every format, for the validator to find the words that belong to a pattern.
        pub(crate) const FORMATS: &[TextFormat] = &[ $( $name::FORMAT, )+ ];
    };
}

/// A marker type's format.
pub(crate) trait Format {
    /// The format itself.
    const FORMAT: TextFormat;
}

text_formats! {
    /// A domain name in lower-case A-labels.
    Domain {
        r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])$", 253,
        "a domain name of lower-case A-labels",
        "Write it in lower case, without a dot at the end and with international labels in A-label form, for example chat.example.com or xn--bcher-kva.example."
    }
    /// A host: a name or an IP address.
    Host {
        r"^([A-Za-z0-9]([-A-Za-z0-9_]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9_]{0,61}[A-Za-z0-9])?)*|[0-9a-fA-F]{0,4}(:[0-9a-fA-F]{0,4}){2,7})$", 253,
        "a host name or an IP address",
        "Write a name or an address without a port and without brackets, for example xmpp.internal.svc or 192.0.2.10."
    }
    /// Host and port.
    HostPort {
        r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\]):[1-9][0-9]{0,4}$", 260,
        "a host with a port",
        "Write host:port, for example redis-0.redis:26379 or [2001:db8::1]:6379."
    }
    /// IP address and port.
    IpPort {
        r"^(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|\[[0-9a-fA-F:.]{2,45}\]):[1-9][0-9]{0,4}$", 64,
        "an IP address with a port",
        "Write ip:port, for example 192.0.2.53:53 or [2001:db8::53]:53."
    }
    /// IP address.
    Ip {
        r"^(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$", 45,
        "an IP address",
        "Write an IPv4 or IPv6 address, for example 192.0.2.10 or 2001:db8::10."
    }
    /// Address range.
    Cidr {
        r"^(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$", 49,
        "an address range",
        "Write address/prefix, for example 10.0.0.0/8 or 2001:db8::/32."
    }
    /// Name of an object.
    ObjectName {
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", 253,
        "an object name",
        "Write lower-case letters, digits, hyphens and dots, beginning and ending with a letter or digit, for example gateway-tls."
    }
    /// Name of a namespace or another single label.
    Label {
        r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", 63,
        "a lower-case label",
        "Write at most 63 lower-case letters, digits and hyphens, for example im-edge."
    }
    /// Name of a GatewayPool: it becomes the prefix of Service names.
    PoolName {
        r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$", 40,
        "a pool name",
        "Write at most 40 lower-case letters, digits and hyphens, beginning with a letter, for example sip-edge."
    }
    /// Key of a Secret.
    SecretKeyName {
        r"^[-._a-zA-Z0-9]+$", 253,
        "a key of a Secret",
        "Write letters, digits, hyphens, dots and underscores, for example corp.example."
    }
    /// Host name template of nodes.
    HostTemplate {
        r"^([a-z0-9]|\{(node|pool|domain)\})([-a-z0-9.]|\{(node|pool|domain)\})*$", 253,
        "a host name template",
        "Write a lower-case host name in which {node}, {pool} and {domain} may stand, for example sip.{domain}."
    }
    /// A ratio from 0 to 1 as a string.
    Ratio {
        r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$", 8,
        "a ratio from 0.0 to 1.0",
        "Write a decimal in quotes, for example \"0.05\"."
    }
    /// URL of a collector.
    HttpUrl {
        r"^https?://[^\s]+$", 512,
        "an http or https URL",
        "Write the collector's base URL, for example http://otel-collector.monitoring:4318."
    }
    /// A quantity of Kubernetes, as a string.
    Quantity {
        r"^[0-9]+(\.[0-9]+)?([eE][0-9]+|m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", 32,
        "a Kubernetes quantity",
        "Write a number with an optional unit, for example 500m or 256Mi."
    }
    /// User address, `user@domain`.
    UserAddress {
        r"^[^@\s/]+@([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])$", 1277,
        "a user address",
        "Write user@domain with the domain in lower case, for example mallory@partner.example."
    }
    /// Name of a certificate that a peer may present.
    PeerIdentity {
        r"^([a-z0-9]([-a-z0-9_]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", 253,
        "a name in a certificate",
        "Write the lower-case host or domain name of the peer's certificate, for example edge.partner.example."
    }
    /// Any printable text without line breaks, up to 256 characters.
    Line {
        r"^[^\x00-\x1f\x7f]*$", 256,
        "a single line of printable text",
        "Remove line breaks and control characters."
    }
    /// Reference of a container image.
    ImageReference {
        r"^[^\s]+$", 512,
        "an image reference",
        "Write registry/name:tag or registry/name@sha256:digest without spaces."
    }
}

/// The schema of one value of a format, an enum or a structure.
pub(crate) fn one<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// An integer from `MIN` to `MAX`.
pub(crate) fn int<const MIN: i64, const MAX: i64>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": MIN, "maximum": MAX })
}

/// A port that an unprivileged process may bind.
pub(crate) fn high_port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1024, "maximum": 65535 })
}

/// A port that a peer may listen on.
pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 })
}

/// The peer types of the section `sip`.
pub(crate) fn sip_peer_type(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<_> = PeerType::sip().map(PeerType::as_str).collect();
    json_schema!({ "type": "string", "enum": words })
}

/// The peer types of the section `xmpp`.
pub(crate) fn xmpp_peer_type(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<_> = PeerType::xmpp().map(PeerType::as_str).collect();
    json_schema!({ "type": "string", "enum": words })
}

/// A list without order or repetition, owned entry by entry.
pub(crate) fn set<T: JsonSchema, const MIN: usize, const MAX: usize>(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<T>();
    let mut schema =
        json_schema!({ "type": "array", "items": items, "maxItems": MAX, "x-kubernetes-list-type": "set" });
    if MIN > 0 {
        schema.insert("minItems".into(), json!(MIN));
    }
    schema
}

/// A list of objects in which some fields together are the identity of an item.
pub(crate) trait Keyed: JsonSchema {
    /// The identifying fields, all required.
    const KEYS: &'static [&'static str];
}

/// A list of objects, merged by their keys.
pub(crate) fn keyed<T: Keyed, const MIN: usize, const MAX: usize>(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<T>();
    let mut schema = json_schema!({
        "type": "array",
        "items": items,
        "maxItems": MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": T::KEYS,
    });
    if MIN > 0 {
        schema.insert("minItems".into(), json!(MIN));
    }
    schema
}

/// A map from label or annotation keys to texts, at most 32 entries.
pub(crate) fn text_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

/// A map from resource names to quantities.
pub(crate) fn quantity_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": Quantity::FORMAT.pattern,
            "maxLength": Quantity::FORMAT.max_length,
            "x-kubernetes-int-or-string": true,
        },
    })
}
