//! The whole program: parse, pick a device, run one subcommand, exit code.

use std::process::ExitCode;

use clap::Parser;
use lawsmith::cli::{self, Cli};

fn main() -> ExitCode {
    cli::interrupt::install();
    cli::panics::install();
    let (json, done) = match Cli::try_parse() {
        Ok(cli) => (cli.json(), cli.run()),
        // Help and version are not errors; without --json errors come with the usage and hints.
        Err(error) if error.exit_code() == 0 || !cli::asks_for_json() => error.exit(),
        Err(error) => (true, Err(cli::usage_error(&error))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if json {
                println!("{}", error.document());
            } else {
                eprintln!("error: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
