//! Two bodies on a circle as other programs write them.

use super::*;

/// Two bodies on a circle, `frames` frames 0.05 apart; a row is what `row` makes of run, frame, time, body, x, y.
fn circle(
    runs: usize,
    frames: usize,
    row: impl Fn(usize, usize, f64, usize, f64, f64) -> String,
) -> String {
    let mut text = String::new();
    for run in 0..runs {
        for frame in 0..frames {
            for body in 0..2 {
                let t = 0.05 * frame as f64;
                let angle = t + body as f64 * std::f64::consts::PI + run as f64;
                text += &row(run, frame, t, body, angle.cos(), angle.sin());
            }
        }
    }
    text
}

/// Imports a text under a name; the document and the data set, where there is one.
fn imported(name: &str, text: &str, arguments: &[&str]) -> (Value, Option<Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = [name, "out.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&path, text).unwrap();
    let paths = ["import", path.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let (code, document) = lawsmith(&[&paths[..], arguments].concat());
    assert_eq!(code == Some(0), document["error"].is_null(), "{text}: {document}");
    (document, Dataset::open_in(&out, Units::Stored).ok())
}

fn notes(document: &Value) -> String {
    let notes = document["notes"].as_array().unwrap_or_else(|| panic!("{document}"));
    notes.iter().map(|note| note.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The same two bodies under every name that programs give to columns: the same data set.
#[test]
fn columns_go_by_many_names() {
    let plain = |_: usize, frame: usize, t: f64, body: usize, x: f64, y: f64| {
        format!("{frame},{t},{},{x},{y},{},{}\n", ["Sun", "Earth"][body], 1 + body, 2 * body)
    };
    let text = |header: &str| format!("{header}\n{}", circle(1, 12, plain));
    let (_, base) = imported("t.csv", &text("step,time,body,x,y,mass,charge"), &[]);
    let base = base.unwrap();
    assert_eq!((base.about.runs, base.about.bodies), (1, 2));
    assert_eq!(base.masses(), [1.0, 2.0]);
    assert_eq!(base.positions()[..2], [1.0, 0.0]);
    for (header, arguments, note) in [
        ("frame,t [yr],name,x [AU],y [AU],m,q", &[][..], "units: time in yr, x in AU, y in AU"),
        ("Step,Time,Particle,X,Y,Mass,Charge", &[], "body from 'Particle'"),
        ("n,epoch,who,x,y,Mass,q", &["--columns", "epoch=time,who=body"], "not used: n"),
        ("n,when,id,pos_x,pos_y,M,Q", &["--columns", "time=when"], "mass from 'M'"),
    ] {
        let (document, data) = imported("t.csv", &text(header), arguments);
        let data = data.unwrap_or_else(|| panic!("{header}: {document}"));
        assert!(notes(&document).contains(note), "{header}: {}", notes(&document));
        assert_eq!(data.positions(), base.positions(), "{header}");
        assert_eq!(data.accelerations(), base.accelerations(), "{header}");
        assert_eq!((data.masses(), data.charges()), (base.masses(), base.charges()), "{header}");
        assert_eq!(data.times(), base.times(), "{header}");
    }
    let (document, _) = imported("t.csv", &text("n,time,body,x,y,m,M"), &[]);
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains("'m' and 'M' could both be mass"), "{message}");
    let (document, data) = imported("t.csv", &text("n,time,body,x,y,mas,chrge"), &[]);
    assert!(
        notes(&document).contains("mas (if it is the mass: --columns \"mas=mass\")"),
        "{document}"
    );
    assert_eq!(data.unwrap().masses(), [1.0, 1.0]);
}

/// Forces are divided by the masses; numbers of 64 bits stay apart.
#[test]
fn forces_and_long_numbers() {
    let row = |_: usize, _: usize, t: f64, body: usize, x: f64, y: f64| {
        let mass = 2 + body;
        let id = 9007199254740992u64 + body as u64;
        format!("{t},{id},{x},{y},0,0,{mass},{},{}\n", -x * mass as f64, -y * mass as f64)
    };
    let text = format!("time,id,x,y,vx,vy,mass,fx,fy\n{}", circle(1, 3, row));
    let (document, data) = imported("t.csv", &text, &[]);
    let data = data.unwrap_or_else(|| panic!("{document}"));
    assert_eq!((data.about.bodies, data.about.frames), (2, 3));
    assert!(notes(&document).contains("forces over the masses"));
    let pairs = data.accelerations().iter().zip(data.positions());
    assert!(pairs.clone().all(|(a, x)| (a + x).abs() < 1e-6));
}

/// Gaps, restarts, lost bodies, clocks of their own, rounding.
#[test]
fn runs_are_read_with_what_is_there() {
    let line =
        |run: usize, t: f64, body: usize, x: f64, y: f64| format!("{run},{t},{body},{x},{y}\n");
    let table = |row: &dyn Fn(usize, usize, f64, usize, f64, f64) -> String| {
        format!("run,time,body,x,y\n{}", circle(3, 40, row))
    };
    let whole = table(&|run, _, t, body, x, y| line(run, t, body, x, y));
    let exact = |data: &Dataset, run: usize, frames: std::ops::Range<usize>| {
        let size = data.about.frames * 4;
        for at in run * size + frames.start * 4..run * size + frames.end * 4 {
            let (a, x) = (data.accelerations()[at], data.positions()[at]);
            assert!((a + x).abs() < 1e-2, "run {run}, element {at}: {a} {x}");
        }
    };

    // A restart repeats a frame.
    let repeated: String = whole.lines().skip(1).take(6).map(|l| format!("{l}\n")).collect();
    let (document, data) = imported("t.csv", &format!("{whole}{repeated}"), &[]);
    assert!(notes(&document).contains("6 rows repeat others"), "{document}");
    assert_eq!(data.unwrap().about.frames, 40);

    // A body is lost for good, another for three frames: whole frames stay, no fit crosses the gap.
    let lost = table(&|run, frame, t, body, x, y| match (run, body, frame) {
        (1, 1, 20..) | (2, 0, 15..18) => String::new(),
        _ => line(run, t, body, x, y),
    });
    let unseen = table(&|run, frame, t, body, x, y| match (run, body, frame) {
        (1, 1, 20..) | (2, 0, 15..18) => format!("{run},{t},{body},,NaN\n"),
        _ => line(run, t, body, x, y),
    });
    for text in [lost, unseen] {
        let (document, data) = imported("t.csv", &text, &[]);
        let data = data.unwrap_or_else(|| panic!("{document}"));
        assert!(notes(&document).contains("23 of 120 frames lack a body"), "{document}");
        assert!(notes(&document).contains("1 gap in time"), "{document}");
        assert_eq!([0, 1, 2].map(|run| data.length(run)), [40, 20, 37]);
        assert_eq!([0, 1, 2].map(|run| data.unbroken(run)), [40, 20, 15]);
        [0..40, 0..20, 0..37].into_iter().enumerate().for_each(|(run, f)| exact(&data, run, f));
        // What is beyond a run's length are its own frames again.
        let run = &data.positions()[160..320];
        assert_eq!(run[80..], run[..80]);
        assert_eq!(data.times_of(2)[15], 0.05 * 18.0);
    }

    // Clocks of their own, and one that has gathered rounding.
    let own = table(&|run, _, t, body, x, y| line(run, t + 100.0 * run as f64, body, x, y));
    let (document, data) = imported("t.csv", &own, &[]);
    let data = data.unwrap_or_else(|| panic!("{document}"));
    assert_eq!([0, 1, 2].map(|run| data.times_of(run)[0]), [0.0, 100.0, 200.0]);
    exact(&data, 2, 0..40);
    let rounded = table(&|run, _, t, body, x, y| {
        line(run, t * (1.0 + 1e-13 * (run + body) as f64), body, x, y)
    });
    let (document, data) = imported("t.csv", &rounded, &[]);
    let data = data.unwrap_or_else(|| panic!("{document}"));
    assert_eq!((data.about.frames, data.times().len()), (40, 40));
    assert_eq!(data.times_of(0).as_ptr(), data.times_of(2).as_ptr(), "one clock");

    // Other numbers of bodies, or each kind by itself.
    let fewer = table(&|run, _, t, body, x, y| {
        let third = if run == 1 { line(run, t, 2, 3.0, t) } else { String::new() };
        line(run, t, body, x, y) + if body == 1 { &third } else { "" }
    });
    let (document, data) = imported("t.csv", &fewer, &[]);
    assert_eq!((&document["fewest_bodies"], &document["bodies"]), (&2.into(), &3.into()));
    let data = data.unwrap_or_else(|| panic!("{document}"));
    assert_eq!([0, 1, 2].map(|run| data.bodies(run)), [2, 3, 2]);
    assert_eq!([0, 1, 2].map(|run| data.targets(run, 7).len()), [4, 6, 4]);
    let mut third = Vec::new();
    data.features(1, 7, &mut third);
    assert_eq!((third.len(), third[2 * 6]), (3 * 6, 3.0));
    let (document, data) = imported("t.csv", &fewer, &["--bodies", "2"]);
    assert!(notes(&document).contains("1 of 3 runs do not have 2 bodies"), "{document}");
    assert_eq!(data.unwrap().about.runs, 2);
    let (document, _) = imported("t.csv", &fewer, &["--bodies", "4"]);
    assert!(document["error"]["message"].as_str().unwrap().contains("no run has 4 bodies"));
    // A body alone.
    let alone = table(&|run, _, t, body, x, y| match (run, body) {
        (0, 1) => String::new(),
        _ => line(run, t, body, x, y),
    });
    let (document, data) = imported("t.csv", &alone, &[]);
    assert!(notes(&document).contains("1 of 3 runs have fewer than two bodies"), "{document}");
    assert_eq!(data.unwrap().about.runs, 2);
}

/// Without a column for runs there is one; one dimension is a line in the plane; a flat z is left out.
#[test]
fn fewer_dimensions() {
    let line = circle(1, 10, |_, _, t, body, x, _| format!("{t} {body} {x}\n"));
    let (document, data) = imported("t.dat", &format!("t body x\n{line}"), &[]);
    let data = data.unwrap_or_else(|| panic!("{document}"));
    assert_eq!((data.about.runs, data.about.dim), (1, 2));
    assert!(notes(&document).contains("one dimension"), "{document}");
    assert!(data.positions().iter().skip(1).step_by(2).all(|y| *y == 0.0));
    let flat = circle(1, 10, |_, _, t, body, x, y| format!("{t} {body} {x} {y} 7\n"));
    let (document, data) = imported("t.dat", &format!("t body x y z\n{flat}"), &[]);
    assert!(notes(&document).contains("z never changes"), "{document}");
    assert_eq!(data.unwrap().about.dim, 2);
}

/// LAMMPS and XYZ say the same in their own words.
#[test]
fn dumps_of_other_programs() {
    let positions = |data: &Dataset| data.positions().to_vec();
    let table = circle(1, 9, |_, _, t, body, x, y| format!("{t},{body},{x},{y},{}\n", 1 + body));
    let (_, base) = imported("t.csv", &format!("time,body,x,y,z\n{table}"), &[]);
    let base = base.unwrap();
    let near = |found: Vec<f32>| {
        let same = found.iter().zip(base.positions()).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(same && found.len() == base.positions().len(), "{found:?}");
    };
    let dump = |columns: &str, cells: &dyn Fn(f64, f64) -> String| {
        circle(1, 9, |_, frame, _, body, x, y| {
            let head = format!(
                "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp ff\n-2 8\n-2 8\n0 10\n\
                 ITEM: ATOMS id type {columns}\n",
                frame * 10
            );
            format!(
                "{}{} 1 {} {}\n",
                if body == 0 { &head } else { "" },
                body + 1,
                cells(x, y),
                1 + body
            )
        })
    };
    for (columns, cells) in [
        ("x y z", (&|x, y| format!("{x} {y}")) as &dyn Fn(f64, f64) -> String),
        ("xs ys z", &|x, y| format!("{} {}", (x + 2.0) / 10.0, (y + 2.0) / 10.0)),
        ("ix x y z", &|x, y| format!("-1 {} {y}", x + 10.0)),
    ] {
        let (document, data) =
            imported("run.lammpstrj", &dump(columns, cells), &["--time-step", "0.005"]);
        let data = data.unwrap_or_else(|| panic!("{columns}: {document}"));
        near(positions(&data));
        assert!((data.times()[8] - base.times()[8]).abs() < 1e-9);
        assert!(notes(&document).contains("type"), "{document}");
    }
    let cut = dump("x y z", &|x, y| format!("{x} {y}"));
    let (document, _) = imported("run.dump", &cut[..cut.len() - 20], &[]);
    assert!(document["error"]["row"].as_u64().is_some(), "{document}");

    let extended = circle(1, 9, |_, _, t, body, x, y| {
        let head =
            format!("2\nLattice=\"9 0 0 0 9 0 0 0 9\" Properties=species:S:1:pos:R:3 Time={t}\n");
        format!("{}Ar {x} {y} {}\n", if body == 0 { &head } else { "" }, 1 + body)
    });
    let plain = circle(1, 9, |_, frame, _, body, x, y| {
        let head = format!("2\nframe {frame}\n");
        format!("{}Ar {x} {y} {}\n", if body == 0 { &head } else { "" }, 1 + body)
    });
    for (text, arguments) in [(extended, &[][..]), (plain, &["--time-step", "0.05"])] {
        let (document, data) = imported("run.xyz", &text, arguments);
        let data = data.unwrap_or_else(|| panic!("{document}"));
        near(positions(&data));
        assert!((data.times()[8] - base.times()[8]).abs() < 1e-9);
    }
}

/// Arrays of other shapes, and what Python writes with the two keys that docs/files.md names.
#[test]
fn arrays_make_data_sets() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("t.safetensors"), folder.path().join("o.safetensors"));
    let arguments = ["import", path.to_str().unwrap(), "-o", out.to_str().unwrap(), "--overwrite"];
    let (runs, frames) = (8usize, 12usize);
    let position = |run: usize, frame: usize, body: usize, axis: usize| {
        let angle = 0.05 * frame as f64 + (run + body * 3) as f64;
        if axis == 0 { angle.cos() } else { angle.sin() }
    };
    let mut values = Vec::new();
    for at in 0..runs * frames * 4 {
        values.push(position(at / 4 / frames, at / 4 % frames, at / 2 % 2, at % 2));
    }
    let write = |kind: &str, tensors: &[(&str, &[usize], &[f64])]| {
        let specs: Vec<TensorSpec> =
            tensors.iter().map(|(name, shape, _)| TensorSpec::f64(name, shape)).collect();
        let mut writer = TensorWriter::create(&path, kind, serde_json::json!({}), &specs).unwrap();
        for (name, _, values) in tensors {
            writer.slice::<f64>(name).copy_from_slice(values);
        }
        writer.finish().unwrap();
    };
    let shape = [runs, frames, 2, 2];
    let times: Vec<f64> = (0..frames).map(|k| 0.05 * k as f64).collect();
    write("arrays", &[("x", &shape, &values), ("t", &[frames], &times), ("m", &[2], &[1.0, 3.0])]);
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(0), "{document}");
    let data = Dataset::open_in(&out, Units::Stored).unwrap();
    assert_eq!((data.about.runs, data.about.frames), (runs, frames));
    assert_eq!(data.masses()[..4], [1.0, 3.0, 1.0, 3.0]);
    assert!(data.positions().iter().zip(&values).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));

    // One run, no times.
    write("arrays", &[("positions", &shape[1..], &values[..frames * 4])]);
    let (code, document) = lawsmith(&[&arguments[..], &["--time-step", "0.05"]].concat());
    assert_eq!(code, Some(0), "{document}");
    assert!(notes(&document).contains("frames are 0.05 apart"), "{document}");
    assert_eq!(Dataset::open_in(&out, Units::Stored).unwrap().times(), times);

    // Axes in another order are noticed, other shapes refused.
    let mut turned = Vec::new();
    for at in 0..runs * frames * 4 {
        turned.push(position(at / 4 % runs, at / 4 / runs, at / 2 % 2, at % 2));
    }
    write("arrays", &[("positions", &[frames, runs, 2, 2], &turned)]);
    let (_, document) = lawsmith(&arguments);
    assert!(notes(&document).contains("may be [frame, run, body, dim]"), "{document}");
    // Also where there are then too few frames to fit.
    let few = turned.chunks_exact(runs * 4).flat_map(|frame| &frame[..3 * 4]).copied();
    write("arrays", &[("positions", &[frames, 3, 2, 2], &few.collect::<Vec<f64>>())]);
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(1), "{document}");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains("too few times"), "{message}");
    assert!(message.contains("may be [frame, run, body, dim]"), "{message}");
    write("arrays", &[("positions", &[runs, frames, 1, 4], &values)]);
    let (code, document) = lawsmith(&arguments);
    assert_eq!((code, document["error"]["field"].as_str()), (Some(1), Some("positions")));
}

