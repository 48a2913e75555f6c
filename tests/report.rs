//! `lawsmith report`, end to end: a run folder in, a page out, and what happens when a file is broken.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lawsmith::nbody::dataset::{About, Dataset};
use lawsmith::nbody::rollout::Rollouts;
use lawsmith::random::Random;
use lawsmith::store::tensors::{TensorSpec, TensorWriter};
use serde_json::{Value, json};

const EDGES: usize = 4000;

/// Every file that a run of `distill` leaves, with the contents of a good run.
fn run_folder(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write(
        "config.toml",
        "[simulate]\nlaw = \"spring\"\ndim = 2\nbodies = 4\nruns = 500\nframes = 500\nseed = 0\n\n\
         [train]\nmodel = \"bottleneck\"\npreset = \"quick\"\nsteps = 10000\npeak_rate = 0.002\n"
            .into(),
    );
    write("metrics.csv", metrics());
    messages(&folder.join("messages.safetensors"));
    write("hall_of_fame.csv", HALL_OF_FAME.into());
    let law = |index: usize, axis: &str, r2: f64| {
        json!({
            "index": index, "significance": 1.9 - 0.1 * index as f64,
            "force_r2": r2, "force_r2_trimmed": 0.9996, "recovered": true,
            "force_fit": fit(index),
            "verdict": {"r2": 0.99998, "factor": "1/m1", "unsoftened": true, "recovered": true},
            "law": {
                "equation": format!("1.02 * {axis} * (1 - 1.003 / r)"),
                "latex": format!(r"1.02 \cdot \Delta {} \cdot \left(1 - \frac{{1.003}}{{r}}\right)", &axis[1..]),
                "complexity": 9, "loss": 0.0123,
            },
        })
    };
    let summary = json!({
        "components": [law(0, "dx", 0.9991), law(1, "dy", 0.9987)],
        "test_loss": {"network": 0.0831, "formula": 0.00412},
        "outside_loss": {"network": 1.31, "formula": 0.0102},
        "seconds": {"simulate": 0.8, "train": 61.4, "regress": 42.9, "total": 105.6},
    });
    write("messages.json", summary.to_string());
    let laws = json!([
        {"target": "message 0", "stage": "message", "equation": "1.02 * dx * (1 - 1.003 / r)",
         "latex": "x", "variables": ["dx", "r"], "constants": [1.02, 1.003], "complexity": 9,
         "loss": 0.0123, "rule": "best"},
        {"target": "acceleration x", "stage": "composed", "complexity": 13, "loss": 0.00412,
         "rule": "best", "equation": "sum(2.0 * dx * (1 - 1.0 / r)) / m1",
         "latex": r"a_x = \frac{1}{m_1} \sum_{j} 2.0 \cdot \Delta x \cdot \left(1 - \frac{1.0}{r}\right)"},
    ]);
    write("laws.json", laws.to_string());
    rollout(folder);
}

fn metrics() -> String {
    let mut random = Random::new(1, 1);
    let mut text = String::from("step,learning_rate,train_loss,penalty,validation_loss,messages");
    (1..=10).for_each(|k| text.push_str(&format!(",significance_{k}")));
    text.push('\n');
    for row in 1..=200 {
        let t = row as f64 / 200.0;
        let rate = 2e-3 * (1.0 - (2.0 * t - 0.6).abs()).max(1e-3);
        let loss = 0.08 + 4.0 * (-6.0 * t).exp();
        let noisy = loss * (1.0 + 0.1 * random.normal());
        let validation = if row % 5 == 0 { (1.05 * loss).to_string() } else { String::new() };
        let messages = (100.0 * 0.75f64.powf((t * 20.0).floor())).max(2.0).round();
        text.push_str(&format!(
            "{},{rate},{noisy},{},{validation},{messages}",
            row * 50,
            0.3 * loss + 0.01
        ));
        for k in 0..10 {
            let spread = if k < 2 { 0.5 + 1.4 * t } else { 0.5 * (-(4.0 + k as f64) * t).exp() };
            text.push_str(&format!(",{}", spread * (1.0 + 0.02 * random.normal())));
        }
        text.push('\n');
    }
    text
}

/// Coefficients of (Fx, Fy, 1) in the synthetic messages.
fn fit(index: usize) -> [f64; 3] {
    [[0.61, -0.42, 0.03], [0.38, 0.66, -0.01]][index]
}

