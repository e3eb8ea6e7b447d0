//! The gateway's program.

use std::process::ExitCode;

use clap::Parser as _;
use isthmus_gateway::run::{Options, run};
use mimalloc::MiMalloc;

/// The system's allocator gives memory back and takes it again at every burst, which costs a tenth of a message.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(options.threads.get());
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(_) => ExitCode::FAILURE,
    }
}