#[test]
fn a_data_set_from_python_needs_kind_and_version_only() {
    let folder = tempfile::tempdir().unwrap();
    let truth = simulated(folder.path(), &["--runs", "4", "--frames", "6"]);
    let path = folder.path().join("python.safetensors");
    let shape = [4, 6, 4, 2];
    let specs = [
        TensorSpec::f32("positions", &shape),
        TensorSpec::f32("velocities", &shape),
        TensorSpec::f32("accelerations", &shape),
        TensorSpec::f32("masses", &[4, 4]),
        TensorSpec::f32("charges", &[4, 4]),
        TensorSpec::f64("times", &[6]),
    ];
    let mut writer = TensorWriter::create(&path, "dataset", serde_json::json!({}), &specs).unwrap();
    writer.slice::<f32>("positions").copy_from_slice(truth.positions());
    writer.slice::<f32>("velocities").copy_from_slice(truth.velocities());
    writer.slice::<f32>("accelerations").copy_from_slice(truth.accelerations());
    writer.slice::<f32>("masses").copy_from_slice(truth.masses());
    writer.slice::<f64>("times").copy_from_slice(truth.times());
    writer.finish().unwrap();
    let data = Dataset::open_in(&path, Units::Stored).unwrap();
    assert_eq!(
        (data.about.runs, data.about.frames, data.about.bodies, data.about.dim),
        (4, 6, 4, 2)
    );
    assert!(data.about.law.is_none());
    assert_eq!(data.length(3), 6);
}

