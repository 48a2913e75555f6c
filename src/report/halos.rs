//! The sections of a run on a graph of halos.

use super::inputs::{Inputs, Messages};
use super::page::{Page, number};
use super::plot::{Colour, Mark, Plot, Series};
use crate::cosmology::edges::edge_variables;
use crate::cosmology::graph::N_FEATURES;
use crate::cosmology::slab::Slab;
use crate::distill::summary::Summary;
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::network::model::{Model, OnGraph};
use crate::ops::formula::VARIABLES;
use crate::store::run::RunFolder;
use crate::store::tensors::TensorFile;
use crate::symbolic::job;

/// Dots in a scatter plot.
const SCATTER: usize = 3000;
const WIDE: (u32, u32) = (880, 380);
const PANEL: (u32, u32) = (420, 400);
/// Points on a curve of mean errors.
const BINS: usize = 12;

/// Adds the sections that only a graph of halos has.
pub(super) fn all(folder: &RunFolder, inputs: &Inputs, page: &mut Page) -> Result<()> {
    let Some(slab) = &inputs.slab else { return Ok(()) };
    page.optional("map", "The held-out slab", map(slab));
    page.optional("scatter", "Predicted against true overdensity", scatter(slab));
    page.optional("errors", "Errors by mass and overdensity", errors(slab));
    if let (Some(summary), Some(messages)) = (&inputs.summary, &inputs.messages) {
        page.optional("terms", "The terms of the formula", terms(folder, summary, messages)?);
    }
    Ok(())
}

/// The slab seen along z, in three classes of overdensity.
fn map(halos: &Slab) -> Option<String> {
    let mut sorted = halos.targets.clone();
    sorted.sort_by(f32::total_cmp);
    let quantile = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let limits = [f32::NEG_INFINITY, quantile(0.5), quantile(0.9), f32::INFINITY];
    let panel = |name: &str, values: &[f32]| {
        let class = |k: usize| {
            let points = halos.positions.as_chunks::<3>().0.iter().zip(values);
            let points = points.filter(|(_, d)| **d > limits[k] && **d <= limits[k + 1]);
            let points = points.map(|(p, _)| (f64::from(p[0]), f64::from(p[1]))).collect();
            let (label, colour) = match k {
                0 => (format!("up to {}", number(limits[1].into())), Colour::Faint),
                1 => (format!("up to {}", number(limits[2].into())), Colour::Series(0)),
                _ => ("above".to_string(), Colour::Series(1)),
            };
            Series { label, colour, mark: Mark::Dots, points }
        };
        let plot = Plot {
            title: format!("Halos of the slab in the x-y plane, coloured by {name} overdensity"),
            x: format!("x, Mpc/h ({name})"),
            y: "y, Mpc/h".into(),
            log: false,
            equal: true,
            size: PANEL,
            series: (0..3).map(class).collect(),
        };
        plot.figure()
    };
    let panels = [panel("true", &halos.targets)?, panel("predicted", &halos.formula)?];
    Some(format!(
        "<p>The halos of the held-out slab, seen along z, coloured by overdensity: the true one, and the \
         formula's prediction.</p><div class=\"panels\">{}</div>",
        panels.concat()
    ))
}

fn scatter(halos: &Slab) -> Option<String> {
    let every = halos.targets.len().div_ceil(SCATTER).max(1);
    let highest = halos.targets.iter().copied().fold(0.0, f32::max);
    let panel = |k: usize, name: &str, values: &[f32]| {
        let points = halos.targets.iter().zip(values).step_by(every);
        // One far outlier would squeeze all other points together.
        let points = points.filter(|(_, p)| p.abs() < 2.0 * highest);
        let plot = Plot {
            title: format!("Overdensity predicted by the {name} against the true overdensity"),
            x: "true overdensity".into(),
            y: name.to_string(),
            log: false,
            equal: false,
            size: PANEL,
            series: vec![
                Series::diagonal(-1.0, highest.into()),
                Series {
                    label: String::new(),
                    colour: Colour::Series(k),
                    mark: Mark::Dots,
                    points: points.map(|(&t, &p)| (t.into(), p.into())).collect(),
                },
            ],
        };
        plot.figure()
    };
    let panels = [panel(0, "network", &halos.network)?, panel(1, "formula", &halos.formula)?];
    Some(format!("<div class=\"panels\">{}</div>", panels.concat()))
}

