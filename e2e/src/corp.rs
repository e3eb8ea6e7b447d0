//! The organisation under test: Prosody with its users and the gateway beside it.

use anyhow::Result;

use crate::gateway::Gateway;
use crate::lab::Lab;
use crate::manifests::Realm;
use crate::prosody::{Prosody, ProsodyPlan};
use crate::xmpp_client::XmppClient;

/// `corp.example`, up and attached.
#[derive(Debug)]
pub struct Corp {
    /// Its XMPP server.
    pub prosody: Prosody,
    /// Its gateway.
    pub gateway: Gateway,
    /// What the gateway was told.
    pub realm: Realm,
}

impl Corp {
    /// Starts Prosody for the realm's partners. The gateway follows with [`Self::start`]; peers may be
    /// started between the two, since all ports are known by now.
    ///
    /// # Errors
    ///
    /// When Prosody does not start.
    pub async fn prepare(lab: &Lab, users: &[&str], domains: &[&str]) -> Result<(Prosody, Realm)> {
        let mut components = vec!["fed.corp.example"];
        components.extend_from_slice(domains);
        let prosody = Prosody::start(lab, &ProsodyPlan::corp(users, &components)).await?;
        let realm = Realm::new(prosody.component_port)?;
        Ok((prosody, realm))
    }

    /// Starts the gateway and waits until it is ready and every partner's component is connected.
    ///
    /// # Errors
    ///
    /// When the gateway does not get ready or does not attach.
    pub async fn start(lab: &Lab, prosody: Prosody, realm: Realm) -> Result<Self> {
        let gateway = Gateway::start(lab, &realm).await?;
        for partner in &realm.partners {
            prosody.wait_component(&partner.domain).await?;
        }
        Ok(Self { prosody, gateway, realm })
    }

    /// Logs a user in and lets them [come online](XmppClient::come_online).
    ///
    /// # Errors
    ///
    /// When the login fails or the server does not show the user their own presence.
    pub async fn online(&self, user: &str) -> Result<XmppClient> {
        let client = self.prosody.login(user, "home").await?;
        client.come_online().await?;
        Ok(client)
    }

    /// The route to the gateway over `udp` or `tcp`, as a partner's proxy writes it.
    pub fn plain_route(realm: &Realm, transport: &str) -> String {
        format!("sip:127.0.0.1:{};transport={transport}", realm.plain_port)
    }
}
