//! Component links to the local server.

use std::time::Duration;

use anyhow::{Result, ensure};
use isthmus_e2e::corp::Corp;
use isthmus_e2e::gateway::Gateway;
use isthmus_e2e::haproxy::Haproxy;
use isthmus_e2e::lab::{scenario, wait_for};
use isthmus_e2e::manifests::{Partner, Realm};
use isthmus_e2e::pki::{Authority, Name};
use isthmus_e2e::ports;

#[tokio::test]
async fn an_encrypted_link_is_opened_only_to_the_server_that_the_certificate_names() {
    scenario("link-tls", async |lab| -> Result<()> {
        let authority = Authority::new("servers of corp.example")?;
        let (prosody, mut realm) = Corp::prepare(lab, &["juliet"], &["partner.example"]).await?;
        // Brings the authority into a Secret as well.
        realm.certificate = Some(authority.sign(&[Name::Dns("sip.corp.example")])?);
        let server = authority.sign_server_only(&[Name::Dns("xmpp.corp.example")])?;
        let outer = Haproxy::end_tls(lab, realm.component_port, &server).await?;
        realm.component_port = outer.port;
        let settings = |name: &str| Some(format!("{{caSecretRef: {{name: peer-ca}}, serverName: {name}}}"));
        realm.component_tls = settings("other.corp.example");
        let realm = realm.partner(Partner::standard("partner.example", "UDP", ports::free()?));
        let gateway = Gateway::start(lab, &realm).await?;
        wait_for("the link says why it is down", Duration::from_secs(10), || async {
            let status = gateway.status().await?.to_string();
            Ok(status.contains("certificate not valid for name").then_some(()))
        })
        .await?;

        let right = Realm { component_tls: settings("xmpp.corp.example"), ..realm };
        right.write(gateway.folder())?;
        prosody.wait_component("partner.example").await?;
        let status = gateway.status().await?.to_string();
        ensure!(!status.contains("certificate not valid"), "{status}");
        Ok(())
    })
    .await;
}
