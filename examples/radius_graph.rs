//! Points in a periodic box and their neighbours, as an edge list: `cargo run --release --example radius_graph`.

use lawsmith::device::Device;
use lawsmith::error::Result;
use lawsmith::ops::neighbours::{self, Reach};
use lawsmith::random::Random;

fn main() -> Result<()> {
    let (nodes, reach) = (20_000, Reach { edge: 1000.0, radius: 50.0 });
    let mut random = Random::new(7, 0);
    let positions: Vec<f32> =
        (0..3 * nodes).map(|_| (reach.edge * random.uniform()) as f32 % 1000.0).collect();

    // Edges are counted first, so that the list can be allocated.
    let graph = neighbours::count(&Device::cpu(), &positions, reach)?;
    let mut senders = vec![0; graph.edges()];
    graph.write_senders(&mut senders)?;

    // The senders of node i are at row_start[i]..row_start[i + 1].
    let row_start = graph.row_start();
    let edges: Vec<(u32, u32)> = (0..nodes)
        .flat_map(|i| {
            let of = &senders[row_start[i] as usize..row_start[i + 1] as usize];
            of.iter().map(move |&sender| (i as u32, sender))
        })
        .collect();

    println!("{nodes} points, {} directed edges within {}", edges.len(), reach.radius);
    let volume = 4.0 / 3.0 * std::f64::consts::PI * (reach.radius / reach.edge).powi(3);
    let (found, expected) = (edges.len() as f64 / nodes as f64, volume * (nodes - 1) as f64);
    println!("{found:.3} neighbours per point; {expected:.3} are expected for random points");
    println!("the first edges: {:?}", &edges[..5]);
    Ok(())
}
