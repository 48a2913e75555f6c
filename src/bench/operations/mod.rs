//! The measured cases of each operation: realistic sizes, and the work that the mathematics requires.

mod graphs;

use super::ceilings::Ceiling;
use super::{Arithmetic, Ceilings, Harness, Measurement, Work};
use crate::error::Result;
use crate::formula::expression::{Expression, Node};
use crate::law::Law;
use crate::model::{Layer, Precision, Shape};
use crate::nbody::simulate::{Settings, energy, initial_state};
use crate::ops::rk4::{Batch, Integrator, TOLERANCE};
use crate::ops::tiny::source::{Draw, Source, States};
use crate::ops::{Call, Training, adam, edge, expression, mlp, rk4, tiny};
use crate::random::Random;

use Arithmetic::{Bf16, F32, F64};

/// The operations of `bench`, in the order of measuring, with the arithmetics of their cases.
pub const OPERATIONS: [(&str, &[Arithmetic]); 10] = [
    ("ceilings", &[F32, Bf16, F64]),
    ("rk4", &[F64]),
    ("tiny", &[F32, Bf16]),
    ("edge", &[F32, Bf16]),
    ("adam", &[F32]),
    ("mlp", &[F32, Bf16]),
    ("expression", &[F32]),
    ("formula", &[F32]),
    ("neighbours", &[F64]),
    ("scatter", &[F32]),
];

/// Networks in the stack on which a step with Adam is measured, besides a single network.
const STACK: usize = 16;

/// Measures the cases of the operation `name` in the wanted arithmetics.
pub fn measure(
    name: &str,
    harness: &Harness,
    wanted: &impl Fn(Arithmetic) -> bool,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let precisions = [Precision::F32, Precision::Bf16];
    let precisions = precisions.into_iter().filter(|&precision| wanted(arithmetic(precision)));
    match name {
        "ceilings" => ceilings(harness, wanted, report),
        "rk4" => {
            let spring = |substeps| (Law::Spring, 2, Integrator::Rk4 { substeps });
            motion(harness, spring(1), 4, 4096, report)?;
            motion(harness, spring(1), 8, 2048, report)?;
            motion(
                harness,
                (Law::InverseSquare, 3, Integrator::Rk4 { substeps: 1 }),
                4,
                2048,
                report,
            )?;
            let adaptive = Integrator::Adaptive { tolerance: TOLERANCE };
            motion(harness, (Law::Spring, 2, adaptive), 4, 1024, report)?;
            motion(harness, (Law::InverseSquare, 2, adaptive), 4, 1024, report)?;
            if harness.on_gpu() {
                // About sixteen warps for each scheduler of a large GPU.
                motion(harness, spring(1), 4, 1 << 16, report)?;
                motion(harness, (Law::InverseSquare, 2, adaptive), 4, 1 << 16, report)?;
            }
            Ok(())
        }
        "tiny" => {
            for model in [(300, 100, tiny::Penalty::L1(1e-2)), (128, 2, tiny::Penalty::None)] {
                for precision in precisions.clone() {
                    training(harness, model, precision, report)?;
                    for runs in [1, if harness.is_emulated() { 2 } else { STACK }] {
                        optimizing(harness, model, precision, runs, report)?;
                    }
                }
            }
            Ok(())
        }
        "edge" => {
            for receivers in graphs::receivers(harness) {
                for penalty in [edge::Penalty::L1(1e-2), edge::Penalty::None] {
                    for precision in precisions.clone() {
                        graphs::edge_step(harness, receivers, penalty, precision, report)?;
                    }
                }
            }
            Ok(())
        }
        "adam" => {
            update(harness, shape(300, 100).arena().len, report)?;
            update(harness, 1 << 24, report)
        }
        "mlp" => {
            precisions.into_iter().try_for_each(|precision| perceptron(harness, precision, report))
        }
        "expression" => {
            population(harness, 256, report)?;
            if harness.on_gpu() {
                population(harness, 8192, report)?;
            }
            Ok(())
        }
        "formula" => {
            graphs::formula(harness, false, report)?;
            graphs::formula(harness, true, report)
        }
        "neighbours" => graphs::neighbours(harness, report),
        _ => {
            graphs::sums(harness, 64, report)?;
            graphs::sums(harness, 1, report)
        }
    }
}

