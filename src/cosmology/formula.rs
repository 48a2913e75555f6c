//! A formula in the place of a network on a graph: δ_i = node(m_i, |v_i|, Σ_j message(…)), its errors,
//! and the refit of all its constants through the sums over millions of edges.

use rayon::prelude::*;

use super::graph::Graph;
use crate::device::Device;
use crate::distill::refit::{Normal, Parametric, RESIDUAL_FLOOR, Refit};
use crate::error::Result;
use crate::formula::expression::Expression;
use crate::ops::expression::Program;
use crate::ops::formula::{Edges, Loaded, N_FEATURES, Sums, VARIABLES};

/// Nodes of a task: fixed, so that sums do not depend on the number of threads.
const NODES: usize = 512;

/// A formula for the target of each node.
#[derive(Clone, Debug, PartialEq)]
pub struct Formula {
    /// Expressions in [`VARIABLES`], whose sums over the senders the node expression takes.
    pub messages: Vec<Expression>,
    /// The numbers of the message components, for the names of their sums.
    pub components: Vec<usize>,
    /// In the variables of [`node_names`].
    pub node: Expression,
}

/// The variables of node expressions: mass and speed of the halo, then the summed messages.
pub fn node_names(components: &[usize]) -> Vec<String> {
    let sums = components.iter().map(|k| format!("e{k}"));
    ["m".to_string(), "v".to_string()].into_iter().chain(sums).collect()
}

/// What formulas are evaluated on.
pub struct Nodes<'a> {
    on: Loaded<'a>,
    /// `[receiver]`
    targets: Vec<f32>,
}

impl<'a> Nodes<'a> {
    /// Some nodes of a graph on a device, `features` being its [`Graph::scaled_features`].
    ///
    /// # Errors
    /// A graph without target; on a GPU too little memory.
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
    /// From texts: messages in [`VARIABLES`], the node in m, v and e0, e1, ….
    ///
    /// # Errors
    /// Texts that cannot be parsed.
    pub fn parse(messages: &[&str], node: &str) -> Result<Self> {
        let components: Vec<usize> = (0..messages.len()).collect();
        let names = node_names(&components);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(Formula {
            messages: messages
                .iter()
                .map(|text| Expression::parse(text, &VARIABLES))
                .collect::<Result<_>>()?,
            node: Expression::parse(node, &names)?,
            components,
        })
    }

    /// The two sides of each equation, for a person.
    pub fn equations(&self) -> Vec<(String, String)> {
        let names = VARIABLES.map(String::from);
        let sums = self.messages.iter().zip(&self.components).map(|(message, k)| {
            (format!("e{k}"), format!("= sum over neighbours of {}", message.text(&names)))
        });
        let node = self.node.text(&node_names(&self.components));
        sums.chain([("delta".to_string(), format!("= {node}"))]).collect()
    }

