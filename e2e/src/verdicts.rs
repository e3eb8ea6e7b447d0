//! What benchmarks want, and whether it holds.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::process::ExitCode;

/// The verdicts of a run. Each is printed as it comes; what did not hold lets the command end with 1.
#[derive(Debug, Default)]
pub struct Verdicts {
    missed: bool,
}

impl Verdicts {
    /// Prints what was measured, what was wanted, and whether that holds.
    pub fn add(&mut self, measured: &str, wanted: &str, holds: bool) {
        println!("{measured}: {wanted} wanted, {}", if holds { "holds" } else { "DOES NOT HOLD" });
        self.missed |= !holds;
    }

    /// Adds a ratio of two things that were measured in the same run.
    pub fn add_ratio(&mut self, what: &str, ratio: f64, most: f64) {
        self.add(&format!("ratio {what} {ratio:.3}"), &format!("at most {most}"), ratio <= most);
    }

    /// Tells how the command ends.
    pub fn exit_code(&self) -> ExitCode {
        if self.missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
