//! Admission policies: rules between objects, by the same texts that an API server is given.

use isthmus_crds::{Kind, validate};

use super::documents::{Declared, Realm};
use super::finding::{Notice, Refusal};

/// Pairs of objects that are judged one by one, at about 27 us each. Beyond it the compiler's index decides what it can
/// decide likewise, which is everything but the policies below (design §6.18).
const MAX_PAIRS: usize = 4000;

/// Judges the objects of a realm against each other; gives refusals and warnings.
///
/// Unlike an API server it judges unchanged objects too, so that a folder means the same whatever was loaded before.
pub(super) fn judge(realm: &Realm) -> (Vec<Refusal>, Vec<Notice>) {
    let all = |kind| realm.of_kind(kind).collect::<Vec<_>>();
    let locals = all(Kind::LocalDomain);
    let federated = all(Kind::FederatedDomain);
    let publications = all(Kind::DNSPublication);
    let claims = all(Kind::DomainClaim);
    let mut findings = Findings::default();

    let pairs =
        2 * federated.len() * locals.len() + locals.len() * locals.len() + publications.len() * publications.len();
    if pairs <= MAX_PAIRS {
        let others: Vec<&Declared> = locals.iter().chain(&federated).chain(&publications).copied().collect();
        for declared in &locals {
            findings.judge(declared, &others);
        }
        for declared in &federated {
            findings.judge(declared, &locals);
        }
        for declared in &publications {
            findings.judge(declared, &publications);
        }
    }
    // The compiler knows nothing of claims, and does not warn about publications.
    for declared in &locals {
        let own: Vec<&Declared> =
            claims.iter().filter(|claim| claim.object().name() == declared.object().name()).copied().collect();
        findings.judge(declared, &own);
    }
    let is_sametime = |declared: &&&Declared| {
        declared.value().pointer("/spec/xmpp/peerType").and_then(serde_json::Value::as_str) == Some("SametimeXmpp")
    };
    for declared in federated.iter().filter(is_sametime) {
        findings.judge(declared, &publications);
    }
    (findings.refusals, findings.notices)
}

#[derive(Default)]
struct Findings {
    refusals: Vec<Refusal>,
    notices: Vec<Notice>,
}

impl Findings {
    fn judge(&mut self, declared: &Declared, others: &[&Declared]) {
        if others.is_empty() {
            return;
        }
        let report = validate::admit(declared.value(), None, others.iter().map(|other| other.value()));
        for (violations, findings) in [(report.violations, &mut self.refusals), (report.warnings, &mut self.notices)] {
            for violation in violations {
                let text = format!("{}. {}", violation.message, violation.remedy);
                findings.push(declared.finding(&violation.field_path.to_string(), text));
            }
        }
    }
}
