//! A formula in place of a network on a graph: δ_i = node(m_i, |v_i|, Σ_j message(…)), its errors, and
//! the refit of all its constants through the sums over millions of edges.

use rayon::prelude::*;

use super::graph::Graph;
use crate::device::Device;
use crate::distill::formula::{Formula, Terms, VariableUnits};
use crate::distill::refit::Linearised;
use crate::error::Result;
use crate::formula::expression::{Expression, Node};
use crate::linear::Normal;
use crate::network::model::Scales;
use crate::network::system::Measure;
use crate::observer::Observer;
use crate::ops::expression::Program;
use crate::ops::formula::{Edges, Loaded, N_FEATURES, Sums, VARIABLES};

/// Nodes per task; fixed, so that sums do not depend on the number of threads.
const NODES: usize = 512;

/// The variables of formulas on a graph of halos: those of an edge are [`VARIABLES`], those of a node mass and
/// speed.
pub fn terms() -> Terms {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Terms {
        edge: names(&VARIABLES),
        node: names(&["m", "v"]),
        outputs: names(&["delta"]),
        units: None,
        period: [0.0; 3],
    }
}

/// The same for a graph whose lengths, velocities and masses were divided by `scales`: its laws are converted back to
/// Mpc/h, km/s and Msun/h. Overdensities and messages have no unit.
pub fn terms_in(scales: &Scales) -> Terms {
    let Scales { length, velocity, mass } = *scales;
    let (origin, charge, output) = ([0.0; 3], 1.0, 1.0);
    Terms {
        units: Some(VariableUnits { origin, length, velocity, mass, charge, output }),
        ..terms()
    }
}

/// The indices of the names among all variables.
pub(super) fn positions<S: AsRef<str>>(names: &[String], all: &[S]) -> Vec<usize> {
    let position = |name: &String| all.iter().position(|v| v.as_ref() == name);
    names.iter().filter_map(position).collect()
}

/// The expression with its variables, named `names`, renumbered as in `all`.
pub(super) fn in_all(expression: &Expression, names: &[String], all: &[String]) -> Expression {
    let at = positions(names, all);
    let nodes = expression.nodes().iter().map(|node| match *node {
        Node::Variable(k) => Node::Variable(at[usize::from(k)] as u16),
        other => other,
    });
    Expression::new(nodes.collect()).expect("leaves for leaves: still well-formed")
}

/// Parses a formula: messages in [`VARIABLES`], the node in m, v and e0, e1, ….
///
/// # Errors
/// Text that cannot be parsed.
pub fn parse(messages: &[&str], node: &str) -> Result<Formula> {
    let (terms, components) = (terms(), (0..messages.len()).collect::<Vec<_>>());
    let names = terms.node_names(&components);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let messages = messages.iter().map(|text| Expression::parse(text, &VARIABLES));
    Ok(Formula {
        messages: messages.collect::<Result<_>>()?,
        nodes: vec![Expression::parse(node, &names)?],
        terms,
        components,
    })
}

/// The error of a formula on some nodes.
///
/// # Errors
/// Those of [`Formula::predictions`].
pub fn measure(
    device: &Device,
    graph: &Graph,
    features: &[f32],
    nodes: &[u32],
    formula: &Formula,
) -> Result<Measure> {
    let on = Nodes::new(device, graph, features, nodes)?;
    let Some(found) = formula.predictions(&on)? else {
        return Ok(Measure::plain(f64::INFINITY));
    };
    Ok(Measure::of(graph, nodes, &on.errors(&found)))
}

/// The nodes on which formulas are evaluated.
pub struct Nodes<'a> {
    on: Loaded<'a>,
    /// `[receiver]`
    targets: Vec<f32>,
}

impl<'a> Nodes<'a> {
    /// Some nodes of a graph on a device; `features` are its [`Graph::scaled_features`].
    ///
    /// # Errors
    /// A graph without target; too little memory on a GPU.
    pub fn new(
        device: &Device,
        graph: &'a Graph,
        features: &'a [f32],
        receivers: &'a [u32],
    ) -> Result<Self> {
        let targets = graph.targets()?;
        let edges = Edges {
            row_start: graph.row_start(),
            sender: graph.senders(),
            receivers,
            features,
            period: graph.period(),
        };
        let targets = receivers.iter().map(|&r| targets[r as usize]).collect();
        Ok(Nodes { on: Loaded::new(device, edges)?, targets })
    }

