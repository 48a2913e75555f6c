//! A GPU through the command line: every stage of `distill` on it, the formulas of a processor, and what
//! happens where its memory is short. Runs where there is one, or under `scripts/emulated`.

use std::path::Path;
use std::process::{Command, Output};

use lawsmith::device::{Device, Simd, driver};

/// The device and whether it is the stand-in, whose memory a variable sets.
fn gpu() -> Option<bool> {
    match Device::pick("cuda:0") {
        Ok(Device::Gpu(gpu)) => Some(gpu.is_emulated()),
        Ok(Device::Cpu(_)) => unreachable!("cuda:0 is a GPU"),
        Err(error) => {
            assert!(std::env::var_os("LAWSMITH_REQUIRE_GPU").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn lawsmith(device: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lawsmith"));
    command.args(arguments).args(["--device", device, "-q"]);
    command
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Component, complexity and equation of each line, with `#` for the digits of a constant.
fn structures(run: &Path) -> Vec<String> {
    let table = std::fs::read_to_string(run.join("hall_of_fame.csv")).unwrap();
    let lines = table.lines().skip(1).map(|line| {
        let parts: Vec<&str> = line.splitn(5, ',').collect();
        let mut structure = format!("{} {} ", parts[0], parts[1]);
        let mut constant = false;
        for (at, c) in parts[4].char_indices() {
            // The digits of m1 and x2 belong to a name.
            let named = at > 0 && parts[4].as_bytes()[at - 1].is_ascii_alphabetic() && !constant;
            let digit = (c.is_ascii_digit() || c == '.') && !named;
            if digit && !constant {
                structure.push('#');
            }
            constant = digit || (constant && (c == 'e' || c == '-'));
            if !constant {
                structure.push(c);
            }
        }
        structure
    });
    lines.collect()
}

#[test]
fn gpu_every_stage_of_distill_and_the_formulas_of_the_processor() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let sizes = ["--runs", "20", "--frames", "20", "--steps", "3", "--evaluations", "200"];
    succeed(lawsmith("cuda:0", &[&["distill", "-o", text(&run)], &sizes[..]].concat()));
    for file in ["config.toml", "model.safetensors", "messages.safetensors", "report.html"] {
        assert!(run.join(file).metadata().unwrap().len() > 0, "{file}");
    }
    // And each as a command of its own, on what is there.
    for stage in ["messages", "regress", "compose", "predict"] {
        let search = matches!(stage, "regress" | "compose");
        let more: &[&str] = if search { &["--evaluations", "200"] } else { &[] };
        succeed(lawsmith("cuda:0", &[&[stage, text(&run)], more].concat()));
        if stage == "regress" && Simd::detect() >= Simd::Avx512 {
            // Sums on a GPU are taken in the order of these vectors.
            let found = structures(&run);
            succeed(lawsmith("cpu", &["regress", text(&run), "--evaluations", "200"]));
            assert_eq!(found, structures(&run));
            assert!(found.len() > 4, "{found:?}");
        }
    }
}

#[test]
fn gpu_fits_of_a_batch_share_launches_and_end_as_each_alone() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut random = lawsmith::random::Random::new(3, 1);
    let mut jobs = String::new();
    for (name, rows, loss) in [("one", 40, "mae"), ("two", 90, "mse"), ("three", 60, "huber:0.5")] {
        let mut table = String::from("a,b,y\n");
        for _ in 0..rows {
            let (a, b) = (random.normal(), 0.5 + random.uniform());
            table += &format!("{a},{b},{}\n", a / b + rows as f64 * b.sin());
        }
        std::fs::write(path(&format!("{name}.csv")), table).unwrap();
        jobs += &format!("[[job]]\ntable = \"{name}.csv\"\ntarget = \"y\"\nloss = \"{loss}\"\n");
        jobs += "evaluations = 200\nislands = 2\n";
    }
    std::fs::write(path("jobs.toml"), jobs).unwrap();
    let (list, whole) = (path("jobs.toml"), path("all"));
    let batch = ["regress", "--batch", text(&list), "-o", text(&whole)];
    // One thread is enough for the fits side by side.
    let mut command = lawsmith("cuda:0", &[&batch[..], &["--json", "--threads", "1"]].concat());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let [requests, launches] =
        ["requests", "launches"].map(|key| document["device"][key].as_u64().unwrap());
    assert!(0 < launches && launches < requests, "{document}");
    for (name, loss) in [("one", "mae"), ("two", "mse"), ("three", "huber:0.5")] {
        let (table, run) = (path(&format!("{name}.csv")), path(name));
        let limits = ["--evaluations", "200", "--islands", "2", "--loss", loss];
        let alone = ["regress", text(&table), "--target", "y", "-o", text(&run)];
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lawsmith"));
        command.args(alone).args(limits).args(["--device", "cuda:0"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("computed on the CPU"), loss == "huber:0.5", "{said}");
        let hall = |folder: &Path| std::fs::read(folder.join("hall_of_fame.csv")).unwrap();
        assert!(hall(&run) == hall(&whole.join(name)), "{name}");
    }
}

#[test]
fn gpu_refits_on_a_graph_of_halos_are_those_of_the_processor() {
    if gpu().is_none() || Simd::detect() < Simd::Avx2 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (csv, halos, graph) =
        (path("halos.csv"), path("halos.safetensors"), path("graph.safetensors"));
    let mut table = "x,y,z,vx,vy,vz,mass,delta\n".to_string();
    for k in 0..150u32 {
        // Anywhere in the box, by the fractions of multiples.
        let part = |by: f64| (f64::from(k) * by).fract();
        let [x, y, z] = [0.618_034, 0.414_214, 0.732_051].map(|by| 100.0 * part(by));
        let [u, v, w] = [0.236_068, 0.645_751, 0.316_625].map(|by| 600.0 * (part(by) - 0.5));
        let (mass, delta) = (1e13 * (1.0 + part(0.259_921)), part(0.442_25));
        table += &format!("{x},{y},{z},{u},{v},{w},{mass},{delta}\n");
    }
    std::fs::write(&csv, table).unwrap();
    succeed(lawsmith("cpu", &["catalog", text(&csv), "--box", "100", "-o", text(&halos)]));
    succeed(lawsmith("cpu", &["graph", text(&halos), "--radius", "20", "-o", text(&graph)]));
    let table = |device: &str| {
        let output =
            lawsmith(device, &["reproduce", "table6", text(&graph), "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    };
    let (here, there) = (table("cpu"), table("cuda:0"));
    assert!(here.contains("found, with mass"), "{here}");
    assert_eq!(here, there);
}

/// The one line of an error.
fn refused(output: Output) -> String {
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    text
}

#[test]
fn gpu_simulations_stream_the_same_file_whatever_the_memory() {
    let Some(emulated) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let simulate = |device: &str, to: &Path| {
        let sizes = ["--runs", "30", "--frames", "50", "--integrator", "rk4"];
        lawsmith(device, &[&["simulate", "-o", text(to)], &sizes[..]].concat())
    };
    succeed(simulate("cuda:0", &file("large")));
    let large = std::fs::read(file("large")).unwrap();
    if emulated {
        // Room for three chunks of some frames.
        let mut command = simulate("cuda:0", &file("small"));
        command.env("LAWSMITH_EMULATED_MEMORY", "100000");
        succeed(command);
        assert!(std::fs::read(file("small")).unwrap() == large);
    }
    succeed(simulate("cpu", &file("cpu")));
    let positions = |name: &str| {
        let bytes = std::fs::read(file(name)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let data = tensors.tensor("positions").unwrap().data().chunks_exact(4);
        data.map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect::<Vec<f32>>()
    };
    let (here, there) = (positions("cpu"), positions("large"));
    assert_eq!(here.len(), there.len());
    for (a, b) in here.iter().zip(&there) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} and {b}");
    }
}

#[test]
fn gpu_too_little_memory_is_one_error_that_leaves_nothing() {
    if gpu() != Some(true) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let short = |arguments: &[&str], memory: &str| {
        let mut command = lawsmith("cuda:0", arguments);
        command.env("LAWSMITH_EMULATED_MEMORY", memory);
        let error = refused(command.output().unwrap());
        assert!(error.contains("cuda:0 has too little memory: "), "{error}");
        assert!(error.contains(" MiB more are needed, "), "{error}");
    };
    let (data, run) = (path("data.safetensors"), path("run"));
    let sizes = ["--runs", "20", "--frames", "20"];
    let simulate = [&["simulate", "-o", text(&data)], &sizes[..]].concat();
    short(&simulate, "2000");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    succeed(lawsmith("cpu", &simulate));
    let train = ["train", text(&data), "--steps", "2", "-o", text(&run)];
    short(&train, "100000");
    assert!(!run.join("model.safetensors").exists());
    succeed(lawsmith("cpu", &[&train[..], &["--overwrite"]].concat()));
    let model = std::fs::read(run.join("model.safetensors")).unwrap();
    short(&[&train[..], &["--overwrite"]].concat(), "100000");
    assert!(std::fs::read(run.join("model.safetensors")).unwrap() == model);

    succeed(lawsmith("cpu", &["messages", text(&run)]));
    short(&["regress", text(&run), "--evaluations", "200"], "2000");
    assert!(!run.join("laws.json").exists());
}

/// Halos in a box of 60 Mpc/h, with an overdensity that is as good as any other number.
fn halos() -> String {
    let mut random = lawsmith::random::Random::new(5, 0);
    let mut table = String::from("x,y,z,vx,vy,vz,mass,delta\n");
    for _ in 0..400 {
        let [x, y, z] = [(); 3].map(|()| 60.0 * random.uniform());
        let [vx, vy, vz] = [(); 3].map(|()| 300.0 * random.normal());
        let mass = 1e13 * (1.0 + random.uniform());
        table += &format!("{x},{y},{z},{vx},{vy},{vz},{mass},{}\n", (0.1 * x).sin() + mass / 1e13);
    }
    table
}

#[test]
fn gpu_a_graph_of_halos_goes_through_every_stage() {
    let Some(emulated) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("halos.csv"), halos()).unwrap();
    let (catalog, graph) = (path("halos.safetensors"), path("graph.safetensors"));
    succeed(lawsmith(
        "cpu",
        &["catalog", text(&path("halos.csv")), "--box", "60", "-o", text(&catalog)],
    ));
    let build = |device: &str, to: &Path| {
        succeed(lawsmith(device, &["graph", text(&catalog), "--radius", "11", "-o", text(to)]));
        std::fs::read(to).unwrap()
    };
    assert!(build("cuda:0", &graph) == build("cpu", &path("again.safetensors")), "edges");

    let train = |device: &str, run: &str, more: &[&str]| {
        let output = path(run);
        let arguments =
            ["train", text(&graph), "--steps", "20", "--hidden", "17", "-o", text(&output)];
        let mut command = lawsmith(device, &[&arguments[..], more].concat());
        command.arg("--json");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    // The same on both: left to itself, each takes its fastest.
    let f32 = ["--precision", "f32"];
    let (here, there) = (train("cpu", "cpu", &f32), train("cuda:0", "gpu", &f32));
    for key in ["train_loss", "validation_loss"] {
        let (a, b) = (here[key].as_f64().unwrap(), there[key].as_f64().unwrap());
        assert!((a - b).abs() < 1e-4 * a, "{key}: {a} and {b}");
    }
    train("cuda:0", "bf16", &["--precision", "bf16"]);
    let run = path("bf16");
    succeed(lawsmith("cuda:0", &["messages", text(&run)]));
    for stage in ["regress", "compose"] {
        succeed(lawsmith("cuda:0", &[stage, text(&run), "--evaluations", "300"]));
    }
    succeed(lawsmith("cuda:0", &["report", text(&run)]));
    assert!(run.join("report.html").metadata().unwrap().len() > 0);

    // Killed behind some checkpoints, and resumed.
    let killed = path("killed");
    let sizes = ["--steps", "20", "--hidden", "17"];
    let train = [&["train", text(&graph), "-o", text(&killed)], &sizes[..]].concat();
    let mut child = lawsmith("cuda:0", &train).spawn().unwrap();
    let rows = || std::fs::read_to_string(killed.join("metrics.csv")).unwrap_or_default();
    while rows().lines().count() < 6 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let _ = child.kill();
    assert!(child.wait().unwrap().code().is_none(), "it ended before it was killed");
    succeed(lawsmith("cuda:0", &[&train[..], &["--resume"]].concat()));
    for file in ["model.safetensors", "metrics.csv"] {
        let [a, b] = ["gpu", "killed"].map(|run| std::fs::read(path(run).join(file)).unwrap());
        assert!(a == b, "{file} differs after a kill");
    }

    // What does not fit is known before anything is removed: the graph, the network, a step.
    if emulated {
        for memory in ["10000", "100000", "1000000"] {
            let arguments = ["train", text(&graph), "-o", text(&run), "--overwrite"];
            let mut command = lawsmith("cuda:0", &arguments);
            command.env("LAWSMITH_EMULATED_MEMORY", memory);
            let error = refused(command.output().unwrap());
            assert!(error.contains("too little memory"), "{error}");
            assert!(error.contains(" more are needed, "), "{error}");
            assert!(run.join("report.html").exists());
        }
    }
}

/// What the stand-in is told, the device that is asked for, and what the user reads.
type Refusal<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn gpu_drivers_that_have_no_device_for_us_say_why() {
    if gpu() != Some(true) {
        return;
    }
    let run = |settings: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lawsmith"));
        command.args(arguments).env_remove("CUDA_VISIBLE_DEVICES").envs(settings.iter().copied());
        command.output().unwrap()
    };
    let listed = |settings: &[(&str, &str)]| {
        let output = run(settings, &["devices"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    const DRIVER: &str = "LAWSMITH_EMULATED_DRIVER";
    const VERSION: &str = "LAWSMITH_EMULATED_VERSION";
    const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
    const TWO: (&str, &str) = ("LAWSMITH_EMULATED_DEVICES", "2");
    let needed = driver::needed();
    let (older, needs) = ((needed - 1000).to_string(), driver::release(needed));
    let offers = driver::release(needed - 1000);
    let old = format!("the driver offers CUDA {offers}, and this build needs {needs} or later: ");
    let turing = [("LAWSMITH_EMULATED_CAPABILITY", "75"), ("LAWSMITH_EMULATED_NAME", "Tesla T4")];
    let refusals: &[Refusal] = &[
        (&[(VERSION, &older[..])], "cuda:0", &old),
        (&[(VISIBLE, "")], "cuda:0", "CUDA_VISIBLE_DEVICES is empty, which hides every GPU"),
        (&[(VISIBLE, "7")], "cuda:0", "CUDA_VISIBLE_DEVICES=7 names no GPU that is there"),
        (&[(DRIVER, "no-device")], "cuda:0", "the driver finds no GPU (nvidia-smi -L lists"),
        (&[(DRIVER, "no-permission")], "cuda:0", "the operating system keeps the driver from"),
        (&[(DRIVER, "mismatch")], "cuda:0", "library and its kernel module are of different"),
        (&[(DRIVER, "not-ready")], "cuda:0", "the driver is not ready: GPUs that are connected by"),
        (&[(DRIVER, "compat")], "cuda:0", "(…/compat) out of LD_LIBRARY_PATH"),
        (&[(DRIVER, "stub")], "cuda:0", "(…/stubs) out of LD_LIBRARY_PATH"),
        (&[(DRIVER, "exclusive")], "cuda:0", "another process uses it, and it is for one process"),
        (&[(DRIVER, "prohibited")], "cuda:0", "its compute mode is 'prohibited' (nvidia-smi -c 0"),
        (&[(DRIVER, "old-ptx")], "cuda:0", "it is newer than the GPUs that this build has machine"),
        (
            &turing,
            "cuda:0",
            "Tesla T4 has compute capability 7.5, and the kernels need 8.0 or later",
        ),
        (&[], "cuda:1", "there is one GPU, cuda:0;"),
        (&[TWO], "cuda:2", "there are 2 GPUs, cuda:0 to cuda:1;"),
        (&[TWO, (VISIBLE, "1")], "cuda:1", "there is one GPU, cuda:0, of CUDA_VISIBLE_DEVICES=1;"),
    ];
    for &(settings, device, why) in refusals {
        let text = refused(run(settings, &["messages", "nowhere", "--device", device]));
        assert!(text.contains(&format!("{device} cannot be used: ")), "{settings:?}: {text}");
        assert!(
            text.contains(why) && text.ends_with("; use --device cpu\n"),
            "{settings:?}: {text}"
        );
        if device != "cuda:0" {
            continue;
        }
        let list = listed(settings);
        assert!(list.contains(why) && list.lines().count() == 2, "{settings:?}: {list}");
        let auto = run(settings, &["messages", "nowhere"]);
        let text = String::from_utf8(auto.stderr).unwrap();
        assert!(text.contains("no GPU: ") && text.contains(why), "{settings:?}: {text}");
    }

    // A driver of the first release that does; a slice of a GPU; several of them.
    let number = needed.to_string();
    let slice = [
        (VERSION, &number[..]),
        ("LAWSMITH_EMULATED_NAME", "NVIDIA H200 MIG 1g.18gb"),
        ("LAWSMITH_EMULATED_MEMORY", "19327352832"),
        (VISIBLE, "MIG-3f2c9d11-0c1d-5a8e-9d52-6f0f7a2b8c44"),
    ];
    let list = listed(&slice);
    assert!(list.contains("cuda:0   NVIDIA H200 MIG 1g.18gb, 18.0 of 18.0 GiB free"), "{list}");
    assert!(
        list.contains(&format!("CUDA {needs} by the driver, {needs} or later needed")),
        "{list}"
    );
    let list = listed(&[TWO]);
    assert!(list.lines().count() == 3 && list.contains("\ncuda:1   emulated, "), "{list}");
}
