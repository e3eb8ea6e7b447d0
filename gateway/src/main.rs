//! The gateway's program.

use std::process::ExitCode;

use clap::Parser as _;
use isthmus_gateway::run::{Options, run};

fn main() -> ExitCode {
    let options = Options::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(_) => ExitCode::FAILURE,
    }
}
