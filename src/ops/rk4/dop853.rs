//! One step of the embedded pair of order 8 with estimates of order 5 and 3 and an interpolant of order 7, for a vector
//! of systems, each with its own step size.
//!
//! Dormand and Prince's method as published in Hairer, Nørsett, Wanner, "Solving Ordinary
//! Differential Equations I", 2nd edition, II.5 and II.6 (the tables below are theirs).

use super::cpu::{Level, Systems};
use crate::simd::f64s::MAX_WIDTH;

/// Non-zero coefficients: (stage, weight).
type Row = &'static [(usize, f64)];

/// Coefficients of the interpolant of one component: its value at the start, then seven more.
const COEFFICIENTS: usize = 8;

/// Components that are summed together: independent sums hide each other's latency.
const BLOCK: usize = 4;

/// A vector of systems and work space for one step of each. Rows of components are padded with zeros to a whole number
/// of blocks.
pub(super) struct Stepper<V> {
    /// Components of y, without the padding.
    size: usize,
    /// y at the start of the step.
    y: Vec<V>,
    /// y at the end of the step.
    end: Vec<V>,
    /// k of the 16 stages; the first is f(y), the 13th f(end).
    k: Vec<V>,
    stage: Vec<V>,
    /// `[coefficient, component, lane]`
    interpolant: Vec<f64>,
}

impl<V: Level> Stepper<V> {
    /// Room for `size` components.
    pub fn new(size: usize) -> Self {
        let row = size.next_multiple_of(BLOCK);
        let room = |rows: usize| vec![V::splat(0.0); rows * row];
        let interpolant = vec![0.0; COEFFICIENTS * row * V::WIDTH];
        Stepper { size, y: room(1), end: room(1), k: room(16), stage: room(1), interpolant }
    }

    /// y at the end of the last attempted step.
    pub fn end(&self) -> &[V] {
        &self.end[..self.size]
    }

    /// Puts a system into a lane; `begin` must follow.
    pub fn fill(&mut self, lane: usize, state: &[f64]) {
        for (y, value) in self.y.iter_mut().zip(state) {
            let mut lanes = [0.0; MAX_WIDTH];
            y.store(&mut lanes);
            lanes[lane] = *value;
            *y = V::load(&lanes);
        }
    }

    /// To be called after lanes have been filled.
    #[inline(always)]
    pub fn begin(&mut self, systems: &Systems<V>) {
        V::derivative(systems, &self.y, &mut self.k[..self.size]);
    }

    /// Tries a step of size `h`; returns the error in units of the tolerance, rms over components.
    #[inline(always)]
    pub fn attempt(&mut self, systems: &Systems<V>, h: V, tolerance: f64) -> V {
        for stage in 1..12 {
            self.stage(systems, h, stage);
        }
        let row = self.y.len();
        let (mut error_5, mut error_3) = (V::splat(0.0), V::splat(0.0));
        for block in (0..row).step_by(BLOCK) {
            let step = self.sums(STAGES[11], block);
            let (five, three) = (self.sums(ERROR_5, block), self.sums(ERROR_3, block));
            for i in 0..BLOCK {
                let begin = self.y[block + i];
                let end = step[i].mul_add(h, begin);
                let magnitude = end.abs().max(begin.abs());
                let unit = magnitude.mul_add(V::splat(tolerance), V::splat(tolerance)).inverse();
                let (five, three) = (five[i] * unit, three[i] * unit);
                error_5 = five.mul_add(five, error_5);
                error_3 = three.mul_add(three, error_3);
                self.end[block + i] = end;
            }
        }
        let both = error_3.mul_add(V::splat(0.01), error_5) * V::splat(self.size as f64);
        // Avoids 0 / 0 if nothing moves.
        let norm = h * error_5 * (both + V::splat(f64::MIN_POSITIVE)).inverse_sqrt();
        V::derivative(systems, &self.end, &mut self.k[12 * row..12 * row + self.size]);
        norm
    }

