//! Every instruction level and the GPU against every pair in turn; what is refused.

use super::selftest::{below, points, uniform};
use super::*;
use crate::device::{Cpu, Simd};

fn graph(device: &Device, positions: &[f32], reach: Reach) -> (Vec<u64>, Vec<u32>) {
    let graph = count(device, positions, reach).unwrap();
    let mut senders = vec![u32::MAX; graph.edges()];
    graph.write_senders(&mut senders).unwrap();
    (graph.row_start().to_vec(), senders)
}

#[test]
fn every_level_finds_the_same_edges_as_every_pair_in_turn() {
    for simd in Simd::available() {
        for check in selftest::checks(&Device::Cpu(Cpu::with(simd).unwrap())).unwrap() {
            assert!(check.passed(), "{simd:?}: {check:?}");
        }
    }
}

#[test]
fn gpu_finds_the_same_edges_as_every_pair_in_turn() {
    crate::ops::assert_gpu_passes(selftest::checks);
}

#[test]
fn edges_that_a_person_can_count() {
    // On a lattice 6, 12 and 8 neighbours are at 1, √2 and √3, and 6 more at 2.
    let reach = |radius| Reach { edge: 6.0, radius };
    for (radius, degree) in [(0.999, 0), (1.0, 6), (1.42, 18), (1.75, 26), (2.0, 32)] {
        let (rows, senders) = graph(&Device::cpu(), &points(6), reach(radius));
        let expected: Vec<u64> = (0..=216).map(|row| row * degree).collect();
        assert_eq!(rows, expected, "radius {radius}");
        assert_eq!(senders.len() as u64, 216 * degree);
    }
    // Half the box apart, both ways round: one edge in each direction.
    let pair = [1.0, 1.0, 1.0, 1.0, 4.0, 1.0];
    assert_eq!(graph(&Device::cpu(), &pair, reach(3.0)), (vec![0, 1, 2], vec![1, 0]));
    // Around the corner of the box.
    let last = below(6.0);
    let corners = [0.0, 0.0, 0.0, 3.0, 3.0, 3.0, last, last, last];
    assert_eq!(graph(&Device::cpu(), &corners, reach(1e-6)), (vec![0, 1, 1, 2], vec![2, 0]));
}

#[test]
fn rounding_does_not_put_neighbours_two_cells_apart() {
    // Lattices whose spacing is the radius and a tenth of the box, at the faces of cells of that width: the reciprocal
    // of the width is rounded, and 49 · (1 / 49) is below 1.
    for spacing in 1..=64u8 {
        let positions: Vec<f32> = points(10).iter().map(|x| x * f32::from(spacing)).collect();
        let radius = f64::from(spacing);
        let (rows, _) = graph(&Device::cpu(), &positions, Reach { edge: 10.0 * radius, radius });
        assert!(rows.windows(2).all(|ends| ends[1] - ends[0] == 6), "spacing {spacing}");
    }
}

#[test]
fn the_last_bit_of_a_distance_decides() {
    // 0.3f32 is above 0.3, and 0.1f32 + 0.2f32 is not 0.3f32.
    let [a, b] = [0.1f32, 0.4];
    let exact = f64::from(b) - f64::from(a);
    for (radius, edges) in [(exact, 2), (exact.next_up(), 2), (exact.next_down(), 0)] {
        let found = graph(&Device::cpu(), &[a, 0.0, 0.0, b, 0.0, 0.0], Reach { edge: 1.0, radius });
        assert_eq!(found.1.len(), edges, "radius {radius}");
    }
}

#[test]
fn cells_cover_the_reach_and_are_not_many_more_than_nodes() {
    for radius in [0.5, 0.34, 1.0 / 3.0, 0.25, 0.1, 1e-3] {
        let grid = Grid::new(Reach { edge: 1.0, radius }, 1000);
        assert!(grid.side <= 10 && 1.0 / f64::from(grid.side) >= radius, "{grid:?}");
        for cell in 0..grid.side {
            let mut around: Vec<u32> = grid.around(cell).into_iter().flatten().collect();
            around.sort_unstable();
            let near = |other: &u32| {
                let steps = other.abs_diff(cell);
                steps.min(grid.side - steps) <= 1
            };
            assert_eq!(around, (0..grid.side).filter(near).collect::<Vec<_>>());
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_graph() {
    let (positions, reach) = (uniform(5000, 1.0), Reach { edge: 1.0, radius: 0.1 });
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let many = rayon::ThreadPoolBuilder::new().num_threads(7).build().unwrap();
    let [one, many] =
        [one, many].map(|pool| pool.install(|| graph(&Device::cpu(), &positions, reach)));
    assert_eq!(one, many);
    assert_eq!(one, reference(&positions, reach));
}

#[test]
fn no_nodes_and_one_node_have_no_edges() {
    let reach = Reach { edge: 1.0, radius: 0.1 };
    assert_eq!(graph(&Device::cpu(), &[], reach), (vec![0], vec![]));
    assert_eq!(graph(&Device::cpu(), &[0.5; 3], reach), (vec![0, 0], vec![]));
}

#[test]
fn what_is_not_possible_is_said_with_field_and_row() {
    let refused = |positions: &[f32], edge, radius| {
        let error = count(&Device::cpu(), positions, Reach { edge, radius }).err();
        error.expect("an error").to_string()
    };
    let text = refused(&[0.0; 3], 100.0, 50.5);
    assert!(text.starts_with("field 'radius': 50.5 is more than half the box of 100"), "{text}");
    assert!(refused(&[], 100.0, f64::NAN).starts_with("field 'radius': must be positive, not NaN"));
    assert!(refused(&[], 0.0, 1.0).starts_with("field 'box': must be positive, not 0"));
    assert!(refused(&[0.0; 4], 1.0, 0.1).contains("not a multiple of 3"));
    for bad in [f32::NAN, f32::INFINITY, -1e-7, 1.0] {
        let text = refused(&[0.0, 0.0, 0.0, 0.5, bad, 0.5], 1.0, 0.1);
        assert!(text.starts_with("field 'positions', row 2: ["), "{text}");
        assert!(text.contains("is outside the box"), "{text}");
    }
    assert!(check_nodes(u32::MAX as usize).is_ok());
    assert!(check_nodes(u32::MAX as usize + 1).unwrap_err().to_string().contains("4294967295"));

    let reach = Reach { edge: 1.0, radius: 0.3 };
    let graph = count(&Device::cpu(), &[0.0, 0.0, 0.0, 0.2, 0.0, 0.0], reach).unwrap();
    let error = graph.write_senders(&mut [0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "field 'sender': has 3 elements for 2 edges");
}