    /// `[receiver]`
    pub fn targets(&self) -> &[f32] {
        &self.targets
    }

    /// The absolute errors of predictions.
    pub fn errors(&self, predictions: &[f64]) -> Vec<f64> {
        predictions.iter().zip(&self.targets).map(|(p, &t)| (f64::from(t) - p).abs()).collect()
    }

    /// The sums of expressions in [`VARIABLES`] over the edges of each node; see [`Loaded::sums`].
    ///
    /// # Errors
    /// Those of [`Loaded::sums`].
    pub fn sums(&self, expressions: &[Expression], gradient: bool) -> Result<Option<Sums>> {
        let programs: Vec<Program> = expressions.iter().map(Program::new).collect();
        self.on.sums(&programs, gradient)
    }

    /// The mass and the speed of a receiver, scaled.
    pub fn own(&self, row: usize) -> [f64; 2] {
        let Edges { receivers, features, .. } = self.on.edges();
        let at = receivers[row] as usize * N_FEATURES;
        let [vx, vy, vz, m] = [3, 4, 5, 6].map(|k| f64::from(features[at + k]));
        [m, (vx * vx + vy * vy + vz * vz).sqrt()]
    }
}

impl Formula {
    /// The prediction for each receiver; `None` if the formula is undefined on some edge.
    ///
    /// # Errors
    /// Those of [`Nodes::sums`].
    pub fn predictions(&self, nodes: &Nodes) -> Result<Option<Vec<f64>>> {
        let found = nodes.sums(&self.messages, false)?;
        let Some(Sums { values, width }) = found else { return Ok(None) };
        let rows = 0..nodes.targets.len();
        let value = |row: usize| {
            let own = nodes.own(row);
            let all: Vec<f64> =
                own.iter().chain(&values[row * width..][..width]).copied().collect();
            self.nodes[0].eval(&all)
        };
        Ok(Some(rows.into_par_iter().with_min_len(NODES).map(value).collect()))
    }

    /// Mean absolute error on nodes of a graph; infinite if the formula is undefined.
    ///
    /// # Errors
    /// Those of [`Formula::predictions`].
    pub fn error(&self, nodes: &Nodes) -> Result<f64> {
        let Some(found) = self.predictions(nodes)? else { return Ok(f64::INFINITY) };
        let error = nodes.errors(&found).iter().sum::<f64>() / found.len().max(1) as f64;
        Ok(if error.is_finite() { error } else { f64::INFINITY })
    }

    /// Refits all constants by Levenberg–Marquardt on the mean absolute error; returns the error, which
    /// is never larger than before except for the rounding of constants to seven digits.
    ///
    /// # Errors
    /// `interrupted` if the observer stops it; those of [`Formula::predictions`].
    pub fn refit_on(&mut self, nodes: &Nodes, observer: &dyn Observer) -> Result<f64> {
        self.refit_by(
            observer,
            |formula| formula.error(nodes),
            |formula, loss| formula.equations_on(nodes, loss),
        )
    }

