//! Generates Rust from the project's .proto files without protoc: protox is a protobuf compiler in Rust.
//!
//! `bytes` fields become [`bytes::Bytes`], so a key or value is a view into the frame it arrived in.
#![allow(clippy::disallowed_methods)] // a build script writes what it generates

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 6] = ["metapb", "errorpb", "kvrpcpb", "pdpb", "tikvpb", "internal"];

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = FILES.iter().map(|name| format!("proto/{name}.proto")).collect();
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(&paths, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Errors of pairs are large and rare: inline they would make a pair of a scan ten times as large in memory.
    tonic_prost_build::configure()
        .bytes(".")
        .boxed("kvrpcpb.KvPair.error")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