/// Velocities, accelerations and clocks that are given in other units than the positions.
#[test]
fn values_that_disagree_are_warned_of() {
    let table = |v: f64, a: f64, clock: f64| {
        let row = |_: usize, _: usize, t: f64, body: usize, x: f64, y: f64| {
            format!("{},{body},{x},{y},{},{},{},{}\n", clock * t, -v * y, v * x, -a * x, -a * y)
        };
        format!("time,body,x,y,vx,vy,ax,ay\n{}", circle(1, 40, row))
    };
    for (v, a, clock, expected) in [
        (1.0, 1.0, 1.0, ""),
        (1.02, 1.0, 1.0, ""),
        (4.74, 1.0, 1.0, "velocities are 4.74 times"),
        (
            1.0,
            -1.0,
            1.0,
            "accelerations are -1 times what the positions say: is the sign reversed?",
        ),
        (1.0, 1.0, 86400.0, "the times are 86400 times what velocities and accelerations say"),
    ] {
        let (document, data) = imported("t.csv", &table(v, a, clock), &[]);
        assert!(data.is_some(), "{document}");
        let said = notes(&document);
        let right = if expected.is_empty() { said.is_empty() } else { said.contains(expected) };
        assert!(right, "{expected}: {said}");
    }
}

/// The stated bar holds for 90 to 99 % of all components, with noise and without, across gaps; the window grows
/// with the noise.
#[test]
fn error_bars_hold() {
    let folder = tempfile::tempdir().unwrap();
    let truth = simulated(folder.path(), &["--runs", "20", "--frames", "120", "--dt", "0.02"]);
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    let mut windows = Vec::new();
    for noise in [0.0, 1e-4, 1e-2] {
        table(&truth, &csv, false, noise);
        let text = std::fs::read_to_string(&csv).unwrap();
        // Nobody looked from frame 50 to frame 69.
        let seen = |line: &&str| {
            line.split(',')
                .nth(1)
                .unwrap()
                .parse()
                .map_or(true, |t: f64| !(0.99..1.39).contains(&t))
        };
        let text: String = text.lines().filter(seen).map(|line| format!("{line}\n")).collect();
        std::fs::write(&csv, text).unwrap();
        let paths = ["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap(), "--overwrite"];
        let (code, document) = lawsmith(&paths);
        assert_eq!(code, Some(0), "{document}");
        let data = Dataset::open_in(&out, Units::Stored).unwrap();
        assert_eq!(data.about.frames, 100);
        let bar = document["acceleration_error"]["within_95"].as_f64().unwrap();
        let (mut inside, mut all) = (0, 0);
        for run in 0..20 {
            for frame in 0..100 {
                let of_truth = if frame < 50 { frame } else { frame + 20 };
                let pairs = data.targets(run, frame).iter().zip(truth.targets(run, of_truth));
                inside += pairs.clone().filter(|(a, b)| f64::from((*a - *b).abs()) < bar).count();
                all += pairs.count();
            }
        }
        let share = inside as f64 / all as f64;
        assert!((0.90..0.99).contains(&share), "noise {noise}: {share} within {bar}");
        windows.push(document["window"].as_u64().unwrap());
    }
    assert!(windows[0] < 10 && windows[2] > windows[1], "{windows:?}");
}

/// Paths that cross the edges of a box of 4 are noticed without `--box`, and with one of another size; in the right box
/// they are taken apart.
#[test]
fn a_box_is_noticed_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    let mut text = "time,body,x,y\n".to_string();
    for k in 0..60 {
        let t = 0.1 * f64::from(k);
        let [a, b] = [(3.0 + t).rem_euclid(4.0), (1.0 - 0.7 * t).rem_euclid(4.0)];
        text += &format!("{t},a,{a},0.5\n{t},b,{b},{}\n", 0.01 * t);
    }
    std::fs::write(&csv, text).unwrap();
    for (edge, expected) in
        [(None, "name it with --box"), (Some("1,0"), "the box has an edge of 1"), (Some("4,0"), "")]
    {
        let mut arguments =
            vec!["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap(), "--overwrite"];
        arguments.extend(edge.iter().flat_map(|edge| ["--box", edge]));
        let (code, document) = lawsmith(&arguments);
        assert_eq!(code, Some(0), "{document}");
        let said = document["notes"].to_string();
        assert_eq!(said.contains("jump"), !expected.is_empty(), "{document}");
        assert!(said.contains(expected), "{document}");
    }
    let data = Dataset::open_in(&out, Units::Stored).unwrap();
    let steps = data.positions().chunks(4).zip(data.positions().chunks(4).skip(1));
    assert!(steps.into_iter().all(|(now, next)| (next[0] - now[0] - 0.1).abs() < 1e-4));
}
