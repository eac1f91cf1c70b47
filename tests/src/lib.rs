//! Scenarios on real kernels.
//!
//! The program `suite` runs inside a virtual machine whose root is a real Debian image with a signed SBOM. It starts the agent
//! under test, does one thing at a time, and asserts exactly which findings came of it and what was lost.
//! The program `tool` is what misbehaves: it is not in the SBOM.

#![forbid(unsafe_code)]

pub mod agent;
pub mod expect;
pub mod life;
pub mod losses;
pub mod older;
pub mod scenarios;
pub mod world;
