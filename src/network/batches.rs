//! Which graphs a training sees: the split of runs into training and validation, the random batch of
//! each step, the fixed validation set.
//!
//! The batch of a step depends on the seed and the step number and on nothing else, so a resumed run
//! sees what an uninterrupted one sees.

use std::ops::Range;

use super::settings::{Settings, scaled};
use crate::error::{Error, Result};
use crate::nbody::dataset::Dataset;
use crate::ops::tiny;
use crate::random::Random;

/// Streams of a training's seed: batches take the step number, everything else lies above.
const SPLIT: u64 = 1 << 60;
const VALIDATION: u64 = 2 << 60;
pub(super) const INITIAL: u64 = 3 << 60;
const NOISE: u64 = 4 << 60;
/// Fraction of the runs (or of the frames, where there is one run) that is trained on.
const TRAINED: f64 = 0.75;
/// Graphs of 4 bodies in the validation set.
const VALIDATION_GRAPHS: usize = 512;

/// Frames that may be drawn: every `stride`-th frame of `frames` in each of `runs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The runs.
    pub runs: Vec<usize>,
    /// The frames of each run.
    pub frames: Range<usize>,
}

/// The two parts of a data set: for training and for validation, 75/25 by run, in random order. A
/// data set of a single run is split in time.
pub fn split(dataset: &Dataset, seed: u64) -> Result<(Part, Part)> {
    let (runs, frames) = (dataset.about.runs, dataset.about.frames);
    if runs == 1 {
        let first = (frames as f64 * TRAINED) as usize;
        if first == 0 {
            return Err(Error::input(
                "contains one run of one frame: nothing is left for validation",
            )
            .file(dataset.path()));
        }
        let part = |frames: Range<usize>| Part { runs: vec![0], frames };
        return Ok((part(0..first), part(first..frames)));
    }
    let mut order: Vec<usize> = (0..runs).collect();
    let mut random = Random::new(seed, SPLIT);
    for last in (1..runs).rev() {
        order.swap(last, random.below(last + 1));
    }
    let trained = ((runs as f64 * TRAINED) as usize).clamp(1, runs - 1);
    let validation = order.split_off(trained);
    let part = |runs: Vec<usize>| Part { runs, frames: 0..frames };
    Ok((part(order), part(validation)))
}

/// The key of the noise of sampled messages: apart from the seed itself, whose streams are batches.
pub(super) fn noise_seed(seed: u64) -> u64 {
    let mut random = Random::new(seed, NOISE);
    u64::from(random.word()) << 32 | u64::from(random.word())
}

/// Graphs with their targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graphs {
    /// `[graphs, bodies, n_features]`.
    pub features: Vec<f32>,
    /// `[graphs, bodies, dim]`.
    pub targets: Vec<f32>,
}

/// Draws graphs from a data set. Holds its tensors, which are looked up once and not for each body.
pub struct Sampler<'a> {
    dataset: &'a Dataset,
    positions: &'a [f32],
    velocities: &'a [f32],
    accelerations: &'a [f32],
    masses: &'a [f32],
    charges: &'a [f32],
    stride: usize,
    translation: f64,
}

impl<'a> Sampler<'a> {
    /// Draws from `dataset` as `settings` say.
    pub fn new(dataset: &'a Dataset, settings: &Settings) -> Self {
        Sampler {
            dataset,
            positions: dataset.positions(),
            velocities: dataset.velocities(),
            accelerations: dataset.accelerations(),
            masses: dataset.masses(),
            charges: dataset.charges(),
            stride: settings.frame_stride,
            translation: settings.translation,
        }
    }

    /// Appends one frame.
    fn push(&self, run: usize, frame: usize, out: &mut Graphs) {
        let (dim, bodies) = (self.dataset.about.dim, self.dataset.about.bodies);
        let at = (run * self.dataset.about.frames + frame) * bodies * dim;
        for body in 0..bodies {
            let axes = at + body * dim..at + (body + 1) * dim;
            out.features.extend_from_slice(&self.positions[axes.clone()]);
            out.features.extend_from_slice(&self.velocities[axes]);
            out.features.push(self.charges[run * bodies + body]);
            out.features.push(self.masses[run * bodies + body]);
        }
        out.targets.extend_from_slice(&self.accelerations[at..at + bodies * dim]);
    }

    /// Appends `count` random graphs of `part`, each translated as a whole at random. The kernel
    /// `tiny_gather` draws the same words.
    pub fn draw(&self, part: &Part, count: usize, random: &mut Random, out: &mut Graphs) {
        let (dim, n_features) = (self.dataset.about.dim, self.dataset.about.n_features());
        let frames = part.frames.len().div_ceil(self.stride);
        for _ in 0..count {
            let run = part.runs[random.below(part.runs.len())];
            let frame = part.frames.start + self.stride * random.below(frames);
            let begin = out.features.len();
            self.push(run, frame, out);
            for axis in 0..dim {
                let shift = (self.translation * random.normal()) as f32;
                for body in out.features[begin..].chunks_exact_mut(n_features) {
                    body[axis] += shift;
                }
            }
        }
    }