fn messages(path: &Path) {
    let entry = json!({"components": [0, 1]});
    let specs = [
        TensorSpec::f32("features", &[EDGES, 12]),
        TensorSpec::f32("messages", &[EDGES, 2]),
        TensorSpec::f32("inputs", &[EDGES, 3]),
        TensorSpec::f32("forces", &[EDGES, 2]),
    ];
    let mut random = Random::new(2, 1);
    let mut writer = TensorWriter::create(path, "messages", entry, &specs).unwrap();
    for edge in 0..EDGES {
        let force = [2.5 * random.normal(), 2.5 * random.normal()];
        for k in 0..2 {
            writer.slice::<f32>("forces")[edge * 2 + k] = force[k] as f32;
            let [a, b, c] = fit(k);
            let message = a * force[0] + b * force[1] + c + 0.04 * random.normal();
            writer.slice::<f32>("messages")[edge * 2 + k] = message as f32;
        }
    }
    writer.finish().unwrap();
}

/// Four bodies, each on a spring to the origin, and a network that takes the spring a little too weak.
fn rollout(folder: &Path) {
    let path = folder.join("test.safetensors");
    let about = About {
        runs: 3,
        frames: 200,
        bodies: 4,
        dim: 2,
        law: None,
        origin: json!("test"),
        seed: 0,
        scale: Some(lawsmith::nbody::scale::Scale::NONE),
        period: None,
    };
    let mut writer = about.create(&path).unwrap();
    writer.slice::<f64>("times").iter_mut().enumerate().for_each(|(k, t)| *t = 0.05 * k as f64);
    let mut random = Random::new(3, 1);
    for at in 0..24 {
        let (run, k) = (at / 8, at % 8);
        let (r, v) = (random.normal(), random.normal());
        for frame in 0..200 {
            let t = 0.05 * frame as f64;
            let at = (run * 200 + frame) * 8 + k;
            writer.slice::<f32>("positions")[at] = (r * t.cos() + v * t.sin()) as f32;
            writer.slice::<f32>("velocities")[at] = (v * t.cos() - r * t.sin()) as f32;
        }
    }
    writer.finish().unwrap();
    let data = Dataset::open(&path).unwrap();
    let mut rollouts = Rollouts::new(&data, &[0, 1, 2], 9, 200).unwrap();
    let spring = |stiffness: f32| {
        move |features: &[f32]| {
            Ok(features.chunks(6).flat_map(|f| [-stiffness * f[0], -stiffness * f[1]]).collect())
        }
    };
    rollouts.predict("network", &data, 1, &(), spring(0.95)).unwrap();
    rollouts.predict("formula", &data, 1, &(), spring(0.998)).unwrap();
    rollouts.save(&folder.join("rollout.safetensors")).unwrap();
}

const HALL_OF_FAME: &str = "component,complexity,loss,score,equation
0,1,1.21,0,dx
0,3,0.83,0.188,1.3 * dx
0,5,0.61,0.154,dx * (r - 0.4)
0,7,0.052,1.231,dx * (1.1 - 1.0 / r)
0,9,0.0123,0.721,1.02 * dx * (1 - 1.003 / r)
0,13,0.0119,0.008,1.02 * dx * (1 - 1.003 / (r + 0.001 * m1))
0,17,0.0118,0.002,\"IF(r, 1.02 * dx * (1 - 1.003 / (r + 0.001 * m1)), q1)\"
1,1,1.32,0,dy
1,5,0.71,0.155,dy * (r - 0.41)
1,9,0.0131,0.998,1.02 * dy * (1 - 1.003 / r)
1,14,0.0127,0.006,1.02 * dy * (1 - 1.003 / r) + 0.001 * q2
";

fn report(folder: &Path) -> Output {
    let binary = assert_cmd::cargo::cargo_bin!("lawsmith");
    Command::new(binary).args(["report", "--json"]).arg(folder).output().unwrap()
}

/// The error document of a report that must fail; nothing may have been written.
fn error(folder: &Path) -> Value {
    let output = report(folder);
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.join("report.html").exists());
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"].take()
}

/// The first browser of the path that can run without a window.
fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let path = std::env::var_os("PATH")?;
    let mut folders = std::env::split_paths(&path);
    folders.find_map(|folder| names.iter().map(|n| folder.join(n)).find(|file| file.is_file()))
}

