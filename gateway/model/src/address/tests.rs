use proptest::prelude::*;

use super::*;

/// Splits `sip:user[:password]@host[:port][;gr=..]` far enough for the vectors; real parsing is the SIP crate's.
fn map(uri: &str) -> Result<Address, AddressError> {
    let rest = uri.strip_prefix("sip:").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    let gr = host.split(';').find_map(|p| p.strip_prefix("gr="));
    let host = host.split([';', '?']).next().unwrap();
    let host = if host.starts_with('[') { host } else { host.split(':').next().unwrap() };
    Address::from_sip(user, host, gr)
}

#[test]
fn every_normative_vector_maps_both_ways() {
    // A-01, A-05, A-08
    let rows = [
        ("sip:Ana@Partner.EXAMPLE", "ana@partner.example", "sip:ana@partner.example"),
        ("sip:o'neil@partner.example", r"o\27neil@partner.example", "sip:o'neil@partner.example"),
        ("sip:r&d@partner.example", r"r\26d@partner.example", "sip:r&d@partner.example"),
        ("sip:site/4@partner.example", r"site\2f4@partner.example", "sip:site/4@partner.example"),
        ("sip:a%23b@partner.example", "a#b@partner.example", "sip:a%23b@partner.example"),
        ("sip:j%C3%B8rn@partner.example", "jørn@partner.example", "sip:j%C3%B8rn@partner.example"),
        ("sip:x%40y.example@partner.example", r"x\40y.example@partner.example", "sip:x%40y.example@partner.example"),
        ("sip:a%5C27b@partner.example", r"a\5c27b@partner.example", "sip:a%5C27b@partner.example"),
        ("sip:a%5Czb@partner.example", r"a\zb@partner.example", "sip:a%5Czb@partner.example"),
        ("sip:first%20last@partner.example", r"first\20last@partner.example", "sip:first%20last@partner.example"),
        ("sip:ana:pw@partner.example:5061;transport=tls?subject=x", "ana@partner.example", "sip:ana@partner.example"),
        ("sip:ana@partner.example;gr=u7-k2", "ana@partner.example/u7-k2", "sip:ana@partner.example;gr=u7-k2"),
        ("sip:ana@xn--bcher-kva.example", "ana@bücher.example", "sip:ana@xn--bcher-kva.example"),
        ("sip:a%5C5C27b@partner.example", r"a\5c5c27b@partner.example", "sip:a%5C5c27b@partner.example"),
    ];
    for (uri, jid, back) in rows {
        let address = map(uri).unwrap_or_else(|e| panic!("{uri}: {e}"));
        assert_eq!(address.to_jid(), jid, "{uri}");
        assert_eq!(address.to_sip_uri(), back, "{uri}");
        assert_eq!(Address::from_jid(jid).unwrap(), address, "{jid}");
    }
}

#[test]
fn vectors_without_a_jid_are_refused() {
    // A-01, A-04
    assert_eq!(map("sip:%20x@partner.example"), Err(AddressError::InvalidLocalpart));
    assert_eq!(map("sip:ana@[2001:db8::7]"), Err(AddressError::IpLiteral));
    assert_eq!(map("sip:%ff@partner.example"), Err(AddressError::UndecodableUser));
    assert_eq!(map("sip:a%0d%0ab@partner.example"), Err(AddressError::UndecodableUser));
    assert_eq!(map("sip:a%4@partner.example"), Err(AddressError::UndecodableUser));
    assert_eq!(map("sip:@partner.example"), Err(AddressError::NoUser));
}

#[test]
fn octets_outside_the_user_set_are_percent_encoded_in_upper_case() {
    // A-03
    let local = Localpart::from_jid_localpart("a#%[]^`{|}ñ").unwrap();
    let user = local.to_sip_user();
    assert!(user.bytes().all(|b| is_user_char(b) || b == b'%'), "{user}");
    assert!(user.contains("%23") && user.contains("%5B") && !user.contains("%5b"), "{user}");
    assert_eq!(Localpart::from_sip_user(&user).unwrap(), local);
}

#[test]
fn jids_of_servers_and_with_forbidden_characters_are_refused() {
    assert_eq!(Address::from_jid("corp.example"), Err(AddressError::NoUser));
    assert_eq!(Address::from_jid("@corp.example"), Err(AddressError::NoUser));
    assert_eq!(Address::from_jid("a b@corp.example"), Err(AddressError::InvalidLocalpart));
    assert_eq!(Address::from_jid("a@corp.example/"), Err(AddressError::InvalidResource));
    assert_eq!(Address::from_jid("a@[::1]"), Err(AddressError::IpLiteral));
}

#[test]
fn resources_travel_as_gr_and_back() {
    let resource = Resource::parse("büro; 4=x").unwrap();
    assert_eq!(resource.to_gr(), "b%C3%BCro%3B%204%3Dx");
    assert_eq!(Resource::from_gr(&resource.to_gr()).unwrap(), resource);
}

proptest! {
    #[test]
    fn any_user_part_is_mapped_or_refused_and_mapping_is_stable(raw in "\\PC{0,40}") {
        if let Ok(local) = Localpart::from_sip_user(&raw) {
            let again = Localpart::from_sip_user(&local.to_sip_user());
            prop_assert_eq!(again.as_ref(), Ok(&local));
            prop_assert_eq!(Localpart::from_jid_localpart(local.as_str()), Ok(local));
        }
    }

    #[test]
    fn any_text_is_a_jid_or_refused(text in "\\PC{0,60}") {
        if let Ok(address) = Address::from_jid(&text) {
            prop_assert_eq!(Address::from_jid(&address.to_jid()), Ok(address));
        }
    }
}
