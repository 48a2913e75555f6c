//! Bodies on springs, a network that learns their accelerations, and the formula in its messages, all in memory:
//! `cargo run --release --example simulate_and_distil`.

use lawsmith::distill::laws::{Found, Search};
use lawsmith::distill::messages::Wanted;
use lawsmith::distill::run::Compute;
use lawsmith::error::Result;
use lawsmith::model::ModelKind;
use lawsmith::nbody::simulate::Settings as System;
use lawsmith::network::settings::{Preset, Settings as Training};
use lawsmith::symbolic::front::Select;
use lawsmith::symbolic::options::Options;

fn main() -> Result<()> {
    let at = Compute::default();
    let springs = System { runs: 200, frames: 200, ..System::default() };
    let data = lawsmith::simulate(&at.device, &springs, at.observer)?;

    let mut training = Training::preset(Preset::Quick, ModelKind::Bottleneck, 2, 4);
    training.hidden = 64;
    training.set_steps(4000);
    let trained = lawsmith::train(&at.device, &data, &training, None, at.observer)?;
    println!("test loss of the network: {:.3}", trained.test_loss);

    let messages = lawsmith::messages(at, &trained.model, &data, Wanted::default())?;
    let mut laws = Vec::new();
    for (k, message) in messages.summary.components.iter().enumerate() {
        let target = vec!["message".to_string()];
        // Residuals of a message are errors of the network, which Select::Shortest would take for noise in each row.
        let (select, evaluations) = (Select::Best, Some(40_000));
        let options = Options { target, select, evaluations, ..Options::default() };
        let table = messages.table(k);
        let found = lawsmith::regress(&at.device, table, options, at.seed, at.observer)?;
        println!("message {k}, R² {:.3}: {}", message.force_r2.unwrap(), found.text(0).unwrap());
        laws.push(Found::of(found.front(0).clone(), found.select).expect("a law"));
    }

    let how = Search { evaluations: 40_000, ..Search::default() };
    let composed = lawsmith::compose(at, &trained.model, &data, &messages, &laws, how)?;
    println!("{}", composed.formula.equations().join("\n"));
    println!("test loss of the formula: {:.3}", composed.judgement.test.unwrap().error);
    Ok(())
}