#[test]
fn report_renders_in_a_headless_browser() {
    let Some(browser) = browser() else {
        println!("skipped: no chromium in PATH");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("spring <2d>");
    run_folder(&run);
    let output = report(&run);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = run.join("report.html");
    let dom = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg("--dump-dom")
        .arg(&page)
        .output()
        .unwrap();
    let dom = String::from_utf8(dom.stdout).unwrap();
    let ids = ["result", "loss", "significance", "messages", "front", "trajectories", "settings"];
    for id in ids {
        assert!(dom.contains(&format!("<section id=\"{id}\">")), "no section {id}");
        assert!(dom.contains(&format!("href=\"#{id}\"")), "{id} is not in the contents");
    }
    // The parser of the browser moves or closes what is nested wrongly: what it made of the page must
    // have the elements that were written, and no other.
    let html = std::fs::read_to_string(&page).unwrap();
    for tag in ["svg", "figure", "table", "tr", "math", "mfrac", "section", "circle", "polyline"] {
        let count = |text: &str| text.matches(&format!("<{tag}")).count();
        assert_eq!(count(&dom), count(&html), "<{tag}>");
        assert!(count(&dom) > 0, "no <{tag}>");
    }
    assert!(dom.contains("The true law is recovered in 2 of 2 message components"));
    assert!(dom.contains("<title>spring &lt;2d&gt; · lawsmith</title>"));
    assert!(!dom.contains("NaN"), "a number that is none");
    let (links, scripts) = (html.matches("http").count(), html.matches("<script").count());
    // The name space of SVG is the only address.
    assert_eq!((links, scripts), (html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count(), 0));
}

#[test]
fn report_shows_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path());
    // As after `train` alone.
    for name in ["messages.safetensors", "messages.json", "hall_of_fame.csv", "laws.json"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    std::fs::remove_file(folder.path().join("rollout.safetensors")).unwrap();
    assert!(report(folder.path()).status.success());
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(html.contains("<section id=\"loss\">") && html.contains("<section id=\"settings\">"));
    for id in ["result", "messages", "front", "trajectories"] {
        assert!(!html.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    // As after `regress` alone on a table.
    std::fs::remove_file(folder.path().join("metrics.csv")).unwrap();
    let front = "component,complexity,loss,score,equation\ny,1,0.5,,x\ny,3,0,2.5,x + 1\n";
    std::fs::write(folder.path().join("hall_of_fame.csv"), front).unwrap();
    let laws = r#"[{"target":"y","equation":"x + 1","latex":"x + 1","rule":"best"}]"#;
    std::fs::write(folder.path().join("laws.json"), laws).unwrap();
    assert!(report(folder.path()).status.success());
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(html.contains("Formulas for y") && html.contains("<tr class=\"chosen\">"));
    assert!(html.contains("<section id=\"result\">") && !html.contains("<section id=\"loss\">"));
}

#[test]
fn report_of_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = error(&folder.path().join("none"));
    assert!(missing["file"].as_str().unwrap().ends_with("none"), "{missing}");
    let empty = error(folder.path());
    assert!(empty["message"].as_str().unwrap().contains("no results"), "{empty}");
}

#[test]
fn report_names_the_broken_file() {
    let broken = |name: &str, change: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        run_folder(folder.path());
        change(&folder.path().join(name));
        let error = error(folder.path());
        assert!(error["file"].as_str().unwrap().ends_with(name), "{error}");
        error
    };
    let replace = |from: &'static str, to: &'static str| {
        move |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains(from), "{from} is not there to be broken");
            std::fs::write(path, text.replacen(from, to, 1)).unwrap();
        }
    };
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let empty = |path: &Path| std::fs::write(path, "").unwrap();

    let text = broken("metrics.csv", &replace("\n100,", "\n100,fast,"));
    assert_eq!(text["row"], 3, "{text}");
    let nan = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut rows: Vec<String> = text.lines().map(String::from).collect();
        let mut cells: Vec<&str> = rows[7].split(',').collect();
        cells[2] = "NaN";
        rows[7] = cells.join(",");
        std::fs::write(path, rows.join("\n")).unwrap();
    };
    let nan = broken("metrics.csv", &nan);
    assert_eq!((&nan["field"], &nan["row"]), (&json!("train_loss"), &json!(8)), "{nan}");
    broken("metrics.csv", &replace("train_loss", "loss"));
    broken("metrics.csv", &empty);
    broken("messages.safetensors", &cut);
    broken("rollout.safetensors", &cut);
    broken("messages.json", &cut);
    broken("messages.json", &replace("\"index\":1", "\"index\":9"));
    broken("messages.json", &replace("0.61,", ""));
    broken("laws.json", &empty);
    let loss = broken("hall_of_fame.csv", &replace("0.83", "NaN"));
    assert_eq!((&loss["field"], &loss["row"]), (&json!("loss"), &json!(3)), "{loss}");
    let loss = broken("hall_of_fame.csv", &replace("0.83", "small"));
    assert_eq!(loss["row"], 3, "{loss}");
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path());
    messages_with_nan(&folder.path().join("messages.safetensors"));
    let error = error(folder.path());
    assert_eq!((&error["field"], &error["row"]), (&json!("forces"), &json!(3)), "{error}");
}

fn messages_with_nan(path: &Path) {
    let specs = [TensorSpec::f32("messages", &[4, 2]), TensorSpec::f32("forces", &[4, 2])];
    let mut writer = TensorWriter::create(path, "messages", json!({}), &specs).unwrap();
    writer.slice::<f32>("forces")[5] = f32::NAN;
    writer.finish().unwrap();
}
