//! Configuration of a gateway without a cluster: a folder of manifests, taken all or nothing.
//!
//! The manifests are those of a cluster, judged in process by the same schemas, rules, policies and compiler. [`load`] reads a
//! folder whole: either everything in it is in order, or the caller keeps what it had and tells what was refused with file,
//! line, document and field. [`watch`] says when a change on disk is complete.

mod between;
mod documents;
mod files;
mod finding;
mod references;
mod secrets;
mod watch;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isthmus_crds::{Kind, Object};
use isthmus_policy::{Problem, Severity, Snapshot};

use self::documents::{Reader, Realm};
use self::files::Survey;

pub use self::documents::Declared;
pub use self::finding::{Finding, Notice, Refusal};
pub use self::secrets::Secrets;
pub use self::watch::{watch, watch_from};

/// Kind and name of an object.
pub type ObjectKey = (Kind, String);

/// Most refusals that are told at once.
const MAX_REFUSALS: usize = 100;
/// How often a folder that changes while it is read is read again, and the pause before.
const STEADY_LOOKS: usize = 10;
const STEADY_PAUSE: Duration = Duration::from_millis(50);

/// Where the configuration is and what part of it this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOptions {
    /// Folder with the manifests of one realm, read with all folders below it.
    pub dir: PathBuf,
    /// Folder with Secrets as mounted: `<secret>/<key>`.
    pub secrets: Option<PathBuf>,
    /// Name of the GatewayPool of this process.
    pub pool: String,
    /// Number of its node, from 0.
    pub node: u32,
    /// Takes unknown fields as warnings instead of errors.
    pub lenient: bool,
}

impl SourceOptions {
    /// The first node of a pool; Secrets are documents among the manifests, and nothing unknown is taken.
    pub fn new(dir: &Path, pool: &str) -> Self {
        Self { dir: dir.to_owned(), secrets: None, pool: pool.to_owned(), node: 0, lenient: false }
    }
}

/// A configuration that was taken.
#[derive(Debug)]
pub struct Loaded {
    /// The compiled realm.
    pub snapshot: Arc<Snapshot>,
    /// The values of Secrets.
    pub secrets: Arc<Secrets>,
    /// Counts the configurations taken by this process, from 1.
    pub generation: u64,
    /// What a person should know, in order of kind and name.
    pub notices: Vec<Notice>,
    /// What the compiler says about objects that are in force.
    pub problems: Vec<Problem>,
    /// All objects by kind and name.
    pub declared: BTreeMap<ObjectKey, Arc<Declared>>,
    survey: Survey,
}

/// Reads a folder whole, judging changes against the `former` configuration.
///
/// It blocks on files.
///
/// # Errors
///
/// Everything that is wrong, at most 100 findings; the folder is not taken then.
pub fn load(options: &SourceOptions, former: Option<&Loaded>) -> Result<Loaded, Vec<Refusal>> {
    let mut before = Survey::take(&options.dir, options.secrets.as_deref()).map_err(|refusal| vec![refusal])?;
    for _ in 0..STEADY_LOOKS {
        let outcome = read(options, former, &before.1);
        let after = Survey::take(&options.dir, options.secrets.as_deref()).map_err(|refusal| vec![refusal])?;
        // Files of two versions must not be mixed, for example while a mounted ConfigMap is swapped.
        if after == before {
            return outcome
                .map_err(|refusals| bounded(&options.dir, refusals))
                .map(|loaded| Loaded { survey: before.0, ..loaded });
        }
        std::thread::sleep(STEADY_PAUSE);
        before = Survey::take(&options.dir, options.secrets.as_deref()).map_err(|refusal| vec![refusal])?;
    }
    let text = "the files change while they are read. Put whole files in place by renaming them.";
    Err(vec![Refusal::of_file(&options.dir, text)])
}

fn read(options: &SourceOptions, former: Option<&Loaded>, manifests: &[PathBuf]) -> Result<Loaded, Vec<Refusal>> {
    let mut reader = Reader::new(options, former.map(|former| &former.declared));
    for path in manifests {
        reader.file(path).map_err(|refusal| vec![refusal])?;
    }
    let (realm, refusals, mut notices) = reader.finish(options.secrets.as_deref()).map_err(|refusal| vec![refusal])?;
    // Rules between objects would only repeat in other words what is wrong with one of them.
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut refusals = own_pool(options, &realm);
    let (denied, warned) = between::judge(&realm);
    let told: BTreeSet<_> = denied.iter().map(|finding| (finding.object.clone(), finding.field.clone())).collect();
    refusals.extend(denied);
    notices.extend(warned);

    let report = Snapshot::compile(realm.objects().map(|declared| declared.object().clone()));
    let mut problems = Vec::new();
    for problem in report.problems {
        let finding = match realm.declared(problem.kind, &problem.name) {
            Some(declared) => declared.finding(&problem.field, problem.message()),
            None => Finding::of_file(&options.dir, problem.to_string()),
        };
        if problem.severity != Severity::Refused {
            notices.push(finding);
            problems.push(problem);
        } else if !told.contains(&(finding.object.clone(), finding.field.clone())) {
            refusals.push(finding);
        }
    }
    refusals.extend(references::missing_keys(&realm, &options.pool));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    if let Some(Object::GatewayPool(pool)) = realm.declared(Kind::GatewayPool, &options.pool).map(Declared::object) {
        notices.extend(references::deployment_notices(&realm, pool));
    }
    notices.extend(references::unheeded_notices(&realm));
    let (declared, secrets) = realm.into_parts();
    Ok(Loaded {
        snapshot: Arc::new(report.snapshot),
        secrets: Arc::new(secrets),
        generation: former.map_or(0, |former| former.generation) + 1,
        notices,
        problems,
        declared,
        survey: Survey::default(),
    })
}

/// Refuses a realm without the pool and node of this process.
fn own_pool(options: &SourceOptions, realm: &Realm) -> Vec<Refusal> {
    let Some(declared) = realm.declared(Kind::GatewayPool, &options.pool) else {
        let names: Vec<&str> = realm.of_kind(Kind::GatewayPool).map(|declared| declared.object().name()).collect();
        let remedy = if names.is_empty() {
            "Add a GatewayPool of that name to the folder.".to_owned()
        } else {
            format!("Add it, or name one that exists with --pool: {}.", names.join(", "))
        };
        let text = format!("GatewayPool {} does not exist. {remedy}", options.pool);
        return vec![Refusal::of_file(&options.dir, text)];
    };
    match declared.object() {
        Object::GatewayPool(pool) if options.node >= pool.spec.nodes() => {
            let nodes = pool.spec.nodes();
            let text = format!(
                "the pool has no node {}. Leave --node out, or give it a number below {nodes}; pods of one node share a number.",
                options.node
            );
            vec![declared.finding("spec.nodes", text)]
        }
        _ => Vec::new(),
    }
}

/// Keeps a wholly wrong folder from filling logs.
fn bounded(dir: &Path, mut refusals: Vec<Refusal>) -> Vec<Refusal> {
    if refusals.len() > MAX_REFUSALS {
        let more = refusals.len() - (MAX_REFUSALS - 1);
        refusals.truncate(MAX_REFUSALS - 1);
        refusals.push(Refusal::of_file(dir, format!("{more} more things are wrong. Correct the ones above first.")));
    }
    refusals
}

#[cfg(test)]
mod tests;
