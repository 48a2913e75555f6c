//! The law behind the last column of a table in memory: `cargo run --release --example regress_table`.

use lawsmith::device::Device;
use lawsmith::error::Result;
use lawsmith::random::Random;
use lawsmith::store::table::Table;
use lawsmith::symbolic::options::Options;

fn main() -> Result<()> {
    // The period of a pendulum of length l and amplitude a, measured to one part in a thousand.
    let mut random = Random::new(1, 0);
    let mut columns = vec![Vec::new(); 3];
    for _ in 0..400 {
        let (length, angle) = (0.2 + 1.8 * random.uniform(), random.uniform());
        let period = 2.006 * length.sqrt() * (1.0 + angle * angle / 16.0);
        let measured = period * (1.0 + 0.001 * random.normal());
        columns.iter_mut().zip([length, angle, measured]).for_each(|(c, value)| c.push(value));
    }
    let names = ["l", "a", "period"].map(String::from).to_vec();
    let table = Table::new(names, columns);

    let options = Options {
        target: vec!["period".into()],
        operators: "+,-,*,/,sqrt".into(),
        evaluations: Some(50_000),
        ..Options::default()
    };
    let found = lawsmith::regress(&Device::cpu(), table, options, 0, &())?;

    println!("complexity  loss       law");
    for entry in &found.front(0).entries {
        let law = entry.expression.text(&found.names);
        println!("{:>10}  {:.3e}  {law}", entry.complexity, entry.loss);
    }
    println!("\nperiod = {}", found.text(0).expect("some formula is valid on all rows"));
    Ok(())
}
