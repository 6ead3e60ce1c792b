//! The `mesh-agent` binary: see [`mesh_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_agent::cli::main()
}