    /// The normal equations of one round, from the sums over the edges and their derivatives.
    fn equations_on(&self, nodes: &Nodes, loss: f64) -> Result<Option<Normal>> {
        let found = nodes.sums(&self.messages, true)?;
        let Some(Sums { values, width }) = found else { return Ok(None) };
        let linearised = Linearised::new(self, loss);
        let add = |row: usize, normal: &mut Normal| {
            let mut sums = &values[row * width..][..width];
            let (mut own, mut derivatives) = (nodes.own(row).to_vec(), Vec::new());
            for message in &linearised.messages {
                own.push(sums[0]);
                let (of_message, rest) = sums[1..].split_at(message.constants.len());
                derivatives.extend(of_message);
                sums = rest;
            }
            linearised.add(&own, &derivatives, &nodes.targets[row..=row], normal);
        };
        let rows: Vec<usize> = (0..nodes.targets.len()).collect();
        let parts: Vec<Normal> = rows
            .par_chunks(NODES)
            .map(|rows| {
                let mut normal = Normal::new(linearised.count);
                rows.iter().for_each(|&row| add(row, &mut normal));
                normal
            })
            .collect();
        Ok(Some(Normal::sum(linearised.count, &parts)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cosmology::catalog::{self, Catalog};
    use crate::cosmology::graph;
    use crate::device::Simd;
    use crate::random::Random;

    /// A graph of random halos in a box of 100 Mpc/h.
    pub fn random_graph(folder: &std::path::Path, delta: &[f64], count: usize) -> Graph {
        let mut random = Random::new(7, 0);
        let mut text = "x,y,z,vx,vy,vz,mass,delta\n".to_string();
        for row in 0..count {
            let place: Vec<String> =
                (0..3).map(|_| (100.0 * random.uniform()).to_string()).collect();
            let speed: Vec<String> =
                (0..3).map(|_| (300.0 * random.normal()).to_string()).collect();
            let mass = 1e13 * random.normal().exp();
            let delta = delta.get(row).copied().unwrap_or(0.0);
            text += &format!("{},{},{mass},{delta}\n", place.join(","), speed.join(","));
        }
        let [source, halos, graph] =
            ["a.csv", "a.safetensors", "g.safetensors"].map(|n| folder.join(n));
        std::fs::write(&source, text).unwrap();
        let settings = catalog::Settings { edge: Some(100.0), ..catalog::Settings::default() };
        catalog::import(&source, &halos, &settings).unwrap();
        let catalogs = [Catalog::open(&halos).unwrap()];
        graph::build(&Device::cpu(), &catalogs, None, 25.0, &graph).unwrap();
        Graph::open(&graph).unwrap()
    }

    /// Refits a formula with other constants than those of the data on a device: its errors before and
    /// after, and the result.
    fn refitted(device: &Device, count: usize) -> (f64, f64, Formula) {
        let folder = tempfile::tempdir().unwrap();
        let truth =
            parse(&["(0.4 + m2) / (3.0 + (20.0 * r) ^ 6.0)"], "0.2 * e0 / (1.0 + 0.3 * m) - 0.1")
                .unwrap();
        let graph = random_graph(folder.path(), &[], count);
        let (features, all): (_, Vec<u32>) = (graph.scaled_features(), (0..count as u32).collect());
        let nodes = Nodes::new(device, &graph, &features, &all).unwrap();
        let delta = truth.predictions(&nodes).unwrap().unwrap();
        let graph = random_graph(folder.path(), &delta, count);
        let features = graph.scaled_features();
        let nodes = Nodes::new(device, &graph, &features, &all).unwrap();
        assert!(truth.error(&nodes).unwrap() < 1e-5);
        let mut start =
            parse(&["(0.6 + m2) / (2.5 + (18.0 * r) ^ 7.0)"], "0.25 * e0 / (1.1 + 0.2 * m) - 0.2")
                .unwrap();
        let before = start.error(&nodes).unwrap();
        let after = start.refit_on(&nodes, &()).unwrap();
        (before, after, start)
    }

    #[test]
    fn a_refit_finds_the_constants_through_the_sums() {
        let (before, after, _) = refitted(&Device::cpu(), 600);
        assert!(before > 0.02 && after < 1e-4, "{before} became {after}");
    }

    #[test]
    fn gpu_a_refit_is_that_of_the_processor() {
        let Some(gpu) = crate::device::test_gpu() else { return };
        let (before, after, formula) = refitted(&gpu, 150);
        let (_, twin, expected) = refitted(&Device::cpu(), 150);
        assert!(after < 0.02 * before, "{before} became {after}");
        if Simd::detect() >= Simd::Avx2 {
            // Bit-identical on every edge, so the same steps.
            assert_eq!((after, formula), (twin, expected));
        }
    }

    #[test]
    fn the_published_formulas_are_parsed_and_printed() {
        for published in &crate::cosmology::table6::PUBLISHED {
            let formula = published.formula();
            assert!(formula.equations().last().unwrap().starts_with("delta = "));
        }
        assert_eq!(terms().node_names(&[3, 7]), ["m", "v", "e3", "e7"]);
    }
}
