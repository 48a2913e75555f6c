//! `lawsmith import`: a data set from a table of trajectories.

use std::path::PathBuf;

use clap::Args;

use super::{Context, OutputFile};
use crate::error::Result;
use crate::nbody::derive::Settings;
use crate::nbody::import;
use crate::nbody::trajectories::{Columns, Options};

/// Makes a data set from trajectories: a table with a row for each body at each time and columns
/// time,body,x[,y,z][,run][,vx…][,mass][,charge][,ax… or fx…], arrays [run, frame, body, dim], a LAMMPS dump, or
/// extended XYZ.
#[derive(Args)]
pub struct Import {
    /// The file: text (any separator, also .gz), .npz, .npy, HDF5, .safetensors, .parquet, LAMMPS dump or XYZ; rows in
    /// any order
    table: PathBuf,
    /// Meaning of columns whose names do not tell, such as "epoch=time,label=body,type=charge"; "m=ignore" leaves
    /// one out
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    columns: Vec<String>,
    /// Time per step, if the file counts steps or frames
    #[arg(long, value_name = "TIME")]
    time_step: Option<f64>,
    /// Import only runs with N bodies
    #[arg(long, value_name = "N")]
    bodies: Option<usize>,
    /// Edge of a periodic box, or one per axis, such as 4,4,0; 0 means not periodic
    #[arg(long = "box", value_name = "LENGTH", value_delimiter = ',')]
    edges: Vec<f64>,
    /// Order of the local polynomial fit that supplies missing velocities and accelerations
    #[arg(long, default_value_t = Settings::default().order)]
    order: usize,
    /// Number of frames that the polynomial is fitted to [default: the one with the smallest error]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Infer masses that the file lacks from the motion, up to a common factor, assuming one central force between each
    /// pair of bodies; also charges, if the file has none
    #[arg(long)]
    infer_masses: bool,
    #[command(flatten)]
    output: OutputFile,
}

impl Import {
    /// Imports, and prints a summary.
    pub fn run(self, context: &Context) -> Result<()> {
        let output = self.output.path()?;
        let settings = Settings { order: self.order, window: self.window };
        let options = Options {
            columns: Columns::parse(&self.columns)?,
            time_step: self.time_step,
            bodies: self.bodies,
            edges: self.edges,
        };
        let summary = import::import(&self.table, output, &options, settings, self.infer_masses)?;
        let range = |fewest: usize, most: usize| match fewest < most {
            true => format!("{fewest} to {most}"),
            false => most.to_string(),
        };
        let frames = range(summary.fewest_frames, summary.frames);
        let bodies = range(summary.fewest_bodies, summary.bodies);
        let mut text = format!(
            "{}: {} runs of {frames} frames of {bodies} bodies in {} dimensions",
            output.display(),
            summary.runs,
            summary.dim,
        );
        if !summary.made.is_empty() {
            text += &format!("\nfilled in, not in the file: {}", summary.made.join(", "));
        }
        if let Some(noise) = summary.position_noise {
            text += &format!(
                "\nfit of order {} to {} frames; noise of the positions {noise:.2e}",
                settings.order,
                summary.window.unwrap_or_default(),
            );
        }
        if let Some(bar) = summary.acceleration_error {
            text += &format!(
                "\nerror bar of the accelerations: {:.2e} median, {:.2e} at worst; 95 % are within {:.2e} of the truth",
                bar.median, bar.max, bar.within_95
            );
        }
        for note in &summary.notes {
            text += &format!("\n{note}");
        }
        let document = serde_json::to_value(&summary).expect("a summary is plain data");
        context.print(&document, text);
        Ok(())
    }
}
