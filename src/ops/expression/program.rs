//! An expression as the evaluator reads it: one instruction for each operator; leaves are operands and cost nothing.

use crate::formula::expression::{Expression, Node, Op};

/// Where an operand's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The result of an earlier instruction.
    Result(u16),
    /// A column of the table.
    Variable(u16),
    /// One of the program's constants.
    Constant(u16),
}

/// One operator on its operands; those beyond its arity repeat the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operator.
    pub op: Op,
    /// Its operands.
    pub operands: [Operand; 3],
    /// The place of the result on a stack of those still needed.
    pub slot: u16,
    /// True if a constant occurs below: only then is there a gradient to propagate.
    pub has_constant: bool,
}

/// An expression, flattened.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// In the order of evaluation.
    pub instructions: Vec<Instruction>,
    /// The value of the expression.
    pub root: Operand,
    /// The constants, in the order of the expression's nodes.
    pub constants: Vec<f32>,
    /// Nodes of the expression, leaves included, as counted by "node evaluations".
    pub nodes: usize,
    /// True if a constant may occur in several places; only a CPU fits such a program.
    pub tied: bool,
    /// Indices of constants that keep their values; only a CPU fits such a program.
    pub held: Vec<u16>,
}

impl Program {
    /// Flattens an expression.
    pub fn new(expression: &Expression) -> Self {
        let mut instructions: Vec<Instruction> = Vec::with_capacity(expression.nodes().len());
        let mut constants = Vec::new();
        let mut stack: Vec<Operand> = Vec::with_capacity(16);
        for &node in expression.nodes() {
            let operand = match node {
                Node::Constant(value) => {
                    constants.push(value as f32);
                    Operand::Constant(constants.len() as u16 - 1)
                }
                Node::Variable(index) => Operand::Variable(index),
                Node::Op(op) => {
                    let first = stack.len() - op.arity();
                    let mut operands = [stack[first]; 3];
                    operands[..op.arity()].copy_from_slice(&stack[first..]);
                    let has_constant = stack[first..].iter().any(|operand| match *operand {
                        Operand::Result(i) => instructions[usize::from(i)].has_constant,
                        Operand::Variable(_) => false,
                        Operand::Constant(_) => true,
                    });
                    // Results below this one on the stack keep their slots.
                    let is_result = |o: &&Operand| matches!(o, Operand::Result(_));
                    let slot = stack[..first].iter().filter(is_result).count() as u16;
                    stack.truncate(first);
                    instructions.push(Instruction { op, operands, slot, has_constant });
                    Operand::Result(instructions.len() as u16 - 1)
                }
            };
            stack.push(operand);
        }
        let root = stack[0];
        Program {
            instructions,
            root,
            constants,
            nodes: expression.nodes().len(),
            tied: false,
            held: Vec::new(),
        }
    }
}

impl Program {
    /// For a program whose constants are indices into a list of `values`: constants with the same index are one
    /// parameter.
    pub(crate) fn tied(mut self, values: &[f64]) -> Self {
        let numbers: Vec<u16> = self.constants.iter().map(|&c| c as u16).collect();
        let operands = self.instructions.iter_mut().flat_map(|i| &mut i.operands);
        for operand in operands.chain([&mut self.root]) {
            if let Operand::Constant(c) = operand {
                *c = numbers[usize::from(*c)];
            }
        }
        self.constants = values.iter().map(|&v| v as f32).collect();
        self.tied = true;
        self
    }

    /// The columns it reads, in any order, possibly repeated.
    pub fn variables(&self) -> impl Iterator<Item = u16> {
        let operands = self.instructions.iter().flat_map(|i| i.operands).chain([self.root]);
        operands.filter_map(|operand| match operand {
            Operand::Variable(v) => Some(v),
            _ => None,
        })
    }
}
