//! The whole program: parse, pick a device, run one subcommand, exit code.

use std::process::ExitCode;

use clap::Parser;
use lawsmith::cli::Cli;

fn main() -> ExitCode {
    lawsmith::interrupt::install();
    let cli = Cli::parse();
    let json = cli.json();
    match cli.run() {
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