    /// Prepares [`Stepper::at`] for the last attempted step.
    #[inline(always)]
    pub fn interpolate(&mut self, systems: &Systems<V>, h: V) {
        for stage in 13..16 {
            self.stage(systems, h, stage);
        }
        let row = self.y.len();
        for c in 0..row {
            let change = self.end[c] - self.y[c];
            let (begin, end) = (self.k[c] * h, self.k[12 * row + c] * h);
            let lower = [self.y[c], change, begin - change, change + change - end - begin];
            for (i, value) in lower.into_iter().enumerate() {
                value.store(&mut self.interpolant[(i * row + c) * V::WIDTH..]);
            }
        }
        for (i, weights) in INTERPOLANT.into_iter().enumerate() {
            for block in (0..row).step_by(BLOCK) {
                let at = ((4 + i) * row + block) * V::WIDTH;
                for (j, sum) in self.sums(weights, block).into_iter().enumerate() {
                    (sum * h).store(&mut self.interpolant[at + j * V::WIDTH..]);
                }
            }
        }
    }

    /// The state of the system in one lane at the fractions `theta` of its step.
    #[inline(always)]
    pub fn at(&self, lane: usize, theta: V, out: &mut [V]) {
        let row = self.y.len();
        let rest = V::splat(1.0) - theta;
        for (c, out) in out.iter_mut().enumerate() {
            // f0 + θ (f1 + (1 − θ) (f2 + θ (f3 + …)))
            let mut value = V::splat(self.interpolant[(7 * row + c) * V::WIDTH + lane]);
            for i in (0..7).rev() {
                let f = V::splat(self.interpolant[(i * row + c) * V::WIDTH + lane]);
                value = value.mul_add(if i % 2 == 0 { theta } else { rest }, f);
            }
            *out = value;
        }
    }

    /// Accepts the step in the lanes where `error` < 1.
    #[inline(always)]
    pub fn accept(&mut self, error: V) {
        let row = self.y.len();
        let one = V::splat(1.0);
        for c in 0..row {
            self.y[c] = error.if_less(one, self.end[c], self.y[c]);
            self.k[c] = error.if_less(one, self.k[12 * row + c], self.k[c]);
        }
    }

    #[inline(always)]
    fn stage(&mut self, systems: &Systems<V>, h: V, stage: usize) {
        let row = self.y.len();
        for block in (0..row).step_by(BLOCK) {
            let sums = self.sums(STAGES[stage - 1], block);
            for (i, sum) in sums.into_iter().enumerate() {
                self.stage[block + i] = sum.mul_add(h, self.y[block + i]);
            }
        }
        let k = &mut self.k[stage * row..stage * row + self.size];
        V::derivative(systems, &self.stage, k);
    }

    /// Σ weight · k(stage) for one block of components.
    ///
    /// Plain loops: closures are not always inlined, and then not compiled for the vector instructions.
    #[inline(always)]
    fn sums(&self, weights: Row, block: usize) -> [V; BLOCK] {
        let row = self.y.len();
        let mut sums = [V::splat(0.0); BLOCK];
        for &(stage, weight) in weights {
            let weight = V::splat(weight);
            let k = &self.k[stage * row + block..][..BLOCK];
            for (sum, k) in sums.iter_mut().zip(k) {
                *sum = k.mul_add(weight, *sum);
            }
        }
        sums
    }
}

