//! The sections of the report in order: the result first, then how it came about. Each says in a few
//! words what its plot shows.

use super::halos;
use super::inputs::{FrontRow, Inputs, Law, Messages};
use super::math::mathml;
use super::page::{Page, escape, figures, number, table};
use super::plot::{Colour, Mark, Plot, Series};
use super::table as tables;
use crate::distill::summary::{ComponentSummary, Seconds};
use crate::distill::verdict::{Conclusion, Score};
use crate::error::Result;
use crate::nbody::rollout::{DIVERGED, Rollouts};
use crate::store::run::RunFolder;
use crate::store::table::Table;

/// Dots in a scatter plot: enough to see the shape, few enough for a browser.
const SCATTER: usize = 2000;
/// Size of a plot on its own, and of one among several.
const WIDE: (u32, u32) = (880, 380);
const PANEL: (u32, u32) = (420, 380);

/// Adds every section whose file exists.
pub fn all(folder: &RunFolder, inputs: &Inputs, page: &mut Page) -> Result<()> {
    page.optional("result", "Result", result(inputs));
    tables::all(folder, page)?;
    halos::all(folder, inputs, page)?;
    if let Some(metrics) = &inputs.metrics {
        page.optional("loss", "Loss during training", losses(metrics)?);
        page.optional("significance", "Significance of the messages", significance(metrics)?);
    }
    page.optional("messages", "Messages against forces", messages(inputs));
    if let Some(front) = &inputs.front {
        page.optional(
            "front",
            "Accuracy against complexity",
            fronts(front, |row| chosen(row, inputs)),
        );
    }
    if let Some(rollouts) = &inputs.rollouts {
        page.optional("trajectories", "Trajectories", trajectories(rollouts));
    }
    page.optional("settings", "Settings", inputs.config.as_ref().map(|config| settings(config)));
    Ok(())
}

/// Laws, losses, times.
fn result(inputs: &Inputs) -> Option<String> {
    let summary = inputs.summary.as_ref();
    let mut html = String::new();
    if let Some(verdict) = summary.and_then(|s| s.verdict.as_ref()) {
        html.push_str(&conclusion(verdict));
    }
    let components = summary.map_or(&[][..], |s| &s.components);
    let judged = components.iter().filter(|c| c.recovered.is_some()).count();
    if judged > 0 {
        let right = components.iter().filter(|c| c.recovered == Some(true)).count();
        let class = if right == judged { "good" } else { "bad" };
        html.push_str(&format!(
            "<p><span class=\"{class}\">The true law is recovered in {right} of {judged} message \
             components.</span> A component counts as recovered if its formula, on fresh inputs \
             from a wider range than in training, is a linear combination of the true force \
             components (R² ≥ 0.999).</p>\n"
        ));
    }
    let mut cards = Vec::new();
    let losses = [
        ("Test loss", summary.map(|s| &s.test_loss)),
        ("Loss outside training range", summary.map(|s| &s.outside_loss)),
        ("Loss on the fitted data", summary.map(|s| &s.fitted_loss)),
    ];
    for (name, losses) in losses.iter().filter_map(|(name, losses)| Some((name, (*losses)?))) {
        for (of, loss, jackknife) in [
            ("network", losses.network, losses.network_jackknife),
            ("formula", losses.formula, losses.formula_jackknife),
        ] {
            let scatter = jackknife.map_or(String::new(), |error| format!(" ± {error:.4}"));
            cards.extend(loss.map(|loss| (format!("{name}, {of}"), number(loss) + &scatter)));
        }
    }
    if let Some(Seconds { simulate, train, regress, total }) = summary.map(|s| &s.seconds) {
        let stages =
            [("simulate", simulate), ("train", train), ("regress", regress), ("total", total)];
        // A stage that did not run took no time.
        for (stage, &seconds) in stages.into_iter().filter(|&(_, &seconds)| seconds > 0.0) {
            cards.push((format!("Time, {stage}"), format!("{seconds:.1} s")));
        }
    }
    html.push_str(&figures(&cards));
    for component in components {
        if let Some(law) = &component.law {
            let facts = format!(
                "Message {}: significance {}, complexity {}, loss of the search {}.{}",
                component.index,
                number(component.significance),
                law.complexity,
                number(law.loss),
                verdict(component)
            );
            html.push_str(&formula(Some(&law.latex), &law.equation, &facts));
        }
    }
    let laws = inputs.laws.iter().flatten();
    for law in laws.filter(|law| components.is_empty() || law.stage.as_deref() != Some("message")) {
        html.push_str(&formula(law.latex.as_deref(), &law.equation, &facts(law)));
    }
    (!html.is_empty()).then_some(html)
}

