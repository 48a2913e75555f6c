//! The graphs a training sees: the split of runs into training and validation, the random batch of
//! each step, the fixed validation set.
//!
//! The batch of a step depends only on the seed and the step number, so a resumed run sees the same
//! batches as an uninterrupted one.

use std::ops::Range;
use std::sync::Arc;

use super::settings::{Settings, scaled};
use super::tails::Tails;
use super::view::View;
use crate::error::{Error, Result};
use crate::nbody::dataset::Dataset;
pub use crate::ops::tiny::source::Graphs;
use crate::ops::tiny::source::{Draw, Shown, Source, States};
use crate::random::Random;

/// Random streams of a training's seed: batches use the step number, everything else lies above.
const SPLIT: u64 = 1 << 60;
const VALIDATION: u64 = 2 << 60;
pub(super) const INITIAL: u64 = 3 << 60;
const NOISE: u64 = 4 << 60;
/// Fraction of the runs (or of the frames, if there is one run) used for training.
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

/// Splits a data set into training and validation parts, 75/25 by run, in random order. A data set
/// with a single run is split in time.
pub fn split(dataset: &Dataset, seed: u64) -> Result<(Part, Part)> {
    let (runs, frames) = (dataset.about.runs, dataset.about.frames);
    if runs == 1 {
        let first = (frames as f64 * TRAINED) as usize;
        if first == 0 {
            return Err(Error::input(
                "contains one run of one frame, which leaves nothing for validation",
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

/// The seed of the noise of sampled messages; not the seed itself, whose streams are used for batches.
fn noise_seed(seed: u64) -> u64 {
    let mut random = Random::new(seed, NOISE);
    u64::from(random.word()) << 32 | u64::from(random.word())
}

/// Draws graphs from a data set.
pub struct Sampler<'a> {
    /// With [`Sampler::tails`] each frame counts as a run.
    states: States<'a>,
    shown: Option<Arc<Shown>>,
    /// Weights of the frames in training.
    tails: Option<Tails>,
    runs: usize,
    frames: usize,
    stride: usize,
    translation: f64,
}

impl<'a> Sampler<'a> {
    /// Draws from `dataset` according to `settings`.
    pub fn new(dataset: &'a Dataset, settings: &Settings) -> Self {
        let (view, tails) = (View::of(dataset, settings), Tails::of(dataset));
        let (mut states, about) = (dataset.states(), &dataset.about);
        let shown = match tails {
            None => view.shown(dataset),
            Some(_) => {
                states.frames = 1;
                let mut shown = view.show_all(dataset);
                for values in [&mut shown.masses, &mut shown.charges] {
                    let runs = values.chunks_exact(about.bodies);
                    *values = runs.flat_map(|run| run.repeat(about.frames)).collect();
                }
                if let Some(counts) = &mut shown.counts {
                    let runs = counts.iter();
                    *counts = runs.flat_map(|&n| std::iter::repeat_n(n, about.frames)).collect();
                }
                Some(shown)
            }
        };
        Sampler {
            states,
            shown: shown.map(Arc::new),
            tails,
            runs: about.runs,
            frames: about.frames,
            stride: settings.frame_stride,
            translation: settings.translation,
        }
    }

    /// The states as the network sees them.
    fn states(&self) -> States<'_> {
        self.states.with(self.shown.as_deref())
    }

    /// The frames drawn from each run of [`Sampler::numbers`].
    fn frames(&self, part: &Part) -> Draw {
        let draw = Draw { first_frame: 0, frames: 1, stride: 1, translation: self.translation };
        if self.tails.is_some() {
            return draw;
        }
        let (first_frame, stride) = (part.frames.start, self.stride);
        Draw { first_frame, frames: part.frames.len().div_ceil(stride), stride, ..draw }
    }

    /// The runs of a part, as numbered in `states`.
    fn numbers(&self, part: &Part) -> Vec<u32> {
        let numbers = part.runs.iter().flat_map(|&run| {
            let frames = if self.tails.is_some() { part.frames.clone() } else { 0..1 };
            frames.step_by(self.stride).map(move |frame| self.place(run, frame).0 as u32)
        });
        numbers.collect()
    }

    /// The run and frame in `states` of a frame of the data set.
    fn place(&self, run: usize, frame: usize) -> (usize, usize) {
        if self.tails.is_some() { (run * self.frames + frame, 0) } else { (run, frame) }
    }

    /// Appends `count` random graphs of `part`, drawn uniformly, each translated as a whole at random.
    pub fn draw(&self, part: &Part, count: usize, random: &mut Random, out: &mut Graphs) {
        self.states().draw(&self.numbers(part), self.frames(part), count, random, out);
    }

    /// The source of batches for trainings with these parts and seeds.
    pub(super) fn source(&self, parts: &[Part], seeds: Vec<u64>) -> Source<'a> {
        let drawn = |part: &Part| match &self.tails {
            Some(tails) => tails.table(&self.numbers(part)),
            None => self.numbers(part),
        };
        Source {
            states: self.states,
            shown: self.shown.clone(),
            draw: self.frames(&parts[0]),
            parts: parts.iter().flat_map(drawn).collect(),
            noise_seeds: seeds.iter().map(|&seed| noise_seed(seed)).collect(),
            seeds,
        }
    }

    /// The fixed validation graphs of the training with this seed.
    pub fn validation(&self, part: &Part, seed: u64) -> Graphs {
        let mut graphs = Graphs::default();
        let count = scaled(VALIDATION_GRAPHS, self.states.bodies);
        self.draw(part, count, &mut Random::new(seed, VALIDATION), &mut graphs);
        graphs
    }

    /// Every frame that may be drawn, untranslated: a test set.
    pub fn all(&self) -> Graphs {
        let mut graphs = Graphs::default();
        for run in 0..self.runs {
            for frame in (0..self.frames).step_by(self.stride) {
                let (run, frame) = self.place(run, frame);
                self.states().push(run, frame, &mut graphs);
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

    /// A data set whose positions and charges are the number of the run and whose masses tell bodies apart. The sizes
    /// of its accelerations have a very heavy tail and identify run and frame.
    fn dataset(folder: &std::path::Path, runs: usize, frames: usize) -> Dataset {
        let path = folder.join(format!("{runs}-{frames}.safetensors"));
        let origin = serde_json::json!({});
        let about = About {
            runs,
            frames,
            bodies: 2,
            dim: 2,
            law: None,
            origin,
            seed: 0,
            scale: Some(crate::nbody::scale::Scale::NONE),
            period: None,
        };
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
        for (k, value) in writer.slice::<f32>("charges").iter_mut().enumerate() {
            *value = (k / 2) as f32;
        }
        for (k, value) in writer.slice::<f32>("accelerations").iter_mut().enumerate() {
            *value = acceleration(k / 4, runs * frames);
        }
        writer.finish().unwrap();
        Dataset::open(&path).unwrap()
    }

    /// The acceleration in frame `number` (over all runs) of `of`.
    fn acceleration(number: usize, of: usize) -> f32 {
        of as f32 / ((number * 1237 % of) as f32 + 0.5)
    }

    /// In data that were not simulated, frames with a heavy tail are drawn by weight, each unchanged; validation frames
    /// are drawn uniformly.
    #[test]
    fn close_encounters_are_drawn_less_often() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, frames) = (40, 30);
        let data = dataset(folder.path(), runs, frames);
        let settings =
            Settings { frame_stride: 1, ..Settings::preset(Preset::Quick, ModelKind::L1, 2, 2) };
        let (train, held_out) = split(&data, 1).unwrap();
        let sampler = Sampler::new(&data, &settings);
        let number = |graph: &[f32]| {
            let (run, frame) = (graph[4] as usize, graph[2] as usize);
            assert_eq!((graph[5], graph[11], graph[10]), (0.0, 1.0, graph[4]), "masses, charges");
            run * frames + frame
        };
        let seen = |graphs: &Graphs, part: &Part| {
            let mut counts = vec![0; runs * frames];
            let targets = graphs.targets.chunks_exact(4);
            for (graph, target) in graphs.features.chunks_exact(2 * 6).zip(targets) {
                let number = number(graph);
                assert_eq!(target, [acceleration(number, runs * frames); 4]);
                assert!(part.runs.contains(&(number / frames)));
                counts[number] += 1;
            }
            counts
        };
        let source = sampler.source(std::slice::from_ref(&train), vec![5]);
        let mut graphs = Graphs::default();
        let mut random = Random::new(5, 0);
        source.states().draw(&source.parts, source.draw, 40_000, &mut random, &mut graphs);
        let counts = seen(&graphs, &train);
        // One frame in 20 has a mean size above 40, so those above 400 weigh less than a tenth of the others.
        let share = |few: bool| {
            let size = |number: usize| f64::from(2.0 * acceleration(number, runs * frames));
            let numbers = train.runs.iter().flat_map(|run| run * frames..(run + 1) * frames);
            let numbers: Vec<usize> = numbers.filter(|&n| few == (size(n) > 400.0)).collect();
            let drawn = numbers.iter().map(|&n| counts[n]).sum::<usize>() as f64;
            (drawn / numbers.len() as f64, numbers.len())
        };
        let ((rare, encounters), (usual, _)) = (share(true), share(false));
        assert!(encounters > 2 && rare < 0.1 * usual, "{encounters}: {rare} {usual}");
        // All validation graphs are equally likely.
        let validation = sampler.validation(&held_out, 5);
        let counts = seen(&validation, &held_out);
        assert!(counts.iter().filter(|count| **count > 0).count() > 200);
        assert_eq!(
            seen(&sampler.all(), &Part { runs: (0..runs).collect(), frames: 0..frames }),
            vec![1; runs * frames]
        );
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
        // Data that were not simulated are split by blocks of time.
        let single = dataset(folder.path(), 1, 40);
        let (train, held_out) = split(&single, 1).unwrap();
        assert_eq!((single.about.runs, train.runs.len(), held_out.runs.len()), (8, 6, 2));
        assert_eq!((train.frames, held_out.frames), (0..5, 0..5));
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
