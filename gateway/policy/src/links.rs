//! Which component links a realm needs (design §6.1).

use std::collections::BTreeMap;

use isthmus_crds::ClientTls;
use isthmus_model::Domain;

use crate::objects::Backend;
use crate::snapshot::Snapshot;

/// One component link: a name at a server.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentLink {
    /// Name or address of the XMPP server.
    pub host: String,
    /// Its port for components.
    pub port: u16,
    /// The component's name: a federated domain, or a service address.
    pub name: Domain,
    /// Key of the secret in the credentials Secret.
    pub secret_key: String,
    /// TLS towards the server.
    pub tls: Option<ClientTls>,
    /// Whether it is a service address rather than a federated domain.
    pub is_service: bool,
    /// Local domains that it serves, sorted.
    pub locals: Vec<Domain>,
}

/// A link that two local domains want with different secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretConflict {
    pub(crate) name: Domain,
    pub(crate) first: Domain,
    pub(crate) second: Domain,
}

impl Snapshot {
    /// The component links of the realm, without repetition by (host, port, name), in that order.
    ///
    /// A local domain with a component backend needs one for each federated domain admitted for it, suspended
    /// ones too (so that its users get an answer), and one for its service address.
    pub fn component_links(&self) -> Vec<ComponentLink> {
        self.links_and_conflicts().0
    }

    pub(crate) fn links_and_conflicts(&self) -> (Vec<ComponentLink>, Vec<SecretConflict>) {
        let mut links: BTreeMap<(String, u16, Domain), ComponentLink> = BTreeMap::new();
        let mut conflicts = Vec::new();
        let federated = self.federated_domains();
        for local in self.locals() {
            let Backend::Component(component) = &local.backend else {
                continue;
            };
            let admitted =
                federated.iter().filter(|entry| Self::may_meet(local, entry)).map(|entry| (&entry.domain, false));
            let names = std::iter::once((&component.service_address, true)).chain(admitted);
            for (name, is_service) in names {
                let secret_key = component.secret_key_for(name);
                let key = (component.host.clone(), component.port, name.clone());
                let link = links.entry(key).or_insert_with(|| ComponentLink {
                    host: component.host.clone(),
                    port: component.port,
                    name: name.clone(),
                    secret_key: secret_key.to_owned(),
                    tls: component.tls.clone(),
                    is_service,
                    locals: Vec::new(),
                });
                if link.secret_key != secret_key
                    && let Some(first) = link.locals.first()
                {
                    conflicts.push(SecretConflict {
                        name: name.clone(),
                        first: first.clone(),
                        second: local.domain.clone(),
                    });
                }
                link.locals.push(local.domain.clone());
            }
        }
        (links.into_values().collect(), conflicts)
    }
}