/// The limits of the machine, to which the other operations are compared.
fn ceilings(
    harness: &Harness,
    wanted: &impl Fn(Arithmetic) -> bool,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let Ceilings {
        f32_flops,
        bf16_flops,
        wgmma_flops,
        f64_flops,
        cache_bandwidth,
        bulk_bandwidth,
        memory_bandwidth,
        cached: _,
    } = &harness.ceilings;
    let mut row = |precision, ceiling: &Ceiling, unit| {
        let work = Work {
            op: "ceilings",
            size: ceiling.what.clone(),
            precision,
            count: ceiling.count,
            unit,
            flops: None,
            bytes: 0.0,
        };
        if !wanted(precision) {
            return Ok(());
        }
        let floor = Some(ceiling.count / ceiling.rate());
        report(super::measurement(harness.device, &work, ceiling.times.clone(), floor))
    };
    row(Arithmetic::F32, f32_flops, "flop/s")?;
    for flops in [bf16_flops, wgmma_flops].into_iter().flatten() {
        row(Arithmetic::Bf16, flops, "flop/s")?;
    }
    row(Arithmetic::F64, f64_flops, "flop/s")?;
    row(Arithmetic::F32, cache_bandwidth, "byte/s")?;
    if let Some(bandwidth) = bulk_bandwidth {
        row(Arithmetic::F32, bandwidth, "byte/s")?;
    }
    row(Arithmetic::F32, memory_bandwidth, "byte/s")
}

/// 100 frames of `runs` systems, written to a buffer that is reused.
fn motion(
    harness: &Harness,
    (law, dim, integrator): (Law, usize, Integrator),
    bodies: usize,
    runs: usize,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let (frames, runs) = (101, harness.size(runs));
    let stride = 2 * bodies * dim;
    let settings = Settings { bodies, dim, runs, ..Settings::default() };
    let mut start = vec![0.0; runs * stride];
    let (mut masses, mut charges) = (vec![0.0; runs * bodies], vec![0.0; runs * bodies]);
    for (run, state) in start.chunks_mut(stride).enumerate() {
        let own = run * bodies..(run + 1) * bodies;
        initial_state(&settings, run, state, &mut masses[own.clone()], &mut charges[own]);
    }
    let dt = law.default_dt().unwrap_or(0.01);
    let (masses, charges) = (&masses[..], &charges[..]);
    let batch = Batch {
        law: &law,
        integrator,
        dim,
        bodies,
        frames,
        dt,
        masses,
        charges,
        first_run: 0,
        observer: &(),
    };
    let length = runs * frames * bodies * dim;
    let steps = (runs * (frames - 1)) as f64;
    let name = law.name();
    let (size, unit, flops) = match integrator {
        Integrator::Rk4 { substeps } => {
            // Squared distance, root, one division, the force along it and on both bodies; a root or a
            // division counts as one operation. Then three sums of the state, and the weighted one.
            let (pairs, axes) = (bodies * (bodies - 1) / 2, dim);
            let force = pairs * (6 * axes + 6);
            let stage = force + 2 * axes * bodies * 4;
            let flops = steps * (substeps * 4 * stage) as f64;
            (
                format!("rk4 {name} {dim}d, {bodies} bodies x {runs} runs"),
                "body-steps/s",
                Some(flops),
            )
        }
        // The number of steps depends on the motion.
        Integrator::Adaptive { .. } => (
            format!("adaptive {name} {dim}d, {bodies} bodies x {runs} runs"),
            "body-frames/s",
            None,
        ),
    };
    let work = Work {
        op: "rk4",
        size,
        precision: Arithmetic::F64,
        count: steps * bodies as f64,
        unit,
        flops,
        bytes: (3 * 4 * length) as f64,
    };
    let mut states = start.clone();
    let mut measurement = rk4::repeat(harness.device, &batch, &mut states, |integrate| {
        harness.measure(work, integrate)
    })?;
    if law.conserves_energy() {
        let drift = |run: usize| {
            let own = run * bodies..(run + 1) * bodies;
            let of = |states: &[f64]| {
                let state = &states[run * stride..(run + 1) * stride];
                energy(&law, dim, state, &masses[own.clone()], &charges[own.clone()])
            };
            let (begin, size) = of(&start);
            ((of(&states).0 - begin) / size).abs()
        };
        let mut drifts: Vec<f64> = (0..runs).map(drift).collect();
        drifts.sort_by(f64::total_cmp);
        measurement.energy_drift = Some(drifts[runs / 2]);
    }
    report(measurement)
}

fn shape(hidden: usize, message_dim: usize) -> Shape {
    Shape { n_features: 6, message_dim, outputs: 2, hidden, layers: 2, sampled: false }
}

fn random(count: usize, stream: u64, scale: f64) -> Vec<f32> {
    let mut random = Random::new(1, stream);
    (0..count).map(|_| (scale * random.normal()) as f32).collect()
}

/// The arithmetic of a precision.
fn arithmetic(precision: Precision) -> Arithmetic {
    match precision {
        Precision::Bf16 => Arithmetic::Bf16,
        _ => Arithmetic::F32,
    }
}

