//! exp, log, pow, sin, cos, tanh, asin, acos and atan on vectors of f32, within 4 ulp (tests measure it).
//!
//! Ranges are reduced exactly with fused multiply-adds; the polynomials are those of Cephes (Moshier
//! 1984-1992, single precision). `pow` carries the logarithm in two f32, because its error is
//! multiplied by up to 128 before the exponential.

use super::f32s::Vector;
use std::f32::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_4, LN_2, LOG2_E, PI, SQRT_2};

/// The functions, for `f32s.rs`, each with its f64 counterpart as the readable reference.
macro_rules! functions {
    ($take:ident) => {
        $take! {
            exp() = exp;
            log() = ln;
            pow(b) = powf;
            sin() = sin;
            cos() = cos;
            tanh() = tanh;
            asin() = asin;
            acos() = acos;
            atan() = atan;
        }
    };
}
pub(super) use functions;

/// Brings a mantissa in [1, 2) into [√½, √2], and adjusts the exponent.
#[inline(always)]
pub(super) fn centre<V: Vector>(m: V, e: V) -> (V, V) {
    let root = V::splat(SQRT_2);
    let half = V::splat(0.5);
    let one = V::splat(1.0);
    (m.where_greater(root, m.mul(half), m), m.where_greater(root, e.add(one), e))
}

/// c[0] xⁿ + … + c[n].
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(x: V, c: [f32; N]) -> V {
    let mut y = V::splat(c[0]);
    for &c in &c[1..] {
        y = y.fma(x, V::splat(c));
    }
    y
}

/// e^r for |r| ≤ ln(2)/2.
#[inline(always)]
fn exp_reduced<V: Vector>(r: V) -> V {
    let c = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    polynomial(r, c).fma(r.mul(r), r).add(V::splat(1.0))
}

#[inline(always)]
pub(super) fn exp<V: Vector>(x: V) -> V {
    // Beyond ±200 the result is infinity or zero in any case. (A NaN comes out as a number: the kernels require finite
    // operands of exp, pow, tanh and atan.)
    let x = x.max(V::splat(-200.0)).min(V::splat(200.0));
    let n = x.mul(V::splat(LOG2_E)).round();
    let r = n.fma(V::splat(-0.693_359_4), x);
    let r = n.fma(V::splat(2.121_944_4e-4), r);
    exp_reduced(r).scale(n)
}

#[inline(always)]
pub(super) fn log<V: Vector>(x: V) -> V {
    let (m, e) = x.split();
    let f = m.sub(V::splat(1.0));
    let z = f.mul(f);
    let c = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let y = polynomial(f, c).mul(f).mul(z);
    let y = e.fma(V::splat(-2.121_944_4e-4), y);
    let y = z.fma(V::splat(-0.5), y);
    let y = e.fma(V::splat(0.693_359_4), f.add(y));
    let zero = V::splat(0.0);
    let outside = x.abs().where_greater(zero, V::splat(f32::NAN), V::splat(f32::NEG_INFINITY));
    // NaN is neither greater nor less than zero: x + x keeps it.
    let outside = outside.add(x.abs().mul(zero));
    let infinite = x.where_greater(V::splat(f32::MAX), x, y);
    x.where_greater(zero, infinite, outside)
}

#[inline(always)]
pub(super) fn pow<V: Vector>(x: V, b: V) -> V {
    let (zero, one) = (V::splat(0.0), V::splat(1.0));
    // log2 of the mantissa from its atanh series in s = (m − 1) / (m + 1), as high + low.
    let (m, e) = x.split();
    let f = m.sub(one);
    let d = m.add(one);
    let d_low = m.sub(d.sub(one));
    let s = f.div(d);
    let minus_s = zero.sub(s);
    let s_low = minus_s.fma(d_low, minus_s.fma(d, f)).div(d);
    let q = s.mul(s);
    let series = polynomial(q, [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 0.2, 1.0 / 3.0]);
    let tail = series.mul(q).fma(s, s_low);
    // 2 / ln 2, as high + low.
    let (k, k_low) = (V::splat(2.885_39), V::splat(3.851_926e-8));
    let high = s.mul(k);
    let low = tail.fma(k, s.fma(k_low, s.fma(k, zero.sub(high))));
    let sum = e.add(high);
    let sum_low = e.sub(sum).add(high).add(low);
    // 2^(b · log2 x); beyond ±300 infinity or zero in any case.
    let p = b.mul(sum);
    let p_low = b.fma(sum_low, b.fma(sum, zero.sub(p)));
    let far = p.abs().sub(V::splat(300.0));
    let p_low = far.where_greater(zero, zero, p_low);
    let p = p.max(V::splat(-300.0)).min(V::splat(300.0));
    let n = p.round();
    let size = exp_reduced(p.sub(n).add(p_low).mul(V::splat(LN_2))).scale(n);
    // For a negative base: the sign of an odd power, NaN for a non-integer power.
    let fraction = b.sub(b.round()).abs();
    let half = b.mul(V::splat(0.5));
    let odd = half.sub(half.round()).abs();
    let signed = odd.where_greater(zero, zero.sub(size), size);
    let negative = fraction.where_greater(zero, V::splat(f32::NAN), signed);
    let nothing = b.where_greater(zero, zero, V::splat(f32::INFINITY));
    let value = x.where_greater(zero, size, zero.where_greater(x, negative, nothing));
    b.abs().where_greater(zero, value, one)
}

/// sin and cos of |x| beyond this go through f64, lane by lane.
const FAR: f32 = 1e4;

