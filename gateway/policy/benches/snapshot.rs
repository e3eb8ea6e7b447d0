//! A realm of 10,000 federated and 50 local domains: loading it, changing one object, looking a domain up.
//!
//! The bar (kubernetes specification §11): loaded in under 2 s, one change compiled in under 1 ms, the most specific domain
//! found in under 1 us.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use isthmus_crds::{API_VERSION, Kind, Object, parse_kind};
use isthmus_model::{BareAddress, Direction, Domain, Feature, Protocol};
use isthmus_policy::{Change, Party, Question, Snapshot, UserList};
use serde_json::{Value, json};

const FEDERATED: usize = 10_000;
const LOCAL: usize = 50;
const POLICIES: usize = 20;
const RULES: usize = 50;

fn document(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind,
        "metadata": {"name": name, "namespace": "im-edge"}, "spec": spec,
    })
}

fn federated(at: usize, suspended: bool) -> Value {
    let name = format!("partner-{at}.dept-{}.example", at % 97);
    let scope = if at.is_multiple_of(10) { "Subtree" } else { "Exact" };
    let spec = json!({
        "domain": name, "protocol": "SIP", "scope": scope, "suspended": suspended,
        "sip": {"peerType": "Sfb2015", "peerIdentities": [format!("edge.{name}")]},
        "overrides": {"rate": 20, "expires": "1h"},
    });
    document("FederatedDomain", &name, &spec)
}

fn realm() -> Vec<Value> {
    let pool = json!({"roles": ["SIP", "XMPP"], "expose": {"hostname": "sip.{domain}"}});
    let mut documents = vec![document("Federation", "default", &json!({})), document("GatewayPool", "edge", &pool)];
    documents.extend((0..LOCAL).map(|at| {
        let name = format!("corp-{at}.test");
        let backend = json!({"component": {"host": "xmpp.internal", "port": 5347, "secretKey": "main"}});
        let aliases = json!([{"host": format!("rooms.{name}")}]);
        document("LocalDomain", &name, &json!({"domain": name, "backend": backend, "chatAliases": aliases}))
    }));
    documents.extend((0..FEDERATED).map(|at| federated(at, false)));
    documents.extend((0..POLICIES).map(|at| {
        let rule = |rule: usize| {
            let user = format!("user-{rule}@partner-{}.dept-{}.example", at * 7, at % 97);
            let domain = format!("spam-{rule}.pool-{at}.example");
            json!({"name": format!("r{rule}"), "action": "Deny", "remote": {
                "domains": [domain], "includeSubdomains": true, "users": [user],
            }})
        };
        let rules: Vec<Value> = (0..RULES).map(rule).collect();
        document("FederationPolicy", &format!("policy-{at}"), &json!({"tier": "Standard", "rules": rules}))
    }));
    documents
}

fn read(document: &Value) -> Object {
    parse_kind(document).expect("the bench writes valid objects")
}

fn snapshot(criterion: &mut Criterion) {
    let documents = realm();
    let objects: Vec<Object> = documents.iter().map(read).collect();
    let report = Snapshot::compile(objects.clone());
    assert!(report.is_acceptable(), "{:?}", report.problems.first());
    let snapshot = report.snapshot;
    let size = format!("{FEDERATED} federated and {LOCAL} local domains");

    let mut group = criterion.benchmark_group(size);
    group.sample_size(10);
    group.bench_function("read documents and compile", |bencher| {
        bencher.iter(|| Snapshot::compile(documents.iter().map(read)));
    });
    group.bench_function("compile objects with all problems", |bencher| {
        bencher.iter_batched(|| objects.clone(), Snapshot::compile, BatchSize::PerIteration);
    });
    group.bench_function("component links", |bencher| bencher.iter(|| snapshot.component_links()));
    group.sample_size(100);

    let changes = [false, true].map(|suspended| read(&federated(4321, suspended)));
    let mut turn = 0;
    group.bench_function("change one FederatedDomain", |bencher| {
        bencher.iter_batched(
            || {
                turn += 1;
                Change::Put(Box::new(changes[turn % 2].clone()))
            },
            |change| snapshot.apply(change),
            BatchSize::SmallInput,
        );
    });
    for (label, kind) in [("LocalDomain", Kind::LocalDomain), ("FederationPolicy of 50 rules", Kind::FederationPolicy)]
    {
        let object = objects.iter().find(|object| object.kind() == kind).expect("the realm has one");
        group.bench_function(format!("change one {label}"), |bencher| {
            bencher.iter_batched(
                || Change::Put(Box::new(object.clone())),
                |change| snapshot.apply(change),
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("problems of one FederatedDomain", |bencher| {
        bencher.iter(|| snapshot.problems_of(Kind::FederatedDomain, "partner-4321.dept-53.example"));
    });

    let names = ["partner-4321.dept-53.example", "a.b.partner-4330.dept-62.example", "nobody.elsewhere.test"];
    let domains = names.map(|name| Domain::parse(name).expect("a valid name"));
    for (label, domain) in ["exact", "subtree, two labels below", "unknown"].iter().zip(&domains) {
        group.bench_function(format!("look up a domain: {label}"), |bencher| {
            bencher.iter(|| snapshot.federated(black_box(domain)));
        });
    }
    let remote = BareAddress::from_jid("user-3@partner-0.dept-0.example").expect("a valid address");
    let stranger = BareAddress::from_jid("ana@partner-4321.dept-53.example").expect("a valid address");
    let local = BareAddress::from_jid("lee@corp-7.test").expect("a valid address");
    for (label, remote) in [("by a rule", &remote), ("by the default", &stranger)] {
        let question = Question {
            direction: Direction::Inbound,
            feature: Feature::Message,
            protocol: Some(Protocol::Sip),
            remote: Party::User(remote),
            local: Party::User(&local),
            user_list: &UserList::EMPTY,
        };
        group.bench_function(format!("decide about a message, {label}"), |bencher| {
            bencher.iter(|| snapshot.decide(black_box(&question)));
        });
    }
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
