//! The step on the CPU, in three parallel phases: packing the weights; forward and backward through tiles of whole
//! graphs; weight gradients, in pieces of output units.
//!
//! Each piece of work has one owner that sums in a fixed order, so the result does not depend on the number of threads.
//! If there are enough runs, each thread takes whole runs; the rest share all threads.

use super::plan::{Key, Plan};
use super::{Batch, Loss, Workspace, tile, weights};
use crate::crew::share;
use crate::device::Cpu;
use crate::error::Result;
use crate::ops::mlp::buffer::{Buffer, Shared};
use crate::ops::mlp::kernel::{Kernel, Task, check_precision, run};

/// Buffers that steps reuse.
#[derive(Default)]
pub(super) struct Buffers {
    plan: Option<Plan>,
    regions: Buffer,
    scratch: Buffer,
    /// For each run: (prediction, penalty) of each tile, then Σw² of each unit.
    sums: Vec<f64>,
}

/// One run of the stack, as seen by its pieces of work.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub batch: &'a Batch<'a>,
    pub plan: &'a Plan,
    pub run: usize,
    /// `[arena.len]`.
    pub parameters: &'a [f32],
    /// `[arena.len]`.
    pub gradients: Shared<f32>,
    /// `[plan.region]`.
    pub region: Shared<f32>,
    /// `[plan.scratch.len]`, of the thread that works on a piece.
    pub scratch: Shared<f32>,
    sums: Shared<f64>,
}

struct Packing<'a>(Run<'a>, usize);
struct Tile<'a>(Run<'a>, usize);
struct Unit<'a>(Run<'a>, usize);

impl Task for Packing<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<K: Kernel>(self) {
        // SAFETY: the buffers have the planned lengths.
        unsafe { weights::pack::<K>(&self.0, self.0.plan.packs[self.1]) }
    }
}

impl Task for Tile<'_> {
    type Output = [f64; 2];
    #[inline(always)]
    unsafe fn run<K: Kernel>(self) -> [f64; 2] {
        // SAFETY: the buffers have the planned lengths.
        unsafe { tile::step::<K>(&self.0, self.1) }
    }
}

impl Task for Unit<'_> {
    type Output = f64;
    #[inline(always)]
    unsafe fn run<K: Kernel>(self) -> f64 {
        // SAFETY: the buffers have the planned lengths.
        unsafe { weights::gradient::<K>(&self.0, self.0.plan.units[self.1]) }
    }
}

pub(super) fn gradient(
    cpu: &Cpu,
    batch: &Batch,
    parameters: &[f32],
    gradients: &mut [f32],
    losses: &mut [Loss],
    workspace: &mut Workspace,
) -> Result<()> {
    check_precision(cpu, batch.precision)?;
    let Buffers { plan, regions, scratch, sums } = &mut workspace.cpu;
    let key = Key::new(cpu, batch);
    let plan = match plan {
        Some(plan) if plan.key == key => &*plan,
        _ => plan.insert(Plan::new(key)),
    };
    let len = plan.arena.len;
    let threads = rayon::current_num_threads();
    // Runs with a thread of their own, and the rest, which are split over all threads.
    let whole = if batch.runs >= threads { batch.runs / threads * threads } else { 0 };
    let run_sums = 2 * plan.tiles + plan.units.len();
    sums.resize(batch.runs * run_sums, 0.0);
    let regions = regions.words(plan.region * if whole > 0 { threads } else { 1 });
    let scratch = scratch.words(plan.scratch.len * threads);
    let sums = Shared(sums.as_mut_ptr());
    let gradients = Shared(gradients.as_mut_ptr());
    // SAFETY: lengths were checked by the entry, and offsets are run numbers below `batch.runs` and
    // thread numbers below `threads`.
    let job = |index: usize, region: usize, member: usize| unsafe {
        Run {
            batch,
            plan,
            run: index,
            parameters: &parameters[index * len..(index + 1) * len],
            gradients: Shared(gradients.at(index * len)),
            region: Shared(regions.at(region * plan.region)),
            scratch: Shared(scratch.at(member * plan.scratch.len)),
            sums: Shared(sums.at(index * run_sums)),
        }
    };
    let alone = |count: usize, work: &(dyn Fn(usize, usize) + Sync)| {
        (0..count).for_each(|piece| work(piece, 0));
    };
    share(whole, |index, member| step(cpu, |_| job(index, member, member), alone));
    for index in whole..batch.runs {
        step(cpu, |member| job(index, 0, member), |count, work| share(count, work));
    }
    for (index, loss) in losses.iter_mut().enumerate() {
        *loss = total(&job(index, 0, 0));
    }
    Ok(())
}

/// The three phases of one run, as its members see it; `each` calls work for the pieces of a phase, with a member.
fn step<'a>(
    cpu: &Cpu,
    job: impl Fn(usize) -> Run<'a> + Sync,
    each: impl Fn(usize, &(dyn Fn(usize, usize) + Sync)),
) {
    let Run { plan, batch, gradients, sums, .. } = job(0);
    let precision = batch.precision;
    // SAFETY: the buffers have the planned lengths, and each piece writes to its own places.
    unsafe {
        each(plan.packs.len(), &|i, member| run(cpu, precision, Packing(job(member), i)));
        each(plan.tiles, &|i, member| {
            let found = run(cpu, precision, Tile(job(member), i));
            sums.at(2 * i).cast::<[f64; 2]>().write(found);
        });
        each(plan.units.len(), &|i, member| {
            *sums.at(2 * plan.tiles + i) = run(cpu, precision, Unit(job(member), i));
        });
        for gap in &plan.gaps {
            std::slice::from_raw_parts_mut(gradients.at(gap.start), gap.len()).fill(0.0);
        }
    }
}

/// Adds up the parts of the loss, in the order of the pieces.
fn total(job: &Run) -> Loss {
    let (tiles, units) = (2 * job.plan.tiles, job.plan.units.len());
    // SAFETY: both phases have written all of them.
    let sums = unsafe { std::slice::from_raw_parts(job.sums.at(0), tiles + units) };
    let part = |first: usize| sums[first..tiles].iter().step_by(2).sum::<f64>() as f32;
    let decay = sums[tiles..].iter().sum::<f64>() * f64::from(job.batch.weight_decay);
    Loss { prediction: part(0), penalty: part(1), decay: decay as f32 }
}
