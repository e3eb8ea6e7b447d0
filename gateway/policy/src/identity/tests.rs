use std::net::{Ipv4Addr, Ipv6Addr};

use isthmus_crds::Object;
use serde_json::json;

use super::*;
use crate::fixtures::{domain, realm, sip, xmpp};

fn of(object: Object) -> FederatedDomain {
    let Object::FederatedDomain(inner) = &object else { panic!("not a federated domain") };
    let name = domain(&inner.spec.domain);
    let snapshot = realm([object]);
    FederatedDomain::clone(snapshot.federated(&name).unwrap())
}

fn peer(sip_section: &serde_json::Value) -> FederatedDomain {
    of(sip("partner.example", &json!({ "sip": sip_section })))
}

fn by_certificate(peer: &FederatedDomain, names: &[&str], srv: &[&str]) -> Sender {
    let owned = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<String>>();
    peer.sender_allowed(Proof::Certificate { names: &owned(names) }, &domain("partner.example"), &owned(srv))
}

fn by_address(peer: &FederatedDomain, ip: IpAddr) -> Sender {
    let resolve = |host: &str| match host {
        "edge.partner.example" => vec![IpAddr::from(Ipv4Addr::new(192, 0, 2, 9))],
        _ => vec![],
    };
    peer.sender_allowed(Proof::Address { ip, resolve: Some(&resolve) }, &domain("partner.example"), &[])
}

const MISMATCH: Sender = Sender::Refused(SenderRefusal::NameMismatch);

#[test]
fn without_configured_names_only_the_domain_itself_is_accepted() {
    let standard = peer(&json!({"peerType": "Kamailio"}));
    assert_eq!(standard.identities.names(), ["partner.example"]);
    assert_eq!(by_certificate(&standard, &["other.example", "Partner.Example"], &[]), Sender::Allowed);
    // Neither a name below it, nor an SRV target, nor a wildcard.
    assert_eq!(by_certificate(&standard, &["sip.partner.example"], &["sip.partner.example"]), MISMATCH);
    assert_eq!(by_certificate(&standard, &["*.partner.example", "*"], &[]), MISMATCH);
    assert_eq!(by_certificate(&standard, &[], &[]), MISMATCH);
}

#[test]
fn configured_names_replace_the_domain() {
    let listed = peer(&json!({"peerType": "Sfb2015", "peerIdentities": ["edge.host.example"]}));
    assert_eq!(by_certificate(&listed, &["EDGE.host.example"], &[]), Sender::Allowed);
    assert_eq!(by_certificate(&listed, &["partner.example"], &[]), MISMATCH);
    assert_eq!(by_certificate(&listed, &["sip.partner.example"], &["sip.partner.example"]), MISMATCH);
}

#[test]
fn a_microsoft_edge_may_show_its_srv_target_inside_the_domain() {
    let edge = peer(&json!({"peerType": "Sfb2015"}));
    assert_eq!(by_certificate(&edge, &["partner.example"], &[]), Sender::Allowed);
    assert_eq!(by_certificate(&edge, &["sip.partner.example"], &[]), Sender::NeedsSrvTargets);
    assert_eq!(by_certificate(&edge, &["sip.partner.example"], &["SIP.partner.example."]), Sender::Allowed);
    assert_eq!(by_certificate(&edge, &["sip.partner.example"], &["other.partner.example"]), MISMATCH);
    // A target outside the domain proves nothing, whatever DNS says.
    assert_eq!(by_certificate(&edge, &["edge.evil.example"], &["edge.evil.example"]), MISMATCH);
    assert_eq!(by_certificate(&edge, &["sip.xpartner.example"], &[]), MISMATCH);
}

#[test]
fn a_peer_behind_a_fixed_edge_shows_that_edges_name() {
    let tenant = peer(&json!({"peerType": "M365"}));
    assert_eq!(by_certificate(&tenant, &["sipfed.online.lync.com"], &[]), Sender::Allowed);
    assert_eq!(by_certificate(&tenant, &["sipfed2.online.lync.com"], &[]), MISMATCH);
}