fn weights(layers: &[Layer]) -> usize {
    layers.iter().map(|layer| layer.weight.len()).sum()
}

/// The model of a step of `tiny`: hidden units, messages, penalty.
type Model = (usize, usize, tiny::Penalty);

/// A stack of networks, on 64 graphs of 4 bodies each.
fn problem(
    harness: &Harness,
    (hidden, messages, penalty): Model,
    precision: Precision,
    runs: usize,
) -> tiny::Problem {
    let shape = shape(hidden, messages);
    let (graphs, bodies, weight_decay) = (harness.size(64), 4, 1e-8);
    tiny::Problem { shape, penalty, weight_decay, precision, runs, graphs, bodies }
}

/// The work of a step: loss and gradient, with or without Adam.
fn step_of(problem: &tiny::Problem, with_adam: bool) -> Work {
    let tiny::Problem { shape, precision, runs, graphs, bodies, .. } = *problem;
    let arena = shape.arena();
    let (nodes, edges) = (graphs * bodies, graphs * bodies * (bodies - 1));
    // Forward, gradient of the weights, gradient of the inputs: a product each. Inputs from the data
    // need no gradient.
    let edge = 3 * weights(&arena.edge) - arena.edge[0].weight.len();
    let node = 3 * weights(&arena.node) - shape.n_features * shape.hidden;
    let products = 2.0 * (edges * edge + nodes * node) as f64;
    let (hidden, messages) = (shape.hidden, shape.message_dim);
    let size = format!("{bodies} bodies x {graphs} graphs, hidden {hidden}, {messages} messages");
    // As in `update`: 16 operations per parameter, which is moved eight times.
    let (what, operations, moves) = match (with_adam, runs) {
        (false, _) => (String::new(), 0, 2),
        (true, 1) => (", with Adam".to_string(), 16, 8),
        (true, _) => (format!(", {runs} networks, with Adam"), 16, 8),
    };
    Work {
        op: "tiny",
        size: size + &what,
        precision: arithmetic(precision),
        count: runs as f64,
        unit: "steps/s",
        flops: Some(runs as f64 * (products + (operations * arena.len) as f64)),
        bytes: (runs * moves * 4 * arena.len) as f64,
    }
}

/// Loss and gradient, the core of a training step.
fn training(
    harness: &Harness,
    model: Model,
    precision: Precision,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let problem = problem(harness, model, precision, 1);
    let tiny::Problem { shape, penalty, weight_decay, runs, graphs, bodies, .. } = problem;
    let features = random(graphs * bodies * shape.n_features, 1, 1.0);
    let targets = random(graphs * bodies * shape.outputs, 2, 1.0);
    let batch = tiny::Batch {
        shape,
        penalty,
        weight_decay,
        precision,
        runs,
        graphs,
        bodies,
        features: &features,
        targets: &targets,
        noise_seeds: &[0],
        step: 1,
    };
    let (work, parameters) = (step_of(&problem, false), random(shape.arena().len, 3, 0.05));
    report(tiny::repeat(harness.device, &batch, &parameters, |gradient| {
        harness.measure(work, gradient)
    })?)
}

/// A complete training step of `runs` networks, as in `train`: draw of a batch, loss and gradient, Adam, and losses as
/// often as `train` asks for them.
fn optimizing(
    harness: &Harness,
    model: Model,
    precision: Precision,
    runs: usize,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let problem = problem(harness, model, precision, runs);
    let work = step_of(&problem, true);
    let (data_runs, frames) = (harness.size(256), 10);
    let tiny::Problem { shape, bodies, .. } = problem;
    let dim = shape.outputs;
    let vectors = |stream| random(data_runs * frames * bodies * dim, stream, 1.0);
    let scalars = |stream| random(data_runs * bodies, stream, 1.0);
    let ([positions, velocities, accelerations], [masses, charges]) =
        ([1, 2, 3].map(vectors), [4, 5].map(scalars));
    let source = Source {
        states: States {
            counts: None,
            positions: &positions,
            velocities: &velocities,
            accelerations: &accelerations,
            masses: &masses,
            charges: &charges,
            frames,
            bodies,
            dim,
        },
        shown: None,
        draw: Draw { first_frame: 0, frames, stride: 1, translation: 3.0 },
        parts: (0..runs).flat_map(|_| 0..data_runs as u32).collect(),
        seeds: (0..runs as u64).collect(),
        noise_seeds: (0..runs as u64).collect(),
    };
    let parameters = random(runs * shape.arena().len, 3, 0.05);
    let zeros = vec![0.0; parameters.len()];
    // On a GPU the very first step is launched, the others are replayed.
    let most = if harness.is_emulated() { 1 } else { tiny::gpu::MOST_STEPS };
    let arenas: [&[f32]; 3] = [&parameters, &zeros, &zeros];
    let rates = vec![1e-3; most];
    let mut training = tiny::Session::new(harness.device, problem, source, rates, arenas, 0)?;
    let steps = most.min(training.most_steps() as usize);
    report(harness.measure_steps(work, steps, || {
        training.rewind()?;
        training.advance(steps).map(drop)
    })?)
}

