//! Networks applied to given features, without gradients: edges and sums of a fully connected graph,
//! messages, accelerations. Always in f32, as master weights are f32 whatever the training used.

use super::view::View;
use crate::device::Device;
use crate::error::Result;
use crate::model::layout::by_graph;
use crate::model::{Precision, Shape};
use crate::ops::mlp;
use crate::ops::tiny::source::Graphs;

/// Graphs evaluated at once; this bounds the memory for edges.
const GRAPHS_AT_ONCE: usize = 1024;

/// The output of φe for each edge.
pub struct Messages {
    /// `[edges, message_dim]`; KL: the means.
    pub values: Vec<f32>,
    /// `[edges, message_dim]`, KL only.
    pub log_variances: Option<Vec<f32>>,
}

/// The inputs of φe for every ordered pair of bodies, `[edges, 2·n_features]`: features of the
/// receiver, then of the sender; ordered by graph, receiver, sender. `bodies` has the number of each graph.
pub fn edge_inputs(features: &[f32], bodies: &[u32], n_features: usize) -> Vec<f32> {
    let edges: usize = bodies.iter().map(|&n| n as usize * (n as usize - 1)).sum();
    let mut inputs = Vec::with_capacity(edges * 2 * n_features);
    for graph in by_graph(features, n_features, bodies) {
        for (receiver, of_receiver) in graph.chunks_exact(n_features).enumerate() {
            for (sender, of_sender) in graph.chunks_exact(n_features).enumerate() {
                if sender != receiver {
                    inputs.extend_from_slice(of_receiver);
                    inputs.extend_from_slice(of_sender);
                }
            }
        }
    }
    inputs
}

/// The messages `[edges, message_dim]`, as ordered in [`edge_inputs`], that each node receives.
pub fn received<'a>(
    messages: &'a [f32],
    bodies: &'a [u32],
    message_dim: usize,
) -> impl Iterator<Item = &'a [f32]> {
    let mut rest = messages;
    bodies.iter().flat_map(|&n| std::iter::repeat_n(n as usize - 1, n as usize)).map(move |n| {
        let (of_node, others) = rest.split_at(n * message_dim);
        rest = others;
        of_node
    })
}

/// The inputs of φv, `[node, n_features + message_dim]`: features, then the sum of the
/// messages the body receives.
fn node_inputs(features: &[f32], messages: &[f32], bodies: &[u32], shape: &Shape) -> Vec<f32> {
    let Shape { n_features, message_dim, .. } = *shape;
    let nodes = features.len() / n_features;
    let mut inputs = vec![0.0; nodes * (n_features + message_dim)];
    let rows = inputs.chunks_exact_mut(n_features + message_dim);
    let received = received(messages, bodies, message_dim);
    for ((row, own), received) in rows.zip(features.chunks_exact(n_features)).zip(received) {
        let (first, sums) = row.split_at_mut(n_features);
        first.copy_from_slice(own);
        for message in received.chunks_exact(message_dim) {
            for (sum, value) in sums.iter_mut().zip(message) {
                *sum += value;
            }
        }
    }
    inputs
}

/// φe on `inputs` `[edges, 2·n_features]`.
pub fn messages(
    device: &Device,
    shape: &Shape,
    parameters: &[f32],
    inputs: &[f32],
) -> Result<Messages> {
    let edges = inputs.len() / shape.edge_inputs();
    let width = shape.edge_outputs();
    let mut outputs = vec![0.0; edges * width];
    let layers = shape.arena().edge;
    mlp::forward(device, &layers, parameters, inputs, edges, Precision::F32, &mut outputs)?;
    if !shape.sampled {
        return Ok(Messages { values: outputs, log_variances: None });
    }
    let mut values = Vec::with_capacity(edges * shape.message_dim);
    let mut log_variances = Vec::with_capacity(edges * shape.message_dim);
    for row in outputs.chunks_exact(width) {
        let (means, variances) = row.split_at(shape.message_dim);
        values.extend_from_slice(means);
        log_variances.extend_from_slice(variances);
    }
    Ok(Messages { values, log_variances: Some(log_variances) })
}

