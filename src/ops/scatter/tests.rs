//! Both forms against sums in f64, on the CPU and the GPU; what is refused.

use super::selftest::{Problem, SIZES, check};
use super::*;

fn assert_all_sizes_pass(device: &Device) {
    for edges in SIZES {
        for width in SIZES {
            for check in check(device, edges, width).unwrap() {
                assert!(check.passed(), "{check:?}");
            }
        }
    }
}

#[test]
fn sums_of_all_sizes_agree_with_those_in_f64() {
    assert_all_sizes_pass(&Device::cpu());
}

#[test]
fn gpu_sums_of_all_sizes_agree_with_those_in_f64() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    assert_all_sizes_pass(&gpu);
}

#[test]
fn gpu_sums_of_rows_are_the_same_bits_each_time() {
    let Some(gpu) = crate::device::test_gpu() else { return };
    let problem = Problem::new(389, 7);
    let (row_start, sorted) = problem.rows();
    let [first, second] = [(); 2].map(|()| {
        let mut out = problem.out.clone();
        add(&gpu, Edges::Rows(&row_start), 7, &sorted, &mut out).unwrap();
        out
    });
    assert_eq!(first, second);
}

#[test]
fn rows_any_order_and_any_number_of_threads_give_the_same_bits() {
    let problem = Problem::new(5000, 5);
    let (row_start, sorted) = problem.rows();
    let mut expected = problem.out.clone();
    add(&Device::cpu(), Edges::Rows(&row_start), 5, &sorted, &mut expected).unwrap();
    for threads in [1, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut out = problem.out.clone();
        let edges = Edges::Receivers(&problem.receivers);
        pool.install(|| add(&Device::cpu(), edges, 5, &problem.values, &mut out)).unwrap();
        assert_eq!(out, expected, "{threads} threads");
    }
}

#[test]
fn nodes_without_edges_keep_what_they_have() {
    let mut out = [1.0, 2.0, 3.0, 4.0];
    add(&Device::cpu(), Edges::Receivers(&[2, 2]), 1, &[10.0, 20.0], &mut out).unwrap();
    add(&Device::cpu(), Edges::Rows(&[0, 0, 1, 1, 1]), 1, &[100.0], &mut out).unwrap();
    assert_eq!(out, [1.0, 102.0, 33.0, 4.0]);
    add(&Device::cpu(), Edges::Receivers(&[]), 1, &[], &mut out).unwrap();
    add(&Device::cpu(), Edges::Rows(&[0]), 1, &[], &mut []).unwrap();
    assert_eq!(out, [1.0, 102.0, 33.0, 4.0]);
}

#[test]
fn what_does_not_fit_is_said_with_field_and_row() {
    let refused = |edges, width: usize, values: &[f32], nodes: usize| {
        let mut out = vec![0.5; nodes * width.max(1)];
        let error = add(&Device::cpu(), edges, width, values, &mut out).unwrap_err();
        assert!(out.iter().all(|&sum| sum == 0.5), "something was added");
        error.to_string()
    };
    let receivers =
        |receivers, width, values| refused(Edges::Receivers(receivers), width, values, 3);
    let text = receivers(&[0, 2, 3, 9], 1, &[1.0; 4]);
    assert_eq!(text, "field 'receiver', row 3: 3 is not one of 3 nodes");
    assert_eq!(receivers(&[0], 1, &[1.0; 4]), "field 'receiver': has 1 elements for 4 edges");
    let text = receivers(&[0], 3, &[1.0; 4]);
    assert_eq!(text, "field 'values': has 4 elements, not a multiple of 3");
    assert!(receivers(&[0], 0, &[1.0]).starts_with("field 'values': has 1 elements"));

    let rows = |row_start| refused(Edges::Rows(row_start), 2, &[1.0; 8], 3);
    assert_eq!(rows(&[0, 4]), "field 'row_start': has 2 elements for 3 nodes");
    assert_eq!(rows(&[0, 1, 2, 3]), "field 'row_start': goes from 0 to 3, not from 0 to 4");
    let text = rows(&[0, 3, 1, 4]);
    assert_eq!(text, "field 'row_start', row 2: the row ends at 1, before its start 3");
}