/// The verdict, and the numbers that it is based on.
fn conclusion(verdict: &Conclusion) -> String {
    let class = if verdict.found { "good" } else { "bad" };
    let score = |name: &str, score: &Score| {
        let cell = |value: Option<f64>| value.map_or("–".to_string(), number);
        (false, vec![name.to_string(), cell(score.error), cell(score.r2)])
    };
    let baseline =
        vec!["no law (zero or the mean)".to_string(), number(verdict.baseline), "0".into()];
    let rows =
        [(false, baseline), score("network", &verdict.network), score("formula", &verdict.formula)];
    format!(
        "<p><span class=\"{class}\">{}</span></p>\n{}\n<p class=\"note\">Error: mean over bodies of the L1 norm of \
         (true − predicted) on data that nothing was fitted to, in the units of the data; R²: the fraction of the \
         variance explained.</p>\n",
        escape(&verdict.sentence),
        table(&["on unseen data", "#error", "#R²"], &rows)
    )
}

fn verdict(component: &ComponentSummary) -> String {
    let mut text = String::new();
    if let Some(r2) = component.force_r2 {
        text.push_str(&format!(" R² of the message against the forces {}", number(r2)));
        match component.force_r2_trimmed {
            Some(r2) => text.push_str(&format!(" ({} trimmed).", number(r2))),
            None => text.push('.'),
        }
    }
    if let Some(verdict) = &component.verdict {
        let factor = match verdict.factor.as_str() {
            "1" => String::new(),
            factor => format!(" × {}", escape(factor)),
        };
        text.push_str(&format!(
            " R² of the formula against the true force{factor} on fresh inputs {}.",
            number(verdict.r2)
        ));
    }
    match component.recovered {
        Some(true) => text.push_str(" <span class=\"good\">Recovered.</span>"),
        Some(false) => text.push_str(" <span class=\"bad\">Not recovered.</span>"),
        None => {}
    }
    text
}

/// A law of `laws.json` described in words.
fn facts(law: &Law) -> String {
    let target = escape(&law.target);
    let mut text = match law.stage.as_deref() {
        Some("composed") => format!("Composed formula, constants refitted on the data: {target}"),
        Some("node") => format!("Node update from the summed messages: {target}"),
        _ => target,
    };
    if let Some(complexity) = law.complexity {
        text.push_str(&format!(", complexity {complexity}"));
    }
    if let Some(loss) = law.loss {
        text.push_str(&format!(", loss {}", number(loss)));
    }
    if let Some(rule) = &law.rule {
        text.push_str(&format!(", chosen by rule “{}”", escape(rule)));
    }
    text + "."
}

/// A formula: typeset if its LaTeX is understood, always as plain text, and with its facts.
fn formula(latex: Option<&str>, equation: &str, facts: &str) -> String {
    let math = latex.and_then(mathml).unwrap_or_default();
    format!(
        "<div class=\"law\">{math}<p><code>{}</code></p><p class=\"note\">{facts}</p></div>\n",
        escape(equation)
    )
}

/// A column of the metrics against the step; empty cells are left out.
fn curve(metrics: &Table, name: &str, label: &str, colour: Colour, mark: Mark) -> Option<Series> {
    let (steps, values) = (metrics.values("step").ok()?, metrics.values(name).ok()?);
    let points = steps.iter().copied().zip(values.iter().copied());
    let points: Vec<_> = points.filter(|(_, value)| value.is_finite()).collect();
    (!points.is_empty()).then(|| Series { label: label.to_string(), colour, mark, points })
}

fn losses(metrics: &Table) -> Result<Option<String>> {
    let (train, rate) = (metrics.column("train_loss")?, metrics.column("learning_rate")?);
    let series: Vec<Series> = [
        curve(metrics, "train_loss", "training", Colour::Series(0), Mark::Line(1)),
        curve(metrics, "validation_loss", "validation", Colour::Series(1), Mark::Line(2)),
        curve(metrics, "penalty", "penalty on messages", Colour::Faint, Mark::Line(1)),
    ]
    .into_iter()
    .flatten()
    .filter(|series| series.points.iter().any(|p| p.1 > 0.0))
    .collect();
    let plot = Plot {
        title: "Loss against training step".into(),
        x: "training step".into(),
        y: "loss".into(),
        log: true,
        equal: false,
        size: WIDE,
        series,
    };
    let peak = rate.iter().copied().fold(0.0, f64::max);
    let text = format!(
        "<p>Mean over nodes of the L1 norm of (true − predicted output), on a logarithmic scale, against \
         the training step. The validation data are used only to decide on pruning. The learning \
         rate rises to {} and then falls to almost zero, when the loss makes its final drop. \
         Final training loss: {}.</p>",
        number(peak),
        train.last().map_or_else(|| "none".into(), |&loss| number(loss)),
    );
    Ok(plot.figure().map(|figure| text + &figure))
}

