//! Keys of Secrets that objects name, and fields that mean nothing outside a cluster.

use isthmus_crds::{ClientTls, GatewayPool, Object};
use serde_json::Value;

use super::documents::Realm;
use super::finding::{Notice, Refusal};

const CERTIFICATE: &[&str] = &["tls.crt", "tls.key"];
const ANCHORS: &[&str] = &["ca.crt"];

/// Fields of a GatewayPool for which the operator deploys something, and what stands in for them here.
const DEPLOYMENT_FIELDS: &[(&str, &str)] = &[
    ("replicas", "whoever starts the processes decides how many there are"),
    ("expose.type", "reaching this process is up to its host"),
    ("expose.annotations", "there is no Service"),
    ("expose.loadBalancerClass", "there is no Service"),
    ("expose.loadBalancerSourceRanges", "there is no Service"),
    ("expose.ipFamilyPolicy", "there is no Service"),
    ("expose.externalTrafficPolicy", "there is no Service"),
    ("tls.issuerRef", "name Secrets under tls.secretRefs instead"),
    ("tls.maxNamesPerCertificate", "no certificates are ordered"),
    ("resources", "set bounds where the process is started"),
    ("image", "the program that runs is the one that was started"),
    ("imagePullSecrets", "no image is pulled"),
    ("pod", "there is no pod"),
    ("disruption", "there is no PodDisruptionBudget"),
    ("autoscaling", "nothing scales this process"),
    ("networkPolicy", "there is no NetworkPolicy"),
    ("monitoring", "scrape /metrics of the admin port"),
];

fn is_set(spec: &Value, field: &str) -> bool {
    field.split('.').try_fold(spec, |value, key| value.get(key)).is_some_and(|value| !value.is_null())
}

/// One notice for each field of a pool that only a deployment would heed.
pub(super) fn deployment_notices(realm: &Realm, pool: &GatewayPool) -> Vec<Notice> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let Some(declared) = realm.declared(isthmus_crds::Kind::GatewayPool, name) else { return Vec::new() };
    let spec = &declared.value()["spec"];
    DEPLOYMENT_FIELDS
        .iter()
        .filter(|(field, _)| is_set(spec, field))
        .map(|(field, instead)| {
            let message = format!("the field is ignored in standalone mode: {instead}");
            declared.finding(&format!("spec.{field}"), message)
        })
        .collect()
}

/// Fields of a FederatedDomain on which the gateway does not act yet.
const UNHEEDED_FIELDS: &[&str] = &["overrides.rate", "overrides.keepalive"];

/// One notice for each field of a partner on which the gateway does not act yet.
pub(super) fn unheeded_notices(realm: &Realm) -> Vec<Notice> {
    let partners = realm.of_kind(isthmus_crds::Kind::FederatedDomain);
    partners
        .flat_map(|declared| {
            let set = UNHEEDED_FIELDS.iter().filter(|field| is_set(&declared.value()["spec"], field));
            set.map(|field| declared.finding(&format!("spec.{field}"), "the field is not acted on yet"))
        })
        .collect()
}

