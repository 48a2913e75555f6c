//! Every vector level against the f64 reference: values, losses, validity, gradients, fits.

use super::selftest::table as rows;
use super::*;
use crate::device::{Cpu, Simd};
use crate::formula::expression::{Expression, Node, Op};
use crate::random::Random;
use crate::simd::f32s::Lanes;

const NAMES: [&str; 3] = ["x", "y", "z"];

fn devices() -> impl Iterator<Item = Device> {
    Simd::available().into_iter().map(|simd| Device::Cpu(Cpu::with(simd).unwrap()))
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
            // SAFETY: the target features are those of the lanes.
            unsafe { generic::<crate::simd::f32s::F32x8>(x, y) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn v16(x: &[f32; 16], y: &[f32; 16]) -> [f32; 16] {
            // SAFETY: the target features are those of the lanes.
            unsafe { generic::<crate::simd::f32s::F32x16>(x, y) }
        }
        for level in Simd::available() {
            // SAFETY: the CPU has the level.
            let out = unsafe {
                match level.vectors() {
                    #[cfg(target_arch = "x86_64")]
                    Simd::Avx2 => v8($x, $y),
                    #[cfg(target_arch = "x86_64")]
                    Simd::Avx512 => v16($x, $y),
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
        // Near overflow either side is allowed.
        let edge = exact.abs() > 3.402_81e38 && found.abs() > 3.402_81e38;
        return if edge { 0.0 } else { f64::INFINITY };
    }
    let exponent = (rounded.abs().max(f32::MIN_POSITIVE)).log2().floor();
    (f64::from(found) - exact).abs() / f64::from((exponent - 23.0).exp2())
}

/// The kernels' `smaller` and `larger` are the same to the bit (`kernels/host/selfcheck.cpp`).
#[test]
fn of_equal_operands_and_beside_a_nan_min_and_max_are_the_second() {
    let values = [0.0, -0.0, 1.5, f32::NAN];
    let x: [f32; 16] = std::array::from_fn(|i| values[i / 4]);
    let y: [f32; 16] = std::array::from_fn(|i| values[i % 4]);
    let second = |x: f32, y: f32| x == y || x.is_nan() || y.is_nan();
    let check = |op: &str, level: Simd, [x, y, found]: [f32; 3], other: f32| {
        let expected = if second(x, y) { y } else { other };
        assert_eq!(found.to_bits(), expected.to_bits(), "{op} of {x}, {y}: {found}, {level:?}");
    };
    at_every_level!(
        |l, x: f32, y: f32, f: f32| check("min", l, [x, y, f], if x < y { x } else { y }),
        &x,
        &y,
        |a, b| a.min(b)
    );
    at_every_level!(
        |l, x: f32, y: f32, f: f32| check("max", l, [x, y, f], if x > y { x } else { y }),
        &x,
        &y,
        |a, b| a.max(b)
    );
}

#[test]
fn functions_are_within_four_ulp() {
    let mut random = Random::new(5, 0);
    let mut worst = [0.0f64; 9];
    let mut record = |which: usize, level: Simd, x: f32, y: f32, found: f32, exact: f64| {
        let error = ulps(found, exact);
        assert!(
            error <= 4.0,
            "{level:?} function {which} of {x:e}, {y:e}: {found:e} not {exact:e}"
        );
        worst[which] = worst[which].max(error);
    };
    for round in 0..20_000 {
        // Random bits reach every magnitude; normal numbers the usual ones.
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
        at_every_level!(
            |l, x: f32, y, f| record(6, l, x, y, f, f64::from(x).asin()),
            &small,
            &y,
            |a, b| a.asin()
        );
        at_every_level!(
            |l, x: f32, y, f| record(7, l, x, y, f, f64::from(x).acos()),
            &small,
            &y,
            |a, b| a.acos()
        );
        at_every_level!(
            |l, x: f32, y, f| record(8, l, x, y, f, f64::from(x).atan()),
            &small,
            &y,
            |a, b| a.atan()
        );
        let mut powers = y;
        if round % 2 == 0 {
            // Integer powers, for negative bases.
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
    println!("worst ulp of exp, log, sin, cos, tanh, pow, asin, acos, atan: {worst:.2?}");
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
            // The same in f32 with plain Rust: its error is the yardstick (and its range the limit).
            let naive = score(
                &Device::Cpu(Cpu::with(Simd::Scalar).unwrap()),
                &rows,
                &[Program::new(&e)],
                loss,
            )
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
    let least = 125 * devices().count();
    assert!(valid > least, "too few valid expressions to mean anything: {valid}");
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
        "atan(1 / (y - y))",
        "asin(1 + z)",
        "acos(-1 - z)",
        "asin(1 / (y - y)) - asin(1 / (y - y))",
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
    for case in 0..500 {
        let rows = rows([1, 17, 255, 256, 300][case % 5], case as u64, |a, b, c| a - b * c);
        let size = 2 + random.below(12);
        let mut e = random_expression(&mut random, size);
        if case == 0 {
            // Random arguments are rarely within the range of the first two.
            e = parse("asin(0.6 * sin(x + 0.2)) - acos(0.5 * cos(1.5 * y)) * atan(0.7 * z)");
        }
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
    let least = 125 * devices().count();
    assert!(compared > least, "too few gradients to mean anything: {compared}");
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

/// Whether this CPU computes the same bits as a GPU, which it does with vectors of `lowest` and wider.
fn has_the_bits_of_a_gpu(lowest: Simd) -> bool {
    let has = Simd::detect() >= lowest;
    if !has {
        eprintln!("skipped: comparing bits with the processor's, which has no {lowest:?}");
    }
    has
}

/// Each row of kernels/common/operators.cuh has the operator's place, name and number of operands.
#[test]
fn kernels_have_a_row_for_every_operator() {
    let text = include_str!("../../../kernels/common/operators.cuh");
    let row = |line: &str| -> Option<(String, usize)> {
        let (kind, rest) = line.trim_start().split_once('(')?;
        let arity = ["UNARY", "BINARY", "TERNARY"].iter().position(|k| *k == kind)? + 1;
        Some((rest.split(',').next()?.to_string(), arity))
    };
    let (_, list) = text.split_once("#define OPERATORS").unwrap();
    let found: Vec<_> = list.lines().skip(1).filter_map(row).collect();
    let ours = Op::ALL.map(|op| (format!("{op:?}").to_uppercase(), op.arity()));
    assert_eq!(found, ours);
}

/// One row whose value is a constant: the loss of `op(a, b)` is then |op(a, b)|, exactly.
fn value_by_score(device: &Device, op: Op, operands: &[[f32; 2]]) -> Vec<f64> {
    let one = Rows::new(&[vec![1.0]], &[0.0], None).unwrap();
    let program = |values: &[f32; 2]| {
        let leaf = |k: usize| Expression::constant(f64::from(values[k]));
        Program::new(&Expression::apply(op, &(0..op.arity()).map(leaf).collect::<Vec<_>>()))
    };
    let programs: Vec<Program> = operands.iter().map(program).collect();
    score(device, &one, &programs, Loss::Mae).unwrap()
}

#[test]
fn gpu_functions_are_within_four_ulp_and_those_of_the_processor() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let same_bits = has_the_bits_of_a_gpu(Simd::Avx2);
    let mut random = Random::new(6, 0);
    let functions = [Op::Exp, Op::Log, Op::Sqrt, Op::Sin, Op::Cos, Op::Tanh, Op::Asin, Op::Acos];
    for op in functions.into_iter().chain([Op::Atan, Op::Pow, Op::Div]) {
        let mut draw = |round: usize, spread: f64| loop {
            // Random bits reach every magnitude; normal numbers the usual ones.
            let x = match round % 4 {
                0 => f32::from_bits(random.word()),
                1 => (random.normal() * spread).round() as f32,
                _ => (random.normal() * spread) as f32,
            };
            if x.is_finite() {
                break x;
            }
        };
        let mut operands: Vec<[f32; 2]> =
            (0..3000).map(|round| [draw(round, 20.0), draw(round, 3.0)]).collect();
        operands.extend([[0.0, 0.0], [-0.0, 2.0], [0.0, -1.0], [-8.0, 3.0], [1e-45, 0.5]]);
        operands.extend([-1.0, -0.5, 0.5, 1.0, 1.000_000_1].map(|x| [x, 1.0]));
        let found = value_by_score(&gpu, op, &operands);
        let twin = value_by_score(&Device::cpu(), op, &operands);
        for (([x, y], found), twin) in operands.iter().zip(found).zip(twin) {
            let exact = op.apply(&[f64::from(*x), f64::from(*y)]).abs();
            let what = format!("{op:?} of {x:e}, {y:e}: {found:e}, {twin:e}, {exact:e}");
            if found.is_finite() && (exact as f32).is_finite() {
                assert!(ulps(found as f32, exact) <= 4.0, "{what}");
            }
            assert_eq!(found.is_finite(), twin.is_finite(), "{what}");
            if found.is_finite() && same_bits {
                assert_eq!(found, twin, "{what}");
            }
        }
    }
}

#[test]
fn gpu_losses_of_mixed_populations_agree_with_the_reference() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let same_bits = has_the_bits_of_a_gpu(Simd::Avx512);
    let scalar = Device::Cpu(Cpu::with(Simd::Scalar).unwrap());
    let mut random = Random::new(8, 0);
    let mut valid = 0;
    for (case, n) in [1, 3, 63, 257, 1024, 1025].into_iter().enumerate() {
        let rows = rows(n, case as u64, |a, b, c| a * b + c);
        let expressions: Vec<Expression> = (0..80)
            .map(|k| {
                let size = 1 + random.below(if k % 10 == 0 { 60 } else { 14 });
                random_expression(&mut random, size)
            })
            .collect();
        let programs: Vec<Program> = expressions.iter().map(Program::new).collect();
        for loss in [Loss::Mae, Loss::Mse] {
            let found = score(&gpu, &rows, &programs, loss).unwrap();
            let again = score(&gpu, &rows, &programs, loss).unwrap();
            assert_eq!(found, again);
            if same_bits {
                let twin = score(&Device::cpu(), &rows, &programs, loss).unwrap();
                assert_eq!(found, twin, "{n} rows");
            }
            let naive = score(&scalar, &rows, &programs, loss).unwrap();
            for ((e, found), naive) in expressions.iter().zip(found).zip(naive) {
                let exact = reference(&rows, e, 1.0, 0.0, loss);
                let limit = 2.0 * (naive - exact).abs() / exact.abs() + 1e-6;
                let what = format!("{} on {n} rows: {found} {naive} {exact}", e.text(&NAMES));
                if exact.is_infinite() || naive.is_infinite() {
                    assert_eq!(found.is_infinite(), naive.is_infinite(), "{what}");
                } else if limit < 1e-2 {
                    assert!((found - exact).abs() <= 4.0 * limit * exact.abs(), "{what}");
                    valid += 1;
                }
            }
        }
    }
    assert!(valid > 250, "too few valid expressions to mean anything: {valid}");
}

/// The same rows from the last to the first.
fn backward(rows: &Rows) -> Rows {
    let flat = |lines: &[Line]| -> Vec<f32> {
        lines.iter().flat_map(|line| line.0).take(rows.rows).collect()
    };
    let columns: Vec<Vec<f32>> = rows.columns.chunks(rows.lines).map(flat).collect();
    let all: Vec<u32> = (0..rows.rows as u32).rev().collect();
    Rows::gather(&columns, &flat(&rows.target), Some(&flat(&rows.weights)), &all)
}

/// After a few steps constants depend on every gradient: with AVX-512 they are the same; if all of the CPU's levels
/// agree with each other, in sums from either end, the GPU must agree with them in any case.
#[test]
fn gpu_fits_take_the_steps_of_the_processor() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let same_bits = has_the_bits_of_a_gpu(Simd::Avx512);
    let levels: Vec<Device> = devices().collect();
    let mut random = Random::new(12, 0);
    let (mut compared, mut seen) = (0, std::collections::HashSet::new());
    for (case, n) in [5, 250, 1030].into_iter().enumerate() {
        let rows = rows(n, 50 + case as u64, |a, b, c| a - b * c);
        let drawn = (0..150).map(|_| {
            let size = 2 + random.below(12);
            random_expression(&mut random, size)
        });
        // Where functions have a kink, or their derivative does not exist.
        let kinks = [
            "0.2 * z + (0.5 * (x > 0))^1.5",
            "sqrt(0.5 * (x > 0)) + y",
            "abs(0.5 * (x > 0)) - z",
            "asin(1 * (x > 0)) + acos(1 * (y > 0))",
            "asin(0.6 * sin(x)) - acos(0.5 * cos(y)) * atan(0.7 * z)",
        ];
        let expressions: Vec<Expression> = drawn.chain(kinks.map(parse)).collect();
        let programs: Vec<Program> = expressions.iter().map(Program::new).collect();
        for (loss, scaled) in [(Loss::Mae, true), (Loss::Mse, false)] {
            let settings = Fit { loss, steps: 3, scaled, tolerance: 1e-3 };
            let found = fit(&gpu, &rows, &programs, settings).unwrap();
            let on = |rows: &Rows| -> Vec<Vec<Fitted>> {
                let fits = levels.iter().map(|level| fit(level, rows, &programs, settings));
                fits.collect::<Result<_>>().unwrap()
            };
            let (others, turned) = (on(&rows), on(&backward(&rows)));
            for (k, (e, found)) in expressions.iter().zip(&found).enumerate() {
                let twins: Vec<&Fitted> = others.iter().map(|o| &o[k]).collect();
                let what = format!("{} on {n} rows: {found:?} {twins:?}", e.text(&NAMES));
                if same_bits {
                    assert_eq!(found, twins[twins.len() - 1], "{what}");
                }
                assert_eq!(found.loss.is_finite(), twins[0].loss.is_finite(), "{what}");
                let far = |a: &Fitted, b: &Fitted| {
                    let pair = |a: f64, b: f64| (a - b).abs() / (1e-3 + a.abs().max(b.abs()));
                    let constants = a.constants.iter().zip(&b.constants);
                    let constants = constants.map(|(a, b)| pair(*a, *b)).fold(0.0, f64::max);
                    constants.max(pair(a.scale, b.scale)).max(pair(a.loss, b.loss))
                };
                let all = || twins.iter().copied().chain(turned.iter().map(|t| &t[k]));
                let same = all().all(|t| t.evaluations == twins[0].evaluations);
                let spread = all().map(|t| far(t, twins[0])).fold(0.0, f64::max);
                if !found.loss.is_finite() || !same || spread > 1e-4 {
                    continue;
                }
                assert!(far(found, twins[0]) < 2e-3, "{what}");
                assert_eq!(found.evaluations, twins[0].evaluations, "{what}");
                let operators = Program::new(e).instructions;
                seen.extend(operators.iter().filter(|i| i.has_constant).map(|i| i.op));
                compared += 1;
            }
        }
    }
    assert!(compared > 200, "too few fits to mean anything: {compared}");
    assert_eq!(seen.len(), Op::ALL.len(), "every operator above a constant: {seen:?}");
}

#[test]
fn gpu_long_expressions_get_smaller_tiles_and_the_longest_an_error() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let rows = rows(70, 1, |a, b, _| a + 2.0 * b);
    let sum = |terms: usize| {
        let mut nodes = parse("0.5 * x").nodes().to_vec();
        for k in 0..terms {
            let term = if k % 500 == 0 { parse("0.1 * y") } else { parse("z") };
            nodes.extend_from_slice(term.nodes());
            nodes.push(Node::Op(if k % 2 == 0 { Op::Add } else { Op::Sub }));
        }
        Program::new(&Expression::new(nodes).unwrap())
    };
    let settings = Fit { loss: Loss::Mse, steps: 4, scaled: true, tolerance: 0.0 };
    let programs = [sum(1000), sum(3)];
    let found = fit(&gpu, &rows, &programs, settings).unwrap();
    let twin = fit(&Device::cpu(), &rows, &programs, settings).unwrap();
    for (found, twin) in found.iter().zip(twin) {
        assert!((found.loss - twin.loss).abs() < 1e-3 * twin.loss + 1e-9, "{found:?} {twin:?}");
    }
    let error = fit(&gpu, &rows, &[sum(30_000)], settings).unwrap_err().to_string();
    assert!(error.contains("too long for cuda:0") && error.contains("--device cpu"), "{error}");
    assert!(score(&gpu, &rows, &[], Loss::Mae).unwrap().is_empty());
}