fn significance(metrics: &Table) -> Result<Option<String>> {
    let alive = metrics.values("messages").ok().and_then(|values| values.last().copied());
    let kept = alive.filter(|n| *n <= 6.0).map_or(2, |n| n as usize);
    let series: Vec<Series> = (1..)
        .map_while(|k| {
            metrics.find(&format!("significance_{k}"))?;
            Some(k)
        })
        .filter_map(|k| {
            let (label, colour, mark) = match k {
                _ if k <= kept => (format!("number {k}"), Colour::Series(k - 1), Mark::Line(2)),
                _ if k == kept + 1 => ("the others".into(), Colour::Faint, Mark::Line(1)),
                _ => (String::new(), Colour::Faint, Mark::Line(1)),
            };
            curve(metrics, &format!("significance_{k}"), &label, colour, mark)
        })
        .collect();
    let mut plot = Plot {
        title: "Significance of the ten most significant messages against training step".into(),
        x: "training step".into(),
        y: "significance".into(),
        log: true,
        equal: false,
        size: WIDE,
        series,
    };
    let Some(figure) = plot.figure() else { return Ok(None) };
    let mut html = String::from(
        "<p>How much each message varies between edges (standard deviation; for sampled messages \
         the mean of μ² + σ² − log σ²), for the most significant ones at each step. A message that \
         the network does not need falls away from the others; the laws are derived from those that \
         remain.</p>",
    );
    html.push_str(&figure);
    let alive = curve(metrics, "messages", "", Colour::Series(0), Mark::Line(2));
    if let Some(alive) = alive.filter(|s| s.points.iter().any(|p| p.1 != s.points[0].1)) {
        let last = alive.points.last().map_or(0.0, |p| p.1);
        plot.title = "Number of messages in use against training step".into();
        plot.y = "messages in use".into();
        plot.size = (WIDE.0, 240);
        plot.series = vec![alive];
        html.push_str(&format!(
            "<p>Messages are pruned if the validation loss is no worse without them; {last} are in \
             use at the end.</p>"
        ));
        html.push_str(&plot.figure().unwrap_or_default());
    }
    Ok(Some(html))
}

/// Messages against forces, as in figure 5 of the paper.
fn messages(inputs: &Inputs) -> Option<String> {
    let (summary, messages) = (inputs.summary.as_ref()?, inputs.messages.as_ref()?);
    let panels: Vec<String> =
        summary.components.iter().filter_map(|c| message(c, messages)).collect();
    let text = "<p>Each dot is a directed edge of the test data: the message that the network \
                sends along it, against the linear combination of the true force components that \
                fits it best. Dots on the diagonal mean that the network has found the force, up \
                to a linear map, which the training leaves free. The extreme 1 % of the edges \
                (close encounters) lie outside the frame.</p>";
    (!panels.is_empty()).then(|| format!("{text}<div class=\"panels\">{}</div>", panels.concat()))
}

