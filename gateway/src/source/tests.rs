use std::fs;
use std::os::unix::fs::symlink;

use isthmus_model::Domain;
use tempfile::TempDir;

use super::*;

pub(super) const REALM: &str = "\
apiVersion: isthmus.dev/v1alpha1
kind: Federation
metadata: {name: default, namespace: im-edge}
spec:
  credentialsSecretRef: {name: credentials}
---
apiVersion: isthmus.dev/v1alpha1
kind: GatewayPool
metadata: {name: edge, namespace: im-edge}
spec:
  roles: [SIP]
  expose: {hostname: 'sip.{domain}', ports: {sipPlain: 5060}}
---
apiVersion: isthmus.dev/v1alpha1
kind: LocalDomain
metadata: {name: corp.example}
spec:
  domain: corp.example
  backend: {component: {host: 127.0.0.1, port: 5347, secretKey: corp}}
---
apiVersion: v1
kind: Secret
metadata: {name: credentials, namespace: im-edge}
stringData: {corp: canary-secret}
";

pub(super) fn partner(domain: &str) -> String {
    format!(
        "apiVersion: isthmus.dev/v1alpha1\nkind: FederatedDomain\nmetadata: {{name: {domain}}}\n\
         spec:\n  domain: {domain}\n  protocol: SIP\n  sip: {{peerType: SimpleGeneric}}\n"
    )
}

pub(super) struct Folder {
    pub(super) dir: TempDir,
    pub(super) options: SourceOptions,
}

impl Folder {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let manifests = dir.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        let options = SourceOptions::new(&manifests, "edge");
        let folder = Self { dir, options };
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.options.dir.join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn load(&self) -> Loaded {
        match load(&self.options, None) {
            Ok(loaded) => loaded,
            Err(refusals) => panic!("{refusals:#?}"),
        }
    }

    /// The one refusal of the folder.
    fn refusal(&self) -> Refusal {
        self.refusal_after(None)
    }

    fn refusal_after(&self, former: Option<&Loaded>) -> Refusal {
        let mut refusals = load(&self.options, former).unwrap_err();
        assert_eq!(refusals.len(), 1, "{refusals:#?}");
        refusals.remove(0)
    }
}

pub(super) fn knows(loaded: &Loaded, domain: &str) -> bool {
    loaded.snapshot.federated_object(&Domain::parse(domain).unwrap()).is_some()
}

/// Asserts file, line, document, object, field and a part of the message.
fn expect(refusal: &Refusal, file: &str, line: usize, document: usize, rest: (&str, &str, &str)) {
    let text = refusal.to_string();
    let (object, field, message) = rest;
    assert!(refusal.file.ends_with(file), "{text}");
    assert_eq!((refusal.line, refusal.document), (Some(line), Some(document)), "{text}");
    assert_eq!(refusal.object.as_deref().unwrap_or_default(), object, "{text}");
    assert_eq!(refusal.field.as_deref().unwrap_or_default(), field, "{text}");
    assert!(refusal.message.contains(message), "{text}");
    assert!(refusal.message.ends_with('.'), "the remedy is a sentence: {text}");
    assert!(!text.contains('\n') && text.contains(&format!("{file}:{line}: document {document}: ")), "{text}");
}

#[test]
fn a_folder_is_read_recursively_with_all_three_endings() {
    let folder = Folder::new(&[("realm.yaml", REALM), ("partners/a.yml", &partner("a.example"))]);
    let json = "{\n\t\"apiVersion\": \"isthmus.dev/v1alpha1\",\n\t\"kind\": \"FederatedDomain\",\n\
                \t\"metadata\": {\"name\": \"b.example\"},\n\t\"spec\": {\"domain\": \"b.example\", \"protocol\": \"SIP\",\n\
                \t\t\"sip\": {\"peerType\": \"SimpleGeneric\"}}\n}\n";
    folder.write("partners/deep/b.json", json);
    folder.write("notes.txt", "not: [yaml");
    let loaded = folder.load();
    assert!(knows(&loaded, "a.example") && knows(&loaded, "b.example"));
    assert_eq!(loaded.generation, 1);
    assert_eq!(loaded.secrets.get("credentials", "corp"), Some(b"canary-secret".as_slice()));
    assert!(!format!("{loaded:?}").contains("canary"), "no value in Debug");
    let declared = &loaded.declared[&(Kind::FederatedDomain, "a.example".to_owned())];
    assert_eq!(declared.value().pointer("/metadata/namespace").unwrap(), "im-edge", "the realm's namespace");
    assert_eq!(load(&folder.options, Some(&loaded)).unwrap().generation, 2);
}

