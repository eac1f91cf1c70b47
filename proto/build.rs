//! Generates the crate from `muster/v1/*.proto` with a protobuf compiler in pure Rust: no `protoc` needed.
use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=muster/v1");
    let set = protox::compile(["muster/v1/muster.proto"], ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("muster.v1.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