#[test]
fn a_domain_below_a_subtree_may_prove_itself_by_its_own_name_or_the_objects() {
    let snapshot = realm([sip("partner.example", &json!({"scope": "Subtree"}))]);
    let sender = |name: &str| {
        let names = [name.to_owned()];
        snapshot.sender_allowed(Proof::Certificate { names: &names }, &domain("a.partner.example"), &[])
    };
    assert_eq!(sender("a.partner.example"), Sender::Allowed);
    assert_eq!(sender("partner.example"), Sender::Allowed);
    assert_eq!(sender("b.partner.example"), MISMATCH);
}

#[test]
fn without_tls_a_peer_is_known_by_its_static_next_hops() {
    let hops = json!([
        {"host": "192.0.2.7", "port": 5060}, {"host": "2001:db8::7", "port": 5060}, {"host": "edge.partner.example", "port": 5060}
    ]);
    let plain = peer(&json!({"peerType": "Kamailio", "transport": "UDP", "discovery": "Static", "nextHops": hops}));
    for known in [
        IpAddr::from(Ipv4Addr::new(192, 0, 2, 7)),
        IpAddr::from(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped()),
        IpAddr::from(Ipv4Addr::new(192, 0, 2, 9)),
        "2001:db8::7".parse().unwrap(),
    ] {
        assert_eq!(by_address(&plain, known), Sender::Allowed, "{known}");
    }
    for foreign in [IpAddr::from(Ipv4Addr::new(192, 0, 2, 8)), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        assert_eq!(by_address(&plain, foreign), Sender::Refused(SenderRefusal::AddressMismatch), "{foreign}");
    }
}

#[test]
fn next_hops_with_names_are_resolved_only_when_no_address_fits() {
    let ask = |hops: serde_json::Value, ip: [u8; 4]| {
        let plain = peer(&json!({"peerType": "Kamailio", "transport": "UDP", "discovery": "Static", "nextHops": hops}));
        let proof = Proof::Address { ip: ip.into(), resolve: None };
        plain.sender_allowed(proof, &domain("partner.example"), &[])
    };
    let mixed = json!([{"host": "edge.partner.example", "port": 5060}, {"host": "192.0.2.7", "port": 5060}]);
    assert_eq!(ask(mixed.clone(), [192, 0, 2, 7]), Sender::Allowed);
    assert_eq!(ask(mixed, [192, 0, 2, 8]), Sender::NeedsHopAddresses);
    let literal = json!([{"host": "192.0.2.7", "port": 5060}]);
    assert_eq!(ask(literal, [192, 0, 2, 8]), Sender::Refused(SenderRefusal::AddressMismatch));
}

#[test]
fn an_address_proves_nothing_for_a_domain_that_speaks_tls() {
    let hops = json!([{"host": "192.0.2.7", "port": 5061}]);
    let tls = peer(&json!({"peerType": "Kamailio", "discovery": "Static", "nextHops": hops}));
    assert_eq!(by_address(&tls, Ipv4Addr::new(192, 0, 2, 7).into()), Sender::Refused(SenderRefusal::TlsRequired));
}

#[test]
fn nobody_speaks_for_a_local_domain_or_for_one_of_the_other_protocol() {
    let snapshot = realm([xmpp("chat.example", &json!({}))]);
    let ask = |from: &str| {
        let names = [from.to_owned()];
        snapshot.sender_allowed(Proof::Certificate { names: &names }, &domain(from), &[])
    };
    assert_eq!(ask("corp.example"), Sender::Refused(SenderRefusal::LocalDomain));
    assert_eq!(ask("chat.example"), Sender::Refused(SenderRefusal::NotFederated));
    assert_eq!(ask("unknown.example"), Sender::Refused(SenderRefusal::NotFederated));
}

#[test]
fn a_learned_hop_must_belong_to_the_peer() {
    let hops = json!([{"host": "192.0.2.7", "port": 5061}, {"host": "proxy.host.example", "port": 5061}]);
    let fixed = json!({"peerType": "Kamailio", "discovery": "Static", "nextHops": hops});
    let peer = peer(&fixed);
    let allowed = |host: &str| peer.hop_allowed(host, &domain("partner.example"), &["edge.cdn.example.".to_owned()]);
    for own in ["partner.example", "a.b.PARTNER.example", "192.0.2.7", "Proxy.host.example", "edge.cdn.example"] {
        assert!(allowed(own), "{own}");
    }
    for third in ["evil.example", "xpartner.example", "192.0.2.8", "[2001:db8::1]", "host.example", "", "a b"] {
        assert!(!allowed(third), "{third}");
    }
}