// K-88
#[test]
fn one_bad_document_refuses_all_with_file_line_and_field() {
    let good = Folder::new(&[("realm.yaml", REALM), ("a.yaml", &partner("a.example"))]);
    let former = good.load();
    let two = format!("{}---\n{}", partner("b.example"), partner("c.example").replace("SimpleGeneric", "Nonsense"));
    good.write("new/b.yaml", &two);
    let refusal = good.refusal_after(Some(&former));
    let object = "FederatedDomain c.example";
    expect(&refusal, "new/b.yaml", 15, 2, (object, "spec.sip.peerType", "Nonsense"));
    assert!(knows(&former, "a.example") && !knows(&former, "b.example"), "the good half is not taken");
    good.write("new/b.yaml", &two.replace("Nonsense", "SimpleGeneric"));
    let next = load(&good.options, Some(&former)).unwrap();
    assert!(knows(&next, "b.example") && knows(&next, "c.example"));
}

#[test]
fn every_kind_of_fault_names_its_place() {
    let with = |text: &str| Folder::new(&[("realm.yaml", REALM), ("x.yaml", text)]).refusal();
    let line = |text: &str, needle: &str| text.lines().position(|line| line.contains(needle)).unwrap() + 1;

    let text = partner("a.example").replace("  protocol", "  colour: red\n  protocol");
    let object = "FederatedDomain a.example";
    expect(&with(&text), "x.yaml", line(&text, "colour"), 1, (object, "spec.colour", "no such field"));

    let text = partner("a.example").replace("metadata: {name: a.example}", "metadata: {name: b.example}");
    let refusal = with(&text);
    assert_eq!(refusal.object.as_deref(), Some("FederatedDomain b.example"), "a CEL rule of the root");

    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
    expect(&with(text), "x.yaml", 1, 1, ("ConfigMap x", "apiVersion", "is not isthmus.dev/v1alpha1"));
    let text = "apiVersion: isthmus.dev/v1alpha1\nkind: Gateway\nmetadata: {name: x}\n";
    expect(&with(text), "x.yaml", 2, 1, ("Gateway x", "kind", "does not exist"));
    expect(&with("---\n- a\n"), "x.yaml", 2, 1, ("", "", "no mapping"));
    expect(&with("a: 1\n---\n---\nb: [1\nc: 2\n"), "x.yaml", 5, 3, ("", "", "not YAML"));

    let text = format!("{}---\n{}", partner("a.example"), partner("a.example"));
    let refusal = with(&text);
    expect(&refusal, "x.yaml", 11, 2, (object, "metadata.name", "x.yaml:1 (document 1)"));

    let text = partner("a.example").replace("name: a.example", "name: a.example, namespace: other");
    let refusal = with(&text);
    expect(&refusal, "x.yaml", 3, 1, (object, "metadata.namespace", "realm.yaml:1 (document 1)"));

    let text = partner("corp.example");
    let refusals = load(&Folder::new(&[("realm.yaml", REALM), ("x.yaml", &text)]).options, None).unwrap_err();
    assert!(
        refusals.iter().any(|refusal| refusal.file.ends_with("x.yaml")
            && refusal.line == Some(5)
            && refusal.field.as_deref() == Some("spec.domain")),
        "{refusals:#?}"
    );

    let folder = Folder::new(&[("realm.yaml", REALM)]);
    fs::write(folder.path("x.yaml"), b"a: 1\nb: \xff\n").unwrap();
    let refusal = folder.refusal();
    assert_eq!((refusal.line, refusal.message.contains("UTF-8")), (Some(2), true));
}

#[test]
fn a_file_beyond_its_bound_is_refused() {
    let folder = Folder::new(&[("realm.yaml", REALM)]);
    let file = fs::File::create(folder.path("big.yaml")).unwrap();
    file.set_len(files::MAX_FILE + 1).unwrap();
    assert!(folder.refusal().message.contains("larger than"));
}

#[test]
fn hundreds_of_faults_are_told_in_a_bounded_list() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n---\n".repeat(300);
    let folder = Folder::new(&[("realm.yaml", REALM), ("x.yaml", &text)]);
    let refusals = load(&folder.options, None).unwrap_err();
    assert_eq!(refusals.len(), MAX_REFUSALS);
    assert!(refusals.last().unwrap().message.starts_with("201 more"), "{:?}", refusals.last());
}

