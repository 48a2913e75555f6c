//! `report.html`: what a person looks at when a run is done.
//!
//! One self-contained file: no script, no external resource, plots as inline SVG, formulas as MathML.
//! It is made from the files of the run folder and nothing else, so it can be made again at any time;
//! a section appears where its file is there.

mod halos;
mod inputs;
mod math;
mod page;
mod plot;
mod sections;
pub mod table;

use crate::error::Result;
use crate::store::run::RunFolder;
use inputs::Inputs;
use page::Page;

/// Writes `report.html` from the other files of the folder.
///
/// A file that is missing leaves its sections out; a file that cannot be read is an error that names
/// it, and nothing is written.
pub fn write(folder: &RunFolder) -> Result<()> {
    let name = folder.path().file_name().unwrap_or(folder.path().as_os_str());
    let mut page = Page::new(&name.to_string_lossy());
    sections::all(folder, &Inputs::read(folder)?, &mut page)?;
    folder.write("report.html", page.html().as_bytes())
}
