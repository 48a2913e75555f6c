//! The sections of a run on a graph of halos.

use super::inputs::{self, FrontRow};
use super::page::{Page, escape, figures, number, table};
use super::plot::{Colour, Mark, Plot, Series};
use super::sections;
use crate::cosmology::distill::Summary;
use crate::cosmology::graph::N_FEATURES;
use crate::cosmology::slab::Halos;
use crate::cosmology::table6::Measure;
use crate::error::{Error, Result};
use crate::formula::expression::Expression;
use crate::ops::formula::VARIABLES;
use crate::store::run::RunFolder;
use crate::store::tensors::{Dtype, TensorFile};
use crate::symbolic::job;

/// Dots of a scatter plot.
const SCATTER: usize = 3000;
const WIDE: (u32, u32) = (880, 380);
const PANEL: (u32, u32) = (420, 400);
/// Points of a curve of mean errors.
const BINS: usize = 12;

/// Adds every section whose file is there.
pub(super) fn all(folder: &RunFolder, page: &mut Page) -> Result<()> {
    let present = |name: &str| Some(folder.file(name)).filter(|path| path.exists());
    let mut add = |id: &str, heading: &str, html: Option<String>| {
        if let Some(html) = html {
            page.section(id, heading, &html);
        }
    };
    let summary = present("messages.json").map(|_| Summary::read(folder)).transpose()?;
    let halos = Halos::read(folder)?;
    add("result", "Result", summary.as_ref().map(result));
    if let Some(halos) = &halos {
        add("map", "The held-out slab", map(halos));
        add("scatter", "Predicted against true overdensity", scatter(halos));
        add("errors", "Where the errors are", errors(halos));
    }
    if let Some(summary) = &summary {
        add("terms", "The terms of the formula", terms(folder, summary)?);
    }
    if let Some(path) = present("metrics.csv") {
        let metrics = inputs::metrics(&path)?;
        add("loss", "Loss during training", loss(&metrics));
        add("significance", "Significance of the messages", sections::significance(&metrics)?);
    }
    if let Some(path) = present(job::HALL_OF_FAME) {
        let rows: Vec<FrontRow> = inputs::front(&path)?;
        let laws = job::read_laws(folder)?;
        let chosen =
            |row: &FrontRow| laws.iter().any(|law| law["equation"] == row.equation.as_str());
        add("front", "Accuracy against complexity", sections::fronts(&rows, chosen));
    }
    let config = present("config.toml").map(|path| inputs::text(&path)).transpose()?;
    add("settings", "Settings", config.map(|config| sections::settings(&config)));
    Ok(())
}

fn result(summary: &Summary) -> String {
    let one = |m: &Measure| format!("{:.4} ± {:.4}", m.error, m.jackknife);
    let mut cards = vec![("Messages that survive".to_string(), summary.survivors.to_string())];
    let mut both = |of: &str, (test, hidden): &(Measure, Option<Measure>)| {
        cards.push((format!("Error on the slab, {of}"), one(test)));
        cards.extend(
            hidden.as_ref().map(|h| (format!("Error on hidden overdensities, {of}"), one(h))),
        );
    };
    both("network", &summary.network);
    if let Some(test) = &summary.formula_test {
        both("formula", test);
    }
    let mut html = figures(&cards);
    html.push_str(
        "<p>Mean absolute errors of the overdensity, on a slab of the box whose overdensities \
         neither training nor fits have seen, with jackknife errors.</p>",
    );
    for line in summary.formula.iter().flatten().chain(&summary.laws) {
        html.push_str(&format!("<div class=\"law\"><p><code>{}</code></p></div>\n", escape(line)));
    }
    let kept = &summary.messages.kept;
    let rows: Vec<_> = kept
        .iter()
        .map(|c| (false, vec![format!("e{}", c.index), number(c.significance)]))
        .collect();
    html + &table(&["message", "#significance"], &rows)
}

