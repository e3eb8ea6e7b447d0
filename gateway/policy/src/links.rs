//! Which component links a realm needs (design §6.1).

use std::collections::BTreeMap;

use isthmus_crds::ClientTls;
use isthmus_model::Domain;

use crate::objects::{Backend, ComponentBackend, LocalDomain};
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
        let mut servers: BTreeMap<(&str, u16), Vec<Attached<'_>>> = BTreeMap::new();
        for local in self.locals() {
            if let Backend::Component(component) = &local.backend {
                servers.entry((&component.host, component.port)).or_default().push((local, component));
            }
        }
        let mut all = Vec::new();
        let mut conflicts = Vec::new();
        if servers.is_empty() {
            return (all, conflicts);
        }
        let federated = self.federated_domains();
        for attached in servers.values() {
            let mut links: BTreeMap<&Domain, ComponentLink> = BTreeMap::new();
            for entry in &federated {
                let served = attached.iter().filter(|(local, _)| Self::may_meet(local, entry));
                add(&mut links, &entry.domain, served, &mut conflicts);
            }
            for own in attached {
                let name = &own.1.service_address;
                add(&mut links, name, std::iter::once(own), &mut conflicts);
                if let Some(link) = links.get_mut(name) {
                    link.is_service = true;
                    link.locals.sort_unstable();
                    link.locals.dedup();
                }
            }
            all.extend(links.into_values());
        }
        (all, conflicts)
    }
}

/// A local domain and its component backend.
type Attached<'s> = (&'s LocalDomain, &'s ComponentBackend);

/// Adds local domains, in their order, to the link of a name; the first one makes it.
fn add<'s>(
    links: &mut BTreeMap<&'s Domain, ComponentLink>,
    name: &'s Domain,
    served: impl Iterator<Item = &'s Attached<'s>>,
    conflicts: &mut Vec<SecretConflict>,
) {
    let mut served = served.peekable();
    let Some((_, component)) = served.peek() else {
        return;
    };
    let link = links.entry(name).or_insert_with(|| ComponentLink {
        host: component.host.clone(),
        port: component.port,
        name: name.clone(),
        secret_key: component.secret_key_for(name).to_owned(),
        tls: component.tls.clone(),
        is_service: false,
        locals: Vec::new(),
    });
    for (local, component) in served {
        if link.secret_key != component.secret_key_for(name)
            && let Some(first) = link.locals.first()
        {
            conflicts.push(SecretConflict { name: name.clone(), first: first.clone(), second: local.domain.clone() });
        }
        link.locals.push(local.domain.clone());
    }
}
