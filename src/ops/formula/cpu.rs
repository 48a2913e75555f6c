//! Blocks of edges, whose variables are gathered, evaluated together, and added up by receiver.

use rayon::prelude::*;

use super::{Edges, N_FEATURES, Sums, VARIABLES, variables};
use crate::device::Cpu;
use crate::ops::expression::Program;
use crate::ops::expression::block::{Columns, Evaluator, ROWS};

/// Receivers of a task.
const RECEIVERS: usize = 64;

pub(super) fn sums(cpu: Cpu, edges: &Edges, programs: &[Program], gradient: bool) -> Option<Sums> {
    let own = |p: &Program| 1 + if gradient { p.constants.len() } else { 0 };
    let width: usize = programs.iter().map(own).sum();
    let mut values = vec![0.0; edges.receivers.len() * width];
    let valid = values
        .par_chunks_mut(RECEIVERS * width.max(1))
        .zip(edges.receivers.par_chunks(RECEIVERS))
        .map(|(values, receivers)| {
            let mut block = Gather::new(cpu, programs, gradient, width, values);
            for (row, &receiver) in receivers.iter().enumerate() {
                if !block.add(edges, row, receiver) {
                    return false;
                }
            }
            block.flush()
        })
        .all(|valid| valid);
    valid.then_some(Sums { values, width })
}

/// A block of edges being filled.
struct Gather<'a> {
    evaluators: Vec<Evaluator<'a>>,
    programs: &'a [Program],
    gradient: bool,
    width: usize,
    /// `[receiver of the task, width]`
    values: &'a mut [f64],
    columns: Columns,
    /// Row of `values` of each edge of the block.
    rows: Vec<u32>,
}

impl<'a> Gather<'a> {
    fn new(
        cpu: Cpu,
        programs: &'a [Program],
        gradient: bool,
        width: usize,
        values: &'a mut [f64],
    ) -> Self {
        Gather {
            evaluators: programs.iter().map(|p| Evaluator::new(cpu, p)).collect(),
            programs,
            gradient,
            width,
            values,
            columns: Columns::new(VARIABLES.len()),
            rows: Vec::with_capacity(ROWS),
        }
    }

    /// Adds the edges of a receiver, evaluating whenever the block is full; false if a value is not finite.
    fn add(&mut self, edges: &Edges, row: usize, receiver: u32) -> bool {
        let features = |node: u32| -> &[f32; N_FEATURES] {
            let at = node as usize * N_FEATURES;
            edges.features[at..at + N_FEATURES].try_into().expect("a row of features")
        };
        let own = features(receiver);
        for &sender in &edges.sender[edges.span(receiver)] {
            let values = variables(own, features(sender), edges.period);
            let at = self.rows.len();
            for (k, value) in values.into_iter().enumerate() {
                self.columns.of(k)[at] = value;
            }
            self.rows.push(row as u32);
            if self.rows.len() == ROWS && !self.flush() {
                return false;
            }
        }
        true
    }

    /// Evaluates the gathered edges.
    fn flush(&mut self) -> bool {
        let count = self.rows.len();
        if count == 0 {
            return true;
        }
        // Padding with values that are surely in the domain; their results are not read.
        for k in 0..VARIABLES.len() {
            let column = self.columns.of(k);
            let last = column[count - 1];
            column[count..].fill(last);
        }
        let mut at = 0;
        for (evaluator, program) in self.evaluators.iter_mut().zip(self.programs) {
            if !evaluator.evaluate(&self.columns, self.gradient) {
                return false;
            }
            let mut column = |numbers: &[f32]| {
                for (&row, &number) in self.rows.iter().zip(numbers) {
                    self.values[row as usize * self.width + at] += f64::from(number);
                }
                at += 1;
            };
            column(evaluator.values());
            if self.gradient {
                (0..program.constants.len()).for_each(|k| column(evaluator.derivatives(k)));
            }
        }
        self.rows.clear();
        true
    }
}