/// φv on `inputs` `[rows, n_features + message_dim]`: `[rows, outputs]`.
pub fn node_outputs(
    device: &Device,
    shape: &Shape,
    parameters: &[f32],
    inputs: &[f32],
) -> Result<Vec<f32>> {
    let rows = inputs.len() / shape.node_inputs();
    let mut outputs = vec![0.0; rows * shape.outputs];
    let layers = shape.arena().node;
    mlp::forward(device, &layers, parameters, inputs, rows, Precision::F32, &mut outputs)?;
    Ok(outputs)
}

/// Predictions `[node, outputs]` for `features` `[node, n_features]` of graphs with these numbers of bodies; KL: from
/// the means of the messages. Features are as the network sees them; `view` moves senders to their nearest image.
pub fn accelerations(
    device: &Device,
    shape: &Shape,
    parameters: &[f32],
    features: &[f32],
    bodies: &[u32],
    view: Option<&View>,
) -> Result<Vec<f32>> {
    let mut outputs = Vec::with_capacity(features.len() / shape.n_features * shape.outputs);
    for (part, bodies) in parts(features, bodies, shape.n_features) {
        let (_, predictions) = predictions(device, shape, parameters, part, bodies, view)?;
        outputs.extend(predictions);
    }
    Ok(outputs)
}

/// Features and numbers of bodies of [`GRAPHS_AT_ONCE`] graphs at a time.
fn parts<'a>(
    features: &'a [f32],
    bodies: &'a [u32],
    n_features: usize,
) -> impl Iterator<Item = (&'a [f32], &'a [u32])> {
    let mut rest = features;
    bodies.chunks(GRAPHS_AT_ONCE).map(move |bodies| {
        let nodes: usize = bodies.iter().map(|&n| n as usize).sum();
        let (part, others) = rest.split_at(nodes * n_features);
        rest = others;
        (part, bodies)
    })
}

/// The messages in these graphs, and the predictions.
fn predictions(
    device: &Device,
    shape: &Shape,
    parameters: &[f32],
    features: &[f32],
    bodies: &[u32],
    view: Option<&View>,
) -> Result<(Messages, Vec<f32>)> {
    let mut edges = edge_inputs(features, bodies, shape.n_features);
    if let Some(view) = view {
        view.nearest(&mut edges);
    }
    let sent = messages(device, shape, parameters, &edges)?;
    let inputs = node_inputs(features, &sent.values, bodies, shape);
    let outputs = node_outputs(device, shape, parameters, &inputs)?;
    Ok((sent, outputs))
}

/// Sum over nodes of the L1 norm of (target − prediction): the loss before division by the number of
/// nodes.
pub fn l1(targets: &[f32], predictions: &[f32]) -> f64 {
    targets.iter().zip(predictions).map(|(t, p)| f64::from((t - p).abs())).sum()
}

/// The results of a model on a fixed set of graphs.
pub struct Evaluation {
    /// Mean over nodes of the L1 norm of (target − prediction).
    pub loss: f64,
    /// Statistics of the messages over the edges.
    pub spread: Spread,
}

/// Statistics of the messages of a network over edges.
pub struct Spread {
    /// Mean of each message.
    pub means: Vec<f64>,
    /// Standard deviation of each message; KL: mean of μ² + σ² − log σ².
    pub significance: Vec<f64>,
}

/// Sums from which a [`Spread`] is computed.
struct Sums {
    edges: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
    /// Sums of σ² − log σ², if messages are sampled.
    variances: Vec<f64>,
}

impl Sums {
    fn new(message_dim: usize) -> Self {
        let [sums, squares, variances] = [(); 3].map(|()| vec![0.0; message_dim]);
        Sums { edges: 0.0, sums, squares, variances }
    }