/// Mean absolute error in bins with equal numbers of halos.
fn errors(halos: &Slab) -> Option<String> {
    let curve = |keys: &[f64], values: &[f32]| -> Vec<(f64, f64)> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        let bin = |rows: &[usize]| {
            let n = rows.len() as f64;
            let error = |&row: &usize| f64::from((halos.targets[row] - values[row]).abs());
            (keys[rows[rows.len() / 2]], rows.iter().map(error).sum::<f64>() / n)
        };
        order.chunks(keys.len().div_ceil(BINS).max(1)).map(bin).collect()
    };
    let plot = |x: &str, keys: Vec<f64>| {
        let series = [("network", &halos.network), ("formula", &halos.formula)];
        let series = series.iter().enumerate().map(|(k, (name, values))| Series {
            label: name.to_string(),
            colour: Colour::Series(k),
            mark: Mark::Line(2),
            points: curve(&keys, values),
        });
        Plot {
            title: format!("Mean absolute error against {x}"),
            x: x.to_string(),
            y: "mean absolute error".into(),
            log: false,
            equal: false,
            size: PANEL,
            series: series.collect(),
        }
        .figure()
    };
    let masses = halos.masses.iter().map(|&m| f64::from(m).log10()).collect();
    let targets = halos.targets.iter().map(|&t| f64::from(t)).collect();
    let panels = [plot("log10 of the mass, Msun/h", masses)?, plot("overdensity", targets)?];
    Some(format!(
        "<p>Each point is a twelfth of the halos of the slab.</p><div class=\"panels\">{}</div>",
        panels.concat()
    ))
}

/// The first message against the distance: dots are edges, the line is the law at median inputs.
fn terms(folder: &RunFolder, summary: &Summary, messages: &Messages) -> Result<Option<String>> {
    let Some(component) = summary.components.first() else { return Ok(None) };
    let width = messages.components.len();
    let Some(column) = messages.components.iter().position(|&index| index == component.index)
    else {
        return Ok(None);
    };
    let path = folder.file("model.safetensors");
    if !path.exists() {
        return Ok(None);
    }
    let model = Model::load(&path)?;
    let Some(OnGraph { scales, .. }) = model.about.on.graph() else { return Ok(None) };
    let file = TensorFile::open(&folder.file("messages.safetensors"), "messages")?;
    let edges = messages.values.len() / width;
    let features = file.f32("features", &[edges, 2 * N_FEATURES])?;
    let row = |edge: usize| {
        edge_variables(&features[edge * 2 * N_FEATURES..][..2 * N_FEATURES]).map(f64::from)
    };
    let r = VARIABLES.iter().position(|name| *name == "r").expect("a variable");
    let every = edges.div_ceil(SCATTER).max(1);
    let dots = (0..edges).step_by(every).map(|edge| {
        (scales.length * row(edge)[r], f64::from(messages.values[edge * width + column]))
    });
    let mut series = vec![Series {
        label: "network".into(),
        colour: Colour::Faint,
        mark: Mark::Dots,
        points: dots.collect(),
    }];
    let laws = job::read_laws(folder)?;
    let target = format!("e{}", component.index);
    let law = laws.iter().find(|law| law["stage"] == "message" && law["target"] == target.as_str());
    let law = law.and_then(|law| Expression::parse(job::own_equation(law)?, &VARIABLES).ok());
    if let Some(law) = law {
        let mut columns = vec![Vec::new(); VARIABLES.len()];
        for edge in (0..edges).step_by(every) {
            columns.iter_mut().zip(row(edge)).for_each(|(column, value)| column.push(value));
        }
        let sorted = |column: &Vec<f64>| {
            let mut column = column.clone();
            column.sort_by(f64::total_cmp);
            column
        };
        let sorted: Vec<Vec<f64>> = columns.iter().map(sorted).collect();
        let Some(&farthest) = sorted[r].last() else { return Ok(None) };
        for (k, share) in [0.25, 0.5, 0.95].into_iter().enumerate() {
            let mut at: Vec<f64> = sorted.iter().map(|c| c[c.len() / 2]).collect();
            at[1] = sorted[1][((sorted[1].len() - 1) as f64 * share) as usize];
            let point = |step: u32| {
                let distance = farthest * (f64::from(step) + 0.5) / 200.0;
                let mut at = at.clone();
                at[r] = distance;
                (scales.length * distance, law.eval(&at))
            };
            series.push(Series {
                label: format!("law at m2 = {} Msun/h", number(scales.mass * at[1])),
                colour: Colour::Series(k),
                mark: Mark::Line(2),
                points: (0..200).map(point).collect(),
            });
        }
    }
    let plot = Plot {
        title: format!("Message {target} against the distance"),
        x: "distance, Mpc/h".into(),
        y: format!("message {target}"),
        log: false,
        equal: false,
        size: WIDE,
        series,
    };
    let text = "<p>The most significant message on random edges, and its law before the constants were \
                refitted, at a light, a median and a heavy sender.</p>";
    Ok(plot.figure().map(|figure| format!("{text}{figure}")))
}
