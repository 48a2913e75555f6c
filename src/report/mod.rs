//! `report.html`: the results of a run, for people to read.
//!
//! One self-contained file: no scripts, no external resources, plots as inline SVG, formulas as MathML.
//! It is made only from the files of the run folder, so it can be made again at any time; each section
//! appears if its file exists.

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
/// If a file is missing, its sections are left out; if one cannot be read, the error names it and nothing
/// is written.
pub fn write(folder: &RunFolder) -> Result<()> {
    let name = folder.path().file_name().unwrap_or(folder.path().as_os_str());
    let mut page = Page::new(&name.to_string_lossy());
    sections::all(folder, &Inputs::read(folder)?, &mut page)?;
    folder.write("report.html", page.html().as_bytes())
}
