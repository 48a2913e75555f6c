//! Every vector level against the f64 reference: values, losses, validity, gradients, fits.

use super::lanes::Lanes;
use super::selftest::table as rows;
use super::*;
use crate::device::{Cpu, Simd};
use crate::random::Random;
use crate::symbolic::expression::{Expression, Op};

const NAMES: [&str; 3] = ["x", "y", "z"];

fn devices() -> impl Iterator<Item = Device> {
    Simd::available().into_iter().map(|simd| Device::Cpu(Cpu { simd }))
}

fn cpu(device: &Device) -> Cpu {
    match device {
        Device::Cpu(cpu) => *cpu,
        Device::Gpu(gpu) => unreachable!("{gpu:?} is no processor"),
    }
}

fn parse(text: &str) -> Expression {
    Expression::parse(text, &NAMES).unwrap()
}

/// A random expression of about `size` nodes.
fn random_expression(random: &mut Random, size: usize) -> Expression {
    let leaf = |random: &mut Random| match random.below(4) {
        3 => Expression::constant(random.normal()),
        v => Expression::variable(v as u16),
    };
    let mut parts: Vec<Expression> = (0..size).map(|_| leaf(random)).collect();
    while parts.len() > 1 {
        let op = Op::ALL[random.below(Op::ALL.len())];
        if op.arity() <= parts.len() {
            let operands: Vec<Expression> =
                (0..op.arity()).map(|_| parts.swap_remove(random.below(parts.len()))).collect();
            parts.push(Expression::apply(op, &operands));
        }
    }
    parts.remove(0)
}