/// Refuses every reference of the realm to a key of a Secret that does not exist. Of the pools, only the one of this
/// process serves with its certificates, so only its Secrets must be here.
pub(super) fn missing_keys(realm: &Realm, pool: &str) -> Vec<Refusal> {
    let mut check = Check { realm, refusals: Vec::new() };
    for declared in realm.objects() {
        match declared.object() {
            Object::Federation(federation) => {
                let spec = &federation.spec;
                for (at, reference) in spec.trust.iter().flat_map(|trust| &trust.ca_secret_refs).enumerate() {
                    check.keys(declared, &format!("spec.trust.caSecretRefs[{at}].name"), &reference.name, ANCHORS);
                }
                if let Some(reference) = &spec.dialback_key_secret_ref {
                    check.keys(declared, "spec.dialbackKeySecretRef.key", &reference.name, &[&reference.key]);
                }
                if let Some(redis) = spec.redis() {
                    for (at, address) in redis.addresses.iter().enumerate() {
                        if !isthmus_store::is_redis_address(address) {
                            let field = format!("spec.stateStore.redis.addresses[{at}]");
                            let problem = "the port is none. Write host:port with a number from 1 to 65535.";
                            check.refusals.push(declared.finding(&field, problem));
                        }
                    }
                    if let Some(auth) = &redis.auth_secret_ref {
                        let field = "spec.stateStore.redis.authSecretRef";
                        check.keys(declared, &format!("{field}.passwordKey"), &auth.name, &[&auth.password_key]);
                        if let Some(key) = &auth.user_key {
                            check.keys(declared, &format!("{field}.userKey"), &auth.name, &[key]);
                        }
                    }
                    check.client_tls(declared, "spec.stateStore.redis.tls", redis.tls.as_ref());
                }
            }
            Object::GatewayPool(found) if declared.object().name() == pool => {
                let references = found.spec.tls.iter().flat_map(|tls| &tls.secret_refs);
                for (at, reference) in references.enumerate() {
                    check.keys(declared, &format!("spec.tls.secretRefs[{at}].name"), &reference.name, CERTIFICATE);
                }
            }
            Object::LocalDomain(local) => {
                if let Some(tls) = &local.spec.tls {
                    check.keys(declared, "spec.tls.secretRef.name", &tls.secret_ref.name, CERTIFICATE);
                }
                if let Some(component) = &local.spec.backend.component {
                    let field = "spec.backend.component";
                    check.credential(declared, &format!("{field}.secretKey"), &component.secret_key);
                    for (at, entry) in component.secret_keys.iter().enumerate() {
                        check.credential(declared, &format!("{field}.secretKeys[{at}].secretKey"), &entry.secret_key);
                    }
                    check.client_tls(declared, &format!("{field}.tls"), component.tls.as_ref());
                }
                if let Some(server) = &local.spec.backend.xmpp_server {
                    check.client_tls(declared, "spec.backend.xmppServer.tls", server.tls.as_ref());
                }
            }
            _ => {}
        }
    }
    check.refusals
}

struct Check<'a> {
    realm: &'a Realm,
    refusals: Vec<Refusal>,
}

impl Check<'_> {
    fn keys(&mut self, declared: &super::Declared, field: &str, secret: &str, keys: &[&str]) {
        let exists = self.realm.secrets().contains(secret);
        for key in keys {
            let problem = match self.realm.secrets().get(secret, key) {
                Some(value) if !value.is_empty() => continue,
                Some(_) => format!("key {key} of Secret {secret} is empty. Give it a value."),
                None if exists => format!("Secret {secret} has no key {key}. Add the key to it."),
                None => format!(
                    "Secret {secret} with the key {key} does not exist. Add a Secret document, or a file {secret}/{key} below the folder of --secrets."
                ),
            };
            self.refusals.push(declared.finding(field, problem));
        }
    }

    fn credential(&mut self, declared: &super::Declared, field: &str, key: &str) {
        let federation = self.realm.declared(isthmus_crds::Kind::Federation, isthmus_crds::FEDERATION_NAME);
        // A realm without a Federation is told so by the compiler.
        let Some(Object::Federation(federation)) = federation.map(super::Declared::object) else { return };
        match &federation.spec.credentials_secret_ref {
            Some(reference) => self.keys(declared, field, &reference.name, &[key]),
            None => self.refusals.push(declared.finding(
                field,
                format!(
                    "Federation {} names no Secret in which the key could stand. Set its spec.credentialsSecretRef.",
                    isthmus_crds::FEDERATION_NAME
                ),
            )),
        }
    }

    fn client_tls(&mut self, declared: &super::Declared, field: &str, tls: Option<&ClientTls>) {
        let Some(tls) = tls else { return };
        if let Some(reference) = &tls.ca_secret_ref {
            self.keys(declared, &format!("{field}.caSecretRef.name"), &reference.name, ANCHORS);
        }
        if let Some(reference) = &tls.client_secret_ref {
            self.keys(declared, &format!("{field}.clientSecretRef.name"), &reference.name, CERTIFICATE);
        }
    }
}
