//! A training that stays on the device: the network, its moments and its gradient. A step sends the numbers of its
//! receivers to the device; only the losses come back, for many steps at once.

use super::step::Step;
use super::{EdgePath, chunks, room};
use crate::device::Gpu;
use crate::device::args::EdgeTurnArgs;
use crate::device::cuda::{Buffer, Grid, Kernel, Pointer, Shelf};
use crate::error::Result;
use crate::model::Shape;
use crate::ops::adam;
use crate::ops::edge::symmetry::Turn;
use crate::ops::edge::{Batch, Workspace};

const TURN: Kernel = Kernel { module: "edge_training", name: "edge_turn" };
const TURN_BACK: Kernel = Kernel { module: "edge_training", name: "edge_turn_back" };

/// The most steps between two calls of [`Resident::losses`].
pub(crate) const MOST_STEPS: usize = 64;

/// A network being trained on the device.
pub(crate) struct Resident {
    gpu: Gpu,
    arenas: adam::gpu::Stack,
    /// For each chunk: fixed here, so that later changes of the free memory change no chunk and no bit.
    room: usize,
    /// The buffers of a step, for the next one.
    shelf: Shelf,
    /// `[MOST_STEPS, 2]`: sums of errors and of penalties of the steps since the last call of `losses`.
    totals: Buffer<f64>,
    /// The factors for these sums.
    scales: Vec<[f64; 2]>,
}

impl Resident {
    /// Moves a training to the device. `rates` are those of all steps, `arenas` the parameters and both moments,
    /// `[arena.len]` each.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(gpu: Gpu, rates: &[adam::Args], arenas: [&[f32]; 3]) -> Result<Self> {
        // As in `Kept::new`.
        gpu.synchronize()?;
        let room = room(gpu)?;
        let rates: Vec<adam::Rates> = rates.iter().map(adam::Rates::new).collect();
        Ok(Resident {
            gpu,
            arenas: adam::gpu::Stack::new(gpu, &rates, 1, arenas)?,
            room,
            shelf: Shelf::default(),
            totals: gpu.buffer(2 * MOST_STEPS)?,
            scales: Vec::new(),
        })
    }

    /// Continues with a network of another shape.
    ///
    /// # Errors
    /// Those of [`Resident::new`].
    pub fn replace(&mut self, arenas: [&[f32]; 3]) -> Result<()> {
        self.shelf = Shelf::default();
        self.arenas.replace(arenas)
    }

    /// Enqueues the optimizer step with the number of the batch, using what `workspace` keeps: the gradient of the
    /// transformed network, transformed back and projected as in [`symmetry`].
    ///
    /// # Errors
    /// Those of [`gradient`](crate::ops::edge::gradient).
    ///
    /// # Panics
    /// If positions and velocities are not among the features, or after [`MOST_STEPS`] steps without a call of
    /// `losses`: a programming error.
    ///
    /// [`symmetry`]: crate::ops::edge::symmetry
    pub fn step(
        &mut self,
        workspace: &Workspace,
        batch: &Batch,
        targets: &[f32],
        turn: &Turn,
    ) -> Result<()> {
        let shelf = self.shelf.clone();
        Gpu::reuse(&shelf, || self.enqueue(workspace, batch, targets, turn))
    }

    fn enqueue(
        &mut self,
        workspace: &Workspace,
        batch: &Batch,
        targets: &[f32],
        turn: &Turn,
    ) -> Result<()> {
        let (at, shape) = (self.scales.len(), &batch.shape);
        assert!(shape.n_features >= 6, "a turn is of positions and velocities");
        assert!(at < MOST_STEPS, "the losses of {at} steps are not asked for");
        let len = self.arenas.parameters.len();
        let edges = batch.check_step(len, targets)?;
        let (gpu, kept) = (self.gpu, workspace.kept(batch, Some(targets.len()))?);
        let way = EdgePath::of(gpu, batch)?;
        let chunks = chunks(self.room, batch, way.edges(), way.edge_bytes(shape));
        let mut turned = gpu.buffer(len)?;
        turned.copy_from(&self.arenas.parameters)?;
        let mut args = turn_args(turn, shape);
        (args.from, args.to) = (self.arenas.parameters.read(len), turned.write(len));
        let grid = Grid::cover(shape.hidden, 64);
        // SAFETY: here and below, arenas have the length of the shape.
        unsafe { gpu.launch(TURN, grid, &args)? };
        let mut step = Step::new((gpu, kept), batch, turned, &chunks, way)?;
        step.prepare_gradient(kept, targets, edges)?;
        // SAFETY: there is room for this many steps.
        let totals = unsafe { self.totals.write(2 * MOST_STEPS).add(2 * at) };
        step.gradient(&chunks, &mut self.arenas.gradients, totals)?;
        self.scales.push([1.0 / batch.receivers.len() as f64, step.per_edge.into()]);
        args.to = self.arenas.gradients.write(len);
        args.from = self.arenas.gradients.read(len);
        // SAFETY: as above.
        unsafe { gpu.launch(TURN_BACK, grid, &args)? };
        self.arenas.step(batch.step as usize)
    }

    /// Waits for the steps since the last call; returns the loss and the weighted penalty of each.
    pub fn losses(&mut self) -> Result<Vec<[f32; 2]>> {
        let mut totals = vec![0.0; 2 * self.scales.len()];
        self.totals.download(&mut totals)?;
        let sums = totals.as_chunks::<2>().0.iter();
        let losses = sums
            .zip(&self.scales)
            .map(|(sums, scales)| [0, 1].map(|part: usize| (sums[part] * scales[part]) as f32));
        let losses = losses.collect();
        self.scales.clear();
        Ok(losses)
    }

    /// Copies the parameters to the host.
    pub fn parameters(&self, parameters: &mut [f32]) -> Result<()> {
        self.arenas.parameters.download(parameters)
    }

    /// Copies the moments to the host.
    pub fn moments(&self, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        self.arenas.m.download(m)?;
        self.arenas.v.download(v)
    }
}

/// A transformation of the first layers of a network, without the arenas.
fn turn_args(turn: &Turn, shape: &Shape) -> EdgeTurnArgs {
    let arena = shape.arena();
    EdgeTurnArgs {
        from: Pointer::NULL,
        to: Pointer::NULL,
        edge: arena.edge[0].weight.start as u64,
        node: arena.node[0].weight.start as u64,
        rows: shape.hidden as u32,
        n_features: shape.n_features as u32,
        message_dim: shape.message_dim as u32,
        axis: turn.axis.map(|axis| axis as u32),
        sign: turn.sign,
        unused: 0,
    }
}