// K-90
#[test]
fn a_protocol_changes_only_by_removal_and_creation() {
    let folder = Folder::new(&[("realm.yaml", REALM), ("a.yaml", &partner("a.example"))]);
    let former = folder.load();
    let changed = partner("a.example")
        .replace("protocol: SIP", "protocol: XMPP")
        .replace("sip: {peerType: SimpleGeneric}", "xmpp: {}");
    folder.write("a.yaml", &changed);
    let mut refusals = load(&folder.options, Some(&former)).unwrap_err();
    let refusal = refusals.remove(0);
    assert_eq!(refusal.object.as_deref(), Some("FederatedDomain a.example"));
    assert!(refusal.line.is_some_and(|line| line >= 5) && refusal.file.ends_with("a.yaml"), "{refusal}");
    assert!(refusal.to_string().contains("protocol"), "{refusal}");
    // In another file it is the same object.
    fs::rename(folder.path("a.yaml"), folder.path("moved.yaml")).unwrap();
    assert!(load(&folder.options, Some(&former)).is_err());

    fs::rename(folder.path("moved.yaml"), folder.path("moved.away")).unwrap();
    let without = load(&folder.options, Some(&former)).unwrap();
    fs::rename(folder.path("moved.away"), folder.path("moved.yaml")).unwrap();
    assert!(knows(&load(&folder.options, Some(&without)).unwrap(), "a.example"));
}

#[test]
fn unknown_fields_are_notices_when_lenient() {
    let text = partner("a.example").replace("  protocol", "  colour: red\n  protocol");
    let mut folder = Folder::new(&[("realm.yaml", REALM), ("x.yaml", &text)]);
    assert_eq!(folder.refusal().field.as_deref(), Some("spec.colour"));
    folder.options.lenient = true;
    let loaded = folder.load();
    let told = |loaded: &Loaded| {
        loaded.notices.iter().any(|notice| notice.line == Some(6) && notice.field.as_deref() == Some("spec.colour"))
    };
    assert!(told(&loaded), "{:#?}", loaded.notices);
    assert!(told(&load(&folder.options, Some(&loaded)).unwrap()), "and again when nothing changed");
}

#[test]
fn the_pool_and_node_of_the_process_must_exist() {
    let mut folder = Folder::new(&[("realm.yaml", REALM)]);
    folder.options.pool = "other".to_owned();
    let refusal = folder.refusal();
    assert!(
        refusal.message.contains("GatewayPool other does not exist") && refusal.message.contains("edge"),
        "{refusal}"
    );
    folder.options.pool = "edge".to_owned();
    folder.options.node = 1;
    assert_eq!(folder.refusal().field.as_deref(), Some("spec.nodes"));
}

#[test]
fn each_deployment_field_of_the_own_pool_gives_one_notice() {
    let realm = REALM.replace(
        "  roles: [SIP]\n",
        "  roles: [SIP]\n  replicas: 1\n  image: registry.example/gateway:1\n  resources: {}\n",
    );
    let loaded = Folder::new(&[("realm.yaml", &realm)]).load();
    let fields: Vec<_> = loaded
        .notices
        .iter()
        .filter(|notice| notice.message.contains("standalone"))
        .map(|notice| (notice.line.unwrap(), notice.field.clone().unwrap()))
        .collect();
    let named = |(line, field): (usize, &str)| (line, field.to_owned());
    assert_eq!(fields, [(12, "spec.replicas"), (14, "spec.resources"), (13, "spec.image")].map(named));
}

#[test]
fn more_pods_than_one_need_a_state_store() {
    let realm = REALM.replace("  roles: [SIP]\n", "  roles: [SIP]\n  replicas: 2\n");
    let refusal = Folder::new(&[("realm.yaml", &realm)]).refusal();
    expect(&refusal, "realm.yaml", 12, 2, ("GatewayPool edge", "spec.replicas", "Set spec.stateStore"));
}

#[test]
fn an_address_of_the_state_store_has_a_port() {
    let store = "  stateStore: {redis: {mode: Standalone, addresses: ['redis:6379', 'redis:63790']}}\n";
    let realm = REALM.replace(
        "  credentialsSecretRef: {name: credentials}\n",
        &format!("{store}  credentialsSecretRef: {{name: credentials}}\n"),
    );
    Folder::new(&[("realm.yaml", &realm)]).load();
    let refusal = Folder::new(&[("realm.yaml", &realm.replace("63790", "99999"))]).refusal();
    let field = "spec.stateStore.redis.addresses[1]";
    expect(&refusal, "realm.yaml", 5, 1, ("Federation default", field, "65535"));
}

