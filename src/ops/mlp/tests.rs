//! Every instruction level and both precisions against the reference, and wrong buffers.

use super::*;
use crate::device::{Cpu, Simd};
use crate::model::Shape;
use crate::ops::relative_error;
use crate::random::Random;

/// φe of `layers` hidden layers of `hidden` units, from 12 features to 5 messages, with parameters.
fn network(layers: usize, hidden: usize, message_dim: usize) -> (Vec<Layer>, Vec<f32>) {
    let shape = Shape { n_features: 6, message_dim, outputs: 2, hidden, layers, sampled: false };
    let arena = shape.arena();
    let mut random = Random::new(2, (100 * layers + hidden) as u64);
    let scale = 1.0 / (hidden as f64).sqrt();
    let parameters = (0..arena.len).map(|_| (scale * random.normal()) as f32).collect();
    (arena.edge, parameters)
}

#[test]
fn every_level_agrees_with_the_reference() {
    for (layers, hidden, message_dim) in
        [(1, 7, 1), (1, 128, 5), (2, 16, 2), (2, 33, 100), (3, 40, 16), (2, 300, 31)]
    {
        let (network, parameters) = network(layers, hidden, message_dim);
        let wide: Vec<f64> = parameters.iter().map(|&x| f64::from(x)).collect();
        let mut random = Random::new(3, hidden as u64);
        let inputs: Vec<f32> = (0..200 * 12).map(|_| random.normal() as f32).collect();
        let all = |rounding: Rounding| -> Vec<f64> {
            let row = |x: &[f32]| {
                let input = x.iter().map(|&x| f64::from(x)).collect();
                reference(&network, &wide, input, rounding).pop().unwrap()
            };
            inputs.chunks(12).flat_map(row).collect()
        };
        let exact = all(Rounding::Exact);
        for precision in [Precision::F32, Precision::Bf16] {
            let naive = all(Rounding::Naive(precision));
            let limit = 2.0 * relative_error(&naive, &exact) + 1e-6;
            let can = |level: &Simd| precision == Precision::F32 || level.has_bf16();
            for simd in Simd::available().into_iter().filter(can) {
                let device = Device::Cpu(Cpu::with(simd).unwrap());
                for block in [1, 12, 95, 96, 97, 200] {
                    let mut outputs = vec![f32::NAN; 200 * message_dim];
                    let blocks = inputs.chunks(block * 12);
                    for (inputs, outputs) in blocks.zip(outputs.chunks_mut(block * message_dim)) {
                        let rows = inputs.len() / 12;
                        forward(&device, &network, &parameters, inputs, rows, precision, outputs)
                            .unwrap();
                    }
                    let found = relative_error(&outputs, &exact);
                    assert!(
                        found <= limit,
                        "{layers} × {hidden}, {block} rows, {precision:?}, {simd:?}: {found} > {limit}"
                    );
                }
            }
        }
    }
}

#[test]
fn gpu_agrees_with_the_reference() {
    crate::ops::assert_gpu_passes(selftest::checks);
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (network, parameters) = network(2, 33, 5);
    let inputs: Vec<f32> = (0..300 * 12).map(|i| (i as f32 * 0.37).sin()).collect();
    let run = |first: usize, rows: usize| {
        let mut outputs = vec![f32::NAN; rows * 5];
        let inputs = &inputs[first * 12..(first + rows) * 12];
        let device = Device::cpu();
        forward(&device, &network, &parameters, inputs, rows, Precision::F32, &mut outputs)
            .unwrap();
        outputs
    };
    let all = run(0, 300);
    assert_eq!(run(123, 7), all[123 * 5..130 * 5]);
    assert!(run(0, 0).is_empty());
}

#[test]
fn wrong_buffers_are_errors_that_name_them() {
    let (network, parameters) = network(2, 7, 3);
    let call = |layers: &[Layer], parameters: &[f32], inputs: usize, outputs: usize| {
        let (inputs, mut outputs) = (vec![0.0; inputs], vec![7.0; outputs]);
        let precision = Precision::F32;
        let error =
            forward(&Device::cpu(), layers, parameters, &inputs, 2, precision, &mut outputs)
                .unwrap_err();
        assert!(outputs.iter().all(|&x| x == 7.0), "written in spite of {error}");
        error.field.unwrap_or_default()
    };
    assert_eq!(call(&network, &parameters, 23, 6), "inputs");
    assert_eq!(call(&network, &parameters, 24, 7), "outputs");
    assert_eq!(call(&network, &parameters[..50], 24, 6), "parameters");
    let broken = [network[0].clone(), network[2].clone(), network[1].clone()];
    assert_eq!(call(&broken, &parameters, 24, 14), "layers");
}

/// A product and an outer product of rows of operands that hold small integers, in memory full of NaN.
struct Products {
    rows: usize,
    columns: usize,
    terms: usize,
}

impl Products {
    /// A small integer for each place of each matrix.
    fn value(matrix: usize, row: usize, column: usize) -> f32 {
        ((7 * matrix + 5 * row + 3 * column + row * column) % 9) as f32 - 4.0
    }
}