/// One step of the optimizer.
fn update(
    harness: &Harness,
    count: usize,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let count = harness.size(count);
    let gradients = random(count, 1, 1.0);
    let work = Work {
        op: "adam",
        size: format!("{count} parameters"),
        precision: Arithmetic::F32,
        count: count as f64,
        unit: "parameters/s",
        flops: Some(16.0 * count as f64),
        // Parameters and moments are read and written; gradients are read twice, once for their norm.
        bytes: (8 * 4 * count) as f64,
    };
    report(adam::repeat(harness.device, &gradients, |step| harness.measure(work, step))?)
}

/// Messages on many edges, without gradients.
fn perceptron(
    harness: &Harness,
    precision: Precision,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let (rows, shape) = (harness.size(16_384), shape(300, 100));
    let arena = shape.arena();
    let inputs = random(rows * arena.edge[0].inputs, 1, 1.0);
    let parameters = random(arena.len, 2, 0.05);
    let work = Work {
        op: "mlp",
        size: format!("{rows} rows, 12 -> 300 -> 300 -> 100"),
        precision: arithmetic(precision),
        count: rows as f64,
        unit: "rows/s",
        flops: Some(2.0 * (rows * weights(&arena.edge)) as f64),
        bytes: (4 * (inputs.len() + rows * shape.message_dim)) as f64,
    };
    let (device, layers) = (harness.device, &arena.edge);
    let forward = |forward: Call| harness.measure(work, forward);
    report(mlp::repeat(device, layers, &parameters, &inputs, rows, precision, forward)?)
}

/// A population of expressions on the 5000 rows of a regression: scores, and fits of their constants.
fn population(
    harness: &Harness,
    count: usize,
    report: &mut impl FnMut(Measurement) -> Result<()>,
) -> Result<()> {
    let (rows, names) = (harness.size(5000), ["dx", "dy", "r", "m1"]);
    let columns: Vec<Vec<f32>> = (0..names.len() as u64)
        .map(|stream| random(rows, stream, 1.0).into_iter().map(|v| v.abs() + 0.1).collect())
        .collect();
    let target: Vec<f32> = (0..rows).map(|k| columns[0][k] * (1.0 - 1.0 / columns[2][k])).collect();
    let table = expression::Rows::new(&columns, &target, None)?;
    let texts = [
        "1.1 * dx * (0.9 - 1.2 / r)",
        "dx / r * (r - 1.1) + 0.2",
        "m1 * dx * r^2.5 - 0.3 * dy",
        "exp(0.2 * dx) * (log(r) + 0.7 * m1)",
    ];
    let expressions: Vec<Expression> =
        texts.iter().map(|text| Expression::parse(text, &names)).collect::<Result<_>>()?;
    let programs: Vec<expression::Program> = (0..harness.size(count))
        .map(|k| expression::Program::new(&expressions[k % texts.len()]))
        .collect();
    // Variables and constants are read; every other node is at least one operation.
    let operators = |e: &Expression| e.nodes().iter().filter(|n| matches!(n, Node::Op(_))).count();
    let each = expressions.iter().map(operators).sum::<usize>() as f64 / texts.len() as f64;
    let evaluations = (programs.len() * rows) as f64;
    let work = |size: &str, flops: Option<f64>| Work {
        op: "expression",
        size: format!("{size} {} expressions on {rows} rows", programs.len()),
        precision: Arithmetic::F32,
        count: evaluations * each,
        unit: "operators/s",
        flops,
        bytes: (4 * rows * (names.len() + 2)) as f64,
    };
    let loss = expression::Loss::Mae;
    // An operator is one lane of an addition: half of a multiply-add.
    let scoring = work("score", Some(2.0 * evaluations * each));
    let device = harness.device;
    report(expression::repeat_score(device, &table, &programs, loss, |score| {
        harness.measure(scoring, score)
    })?)?;
    let fit = expression::Fit { loss, steps: 8, scaled: true, tolerance: 1e-6 };
    // How many evaluations a fit takes depends on the expression.
    let fitting = Work { count: programs.len() as f64, unit: "fits/s", ..work("fit", None) };
    report(expression::repeat_fit(device, &table, &programs, fit, |fit| {
        harness.measure(fitting, fit)
    })?)
}