fn message(component: &ComponentSummary, messages: &Messages) -> Option<String> {
    let (fit, forces) = (component.force_fit.as_ref()?, messages.forces.as_ref()?);
    let (dim, width) = (messages.dim, messages.components.len());
    let column = messages.components.iter().position(|&c| c == component.index)?;
    let points: Vec<(f64, f64)> = forces
        .chunks(dim)
        .zip(messages.values.chunks(width))
        .map(|(force, message)| {
            let products = force.iter().zip(fit).map(|(&force, fit)| f64::from(force) * fit);
            (products.sum::<f64>() + fit[dim], f64::from(message[column]))
        })
        .collect();
    let within = |of: fn(&(f64, f64)) -> f64| {
        let mut sorted: Vec<f64> = points.iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
        (!sorted.is_empty()).then(|| at(0.005)..=at(0.995))
    };
    let (x, y) = (within(|p| p.0)?, within(|p| p.1)?);
    let every = points.len().div_ceil(SCATTER).max(1);
    let points: Vec<_> = points
        .into_iter()
        .step_by(every)
        .filter(|p| x.contains(&p.0) && y.contains(&p.1))
        .collect();
    let ends = (x.start().min(*y.start()), x.end().max(*y.end()));
    let r2 = |name: &str, r2: Option<f64>| {
        r2.map_or(String::new(), |r2| format!("{name} = {}", number(r2)))
    };
    let label = format!(
        "{}  {}",
        r2("R²", component.force_r2),
        r2("trimmed R²", component.force_r2_trimmed)
    );
    let plot = Plot {
        title: format!("Message {} against its fit by the true forces", component.index),
        x: linear_combination(fit),
        y: format!("message {}", component.index),
        log: false,
        equal: false,
        size: PANEL,
        series: vec![
            Series::diagonal(ends.0, ends.1),
            Series { label, colour: Colour::Series(0), mark: Mark::Dots, points },
        ],
    };
    plot.figure()
}

/// `1.20 Fx − 0.40 Fy + 0.01`
fn linear_combination(fit: &[f64]) -> String {
    let names = ["Fx", "Fy", "Fz", ""];
    let last = fit.len() - 1;
    let terms = fit.iter().enumerate().map(|(k, &value)| {
        let sign = match (value < 0.0, k) {
            (true, 0) => "−",
            (false, 0) => "",
            (true, _) => " − ",
            (false, _) => " + ",
        };
        let name = if k == last { "" } else { names[k] };
        format!("{sign}{:.3} {name}", value.abs())
    });
    terms.collect::<String>().trim_end().to_string()
}

/// The front as a plot, as in figure 6 of the paper, and as a table.
fn fronts(front: &[FrontRow], is_chosen: impl Fn(&FrontRow) -> bool) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for row in front {
        if !names.contains(&row.component.as_str()) {
            names.push(&row.component);
        }
    }
    let mut html = String::from(
        "<p>The search keeps the best formula of each complexity. A law shows as a cliff: the loss \
         falls steeply up to its complexity and hardly at all beyond it. The ring marks the chosen \
         formula.</p><div class=\"panels\">",
    );
    let mut tables = String::new();
    for (k, name) in names.iter().enumerate() {
        let rows: Vec<&FrontRow> = front.iter().filter(|row| row.component == *name).collect();
        // A loss of exactly zero has no logarithm: it is drawn at the edge of double precision.
        let point = |row: &&FrontRow| (row.complexity as f64, row.loss.max(1e-16));
        let chosen: Vec<bool> = rows.iter().map(|row| is_chosen(row)).collect();
        let marked = rows.iter().zip(&chosen).filter(|(_, chosen)| **chosen);
        let colour = Colour::Series(k);
        let series =
            |label: &str, mark, points| Series { label: label.into(), colour, mark, points };
        let plot = Plot {
            title: format!("Loss against complexity of the formulas for {}", what(name)),
            x: "complexity".into(),
            y: "loss of the search".into(),
            log: true,
            equal: false,
            size: PANEL,
            series: vec![
                series("", Mark::Line(1), rows.iter().map(point).collect()),
                series(&what(name), Mark::Discs, rows.iter().map(point).collect()),
                series("chosen", Mark::Rings, marked.map(|(row, _)| point(row)).collect()),
            ],
        };
        html.push_str(&plot.figure()?);
        let cells = |row: &FrontRow| {
            vec![
                row.complexity.to_string(),
                number(row.loss),
                row.score.map_or(String::new(), number),
                format!("<code>{}</code>", escape(&row.equation)),
            ]
        };
        let rows: Vec<_> = rows.iter().zip(chosen).map(|(row, c)| (c, cells(row))).collect();
        tables.push_str(&format!("<h3>Formulas for {}</h3>", escape(&what(name))));
        tables.push_str(&table(&["#complexity", "#loss", "#score", "formula"], &rows));
    }
    Some(format!("{html}</div>{tables}"))
}

/// True for the row that was chosen as the law.
fn chosen(row: &FrontRow, inputs: &Inputs) -> bool {
    let components = inputs.summary.iter().flat_map(|summary| &summary.components);
    let mut of_component = components.filter(|c| c.index.to_string() == row.component).peekable();
    if of_component.peek().is_some() {
        return of_component.any(|c| {
            c.law.as_ref().is_some_and(|law| u64::from(law.complexity) == row.complexity)
        });
    }
    inputs.laws.iter().flatten().any(|law| law.equation == row.equation)
}

