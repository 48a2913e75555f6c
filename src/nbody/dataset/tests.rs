use super::*;

/// A data set of reproducible numbers, with lengths multiplied by `length`, times by `time` and masses by `mass`.
fn written(path: &Path, runs: usize, frames: usize, [length, time, mass]: [f64; 3]) -> Dataset {
    let about = About {
        runs,
        frames,
        bodies: 2,
        dim: 2,
        law: None,
        origin: serde_json::json!({}),
        seed: 0,
        scale: None,
        period: Some(vec![100.0 * length, 0.0]),
    };
    let mut file = about.create(path).unwrap();
    let number = |k: usize| ((k * 7919) % 1013) as f64 / 200.0 - 2.5;
    for (name, unit) in [
        ("positions", length),
        ("velocities", length / time),
        ("accelerations", length / time / time),
        ("masses", mass),
    ] {
        for (k, value) in file.slice::<f32>(name).iter_mut().enumerate() {
            let number = if name == "masses" { 1.5 + k as f64 } else { number(k) };
            *value = (unit * number) as f32;
        }
    }
    for (k, t) in file.slice::<f64>("times").iter_mut().enumerate() {
        *t = 0.1 * time * k as f64;
    }
    file.finish().unwrap();
    Dataset::open(path).unwrap()
}

/// The networks' inputs do not depend on the user's units, and the stored units give the user's values back.
#[test]
fn data_of_any_units_are_opened_as_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let plain = written(&path, 5, 6, [1.0; 3]);
    let near = |a: &[f32], b: &[f32]| {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
        assert!(a.iter().zip(b).all(close), "{a:?} {b:?}");
    };
    for (which, power) in (0..3).flat_map(|which| (-12..=12).map(move |k| (which, k))) {
        let mut units = [1.0; 3];
        units[which] = 10f64.powi(power);
        let other = written(&path, 5, 6, units);
        near(other.positions(), plain.positions());
        near(other.velocities(), plain.velocities());
        near(other.accelerations(), plain.accelerations());
        near(other.masses(), plain.masses());
        let [was, is] = [&plain, &other].map(|data| data.about.units());
        let ratio = [is.length / was.length, is.time / was.time, is.mass / was.mass];
        assert!(ratio.iter().zip(units).all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{ratio:?}");
        assert!((other.about.periods()[0] / plain.about.periods()[0] - 1.0).abs() < 1e-9);
        let last = other.times()[5] / plain.times()[5];
        assert!((last - 1.0).abs() < 1e-9);
        // The user's values again.
        let raw = Dataset::open_in(&path, Units::Users).unwrap();
        assert_eq!(raw.about.units(), Scale::NONE);
        let back = Dataset::open_in(&path, Units::Of(was)).unwrap();
        assert_eq!(back.about.units(), was);
    }
}

#[test]
fn a_single_run_becomes_blocks_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let data = written(&path, 1, 43, [1.0; 3]);
    // 42 of 43 frames in 14 blocks, or 40 in 8 with more left over.
    let About { runs, frames, .. } = data.about;
    assert_eq!((runs, frames), (14, 3));
    assert_eq!(data.positions().len(), 42 * 4);
    assert_eq!(data.masses(), [data.masses()[0], data.masses()[1]].repeat(14));
    let step = data.times()[1] - data.times()[0];
    assert!((data.times_of(2)[0] - 6.0 * step).abs() < 1e-12);
    assert_eq!((data.moment(0, 0), data.moment(7, 0)), (0.0, 0.5));
    let many = written(&path, 2, 43, [1.0; 3]);
    assert_eq!((many.about.runs, many.about.frames), (2, 43));
}

#[test]
fn a_box_has_an_edge_for_each_axis() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let about = About { period: Some(vec![1.0]), ..written(&path, 2, 3, [1.0; 3]).about.clone() };
    about.create(&path).unwrap().finish().unwrap();
    let error = Dataset::open(&path).err().unwrap();
    assert_eq!(error.field.as_deref(), Some("box"));
}

/// Runs of two and of three bodies, in a file and in memory: each frame has the bodies that are there.
#[test]
fn runs_may_have_different_numbers_of_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let about = About {
        bodies: 3,
        runs: 2,
        frames: 4,
        period: None,
        ..written(&path, 2, 4, [1.0; 3]).about.clone()
    };
    let about = About { scale: None, ..about };
    let mut arrays = Arrays { counts: vec![2, 3], ..Arrays::zeros(&about) };
    let number = |k: usize| ((k * 7919) % 1013) as f32 / 200.0 - 2.5;
    for values in [&mut arrays.positions, &mut arrays.velocities, &mut arrays.accelerations] {
        values.iter_mut().enumerate().for_each(|(k, v)| *v = number(k));
        // The third body of the first run.
        values.chunks_mut(6).take(4).for_each(|frame| frame[4..].fill(1e6));
    }
    arrays.masses = vec![1.0, 2.0, 1.0, 3.0, 4.0, 5.0];
    arrays.times = (0..4).map(f64::from).collect();
    let data = Dataset::new(about.clone(), arrays.clone()).unwrap();
    assert!(data.is_ragged());
    // What is not there is in no unit.
    assert_eq!(data.about.units().length, 1.0);
    data.save(&path).unwrap();
    let kept = Dataset::open(&path).unwrap();
    for data in [&data, &kept] {
        assert_eq!([0, 1].map(|run| data.bodies(run)), [2, 3]);
        assert_eq!([0, 1].map(|run| data.targets(run, 1).len()), [4, 6]);
        let sizes: Vec<usize> = data.frames(data.positions()).map(<[f32]>::len).collect();
        assert_eq!(sizes, [4, 4, 4, 4, 6, 6, 6, 6]);
        let mut graphs = Graphs::default();
        data.states().push(0, 1, &mut graphs);
        data.states().push(1, 3, &mut graphs);
        assert_eq!((graphs.bodies, graphs.features.len()), (vec![2, 3], 5 * 6));
        let masses: Vec<f32> = graphs.features.iter().skip(5).step_by(6).copied().collect();
        let ratio = 3.0 / masses[2];
        let users: Vec<f32> = masses.iter().map(|m| m * ratio).collect();
        assert_eq!(users, [1.0, 2.0, 3.0, 4.0, 5.0]);
    }
    for counts in [vec![1, 3], vec![2, 4]] {
        let error = Dataset::new(about.clone(), Arrays { counts, ..arrays.clone() }).err().unwrap();
        assert_eq!(error.field.as_deref(), Some("counts"));
    }
}
