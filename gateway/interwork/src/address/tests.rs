use isthmus_model::Address;

use super::*;

fn jid(uri: &str) -> Result<String, AddressRefusal> {
    from_request_uri(uri).map(|address| address.to_jid())
}

fn bare(jid: &str) -> BareAddress {
    BareAddress::from_jid(jid).unwrap()
}

#[test]
fn every_normative_vector_maps_both_ways() {
    //
    for (sip, expected, back) in [
        ("sip:Ana@Partner.EXAMPLE", "ana@partner.example", "sip:ana@partner.example"),
        ("sip:o'neil@partner.example", "o\\27neil@partner.example", "sip:o'neil@partner.example"),
        ("sip:r&d@partner.example", "r\\26d@partner.example", "sip:r&d@partner.example"),
        ("sip:site/4@partner.example", "site\\2f4@partner.example", "sip:site/4@partner.example"),
        ("sip:a%23b@partner.example", "a#b@partner.example", "sip:a%23b@partner.example"),
        ("sip:j%C3%B8rn@partner.example", "jørn@partner.example", "sip:j%C3%B8rn@partner.example"),
        ("sip:x%40y.example@partner.example", "x\\40y.example@partner.example", "sip:x%40y.example@partner.example"),
        ("sip:a%5C27b@partner.example", "a\\5c27b@partner.example", "sip:a%5C27b@partner.example"),
        ("sip:a%5Czb@partner.example", "a\\zb@partner.example", "sip:a%5Czb@partner.example"),
        ("sip:first%20last@partner.example", "first\\20last@partner.example", "sip:first%20last@partner.example"),
        ("sip:ana:pw@partner.example:5061;transport=tls?subject=x", "ana@partner.example", "sip:ana@partner.example"),
        ("sip:ana@partner.example;gr=u7-k2", "ana@partner.example/u7-k2", "sip:ana@partner.example;gr=u7-k2"),
        ("sip:ana@xn--bcher-kva.example", "ana@bücher.example", "sip:ana@xn--bcher-kva.example"),
        ("sip:a%5C5C27b@partner.example", "a\\5c5c27b@partner.example", "sip:a%5C5c27b@partner.example"),
    ] {
        assert_eq!(jid(sip).as_deref(), Ok(expected), "{sip}");
        let address = Address::from_jid(expected).unwrap();
        assert_eq!(identity_uri(Dialect::Standard, &address), back, "{expected}");
        assert_eq!(from_request_uri(&address.to_sip_uri()).as_ref(), Ok(&address), "{sip}");
    }
    for (sip, status) in [
        ("sip:%20x@partner.example", 404),
        ("sip:ana@[2001:db8::7]", 403),
        ("sips:lee@corp.example", 480),
        ("sip:%ff@partner.example", 404),
    ] {
        assert_eq!(jid(sip).unwrap_err().status().code(), status, "{sip}");
    }
}

#[test]
fn sips_is_answered_480_with_warning_380() {
    //
    for text in ["sips:lee@corp.example", "SIPS:lee@corp.example;transport=tcp"] {
        let refusal = from_request_uri(text).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::TEMPORARILY_UNAVAILABLE);
        assert_eq!(refusal.warning(), Some((380, "SIPS Not Allowed")));
    }
    let to = NameAddr::parse("\"Lee\" <sips:lee@corp.example>").unwrap();
    assert_eq!(from_name_addr(&to), Err(AddressRefusal::Sips));
}

#[test]
fn what_is_no_user_at_a_domain_has_its_own_answer() {
    //
    for (text, status) in [
        ("tel:+15551234", 416),
        ("mailto:a@b.example", 416),
        ("sip:lee@192.0.2.7", 403),
        ("sip:corp.example", 404),
        ("sip:l%C3ee@corp.example", 404),
        ("sip:a%00b@corp.example", 404),
        ("sip:a%0D%0Ab@corp.example", 404),
        ("sip:lee@", 400),
        ("lee@corp.example", 400),
    ] {
        let refusal = from_request_uri(text).unwrap_err();
        assert_eq!((refusal.status().code(), refusal.warning()), (status, None), "{text}");
    }
    assert_eq!(jid("im:Lee@corp.example").as_deref(), Ok("lee@corp.example"));
    assert_eq!(jid("pres:lee@corp.example").as_deref(), Ok("lee@corp.example"));
}

#[test]
fn only_a_gr_with_a_value_is_a_resource() {
    //
    assert_eq!(jid("sip:ana@partner.example;gr").as_deref(), Ok("ana@partner.example"));
    assert_eq!(jid("sip:ana@partner.example;ob;GR=my%20phone").as_deref(), Ok("ana@partner.example/my phone"));
}

#[test]
fn a_remembered_spelling_is_used_and_a_strange_one_is_not() {
    //
    let ana = bare("ana@partner.example");
    let from = Uri::parse("sip:Ana@PARTNER.example").unwrap();
    let spelling = Spelling::observe(&from, &ana).unwrap();
    assert_eq!(aor_uri(&ana, Some(&spelling)), "sip:Ana@partner.example");
    assert_eq!(aor_uri(&ana, None), "sip:ana@partner.example");
    assert_eq!(Spelling::observe(&Uri::parse("sip:ana@partner.example").unwrap(), &ana), None);
    assert_eq!(Spelling::observe(&Uri::parse("sip:Anna@partner.example").unwrap(), &ana), None);
    for stored in ["ana@evil.example;", "Ana\r\nX: y", "", "ana:pw", "Bob", "a@b"] {
        let restored = Spelling::restore(stored, &ana);
        assert_eq!(restored, None, "{stored:?}");
    }
}

#[test]
fn the_microsoft_dialect_never_shows_a_resource() {
    //
    let lee = Address::from_jid("lee@corp.example/balcony").unwrap();
    assert_eq!(identity_uri(Dialect::Microsoft, &lee), "sip:lee@corp.example");
}

#[test]
fn pres_uris_escape_what_a_mail_address_may_not_hold() {
    assert_eq!(pres_uri(&bare("lee@corp.example")), "pres:lee@corp.example");
    assert_eq!(pres_uri(&bare("a(b),;c@corp.example")), "pres:a%28b%29%2C%3Bc@corp.example");
}
