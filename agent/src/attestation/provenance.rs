//! SLSA provenance v0.2 and v1: who built an image, of which source, at which commit.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{self, Unused};
use super::{AttestationError, Limits, Part};

/// Longest text that is kept.
const MAX_TEXT: usize = 4096;

/// How an image was built, as its builder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Who built it: a URI. BuildKit writes an empty one if nobody has told it who it is.
    pub builder: Option<String>,
    /// The repository that it was built of, without `git+` and reference.
    pub source: Option<String>,
    /// The commit.
    pub commit: Option<String>,
}

/// Both versions at once; which members there are tells them apart.
#[derive(Deserialize)]
struct Document<'a> {
    // v0.2
    builder: Option<Builder>,
    #[serde(borrow)]
    invocation: Option<Invocation<'a>>,
    #[serde(default, borrow)]
    materials: Vec<&'a RawValue>,
    // v1
    #[serde(rename = "buildDefinition", borrow)]
    definition: Option<Definition<'a>>,
    #[serde(rename = "runDetails")]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Builder {
    id: String,
}

#[derive(Deserialize)]
struct Invocation<'a> {
    #[serde(rename = "configSource", borrow)]
    source: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Definition<'a> {
    #[serde(rename = "externalParameters", borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(rename = "resolvedDependencies", default, borrow)]
    dependencies: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Details {
    builder: Builder,
}

/// What builders put into the external parameters, which each may define: GitHub its workflow, BuildKit its source.
#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow)]
    workflow: Option<&'a RawValue>,
    #[serde(rename = "configSource", borrow)]
    source: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Workflow {
    repository: String,
}

/// A source or dependency.
#[derive(Clone, Deserialize)]
struct Resource {
    uri: Option<String>,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl Resource {
    /// A repository; of a download or an image there is no commit.
    fn is_repository(&self) -> bool {
        self.uri.as_deref().is_some_and(|uri| uri.starts_with("git+") || uri.ends_with(".git"))
    }

    fn commit(&self) -> Option<String> {
        ["gitCommit", "sha1"].iter().find_map(|name| self.digest.get(*name)).cloned()
    }
}

impl Provenance {
    /// Reads the predicate of a statement of the type [`SlsaProvenance`](super::PredicateType::SlsaProvenance).
    ///
    /// # Errors
    /// When it is not JSON, has a key twice, is nested too deeply, or names no builder.
    pub fn parse(predicate: &[u8], limits: &Limits) -> Result<Self, AttestationError> {
        let refuse = |reason: String| AttestationError::Malformed { part: Part::Predicate, at: 0, reason };
        json::read(predicate, Unused { depth: limits.max_json_depth })
            .map_err(|fault| AttestationError::malformed(Part::Predicate, fault))?;
        let document: Document<'_> = serde_json::from_slice(predicate)
            .map_err(|error| refuse(format!("not SLSA provenance: {error}")))?;
        let (builder, said, materials) = match (document.details, document.definition, document.builder) {
            (Some(details), Some(definition), None) => {
                (details.builder, definition.source(), definition.dependencies)
            }
            (None, None, Some(builder)) => {
                let said = document.invocation.and_then(|invocation| invocation.source).and_then(lenient);
                (builder, said, document.materials)
            }
            _ => {
                return Err(refuse(
                    "not SLSA provenance: expected builder (v0.2), or buildDefinition and runDetails (v1)"
                        .into(),
                ));
            }
        };
        let has_uri = |resource: &Resource| resource.uri.as_ref().is_some_and(|uri| !uri.is_empty());
        let said = said.filter(has_uri);
        let sources = said.iter().cloned().chain(materials.into_iter().filter_map(lenient).filter(has_uri));
        let sources: Vec<Resource> = sources.collect();
        // Other materials are what went into it, as base images: BuildKit names no repository for a directory that was sent to it.
        let repository = sources.iter().find(|resource| resource.is_repository()).or(said.as_ref());
        let source = repository.and_then(|resource| resource.uri.as_deref()).map(repository_of);
        let commit = repository.and_then(|first| {
            // GitHub names its repository in one place and its commit in another.
            let same = |other: &&Resource| {
                other.uri.as_deref().map(repository_of) == first.uri.as_deref().map(repository_of)
            };
            sources.iter().filter(same).find_map(Resource::commit)
        });
        let builder = Some(builder.id).filter(|id| !id.is_empty());
        let texts = [builder.as_ref(), source.as_ref(), commit.as_ref()];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT) {
            return Err(refuse(format!("a text of more than {MAX_TEXT} bytes as builder, source or commit")));
        }
        Ok(Self { builder, source, commit })
    }
}

impl Definition<'_> {
    /// What the builder was told to build.
    fn source(&self) -> Option<Resource> {
        let parameters: Option<Parameters<'_>> =
            self.parameters.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let workflow = parameters.as_ref().and_then(|parameters| parameters.workflow).and_then(lenient);
        let workflow = workflow.map(|Workflow { repository }| Resource {
            uri: Some(format!("git+{repository}")),
            digest: BTreeMap::new(),
        });
        workflow.or_else(|| parameters.and_then(|parameters| parameters.source).and_then(lenient))
    }
}

/// A value whose form is the builder's own: one that is not as expected says nothing.
fn lenient<T: for<'de> Deserialize<'de>>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// `git+https://host/repository.git@refs/heads/main` → `https://host/repository`.
fn repository_of(uri: &str) -> String {
    let uri = uri.strip_prefix("git+").unwrap_or(uri);
    let uri = uri.split_once('#').map_or(uri, |(uri, _)| uri);
    let path = uri.find("://").map_or(0, |at| at + 3);
    // An `@` before the first `/` belongs to the host.
    let path = uri[path..].find('/').map_or(uri.len(), |at| path + at);
    let uri = uri[path..].find('@').map_or(uri, |at| &uri[..path + at]);
    uri.strip_suffix(".git").unwrap_or(uri).to_owned()
}