    /// The prediction of each receiver; `None` where the formula is undefined on some edge.
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
            self.node.eval(&all)
        };
        Ok(Some(rows.into_par_iter().with_min_len(NODES).map(value).collect()))
    }

    /// Mean absolute error; infinite where the formula is undefined.
    ///
    /// # Errors
    /// Those of [`Formula::predictions`].
    pub fn error(&self, nodes: &Nodes) -> Result<f64> {
        let Some(found) = self.predictions(nodes)? else { return Ok(f64::INFINITY) };
        let sum: f64 =
            found.iter().zip(&nodes.targets).map(|(p, &t)| (f64::from(t) - p).abs()).sum();
        let error = sum / found.len().max(1) as f64;
        Ok(if error.is_finite() { error } else { f64::INFINITY })
    }

    /// Refits all constants by Levenberg–Marquardt on the mean absolute error; returns the error, which
    /// is never larger than before but for the rounding of constants to seven digits.
    ///
    /// # Errors
    /// `interrupted` after Ctrl-C; those of [`Formula::predictions`].
    pub fn refit(&mut self, nodes: &Nodes) -> Result<f64> {
        self.refit_by(
            |formula| formula.error(nodes),
            |formula, loss| formula.normal_equations(nodes, loss),
        )
    }

    /// One round's normal equations: rows of the Jacobian with respect to the messages' constants, through
    /// the sums, then the node's.
    fn normal_equations(&self, nodes: &Nodes, loss: f64) -> Result<Option<Normal>> {
        let found = nodes.sums(&self.messages, true)?;
        let Some(Sums { values, width }) = found else { return Ok(None) };
        let variables = 2 + self.messages.len();
        let node = Parametric::new(&self.node, variables);
        let by_sum: Vec<Expression> =
            (0..self.messages.len()).map(|k| node.value.derivative((2 + k) as u16)).collect();
        let counts: Vec<usize> = self.messages.iter().map(|m| m.constants().len()).collect();
        let count = counts.iter().sum::<usize>() + node.constants.len();
        let floor = (RESIDUAL_FLOOR * loss).max(1e-12);
        let add = |row: usize, normal: &mut Normal| {
            let sums = &values[row * width..][..width];
            let mut all = nodes.own(row).to_vec();
            let mut at = 0;
            for constants in &counts {
                all.push(sums[at]);
                at += 1 + constants;
            }
            all.extend(&node.constants);
            let mut jacobian = Vec::with_capacity(count);
            let mut at = 0;
            for (by_sum, &constants) in by_sum.iter().zip(&counts) {
                let slope = by_sum.eval(&all);
                jacobian.extend(sums[at + 1..][..constants].iter().map(|s| slope * s));
                at += 1 + constants;
            }
            jacobian.extend(node.by_constant.iter().map(|d| d.eval(&all)));
            let residual = f64::from(nodes.targets[row]) - node.value.eval(&all);
            if residual.is_finite() && jacobian.iter().all(|v| v.is_finite()) {
                normal.add(&jacobian, residual, 1.0 / residual.abs().max(floor));
            }
        };
        let rows: Vec<usize> = (0..nodes.targets.len()).collect();
        let parts: Vec<Normal> = rows
            .par_chunks(NODES)
            .map(|rows| {
                let mut normal = Normal::new(count);
                rows.iter().for_each(|&row| add(row, &mut normal));
                normal
            })
            .collect();
        Ok(Some(Normal::sum(count, &parts)))
    }
}

impl Refit for Formula {
    fn expressions(&mut self) -> Vec<&mut Expression> {
        self.messages.iter_mut().chain([&mut self.node]).collect()
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

    /// A formula with other constants than those of the data, refitted on a device: its errors before
    /// and after, and what became of it.
    fn refitted(device: &Device, count: usize) -> (f64, f64, Formula) {
        let folder = tempfile::tempdir().unwrap();
        let truth = Formula::parse(
            &["(0.4 + m2) / (3.0 + (20.0 * r) ^ 6.0)"],
            "0.2 * e0 / (1.0 + 0.3 * m) - 0.1",
        )
        .unwrap();
        let graph = random_graph(folder.path(), &[], count);
        let (features, all): (_, Vec<u32>) = (graph.scaled_features(), (0..count as u32).collect());
        let nodes = Nodes::new(device, &graph, &features, &all).unwrap();
        let delta = truth.predictions(&nodes).unwrap().unwrap();
        let graph = random_graph(folder.path(), &delta, count);
        let features = graph.scaled_features();
        let nodes = Nodes::new(device, &graph, &features, &all).unwrap();
        assert!(truth.error(&nodes).unwrap() < 1e-5);
        let mut start = Formula::parse(
            &["(0.6 + m2) / (2.5 + (18.0 * r) ^ 7.0)"],
            "0.25 * e0 / (1.1 + 0.2 * m) - 0.2",
        )
        .unwrap();
        let before = start.error(&nodes).unwrap();
        let after = start.refit(&nodes).unwrap();
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
            // The same bits on every edge, so the same steps.
            assert_eq!((after, formula), (twin, expected));
        }
    }

    #[test]
    fn the_published_formulas_are_parsed_and_printed() {
        for published in &crate::cosmology::table6::PUBLISHED {
            let formula = published.formula();
            assert!(formula.equations().last().unwrap().1.starts_with("= "));
        }
        assert_eq!(node_names(&[3, 7]), ["m", "v", "e3", "e7"]);
    }
}