    fn add(&mut self, sent: &Messages) {
        let message_dim = self.sums.len();
        self.edges += (sent.values.len() / message_dim) as f64;
        for row in sent.values.chunks_exact(message_dim) {
            for ((sum, square), &value) in self.sums.iter_mut().zip(&mut self.squares).zip(row) {
                *sum += f64::from(value);
                *square += f64::from(value) * f64::from(value);
            }
        }
        for row in sent.log_variances.iter().flat_map(|v| v.chunks_exact(message_dim)) {
            for (sum, &value) in self.variances.iter_mut().zip(row) {
                *sum += f64::from(value).exp() - f64::from(value);
            }
        }
    }

    fn spread(&self, sampled: bool) -> Spread {
        let means: Vec<f64> = self.sums.iter().map(|sum| sum / self.edges).collect();
        let significance = (0..means.len()).map(|k| {
            let square = self.squares[k] / self.edges;
            if sampled {
                square + self.variances[k] / self.edges
            } else {
                (square - means[k] * means[k]).max(0.0).sqrt()
            }
        });
        Spread { significance: significance.collect(), means }
    }
}

/// The spread of the messages on `inputs` `[edges, 2·n_features]`.
pub fn spread(
    device: &Device,
    shape: &Shape,
    parameters: &[f32],
    inputs: &[f32],
) -> Result<Spread> {
    let mut sums = Sums::new(shape.message_dim);
    sums.add(&messages(device, shape, parameters, inputs)?);
    Ok(sums.spread(shape.sampled))
}

/// Evaluates a model on graphs.
pub fn evaluate(
    device: &Device,
    shape: &Shape,
    parameters: &[f32],
    Graphs { features, targets, bodies }: &Graphs,
    view: Option<&View>,
) -> Result<Evaluation> {
    let nodes = features.len() / shape.n_features;
    let mut loss = 0.0;
    let mut sums = Sums::new(shape.message_dim);
    let mut targets = &targets[..];
    for (part, bodies) in parts(features, bodies, shape.n_features) {
        let (sent, predictions) = predictions(device, shape, parameters, part, bodies, view)?;
        sums.add(&sent);
        let (truth, others) = targets.split_at(predictions.len());
        loss += l1(truth, &predictions);
        targets = others;
    }
    Ok(Evaluation { loss: loss / nodes as f64, spread: sums.spread(shape.sampled) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Graphs of different sizes are predicted as each by itself, in whatever parts.
    #[test]
    fn graphs_of_different_sizes_do_not_mix() {
        let shape = Shape {
            n_features: 6,
            message_dim: 3,
            outputs: 2,
            hidden: 8,
            layers: 2,
            sampled: false,
        };
        let mut random = Random::new(4, 0);
        let mut numbers =
            |count: usize| (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let parameters = numbers(shape.arena().len);
        let bodies: Vec<u32> = (0..GRAPHS_AT_ONCE + 5).map(|k| 2 + (k * 7 % 4) as u32).collect();
        let nodes: usize = bodies.iter().map(|&n| n as usize).sum();
        let (features, targets) = (numbers(nodes * 6), numbers(nodes * 2));
        let device = Device::cpu();
        let run = |features: &[f32], bodies: &[u32]| {
            accelerations(&device, &shape, &parameters, features, bodies, None).unwrap()
        };
        let together = run(&features, &bodies);
        let alone: Vec<f32> = by_graph(&features, 6, &bodies)
            .zip(&bodies)
            .flat_map(|(graph, &n)| run(graph, &[n]))
            .collect();
        assert_eq!(together.len(), alone.len());
        for (a, b) in together.iter().zip(&alone) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
        }
        let graphs = Graphs { features, targets, bodies };
        let found = evaluate(&device, &shape, &parameters, &graphs, None).unwrap();
        let expected = l1(&graphs.targets, &alone) / nodes as f64;
        assert!((found.loss / expected - 1.0).abs() < 1e-5, "{} {expected}", found.loss);
    }
}