/// The slab from above, in three classes of overdensity.
fn map(halos: &Halos) -> Option<String> {
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
        "<p>The halos of the held-out slab, seen along z, by overdensity: as it is, and as the formula \
         says.</p><div class=\"panels\">{}</div>",
        panels.concat()
    ))
}

fn scatter(halos: &Halos) -> Option<String> {
    let every = halos.targets.len().div_ceil(SCATTER).max(1);
    let highest = halos.targets.iter().copied().fold(0.0, f32::max);
    let panel = |k: usize, name: &str, values: &[f32]| {
        let points = halos.targets.iter().zip(values).step_by(every);
        // An outlier beyond the frame would make dust of everything else.
        let points = points.filter(|(_, p)| p.abs() < 2.0 * highest);
        let plot = Plot {
            title: format!("Overdensity that the {name} predicts against the true one"),
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

/// Mean absolute error in bins of equally many halos.
fn errors(halos: &Halos) -> Option<String> {
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
fn terms(folder: &RunFolder, summary: &Summary) -> Result<Option<String>> {
    let (path, Some(component)) =
        (folder.file("messages.safetensors"), summary.messages.kept.first())
    else {
        return Ok(None);
    };
    if !path.exists() {
        return Ok(None);
    }
    let file = TensorFile::open(&path, "messages")?;
    let (messages, shape) = file.tensor::<f32>("messages", Dtype::F32)?;
    let (inputs, _) = file.tensor::<f32>("features", Dtype::F32)?;
    let width = 2 * N_FEATURES;
    let edges = inputs.len() / width;
    let message_dim = shape.last().copied().unwrap_or(1).max(1);
    if messages.len() != edges * message_dim || component.column >= message_dim {
        let message = "does not fit messages.json: run messages again";
        return Err(Error::input(message).file(&path).field("messages"));
    }
    let row = |edge: usize| -> Vec<f64> {
        let (own, other) = inputs[edge * width..][..width].split_at(N_FEATURES);
        let row = |values: &[f32]| -> [f32; N_FEATURES] { values.try_into().expect("a row") };
        let all = crate::ops::formula::variables(&row(own), &row(other), f32::INFINITY);
        all.iter().map(|&v| f64::from(v)).collect()
    };
    let r = VARIABLES.iter().position(|name| *name == "r").expect("a variable");
    let every = edges.div_ceil(SCATTER).max(1);
    let dots = (0..edges)
        .step_by(every)
        .map(|edge| (row(edge)[r], f64::from(messages[edge * message_dim + component.column])));
    let mut series = vec![Series {
        label: "network".into(),
        colour: Colour::Faint,
        mark: Mark::Dots,
        points: dots.collect(),
    }];
    let laws = job::read_laws(folder)?;
    let target = format!("e{}", component.index);
    let law = laws.iter().find(|law| law["stage"] == "message" && law["target"] == target.as_str());
    let law = law.and_then(|law| Expression::parse(law["equation"].as_str()?, &VARIABLES).ok());
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
                (distance, law.eval(&at))
            };
            series.push(Series {
                label: format!("law at m2 = {}", number(at[1])),
                colour: Colour::Series(k),
                mark: Mark::Line(2),
                points: (0..200).map(point).collect(),
            });
        }
    }
    let plot = Plot {
        title: format!("Message {target} against the distance"),
        x: "distance, in 288.675 Mpc/h".into(),
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

fn loss(metrics: &crate::store::table::Table) -> Option<String> {
    let series = [
        sections::curve(metrics, "train_loss", "training", Colour::Series(0), Mark::Line(1)),
        sections::curve(metrics, "validation_loss", "validation", Colour::Series(1), Mark::Line(2)),
    ];
    let plot = Plot {
        title: "Mean absolute error against training step".into(),
        x: "training step".into(),
        y: "mean absolute error".into(),
        log: true,
        equal: false,
        size: WIDE,
        series: series.into_iter().flatten().collect(),
    };
    plot.figure()
}