    /// What a GPU draws the same graphs from, for a stack of trainings with these parts and seeds.
    pub(super) fn source(&self, parts: &[&Part], seeds: Vec<u64>) -> tiny::gpu::Source<'_> {
        let frames = parts[0].frames.clone();
        tiny::gpu::Source {
            positions: self.positions,
            velocities: self.velocities,
            accelerations: self.accelerations,
            masses: self.masses,
            charges: self.charges,
            frames: self.dataset.about.frames,
            parts: parts.iter().flat_map(|part| &part.runs).map(|&run| run as u32).collect(),
            first_frame: frames.start,
            drawn_frames: frames.len().div_ceil(self.stride),
            stride: self.stride,
            translation: self.translation,
            noise_seeds: seeds.iter().map(|&seed| noise_seed(seed)).collect(),
            seeds,
        }
    }

    /// The fixed validation graphs of a training with this seed.
    pub fn validation(&self, part: &Part, seed: u64) -> Graphs {
        let mut graphs = Graphs::default();
        let count = scaled(VALIDATION_GRAPHS, self.dataset.about.bodies);
        self.draw(part, count, &mut Random::new(seed, VALIDATION), &mut graphs);
        graphs
    }

    /// Every frame of every run that may be drawn, as it is: a test set.
    pub fn all(&self) -> Graphs {
        let mut graphs = Graphs::default();
        for run in 0..self.dataset.about.runs {
            for frame in (0..self.dataset.about.frames).step_by(self.stride) {
                self.push(run, frame, &mut graphs);
            }
        }
        graphs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelKind;
    use crate::nbody::dataset::About;
    use crate::network::settings::Preset;

    /// A data set whose positions are the number of the run and whose masses tell bodies apart.
    fn dataset(folder: &std::path::Path, runs: usize, frames: usize) -> Dataset {
        let path = folder.join(format!("{runs}-{frames}.safetensors"));
        let origin = serde_json::json!({});
        let about = About { runs, frames, bodies: 2, dim: 2, law: None, origin, seed: 0 };
        let mut writer = about.create(&path).unwrap();
        for (k, value) in writer.slice::<f32>("positions").iter_mut().enumerate() {
            *value = (k / (frames * 4)) as f32;
        }
        for (k, value) in writer.slice::<f32>("velocities").iter_mut().enumerate() {
            *value = (k / 4 % frames) as f32;
        }
        for (k, value) in writer.slice::<f32>("masses").iter_mut().enumerate() {
            *value = (k % 2) as f32;
        }
        writer.finish().unwrap();
        Dataset::open(&path).unwrap()
    }

    #[test]
    fn runs_are_split_and_one_run_is_split_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let (train, held_out) = split(&dataset(folder.path(), 20, 3), 1).unwrap();
        assert_eq!((train.runs.len(), held_out.runs.len()), (15, 5));
        let mut all = [&train.runs[..], &held_out.runs].concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert_ne!(split(&dataset(folder.path(), 20, 3), 2).unwrap().0, train);
        let (train, held_out) = split(&dataset(folder.path(), 1, 40), 1).unwrap();
        assert_eq!((train.frames, held_out.frames), (0..30, 30..40));
        assert!(split(&dataset(folder.path(), 1, 1), 1).is_err());
    }

    #[test]
    fn graphs_are_every_fifth_frame_moved_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let data = dataset(folder.path(), 20, 12);
        let settings = Settings::preset(Preset::Quick, ModelKind::L1, 2, 2);
        let (train, _) = split(&data, 1).unwrap();
        let mut graphs = Graphs::default();
        let sampler = Sampler::new(&data, &settings);
        sampler.draw(&train, 4000, &mut Random::new(1, 2), &mut graphs);
        let (mut squares, mut frames) = (0.0, [0; 12]);
        for graph in graphs.features.chunks_exact(2 * 6) {
            let (a, b) = graph.split_at(6);
            assert_eq!(a[..5], b[..5], "both bodies are moved alike");
            assert_eq!((a[5], b[5]), (0.0, 1.0));
            frames[a[2] as usize] += 1;
            // Both axes hold the same number before the translation: the difference has variance 2·3².
            squares += f64::from(a[0] - a[1]).powi(2) / 4000.0;
        }
        assert!((squares / 18.0 - 1.0).abs() < 0.15, "{squares}");
        assert_eq!(frames.iter().sum::<i32>(), frames[0] + frames[5] + frames[10]);
        assert!(frames[0].min(frames[5]).min(frames[10]) > 1100, "{frames:?}");
        assert_eq!(sampler.all().features.len(), 20 * 3 * 2 * 6);
    }
}
