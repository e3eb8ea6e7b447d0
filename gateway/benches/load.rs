//! A folder of 10,000 FederatedDomains and 50 LocalDomains, one file each: reading, judging and compiling it at the start,
//! and again after one file changed.
//!
//! The bar (design §6.18): loaded in under 2 s, on two processors.
#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use isthmus_gateway::source::{self, Loaded, SourceOptions};

const FEDERATED: usize = 10_000;
const LOCAL: usize = 50;
const BAR: f64 = 2.0;

fn write(dir: &Path, kind: &str, name: &str, spec: &str) -> Result<()> {
    let text = format!(
        "apiVersion: isthmus.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: im-edge}}\nspec:\n{spec}\n"
    );
    let path = dir.join(format!("{kind}-{name}.yaml"));
    fs::write(&path, text).with_context(|| path.display().to_string())
}

fn federated(dir: &Path, at: usize, suspended: bool) -> Result<()> {
    let name = format!("partner-{at}.dept-{}.example", at % 97);
    let scope = if at.is_multiple_of(10) { "Subtree" } else { "Exact" };
    let spec = format!(
        "  domain: {name}\n  protocol: SIP\n  scope: {scope}\n  suspended: {suspended}\n  sip:\n    peerType: Sfb2015\n    \
         peerIdentities: [edge.{name}]\n  overrides: {{rate: 20, expires: 1h}}"
    );
    write(dir, "FederatedDomain", &name, &spec)
}

fn realm(dir: &Path) -> Result<()> {
    write(dir, "Federation", "default", "  credentialsSecretRef: {name: credentials}")?;
    write(
        dir,
        "GatewayPool",
        "sip",
        "  roles: [SIP]\n  expose: {hostname: \"sip.{domain}\", ports: {sipPlain: 5060}}",
    )?;
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: credentials, namespace: im-edge}\nstringData: {main: s3cret}\n";
    fs::write(dir.join("secret.yaml"), secret)?;
    for at in 0..LOCAL {
        let name = format!("corp-{at}.test");
        let spec = format!(
            "  domain: {name}\n  backend: {{component: {{host: xmpp.internal, port: 5347, secretKey: main}}}}\n  \
             chatAliases: [{{host: rooms.{name}}}]"
        );
        write(dir, "LocalDomain", &name, &spec)?;
    }
    (0..FEDERATED).try_for_each(|at| federated(dir, at, false))
}

fn load(options: &SourceOptions, former: Option<&Loaded>, what: &str) -> Result<(Loaded, f64)> {
    let begin = Instant::now();
    let loaded = source::load(options, former).map_err(|refusals| {
        let first = refusals.first().map(ToString::to_string).unwrap_or_default();
        anyhow::anyhow!("{} refusals, the first: {first}", refusals.len())
    })?;
    let took = begin.elapsed().as_secs_f64();
    println!("{what}: {took:.2} s");
    Ok((loaded, took))
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    realm(dir.path())?;
    let options = SourceOptions::new(dir.path(), "sip");
    println!("load: {FEDERATED} federated and {LOCAL} local domains, one file each");
    let (first, took) = load(&options, None, "first load")?;
    federated(dir.path(), 4321, true)?;
    let (second, _) = load(&options, Some(&first), "load after one file changed")?;
    anyhow::ensure!(second.generation == 2, "the change was not taken");
    let verdict = if took <= BAR { "holds" } else { "DOES NOT HOLD" };
    println!("ratio {BAR:.0}s/first load {:.2}: at least 1 wanted, {verdict}", BAR / took);
    Ok(())
}
