//! Compiles ../proto/agent.proto without a protoc on the machine.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = std::env::var("VC_AGENT_PROTO").unwrap_or_else(|_| "../proto/agent.proto".into());
    let folder =
        std::path::Path::new(&proto).parent().ok_or("the proto file has no folder")?.to_owned();
    println!("cargo:rerun-if-changed={proto}");
    println!("cargo:rerun-if-env-changed=VC_AGENT_PROTO");
    let files = protox::compile([&proto], [folder])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
