//! Objects for tests, written as manifests are.

use isthmus_crds::{API_VERSION, Object, parse_kind};
use isthmus_model::{BareAddress, Domain};
use serde_json::{Value, json};

use crate::snapshot::{Report, Snapshot};

/// Reads one object; fields of `spec` as given.
pub(crate) fn object(kind: &str, name: &str, spec: &Value) -> Object {
    let document = json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": "im-edge"},
        "spec": spec,
    });
    parse_kind(&document).unwrap()
}

pub(crate) fn federation(spec: &Value) -> Object {
    object("Federation", "default", spec)
}

pub(crate) fn pool(name: &str, spec: &Value) -> Object {
    object("GatewayPool", name, spec)
}

/// A pool of one pod with both roles.
pub(crate) fn edge() -> Object {
    pool("edge", &json!({"roles": ["SIP", "XMPP"], "expose": {"hostname": "sip.{domain}"}}))
}

/// A local domain; `more` is laid over a server-to-server backend.
pub(crate) fn local(domain: &str, more: &Value) -> Object {
    let spec = json!({"domain": domain, "backend": {"xmppServer": {"host": "xmpp.internal", "port": 5269}}});
    object("LocalDomain", domain, &laid_over(spec, more))
}

/// A local domain that hangs on components.
pub(crate) fn component(domain: &str, more: &Value) -> Object {
    let backend = json!({"component": {"host": "xmpp.internal", "port": 5347, "secretKey": "main"}});
    local(domain, &laid_over(json!({"backend": backend}), more))
}

/// A federated domain over standard SIP.
pub(crate) fn sip(domain: &str, more: &Value) -> Object {
    let spec = json!({"domain": domain, "protocol": "SIP", "sip": {"peerType": "SimpleGeneric"}});
    object("FederatedDomain", domain, &laid_over(spec, more))
}

/// A federated domain over XMPP.
pub(crate) fn xmpp(domain: &str, more: &Value) -> Object {
    let spec = json!({"domain": domain, "protocol": "XMPP", "xmpp": {}});
    object("FederatedDomain", domain, &laid_over(spec, more))
}

pub(crate) fn policy(name: &str, tier: &str, rules: &Value) -> Object {
    object("FederationPolicy", name, &json!({"tier": tier, "rules": rules}))
}

/// A realm with one pool, `corp.example` and these objects; every object must be taken.
pub(crate) fn realm(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let report = realm_report(objects);
    let refused: Vec<_> = report.refusals().collect();
    assert!(refused.is_empty(), "{refused:?}");
    report.snapshot
}

pub(crate) fn realm_report(objects: impl IntoIterator<Item = Object>) -> Report {
    let base = [federation(&json!({})), edge(), local("corp.example", &json!({}))];
    Snapshot::compile(base.into_iter().chain(objects))
}

pub(crate) fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

pub(crate) fn user(jid: &str) -> BareAddress {
    BareAddress::from_jid(jid).unwrap()
}

fn laid_over(mut base: Value, more: &Value) -> Value {
    if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
        for (key, value) in more {
            base.insert(key.clone(), value.clone());
        }
    }
    base
}