/// Stages 1 to 15: the combination of earlier stages for each. Row 11 (stage 12) is the step itself.
const STAGES: [Row; 15] = [
    &[(0, 0.05260015195876773)],
    &[(0, 0.0197250569845379), (1, 0.0591751709536137)],
    &[(0, 0.02958758547680685), (2, 0.08876275643042054)],
    &[(0, 0.2413651341592667), (2, -0.8845494793282861), (3, 0.924834003261792)],
    &[(0, 0.037037037037037035), (3, 0.17082860872947386), (4, 0.12546768756682242)],
    &[(0, 0.037109375), (3, 0.17025221101954405), (4, 0.06021653898045596), (5, -0.017578125)],
    &[
        (0, 0.03709200011850479),
        (3, 0.17038392571223998),
        (4, 0.10726203044637328),
        (5, -0.015319437748624402),
        (6, 0.008273789163814023),
    ],
    &[
        (0, 0.6241109587160757),
        (3, -3.3608926294469414),
        (4, -0.868219346841726),
        (5, 27.59209969944671),
        (6, 20.154067550477894),
        (7, -43.48988418106996),
    ],
    &[
        (0, 0.47766253643826434),
        (3, -2.4881146199716677),
        (4, -0.590290826836843),
        (5, 21.230051448181193),
        (6, 15.279233632882423),
        (7, -33.28821096898486),
        (8, -0.020331201708508627),
    ],
    &[
        (0, -0.9371424300859873),
        (3, 5.186372428844064),
        (4, 1.0914373489967295),
        (5, -8.149787010746927),
        (6, -18.52006565999696),
        (7, 22.739487099350505),
        (8, 2.4936055526796523),
        (9, -3.0467644718982196),
    ],
    &[
        (0, 2.273310147516538),
        (3, -10.53449546673725),
        (4, -2.0008720582248625),
        (5, -17.9589318631188),
        (6, 27.94888452941996),
        (7, -2.8589982771350235),
        (8, -8.87285693353063),
        (9, 12.360567175794303),
        (10, 0.6433927460157636),
    ],
    &[
        (0, 0.054293734116568765),
        (5, 4.450312892752409),
        (6, 1.8915178993145003),
        (7, -5.801203960010585),
        (8, 0.3111643669578199),
        (9, -0.1521609496625161),
        (10, 0.20136540080403034),
        (11, 0.04471061572777259),
    ],
    &[
        (0, 0.056167502283047954),
        (6, 0.25350021021662483),
        (7, -0.2462390374708025),
        (8, -0.12419142326381637),
        (9, 0.15329179827876568),
        (10, 0.00820105229563469),
        (11, 0.007567897660545699),
        (12, -0.008298),
    ],
    &[
        (0, 0.03183464816350214),
        (5, 0.028300909672366776),
        (6, 0.053541988307438566),
        (7, -0.05492374857139099),
        (10, -0.00010834732869724932),
        (11, 0.0003825710908356584),
        (12, -0.00034046500868740456),
        (13, 0.1413124436746325),
    ],
    &[
        (0, -0.42889630158379194),
        (5, -4.697621415361164),
        (6, 7.683421196062599),
        (7, 4.06898981839711),
        (8, 0.3567271874552811),
        (12, -0.0013990241651590145),
        (13, 2.9475147891527724),
        (14, -9.15095847217987),
    ],
];

/// The error of the step, estimated at order 5.
const ERROR_5: Row = &[
    (0, 0.01312004499419488),
    (5, -1.2251564463762044),
    (6, -0.4957589496572502),
    (7, 1.6643771824549864),
    (8, -0.35032884874997366),
    (9, 0.3341791187130175),
    (10, 0.08192320648511571),
    (11, -0.022355307863886294),
];

/// The error of the step, estimated at order 3.
const ERROR_3: Row = &[
    (0, -0.18980075407240762),
    (5, 4.450312892752409),
    (6, 1.8915178993145003),
    (7, -5.801203960010585),
    (8, -0.4226823213237919),
    (9, -0.1521609496625161),
    (10, 0.20136540080403034),
    (11, 0.02265179219836082),
];

/// The upper four coefficients of the interpolant.
const INTERPOLANT: [Row; 4] = [
    &[
        (0, -8.428938276109013),
        (5, 0.5667149535193777),
        (6, -3.0689499459498917),
        (7, 2.38466765651207),
        (8, 2.117034582445028),
        (9, -0.871391583777973),
        (10, 2.2404374302607883),
        (11, 0.6315787787694688),
        (12, -0.08899033645133331),
        (13, 18.148505520854727),
        (14, -9.194632392478356),
        (15, -4.436036387594894),
    ],
    &[
        (0, 10.427508642579134),
        (5, 242.28349177525817),
        (6, 165.20045171727028),
        (7, -374.5467547226902),
        (8, -22.113666853125306),
        (9, 7.733432668472264),
        (10, -30.674084731089398),
        (11, -9.332130526430229),
        (12, 15.697238121770845),
        (13, -31.139403219565178),
        (14, -9.35292435884448),
        (15, 35.81684148639408),
    ],
    &[
        (0, 19.985053242002433),
        (5, -387.0373087493518),
        (6, -189.17813819516758),
        (7, 527.8081592054236),
        (8, -11.57390253995963),
        (9, 6.8812326946963),
        (10, -1.0006050966910838),
        (11, 0.7777137798053443),
        (12, -2.778205752353508),
        (13, -60.19669523126412),
        (14, 84.32040550667716),
        (15, 11.99229113618279),
    ],
    &[
        (0, -25.69393346270375),
        (5, -154.18974869023643),
        (6, -231.5293791760455),
        (7, 357.6391179106141),
        (8, 93.40532418362432),
        (9, -37.45832313645163),
        (10, 104.0996495089623),
        (11, 29.8402934266605),
        (12, -43.53345659001114),
        (13, 96.32455395918828),
        (14, -39.17726167561544),
        (15, -149.72683625798564),
    ],
];
