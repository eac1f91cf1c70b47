//! OpenVEX 0.2: what the maker says about vulnerabilities, by the package that they are in.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::json::{self, Unused, shown};
use super::{AttestationError, Limits, Part};
use crate::finding::Sha256;

/// `@context` of the version that is read, up to the patch level.
const CONTEXT: &str = "https://openvex.dev/ns/v0.2";
/// Statements, by package, that one document may make.
const MAX_STATEMENTS: usize = 1 << 18;

/// An OpenVEX document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vex {
    by_purl: BTreeMap<String, Vec<VexStatement>>,
    /// Products without a package URL, which nothing can be joined with.
    pub without_purl: usize,
}

/// What is said of one vulnerability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VexStatement {
    /// Its name, as `CVE-2026-1234`.
    pub vulnerability: Arc<str>,
    /// Whether it matters.
    pub status: VexStatus,
    /// Why it does not.
    pub justification: Option<Arc<str>>,
    /// In which product.
    pub product: Product,
}

/// The product that a statement about a package is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// None: the package itself is the product, or is a part of one that says no digest.
    Any,
    /// An image.
    Image(Sha256),
    /// Something that no SHA-256 names.
    Unknown,
}

/// Whether a vulnerability matters (OpenVEX 0.2.0, "Status Labels").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VexStatus {
    /// It does not.
    NotAffected,
    /// It does.
    Affected,
    /// It did.
    Fixed,
    /// Not known yet.
    UnderInvestigation,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "@context")]
    context: String,
    statements: Vec<Statement>,
}

#[derive(Deserialize)]
struct Statement {
    vulnerability: Vulnerability,
    #[serde(default)]
    products: Vec<Component>,
    status: VexStatus,
    justification: Option<String>,
    impact_statement: Option<String>,
}

#[derive(Deserialize)]
struct Vulnerability {
    name: String,
}

/// A product, or a part of one.
#[derive(Deserialize)]
struct Component {
    #[serde(rename = "@id")]
    id: Option<String>,
    #[serde(default)]
    identifiers: Identifiers,
    #[serde(default)]
    subcomponents: Vec<Component>,
}

#[derive(Default, Deserialize)]
struct Identifiers {
    purl: Option<String>,
}

impl Component {
    fn purl(&self) -> Option<&str> {
        let id = self.id.as_deref().filter(|id| id.starts_with("pkg:"));
        self.identifiers.purl.as_deref().or(id)
    }

    /// As which product it limits what is said of its parts: images have their digest as the version (package-url specification,
    /// types `oci` and `docker`).
    fn product(&self) -> Product {
        let purl = self.purl().filter(|purl| purl.starts_with("pkg:oci/") || purl.starts_with("pkg:docker/"));
        let path = purl.and_then(|purl| purl.split(['?', '#']).next()).unwrap_or_default();
        let version =
            path.rsplit_once('@').map(|(_, version)| version.replace("%3A", ":").replace("%3a", ":"));
        match version.filter(|version| version.contains(':')) {
            None => Product::Any,
            Some(digest) => digest.parse().map_or(Product::Unknown, Product::Image),
        }
    }
}

impl Vex {
    /// Reads the predicate of a statement of the type [`OpenVex`](super::PredicateType::OpenVex).
    ///
    /// # Errors
    /// When it is not JSON, has a key twice, is nested too deeply, or is not OpenVEX 0.2.
    pub fn parse(predicate: &[u8], limits: &Limits) -> Result<Self, AttestationError> {
        let refuse = |reason: String| AttestationError::Malformed { part: Part::Predicate, at: 0, reason };
        json::read(predicate, Unused { depth: limits.max_json_depth })
            .map_err(|fault| AttestationError::malformed(Part::Predicate, fault))?;
        let document: Document =
            serde_json::from_slice(predicate).map_err(|error| refuse(format!("not OpenVEX: {error}")))?;
        let rest = document.context.strip_prefix(CONTEXT);
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            let found = shown(&document.context);
            return Err(refuse(format!("@context is {found:?}; expected {CONTEXT:?}")));
        }
        let (mut vex, mut count) = (Self::default(), 0);
        for statement in &document.statements {
            // Shared: a document may say a long text of many packages.
            let vulnerability: Arc<str> = statement.vulnerability.name.as_str().into();
            let justification = statement.justification.as_deref().or(statement.impact_statement.as_deref());
            let justification: Option<Arc<str>> = justification.map(Arc::from);
            for product in &statement.products {
                // Of a product with parts, the parts are what the statement is about.
                let (parts, of) = match product.subcomponents.as_slice() {
                    [] => (std::slice::from_ref(product), Product::Any),
                    parts => (parts, product.product()),
                };
                let said = || VexStatement {
                    vulnerability: Arc::clone(&vulnerability),
                    status: statement.status,
                    justification: justification.clone(),
                    product: of,
                };
                for part in parts {
                    count += 1;
                    if count > MAX_STATEMENTS {
                        return Err(refuse(format!("more than {MAX_STATEMENTS} statements about packages")));
                    }
                    match part.purl() {
                        Some(purl) => vex.by_purl.entry(purl.to_owned()).or_default().push(said()),
                        None => vex.without_purl += 1,
                    }
                }
            }
        }
        Ok(vex)
    }

    /// What is said about the package with this URL, spelled as the document spells it, in the image with these digests. A document
    /// may speak of the same package in other products.
    pub fn about(&self, purl: &str, image: &[Sha256]) -> impl Iterator<Item = &VexStatement> {
        let is_here = |said: &&VexStatement| match said.product {
            Product::Any => true,
            Product::Image(digest) => image.contains(&digest),
            Product::Unknown => false,
        };
        self.by_purl.get(purl).into_iter().flatten().filter(is_here)
    }

    /// The packages that it is about.
    pub fn packages(&self) -> impl Iterator<Item = (&str, &[VexStatement])> + '_ {
        self.by_purl.iter().map(|(purl, statements)| (purl.as_str(), statements.as_slice()))
    }
}
