//! The first thing that a newcomer runs.

use std::process::Command;

use anyhow::{Result, ensure};
use isthmus_e2e::lab::scenario_alone;
use isthmus_e2e::process;

#[tokio::test]
async fn the_quickstart_shows_all_with_one_gateway_and_with_three_of_which_one_is_killed() {
    scenario_alone("quickstart-test", async |_| -> Result<()> {
        for redis in ["", "1"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
            let told = process::run(command.envs([("ONCE", "1"), ("REDIS", redis)]))?;
            ensure!(told.contains("All of it worked"), "{told}");
            ensure!(told.contains("is killed") == (redis == "1"), "{told}");
        }
        Ok(())
    })
    .await;
}