/// x − n π/2 in [−π/4, π/4], and n.
#[inline(always)]
fn quadrant<V: Vector>(x: V) -> (V, V) {
    let n = x.mul(V::splat(FRAC_2_PI)).round();
    // π/2 in three parts; each product is exact inside the fused multiply-add.
    let r = n.fma(V::splat(-1.570_796_4), x);
    let r = n.fma(V::splat(4.371_139e-8), r);
    (n.fma(V::splat(1.715_12e-15), r), n)
}

/// sin(r + n π/2).
#[inline(always)]
fn wave<V: Vector>(r: V, n: V) -> V {
    let z = r.mul(r);
    let sin = polynomial(z, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]).mul(z).fma(r, r);
    let cos = polynomial(z, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let cos = cos.mul(z).fma(z, z.fma(V::splat(-0.5), V::splat(1.0)));
    let (zero, half) = (V::splat(0.0), n.mul(V::splat(0.5)));
    // n odd: cosine; n mod 4 in {2, 3}: the sign changes.
    let value = half.sub(half.round()).abs().where_greater(zero, cos, sin);
    let quarter = n.mul(V::splat(0.25));
    let turn = quarter.sub(quarter.round());
    // n mod 4 = 0, 1, 2, 3 gives 0, 0.25, ±0.5, −0.25.
    let second = turn.abs().where_greater(V::splat(0.4), V::splat(-1.0), V::splat(1.0));
    let sign = V::splat(-0.1).where_greater(turn, V::splat(-1.0), second);
    value.mul(sign)
}

#[inline(always)]
fn is_far<V: Vector>(x: V) -> bool {
    let mut values = [0.0f32; 16];
    // SAFETY: a vector has at most 16 lanes.
    unsafe { x.store(values.as_mut_ptr()) };
    values.iter().any(|x| x.is_nan() || x.abs() > FAR)
}

#[inline(always)]
pub(super) fn sin<V: Vector>(x: V) -> V {
    if is_far(x) {
        return x.lane_by_lane(f64::sin);
    }
    let (r, n) = quadrant(x);
    wave(r, n)
}

#[inline(always)]
pub(super) fn cos<V: Vector>(x: V) -> V {
    if is_far(x) {
        return x.lane_by_lane(f64::cos);
    }
    let (r, n) = quadrant(x);
    wave(r, n.add(V::splat(1.0)))
}

#[inline(always)]
pub(super) fn tanh<V: Vector>(x: V) -> V {
    let z = x.mul(x);
    let c = [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
    let near = polynomial(z, c).mul(z).fma(x, x);
    let size = x.abs();
    let (one, two) = (V::splat(1.0), V::splat(2.0));
    let far = one.sub(two.div(exp(size.add(size).min(V::splat(100.0))).add(one)));
    let signed = x.where_greater(V::splat(0.0), far, V::splat(0.0).sub(far));
    size.where_greater(V::splat(0.625), signed, near)
}

/// π/2 − the nearest f32.
const REST: f32 = -4.371_139e-8;

/// asin(x) for 0 ≤ x ≤ ½ (or −x), given z = x².
#[inline(always)]
fn asin_reduced<V: Vector>(x: V, z: V) -> V {
    let c = [4.216_32e-2, 2.418_131e-2, 4.547_002_6e-2, 7.495_300_3e-2, 1.666_675_2e-1];
    polynomial(z, c).mul(z).fma(x, x)
}

/// (asin |x|, asin √((1 − |x|)/2)): the second is half the difference between π/2 and the first. Use the first for |x|
/// ≤ ½, the second above; NaN above 1.
#[inline(always)]
fn asin_parts<V: Vector>(x: V) -> V {
    let size = x.abs();
    let half = V::splat(0.5);
    let z = half.mul(V::splat(1.0).sub(size));
    let z = size.where_greater(half, z, size.mul(size));
    asin_reduced(size.where_greater(half, z.sqrt(), size), z)
}

#[inline(always)]
pub(super) fn asin<V: Vector>(x: V) -> V {
    let part = asin_parts(x);
    let far = V::splat(FRAC_PI_2).sub(part.add(part).sub(V::splat(REST)));
    let value = x.abs().where_greater(V::splat(0.5), far, part);
    V::splat(0.0).where_greater(x, V::splat(0.0).sub(value), value)
}

#[inline(always)]
pub(super) fn acos<V: Vector>(x: V) -> V {
    let (zero, half) = (V::splat(0.0), V::splat(0.5));
    let part = asin_parts(x);
    let twice = part.add(part);
    let signed = zero.where_greater(x, zero.sub(part), part);
    let near = V::splat(FRAC_PI_2).sub(signed.sub(V::splat(REST)));
    let below = V::splat(PI).sub(twice.sub(V::splat(2.0 * REST)));
    let value = V::splat(-0.5).where_greater(x, below, near);
    x.where_greater(half, twice, value)
}

#[inline(always)]
pub(super) fn atan<V: Vector>(x: V) -> V {
    // Above tan 67.5° counting down from π/2, above tan 22.5° from π/4.
    let (zero, one, size) = (V::splat(0.0), V::splat(1.0), x.abs());
    let (middle, far) = (V::splat(0.414_213_57), V::splat(2.414_213_7));
    let above = size.where_greater(middle, size.sub(one), size);
    let below = size.where_greater(middle, size.add(one), one);
    let from = size.where_greater(middle, V::splat(FRAC_PI_4), zero);
    let above = size.where_greater(far, V::splat(-1.0), above);
    let below = size.where_greater(far, size, below);
    let from = size.where_greater(far, V::splat(FRAC_PI_2), from);
    let r = above.div(below);
    let z = r.mul(r);
    let c = [8.053_744_5e-2, -1.387_768_6e-1, 1.997_771_1e-1, -3.333_295e-1];
    let value = from.add(polynomial(z, c).mul(z).fma(r, r));
    zero.where_greater(x, zero.sub(value), value)
}
