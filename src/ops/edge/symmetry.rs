//! What a network on a graph need not learn: that a periodic box has no centre and no preferred axis.
//!
//! No centre: φe depends on the displacement alone if the weights of the receiver's coordinates are minus those of the
//! sender's, and φv does not depend on the position if its weights are 0. [`centre`] starts there, and [`project`]
//! keeps gradients there; Adam then stays there exactly.
//!
//! No preferred axis: permuting and reflecting the axes of a cube maps the box onto itself. A network with transformed
//! inputs is one whose first layers have their columns transformed inversely, so each step transforms the weights and
//! transforms the gradient back, and no feature is touched.
//!
//! The first features of a node are its position and its velocity.

use crate::model::{Arena, Layer};
use crate::random::Random;

/// Axes of space.
const DIM: usize = 3;

/// One of the 48 maps of a cube onto itself: x'[k] = sign[k] · x[axis[k]].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    pub(super) axis: [usize; DIM],
    pub(super) sign: [f32; DIM],
}

impl Turn {
    /// One at random.
    pub fn random(random: &mut Random) -> Self {
        let mut axis = [0, 1, 2];
        for last in [2, 1] {
            axis.swap(last, random.below(last + 1));
        }
        let sign = [(); DIM].map(|()| if random.below(2) == 0 { 1.0 } else { -1.0 });
        Turn { axis, sign }
    }

    /// The parameters of the network that does to plain inputs what `parameters` does to transformed ones.
    pub fn apply(&self, arena: &Arena, parameters: &mut [f32]) {
        // W x' with x'[k] = s[k] x[a[k]] has in column a[k] what W has in k, times s[k].
        self.columns(arena, parameters, |turn, values| {
            let mut out = [0.0; DIM];
            for k in 0..DIM {
                out[turn.axis[k]] = turn.sign[k] * values[k];
            }
            out
        });
    }

    /// The inverse, for gradients.
    pub fn undo(&self, arena: &Arena, gradients: &mut [f32]) {
        self.columns(arena, gradients, |turn, values| {
            let mut out = [0.0; DIM];
            for k in 0..DIM {
                out[k] = turn.sign[k] * values[turn.axis[k]];
            }
            out
        });
    }

    /// Maps each triple of columns that belongs to a vector: positions and velocities.
    fn columns(
        &self,
        arena: &Arena,
        values: &mut [f32],
        map: impl Fn(&Turn, [f32; DIM]) -> [f32; DIM],
    ) {
        let mut layer = |layer: &Layer, firsts: &[usize]| {
            for row in values[layer.weight.clone()].chunks_exact_mut(layer.inputs) {
                for &first in firsts {
                    let triple: &mut [f32; DIM] =
                        (&mut row[first..first + DIM]).try_into().expect("three of three");
                    *triple = map(self, *triple);
                }
            }
        };
        let (vectors, sender) = ([0, DIM], features(arena));
        let both = [0, DIM, sender, sender + DIM];
        layer(&arena.edge[0], &both);
        layer(&arena.node[0], &vectors);
    }
}

/// Makes a network depend on displacements only.
pub fn centre(arena: &Arena, parameters: &mut [f32]) {
    displacements(arena, parameters, DIM);
    drop_position(arena, parameters, DIM);
}

/// Projects a gradient so that the network keeps depending on displacements only.
pub fn project(arena: &Arena, gradients: &mut [f32]) {
    project_displacements(arena, gradients, DIM);
    drop_position(arena, gradients, DIM);
}

/// Makes φe depend on displacements only, where the first `axes` features are a position.
pub fn displacements(arena: &Arena, parameters: &mut [f32], axes: usize) {
    let (layer, sender) = (&arena.edge[0], features(arena));
    for row in parameters[layer.weight.clone()].chunks_exact_mut(layer.inputs) {
        for k in 0..axes {
            row[k] = -row[sender + k];
        }
    }
}

/// Projects a gradient so that φe keeps depending on displacements only, where the first `axes` features are a
/// position.
pub fn project_displacements(arena: &Arena, gradients: &mut [f32], axes: usize) {
    let (layer, sender) = (&arena.edge[0], features(arena));
    for row in gradients[layer.weight.clone()].chunks_exact_mut(layer.inputs) {
        for k in 0..axes {
            let along = 0.5 * (row[sender + k] - row[k]);
            (row[sender + k], row[k]) = (along, -along);
        }
    }
}

/// Number of features of a node.
fn features(arena: &Arena) -> usize {
    arena.edge[0].inputs / 2
}

/// Makes φv (or a gradient of it) independent of the position, which is the first `axes` features.
pub fn drop_position(arena: &Arena, values: &mut [f32], axes: usize) {
    let layer = &arena.node[0];
    for row in values[layer.weight.clone()].chunks_exact_mut(layer.inputs) {
        row[..axes].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Shape;
    use crate::ops::mlp::{Rounding, reference};

    fn shape() -> Shape {
        Shape { n_features: 7, message_dim: 4, outputs: 1, hidden: 9, layers: 2, sampled: false }
    }

    fn random(len: usize, stream: u64) -> Vec<f32> {
        let mut random = Random::new(8, stream);
        (0..len).map(|_| random.normal() as f32).collect()
    }

    /// φe of these inputs.
    fn messages(parameters: &[f32], inputs: &[f32]) -> Vec<f64> {
        let parameters: Vec<f64> = parameters.iter().map(|&p| p.into()).collect();
        let inputs = inputs.iter().map(|&x| x.into()).collect();
        let layers = shape().arena().edge;
        reference(&layers, &parameters, inputs, Rounding::Exact).last().unwrap().clone()
    }

    #[test]
    fn turned_weights_on_plain_inputs_are_plain_weights_on_turned_inputs() {
        let arena = shape().arena();
        let parameters = random(arena.len, 0);
        let mut source = Random::new(4, 0);
        for _ in 0..20 {
            let turn = Turn::random(&mut source);
            let inputs = random(14, 1);
            let mut turned = inputs.clone();
            for first in [0, 3, 7, 10] {
                for k in 0..3 {
                    turned[first + k] = turn.sign[k] * inputs[first + turn.axis[k]];
                }
            }
            let mut moved = parameters.clone();
            turn.apply(&arena, &mut moved);
            let (a, b) = (messages(&moved, &inputs), messages(&parameters, &turned));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "{turn:?}");
            turn.undo(&arena, &mut moved);
            assert_eq!(moved, parameters);
        }
    }

    #[test]
    fn a_centred_network_sees_displacements_alone_and_gradients_keep_it_so() {
        let arena = shape().arena();
        let mut parameters = random(arena.len, 0);
        centre(&arena, &mut parameters);
        let inputs = random(14, 1);
        let mut shifted = inputs.clone();
        for k in 0..3 {
            shifted[k] += 3.5;
            shifted[7 + k] += 3.5;
        }
        let (a, b) = (messages(&parameters, &inputs), messages(&parameters, &shifted));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
        let mut gradients = random(arena.len, 2);
        project(&arena, &mut gradients);
        let mut twice = gradients.clone();
        project(&arena, &mut twice);
        assert_eq!(gradients, twice);
        let mut moved: Vec<f32> = parameters.iter().zip(&gradients).map(|(p, g)| p - g).collect();
        let before = moved.clone();
        centre(&arena, &mut moved);
        assert_eq!(moved, before, "a step along the gradient leaves it centred");
    }
}
