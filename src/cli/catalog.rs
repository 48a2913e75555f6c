//! `lawsmith catalog`: a catalogue of halos from a table or a friends-of-friends file.

use std::path::PathBuf;

use clap::Args;

use super::{Context, OutputFile};
use crate::cosmology::catalog::{Settings, import};
use crate::error::Result;

/// Makes a catalogue of halos, in Mpc/h, km/s and Msun/h, from a table or a friends-of-friends file
#[derive(Args)]
pub struct Catalog {
    /// Gadget's group_tab_*, Subfind's HDF5, the text of Rockstar or AHF, or a table (text, .npz, HDF5, .parquet,
    /// .safetensors) with pos or x,y,z, vel or vx,vy,vz, mass, and optionally npart, delta, box_size
    source: PathBuf,
    /// Meaning of columns whose names do not tell, such as "m500=mass,halo_xoff=x"
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    columns: Vec<String>,
    /// Positions range from -LENGTH/2 to LENGTH/2
    #[arg(long)]
    centred: bool,
    /// Edge of the periodic box, a cube, in Mpc/h [default: from the file]
    #[arg(long = "box", value_name = "LENGTH", value_parser = edge)]
    edge: Option<f64>,
    /// Redshift of the snapshot, for friends-of-friends files only: their velocities are multiplied by 1 + z
    #[arg(long, default_value_t = 0.0, value_name = "Z")]
    redshift: f64,
    /// Overdensity around each halo: a table with a column delta, or with a single column
    #[arg(long, value_name = "FILE", conflicts_with = "particles")]
    delta: Option<PathBuf>,
    /// Positions of particles in Mpc/h, .npy or .npz [particles, 3], to compute the overdensity from
    #[arg(long, value_name = "FILE")]
    particles: Option<PathBuf>,
    /// Radius of the ball in which particles are counted, Mpc/h [default: 20]
    #[arg(long, value_name = "LENGTH", requires = "particles")]
    smoothing: Option<f64>,
    /// Leave out halos lighter than this, Msun/h
    #[arg(long, value_name = "MASS")]
    min_mass: Option<f64>,
    /// Leave out halos with fewer particles than this
    #[arg(long, value_name = "N")]
    min_particles: Option<u32>,
    /// Correct masses for the number of particles per halo (Warren et al. 2006)
    #[arg(long)]
    warren: bool,
    /// Repeat the box N times along each axis; for scaling tests, not for science
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    tile: u8,
    #[command(flatten)]
    output: OutputFile,
}

/// The edge of a cube; other boxes are refused with the reason.
fn edge(text: &str) -> std::result::Result<f64, String> {
    let number = |word: &str| word.trim().parse().map_err(|_| format!("'{word}' is not a number"));
    let edges: Vec<f64> = text.split(',').map(number).collect::<std::result::Result<_, _>>()?;
    match edges.iter().all(|edge| *edge == edges[0] && *edge != 0.0) {
        true => Ok(edges[0]),
        false => {
            Err("only a cube that is periodic along every axis can be used: give its edge".into())
        }
    }
}

impl Catalog {
    /// Reads, checks and writes, and prints a summary.
    pub fn run(self, context: &Context) -> Result<()> {
        let output = self.output.path()?;
        let settings = Settings {
            edge: self.edge,
            redshift: self.redshift,
            delta: self.delta,
            particles: self.particles,
            smoothing: self.smoothing.unwrap_or(20.0),
            min_mass: self.min_mass,
            min_particles: self.min_particles,
            warren: self.warren,
            tile: self.tile.into(),
            centred: self.centred,
            columns: self.columns,
        };
        let about = import(&self.source, output, &settings)?;
        let delta = about.delta.as_deref().unwrap_or("unknown; --delta or --particles provides it");
        let mut text = format!(
            "{}: {} halos in a box of {} Mpc/h, {} left out\noverdensity: {delta}",
            output.display(),
            about.halos,
            about.edge,
            about.cut,
        );
        about.notes.iter().for_each(|note| text += &format!("\n{note}"));
        context.print(&serde_json::to_value(&about).expect("plain data"), text);
        Ok(())
    }
}