/// A component in words: an index is a message, anything else a name.
fn what(component: &str) -> String {
    match component.parse::<usize>() {
        Ok(index) => format!("message {index}"),
        Err(_) => component.to_string(),
    }
}

fn trajectories(rollouts: &Rollouts) -> Option<String> {
    let about = &rollouts.about;
    let (stride, per_run) = (about.bodies * about.dim, about.frames * about.bodies * about.dim);
    let style = |index: usize| match index {
        0 => (Colour::Series(0), Mark::Line(2)),
        _ => (Colour::Series(index), Mark::Dashed),
    };
    let paths = |positions: &[f32], run: usize, name: &str, colour, mark| -> Vec<Series> {
        let run = &positions[run * per_run..(run + 1) * per_run];
        let path = |body: usize| {
            let xy = |frame: &[f32]| {
                let r = &frame[body * about.dim..];
                (f64::from(r[0]), f64::from(r[1]))
            };
            let label = if body == 0 { name.to_string() } else { String::new() };
            Series { label, colour, mark, points: run.chunks(stride).map(xy).collect() }
        };
        (0..about.bodies).map(path).collect()
    };
    let mut panels = String::new();
    for (index, run) in about.runs.iter().enumerate().take(6) {
        let mut series = paths(&rollouts.truth, index, "truth", Colour::Faint, Mark::Line(5));
        for (k, (name, positions)) in about.predictions.iter().zip(&rollouts.positions).enumerate()
        {
            let (colour, mark) = style(k);
            series.extend(paths(positions, index, name, colour, mark));
        }
        let starts = series[..about.bodies].iter().map(|s| s.points[0]).collect();
        let label = "start".to_string();
        series.push(Series { label, colour: Colour::Ink, mark: Mark::Discs, points: starts });
        let plot = Plot {
            title: format!("Trajectories of run {run} in the x-y plane"),
            x: format!("x (run {run})"),
            y: "y".into(),
            log: false,
            equal: true,
            size: (PANEL.0, 420),
            series,
        };
        panels.push_str(&plot.figure()?);
    }
    let mut html = format!(
        "<p>Bodies of test runs in the x-y plane: the true motion, and the equations of motion \
         integrated from the same initial state with predicted accelerations, for {} time units. \
         Systems of several bodies are often chaotic: small errors grow, whatever their cause.</p>\
         <div class=\"panels\">{panels}</div>",
        number(*rollouts.times.last()?)
    );
    let errors: Vec<_> = (0..about.predictions.len()).map(|k| rollouts.errors(k)).collect();
    let series = about.predictions.iter().zip(&errors).enumerate().map(|(k, (name, errors))| {
        let points = rollouts.times.iter().copied().zip(errors.median.iter().copied()).collect();
        let (colour, mark) = style(k);
        Series { label: name.clone(), colour, mark, points }
    });
    let plot = Plot {
        title: "Median error of the positions against time".into(),
        x: "time".into(),
        y: "median error of positions".into(),
        log: true,
        equal: false,
        size: (WIDE.0, 320),
        series: series.collect(),
    };
    html.push_str(&format!(
        "<p>Median over bodies of the distance between predicted and true position, in {} runs. A \
         run counts as diverged when the rms error exceeds {} % of the rms size of the system.</p>",
        about.runs.len(),
        100.0 * DIVERGED
    ));
    html.push_str(&plot.figure().unwrap_or_default());
    let row = |(name, errors): (&String, &crate::nbody::rollout::Errors)| {
        let mut times: Vec<f64> = errors.diverged.iter().flatten().copied().collect();
        times.sort_by(f64::total_cmp);
        let first = times.first().map_or("none diverged".into(), |&time| number(time));
        let last = errors.median.last().copied().unwrap_or(f64::NAN);
        let count = format!("{} of {}", times.len(), about.runs.len());
        (false, vec![escape(name), number(last), count, first])
    };
    let rows: Vec<_> = about.predictions.iter().zip(&errors).map(row).collect();
    html.push_str(&table(
        &["prediction", "#median error at the end", "#runs diverged", "#first divergence at time"],
        &rows,
    ));
    Some(html)
}

fn settings(config: &str) -> String {
    format!(
        "<p>Every setting of the run, from <code>config.toml</code>: enough to repeat it.</p>\
         <pre>{}</pre>",
        escape(config)
    )
}
