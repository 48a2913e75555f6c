//! The command line: one file per subcommand, and what they share.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::device::Device;
use crate::distill::run::Compute;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::store;

mod bench;
mod catalog;
mod compose;
mod devices;
mod distill;
mod eval;
pub(crate) mod flags;
mod graph;
mod import;
pub mod interrupt;
mod messages;
pub mod panics;
mod predict;
mod regress;
mod report;
mod reproduce;
mod selftest;
mod simulate;
mod system;
mod terminal;
mod train;

use terminal::Terminal;

/// Turns data about interacting bodies into a formula.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options that every subcommand takes.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
struct Common {
    /// Where to compute: cpu, cuda:N, or auto (the first GPU, else the CPU)
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Number of threads; 0 means one per core
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Random seed
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Print one JSON document to stdout, and nothing else
    #[arg(long, global = true)]
    json: bool,
    /// Show no progress on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say on stderr which device computes, also where --device names it
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Everything: from a simulated system, a data set or a graph to its law
    Distill(Box<distill::Distill>),
    /// Simulate systems of interacting bodies
    Simulate(simulate::Simulate),
    /// Make a data set from a table of trajectories
    Import(import::Import),
    /// Train a graph network on a data set
    Train(train::Train),
    /// Rank the messages of a trained network and compare them with the true forces
    Messages(messages::Messages),
    /// Find the formula behind a column of a table
    Regress(Box<regress::Regress>),
    /// Replace a network by its laws and refit their constants
    Compose(compose::Compose),
    /// Predict accelerations and trajectories with a trained network
    Predict(predict::Predict),
    /// Rewrite the report of a run folder
    Report(report::Report),
    /// Apply laws to the rows of a table
    Eval(eval::Eval),
    /// Make a catalogue of dark-matter halos from a table or a friends-of-friends file
    Catalog(catalog::Catalog),
    /// Join neighbouring halos of a catalogue into a graph
    Graph(graph::Graph),
    /// Reproduce a table of the paper
    Reproduce(reproduce::Reproduce),
    /// Measure every operation against the limits of this machine
    Bench(bench::Bench),
    /// List the devices that can be used
    Devices(devices::Devices),
    /// Compare every operation on a device with its reference
    Selftest(selftest::Selftest),
}

impl Command {
    /// False for commands that do not use the device.
    fn computes(&self) -> bool {
        !matches!(
            self,
            Command::Catalog(_) | Command::Devices(_) | Command::Import(_) | Command::Report(_)
        )
    }
}

/// The file that a command writes.
#[derive(Args)]
struct OutputFile {
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the output file if it exists
    #[arg(long)]
    overwrite: bool,
}

impl OutputFile {
    /// Where to write; an error if the file exists and may not be replaced.
    fn path(&self) -> Result<&Path> {
        if self.output.exists() && !self.overwrite {
            return Err(
                Error::usage("already exists; use --overwrite to replace it").file(&self.output)
            );
        }
        store::tidy(&[&self.output]);
        Ok(&self.output)
    }
}

/// Passed to every subcommand.
pub struct Context {
    /// Where to compute.
    pub device: Device,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Where progress and notes are shown.
    pub(crate) terminal: Terminal,
    json: bool,
}

impl Context {
    /// Device, seed and observer for a stage of `distill`.
    pub fn compute(&self) -> Compute<'_> {
        Compute { device: self.device, seed: self.seed, observer: &self.terminal }
    }

    /// Prints the result of the command: the document under `--json`, the text otherwise.
    pub fn print(&self, document: &serde_json::Value, text: impl Display) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        // A closed pipe (`lawsmith … | head`) is not an error.
        let _ = if self.json { writeln!(out, "{document}") } else { writeln!(out, "{text}") };
    }
}

/// True if the arguments contain `--json`, whether or not they are valid.
pub fn asks_for_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|a| a == "--json")
}

/// Clap's message about invalid arguments, without the usage and the hints.
pub fn usage_error(error: &clap::Error) -> Error {
    let text = error.to_string();
    let lines = text.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty());
    let sentence: Vec<&str> = lines.map(str::trim).collect();
    Error::usage(sentence.join(" "))
}

impl Cli {
    /// True if errors are to be printed as a document on stdout.
    pub fn json(&self) -> bool {
        self.common.json
    }

    /// Runs the subcommand.
    pub fn run(self) -> Result<()> {
        let Common { device, threads, seed, json, quiet, verbose } = self.common;
        // The main thread joins the pool: a training step takes half a millisecond, and handing it
        // to another thread and back costs a tenth of that.
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .use_current_thread()
            .build_global()
            .map_err(|e| {
                Error::usage(format!("cannot start {threads} threads: {e}")).field("threads")
            })?;
        let terminal = Terminal::new(quiet);
        let device = match device.as_str() {
            // Opening a GPU takes longer than these commands.
            "auto" if !self.command.computes() => Device::cpu(),
            "auto" => {
                let (device, why) = Device::auto();
                terminal.note(&format!("device: {}; {why}", device.describe()));
                device
            }
            name => {
                let device = Device::pick(name)?;
                if verbose {
                    terminal.note(&format!("device: {}", device.describe()));
                }
                device
            }
        };
        let context = Context { device, seed, terminal, json };
        match self.command {
            Command::Bench(command) => command.run(&context),
            Command::Catalog(command) => command.run(&context),
            Command::Graph(command) => command.run(&context),
            Command::Distill(command) => command.run(&context),
            Command::Messages(command) => command.run(&context),
            Command::Compose(command) => command.run(&context),
            Command::Devices(command) => command.run(&context),
            Command::Eval(command) => command.run(&context),
            Command::Predict(command) => command.run(&context),
            Command::Regress(command) => command.run(&context),
            Command::Reproduce(command) => command.run(&context),
            Command::Report(command) => command.run(&context),
            Command::Selftest(command) => command.run(&context),
            Command::Train(command) => command.run(&context),
            Command::Import(command) => command.run(&context),
            Command::Simulate(command) => command.run(&context),
        }
    }
}