/// Compiles `function` for a level and applies it to `x`, `y`.
macro_rules! at_every_level {
    ($check:expr, $x:expr, $y:expr, |$a:ident, $b:ident| $value:expr) => {{
        #[inline(always)]
        unsafe fn generic<L: Lanes>(x: &[f32; 16], y: &[f32; 16]) -> [f32; 16] {
            let mut out = [f32::NAN; 16];
            for i in (0..16).step_by(L::N) {
                // SAFETY: sixteen values are a whole number of vectors.
                unsafe {
                    let ($a, $b) = (L::load(x.as_ptr().add(i)), L::load(y.as_ptr().add(i)));
                    let _ = $b;
                    L::store($value, out.as_mut_ptr().add(i));
                }
            }
            out
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn v8(x: &[f32; 16], y: &[f32; 16]) -> [f32; 16] {
            unsafe { generic::<super::lanes::V8>(x, y) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn v16(x: &[f32; 16], y: &[f32; 16]) -> [f32; 16] {
            unsafe { generic::<super::lanes::V16>(x, y) }
        }
        for level in Simd::available() {
            // SAFETY: the processor has the level.
            let out = unsafe {
                match level {
                    #[cfg(target_arch = "x86_64")]
                    Simd::Avx2 => v8($x, $y),
                    #[cfg(target_arch = "x86_64")]
                    Simd::Avx512 | Simd::Avx512Bf16 => v16($x, $y),
                    _ => generic::<f32>($x, $y),
                }
            };
            for i in 0..16 {
                $check(level, $x[i], $y[i], out[i]);
            }
        }
    }};
}

/// Distance in units of the last place of the result; subnormal results count in their own unit.
fn ulps(found: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if found == rounded || (found.is_nan() && rounded.is_nan()) {
        return 0.0;
    }
    if !found.is_finite() || !rounded.is_finite() {
        // The edge of overflow may fall on either side.
        let edge = exact.abs() > 3.402_81e38 && found.abs() > 3.402_81e38;
        return if edge { 0.0 } else { f64::INFINITY };
    }
    let exponent = (rounded.abs().max(f32::MIN_POSITIVE)).log2().floor();
    (f64::from(found) - exact).abs() / f64::from((exponent - 23.0).exp2())
}

#[test]
fn functions_are_within_four_ulp() {
    let mut random = Random::new(5, 0);
    let mut worst = [0.0f64; 6];
    let mut record = |which: usize, level: Simd, x: f32, y: f32, found: f32, exact: f64| {
        let error = ulps(found, exact);
        assert!(
            error <= 4.0,
            "{level:?} function {which} of {x:e}, {y:e}: {found:e} not {exact:e}"
        );
        worst[which] = worst[which].max(error);
    };
    for round in 0..20_000 {
        // Bits at random reach every magnitude; normal numbers the usual ones.
        let wild = round % 4 == 0;
        let mut draw = |spread: f64| -> [f32; 16] {
            std::array::from_fn(|_| {
                loop {
                    let x = if wild {
                        f32::from_bits(random.word())
                    } else {
                        (random.normal() * spread) as f32
                    };
                    if x.is_finite() {
                        break x;
                    }
                }
            })
        };
        let (x, y) = (draw(20.0), draw(3.0));
        let mut small = draw(2.0);
        at_every_level!(
            |l, x: f32, y, f| record(0, l, x, y, f, f64::from(x).exp()),
            &x,
            &y,
            |a, b| a.exp()
        );
        at_every_level!(
            |l, x: f32, y, f| record(1, l, x, y, f, f64::from(x).ln()),
            &x,
            &y,
            |a, b| a.log()
        );
        at_every_level!(
            |l, x: f32, y, f| record(2, l, x, y, f, f64::from(x).sin()),
            &x,
            &y,
            |a, b| a.sin()
        );
        at_every_level!(
            |l, x: f32, y, f| record(3, l, x, y, f, f64::from(x).cos()),
            &x,
            &y,
            |a, b| a.cos()
        );
        at_every_level!(
            |l, x: f32, y, f| record(4, l, x, y, f, f64::from(x).tanh()),
            &small,
            &y,
            |a, b| a.tanh()
        );
        let mut powers = y;
        if round % 2 == 0 {
            // Whole powers, for negative bases.
            powers = powers.map(|y| if y.abs() < 100.0 { y.round() } else { y });
            small = small.map(|x| if x.abs() < 0.1 { 0.0 } else { x });
        }
        at_every_level!(
            |l, x: f32, y: f32, f| record(5, l, x, y, f, f64::from(x).powf(f64::from(y))),
            &small,
            &powers,
            |a, b| a.pow(b)
        );
    }
    println!("worst ulp of exp, log, sin, cos, tanh, pow: {worst:.2?}");
}

#[test]
fn losses_agree_with_the_reference() {
    let mut random = Random::new(1, 0);
    let mut valid = 0;
    for case in 0..300 {
        let rows =
            rows([1, 15, 16, 17, 511, 512, 513, 1300][case % 8], case as u64, |a, b, c| a * b + c);
        let size = 1 + random.below(14);
        let e = random_expression(&mut random, size);
        for loss in [Loss::Mae, Loss::Mse] {
            let exact = reference(&rows, &e, 1.0, 0.0, loss);
            // The same in f32 by plain Rust: its error is the measure (and its range the limit).
            let naive =
                score(&Device::Cpu(Cpu { simd: Simd::Scalar }), &rows, &[Program::new(&e)], loss)
                    .unwrap()[0];
            for device in devices() {
                let found = score(&device, &rows, &[Program::new(&e)], loss).unwrap()[0];
                let error = (found - exact).abs() / exact.abs();
                let limit = 2.0 * (naive - exact).abs() / exact.abs() + 1e-6;
                if exact.is_infinite() || naive.is_infinite() {
                    assert_eq!(found.is_infinite(), naive.is_infinite(), "{}", e.text(&NAMES));
                } else if limit < 1e-2 {
                    // Beyond that a comparison has flipped or an angle was lost to rounding.
                    assert!(
                        error <= 4.0 * limit,
                        "{device:?} {}: {found} {naive} {exact}",
                        e.text(&NAMES)
                    );
                    valid += 1;
                }
            }
        }
    }
    assert!(valid > 500, "too few valid expressions to mean anything: {valid}");
}

#[test]
fn an_infinity_anywhere_invalidates() {
    let rows = rows(100, 3, |a, _, _| a);
    let invalid = [
        "1 / (1 / (x - x))",
        "IF(z, 1, log(-z))",
        "IF(-z, log(-z), 1)",
        "(1 / (y - y) > x)",
        "min(x, log(-z))",
        "max(x, -1 / (y - y))",
        "exp(-1 / abs(y - y))",
        "tanh(1 / (y - y))",
        "(z / (y - y))^(-1)",
        "(log(-z))^(x - x)",
        "sin(1 / (x - x))",
        "sqrt(-z)",
        "exp(1e3 * z + 1e3)",
        "(-z)^0.5",
    ];
    for device in devices() {
        for text in invalid {
            let program = Program::new(&parse(text));
            let settings = Fit { loss: Loss::Mae, steps: 3, scaled: true, tolerance: 0.0 };
            assert_eq!(
                score(&device, &rows, std::slice::from_ref(&program), Loss::Mae).unwrap()[0],
                f64::INFINITY,
                "{text}"
            );
            assert_eq!(
                fit(&device, &rows, &[program], settings).unwrap()[0].loss,
                f64::INFINITY,
                "{text}"
            );
        }
        let valid = Program::new(&parse("IF(z - 1, z, -z) + (x > y) + max(x, y)^2"));
        assert!(score(&device, &rows, &[valid], Loss::Mse).unwrap()[0].is_finite());
    }
}

#[test]
fn shapes_that_disagree_are_errors() {
    assert!(Rows::new(&[vec![1.0]], &[], None).is_err());
    assert!(Rows::new(&[vec![1.0]], &[1.0, 2.0], None).is_err());
    assert!(Rows::new(&[vec![f32::NAN]], &[1.0], None).is_err());
    assert!(Rows::new(&[vec![1.0]], &[1.0], Some(&[0.0])).is_err());
    let rows = Rows::new(&[vec![1.0]], &[1.0], None).unwrap();
    let program = Program::new(&parse("y"));
    assert!(score(&Device::cpu(), &rows, &[program], Loss::Mae).is_err());
}

#[test]
fn gradients_agree_with_differences() {
    let mut random = Random::new(2, 0);
    let mut compared = 0;
    for case in 0..400 {
        let rows = rows([1, 17, 255, 256, 300][case % 5], case as u64, |a, b, c| a - b * c);
        let size = 2 + random.below(12);
        let e = random_expression(&mut random, size);
        let constants = e.constants();
        let slope = |k: usize, h: f64| {
            let at = |shift: f64| {
                let mut moved = e.clone();
                let mut values = constants.clone();
                values[k] = f64::from(values[k] as f32) + shift;
                moved.set_constants(&values);
                reference(&rows, &moved, 1.0, 0.0, Loss::Mse)
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        for device in devices() {
            let (loss, found) = cpu::gradient(cpu(&device), &rows, &Program::new(&e));
            for (k, &found) in found.iter().enumerate() {
                let (coarse, fine) = (slope(k, 2e-5), slope(k, 1e-5));
                let size = fine.abs() + loss + 1e-3;
                if !loss.is_finite() || loss > 1e6 || (coarse - fine).abs() > 1e-4 * size {
                    continue;
                }
                assert!(
                    (found - fine).abs() < 2e-3 * size,
                    "{device:?} {}: {found} {fine}",
                    e.text(&NAMES)
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "too few gradients to mean anything: {compared}");
}

#[test]
fn fits_find_known_constants() {
    let settings = |loss| Fit { loss, steps: 40, scaled: true, tolerance: 1e-9 };
    let noisy = rows(2000, 9, |a, b, c| 1.7 * (a + 0.4 * b) * (0.9 - 1.3 / (c + 0.5)) - 0.25);
    let start = parse("(x + 1 * y) * (1 - 1 / (z + 1))");
    for device in devices() {
        for loss in [Loss::Mae, Loss::Mse] {
            let program = Program::new(&start);
            let fitted = &fit(&device, &noisy, &[program], settings(loss)).unwrap()[0];
            assert!(fitted.loss < 1e-5, "{device:?} {loss:?}: {fitted:?}");
            assert!((fitted.constants[0] - 0.4).abs() < 1e-4, "{fitted:?}");
            assert!((fitted.offset + 0.25).abs() < 1e-4, "{fitted:?}");
        }
    }
}

#[test]
fn every_level_passes_the_selftest() {
    for device in devices() {
        for check in selftest::checks(&device).unwrap() {
            assert!(check.passed(), "{device:?}: {check:?}");
        }
    }
}

#[test]
fn gpu_agrees_with_the_reference() {
    crate::ops::assert_gpu_passes(selftest::checks);
}