impl kernel::Task for Products {
    /// `[rows, columns]` of A Bᵀ; `[columns, terms]` of Dᵀ A, added to 1.
    type Output = [Vec<f32>; 2];

    unsafe fn run<K: kernel::Kernel>(self) -> Self::Output {
        use buffer::Buffer;
        use kernel::COLUMNS;
        use product::{Out, Outer, Product, Weights, narrow, pack_forward, panel_words};
        let Products { rows, columns, terms } = self;
        let row = |width: usize| product::stride(width, K::PER_WORD);
        let wide = product::wide_stride(columns.max(terms));
        let even = rows.next_multiple_of(2);
        let mut buffers: [Buffer; 6] = Default::default();
        let sizes = [
            even * row(terms),
            panel_words(columns, terms, K::PER_WORD),
            even * row(columns),
            rows * wide,
            columns * terms.next_multiple_of(COLUMNS),
            wide.max(columns.next_multiple_of(COLUMNS)),
        ];
        let mut at = buffers.each_mut().into_iter().zip(sizes).map(|(buffer, n)| buffer.words(n));
        let [a, b, d, out, sums, line] = std::array::from_fn(|_| at.next().unwrap());
        let weights: Vec<f32> =
            (0..columns * terms).map(|i| Self::value(1, i / terms, i % terms)).collect();
        let weights = Weights { at: weights.as_ptr(), row: terms, outputs: columns, inputs: terms };
        // SAFETY: the buffers have these sizes, and the caller's CPU has the instructions.
        unsafe {
            let operand = |matrix: usize, width: usize, to: *mut f32| {
                for m in 0..rows {
                    let line = std::slice::from_raw_parts_mut(line.at(0), wide);
                    line.fill(0.0);
                    line.iter_mut()
                        .enumerate()
                        .take(width)
                        .for_each(|(k, x)| *x = Self::value(matrix, m, k));
                    narrow::<K>(line.as_ptr(), to.add(m * row(width)), width);
                }
            };
            operand(0, terms, a.at(0));
            operand(2, columns, d.at(0));
            for panel in 0..columns.div_ceil(COLUMNS) {
                let words = panel_words(COLUMNS, terms, K::PER_WORD);
                pack_forward::<K>(&weights, panel, b.at(panel * words));
            }
            line.at(0).write_bytes(0, columns.next_multiple_of(COLUMNS));
            K::product(&Product {
                rows,
                columns,
                terms,
                a: a.at(0),
                a_row: row(terms),
                b: b.at(0),
                addend: line.at(0),
                addend_row: 0,
                out: Out::Linear { to: out.at(0), row: wide },
            });
            K::pair_rows(a.at(0), rows, row(terms));
            K::pair_rows(d.at(0), rows, row(columns));
            std::slice::from_raw_parts_mut(sums.at(0), sizes[4]).fill(1.0);
            K::outer(&Outer {
                outputs: columns,
                inputs: terms,
                words: rows.div_ceil(K::PER_WORD),
                a: d.at(0),
                a_row: K::PER_WORD * row(columns),
                b: a.at(0),
                b_row: K::PER_WORD * row(terms),
                c: sums.at(0),
                add: true,
            });
            let of = |i: usize| *out.at(i / columns * wide + i % columns);
            let sum = |i: usize| {
                let (output, input) = (i / terms, i % terms);
                *sums.at((input / COLUMNS * columns + output) * COLUMNS + input % COLUMNS)
            };
            [(0..rows * columns).map(of).collect(), (0..columns * terms).map(sum).collect()]
        }
    }
}

#[test]
fn products_of_integers_are_exact_at_every_level_and_size() {
    for rows in [1, 2, 15, 16, 17, 31, 32, 33, 64, 97, 530] {
        for (columns, terms) in [(1, 1), (3, 2), (16, 16), (17, 33), (32, 64), (50, 31), (65, 100)]
        {
            let value = Products::value;
            let mut expected: [Vec<f32>; 2] = Default::default();
            for m in 0..rows {
                for n in 0..columns {
                    expected[0].push((0..terms).map(|k| value(0, m, k) * value(1, n, k)).sum());
                }
            }
            for n in 0..columns {
                for k in 0..terms {
                    expected[1].push(
                        1.0 + (0..rows).map(|m| value(2, m, n) * value(0, m, k)).sum::<f32>(),
                    );
                }
            }
            for precision in [Precision::F32, Precision::Bf16] {
                let can = |level: &Simd| precision == Precision::F32 || level.has_bf16();
                for simd in Simd::available().into_iter().filter(can) {
                    let cpu = Cpu::with(simd).unwrap();
                    // SAFETY: the task owns its memory.
                    let found =
                        unsafe { kernel::run(&cpu, precision, Products { rows, columns, terms }) };
                    let what = format!("{rows} × {columns} × {terms}, {precision:?}, {simd:?}");
                    assert!(found == expected, "{what}");
                }
            }
        }
    }
}