#[test]
fn a_missing_key_names_the_object_that_wants_it() {
    let field = "spec.backend.component.secretKey";
    let refused = |realm: &str| Folder::new(&[("realm.yaml", realm)]).refusal();
    let refusal = refused(&REALM.replace("{corp: canary-secret}", "{other: canary-secret}"));
    expect(&refusal, "realm.yaml", 19, 3, ("LocalDomain corp.example", field, "has no key corp"));
    assert!(!refusal.to_string().contains("canary"));
    let refusal = refused(&REALM.replace("{name: credentials, n", "{name: elsewhere, n"));
    expect(&refusal, "realm.yaml", 19, 3, ("LocalDomain corp.example", field, "does not exist"));
    let refusal = refused(&REALM.replace("  credentialsSecretRef: {name: credentials}\n", "  {}\n"));
    expect(&refusal, "realm.yaml", 19, 3, ("LocalDomain corp.example", field, "credentialsSecretRef"));
    let refusal = refused(&REALM.replace("canary-secret", "''"));
    expect(&refusal, "realm.yaml", 19, 3, ("LocalDomain corp.example", field, "is empty"));
    let trust = "  credentialsSecretRef: {name: credentials}\n  trust: {caSecretRefs: [{name: partner-ca}]}\n";
    let refusal = refused(&REALM.replace("  credentialsSecretRef: {name: credentials}\n", trust));
    expect(&refusal, "realm.yaml", 6, 1, ("Federation default", "spec.trust.caSecretRefs[0].name", "key ca.crt"));
    let tls = "  roles: [SIP]\n  tls: {secretRefs: [{name: edge-tls}]}\n";
    let folder = Folder::new(&[("realm.yaml", &REALM.replace("  roles: [SIP]\n", tls))]);
    let refusals = load(&folder.options, None).unwrap_err();
    assert_eq!(refusals.len(), 2, "{refusals:#?}");
    expect(&refusals[0], "realm.yaml", 12, 2, ("GatewayPool edge", "spec.tls.secretRefs[0].name", "key tls.crt"));
    expect(&refusals[1], "realm.yaml", 12, 2, ("GatewayPool edge", "spec.tls.secretRefs[0].name", "key tls.key"));
}

#[test]
fn secrets_come_from_a_mounted_folder_too() {
    let without = REALM.split("---\napiVersion: v1\n").next().unwrap();
    let mut folder = Folder::new(&[("realm.yaml", without)]);
    let secrets = folder.dir.path().join("secrets");
    // As the kubelet lays a Secret out.
    fs::create_dir_all(secrets.join("credentials/..2026")).unwrap();
    fs::create_dir(secrets.join("lost+found")).unwrap();
    fs::write(secrets.join("credentials/..2026/corp"), b"\x00raw\n").unwrap();
    symlink("..2026", secrets.join("credentials/..data")).unwrap();
    symlink("..data/corp", secrets.join("credentials/corp")).unwrap();
    folder.options.secrets = Some(secrets.clone());
    let loaded = folder.load();
    assert_eq!(loaded.secrets.get("credentials", "corp"), Some(b"\x00raw\n".as_slice()));
    assert_eq!(loaded.secrets.get("credentials", "..data"), None);
    assert!(!loaded.secrets.contains("lost+found"));

    folder.write("realm.yaml", REALM);
    let refusal = folder.refusal();
    assert!(refusal.message.contains("realm.yaml:21 (document 4)"), "declared twice: {refusal}");
    folder.options.secrets = Some(secrets.join("missing"));
    assert!(folder.refusal().message.contains("cannot be read"));
}

#[test]
fn a_mounted_config_map_is_read_once() {
    let folder = Folder::new(&[("..2026/realm.yaml", REALM), ("..2026/a.yaml", &partner("a.example"))]);
    symlink("..2026", folder.path("..data")).unwrap();
    symlink("..data/realm.yaml", folder.path("realm.yaml")).unwrap();
    symlink("..data/a.yaml", folder.path("a.yaml")).unwrap();
    // Neither a second name of a file nor a loop makes it count twice.
    symlink("a.yaml", folder.path("again.yaml")).unwrap();
    symlink(".", folder.path("loop")).unwrap();
    assert!(knows(&folder.load(), "a.example"));
}

#[test]
fn a_claim_for_another_realm_refuses_the_local_domain() {
    let claim = "apiVersion: isthmus.dev/v1alpha1\nkind: DomainClaim\nmetadata: {name: corp.example}\n\
                 spec: {allowedNamespaces: [other]}\n";
    let refusal = Folder::new(&[("realm.yaml", REALM), ("claim.yaml", claim)]).refusal();
    expect(&refusal, "realm.yaml", 18, 3, ("LocalDomain corp.example", "spec.domain", "DomainClaim"));
}

#[test]
fn fields_of_a_partner_that_are_not_acted_on_yet_are_told() {
    let far = format!("{}  overrides: {{rate: 5}}\n", partner("far.example"));
    let loaded = Folder::new(&[("realm.yaml", REALM), ("far.yaml", &far)]).load();
    let told: Vec<_> = loaded.notices.iter().filter(|notice| notice.message.contains("not acted on")).collect();
    assert_eq!(told.len(), 1, "{:?}", loaded.notices);
    assert_eq!(told[0].field.as_deref(), Some("spec.overrides.rate"));
}
