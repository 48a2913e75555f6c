//! Many fits in one call.

use std::path::PathBuf;
use std::process::Stdio;

use crate::{Place, wait};

#[test]
fn a_batch_goes_on_after_a_kill() {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    place.table(
        "data/one.csv",
        400,
        &[("y", &|a, b, _, _, _| a * b), ("z", &|a, _, c, _, _| a / c)],
    );
    place.table("data/two.csv", 400, &[("y", &|a, b, c, _, _| a * b / c)]);
    let mut jobs =
        String::from("[defaults]\noperators = [\"+\", \"-\", \"*\", \"/\"]\nevaluations = 20000\n");
    for (table, target) in [("one", "y"), ("one", "z"), ("two", "y")] {
        for seed in 0..4 {
            jobs += &format!(
                "[[job]]\nname = \"{table}-{target}-{seed}\"\ntable = \"{table}.csv\"\ntarget = \"{target}\"\n\
                 inputs = [\"a\", \"b\", \"c\"]\nseed = {seed}\nmax_complexity = 15\n"
            );
        }
    }
    place.write("data/jobs.toml", &jobs);
    let arguments = |folder| ["regress", "--batch", "data/jobs.toml", "-q", "-o", folder];
    let whole = place.document(&arguments("whole"));
    assert_eq!(whole["fits"].as_array().unwrap().len(), 12);
    let mut child = place.lawsmith(&arguments("killed")).stdout(Stdio::null()).spawn().unwrap();
    wait(&place.path("killed/one-y-1/fit.json"));
    child.kill().unwrap();
    child.wait().unwrap();
    let results = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(place.path(folder)).unwrap();
        let results = entries.map(|entry| entry.unwrap().path().join("fit.json"));
        results.filter(|path| path.exists()).collect()
    };
    let before = results("killed");
    assert!(!before.is_empty() && before.len() < 12, "{before:?}");
    let written = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    let times: Vec<_> = before.iter().map(written).collect();
    place.document(&arguments("killed"));
    assert_eq!(results("killed").len(), 12);
    assert_eq!(
        before.iter().map(written).collect::<Vec<_>>(),
        times,
        "finished fits are not redone"
    );
    for fit in whole["fits"].as_array().unwrap() {
        let name = fit["name"].as_str().unwrap();
        let [a, b] =
            ["whole", "killed"].map(|f| place.read(&format!("{f}/{name}/hall_of_fame.csv")));
        assert_eq!(a, b, "{name}");
        assert!(fit["loss"].as_f64().unwrap() < 1e-5, "{fit}");
    }
    let summary = place.read("killed/summary.csv");
    assert!(summary.starts_with("name,target,complexity,loss,equation,"), "{summary}");
    assert_eq!(summary.lines().count(), 13);
    // Other settings in the same folders are an error, not new results beside old ones.
    place.write("data/jobs.toml", &jobs.replace("20000", "30000"));
    let e = place.error(&arguments("killed"));
    assert!(e["message"].as_str().unwrap().contains("other settings"), "{e}");
}

/// A kill that comes while the first file of a fit is written.
#[test]
fn a_folder_that_a_batch_had_only_begun_is_its_own() {
    let place = Place::new();
    for name in ["one", "two", "three"] {
        place.table(&format!("{name}.csv"), 60, &[("y", &|a, b, _, _, _| a + b)]);
    }
    let job = |name| format!("[[job]]\ntable = \"{name}.csv\"\ntarget = \"y\"\n");
    let jobs = ["one", "two", "three"].map(job).concat();
    place.write("jobs.toml", &format!("[defaults]\nevaluations = 300\n{jobs}"));
    for folder in ["out", "out/one", "out/two", "out/three"] {
        std::fs::create_dir(place.path(folder)).unwrap();
    }
    place.write("out/two/config.toml.tmp4711", "[regress]\ntab");
    place.write("out/three/notes.txt", "mine");
    let batch = ["regress", "--batch", "jobs.toml", "-o", "out"];
    let e = place.error(&batch);
    assert!(e["message"].as_str().unwrap().contains("something other than a fit"), "{e}");
    assert!(e["file"].as_str().unwrap().ends_with("three"), "{e}");
    std::fs::remove_file(place.path("out/three/notes.txt")).unwrap();
    assert_eq!(place.document(&batch)["fits"].as_array().unwrap().len(), 3);
    let left = place.path("out/two/config.toml.tmp4711");
    assert!(place.path("out/two/fit.json").exists() && !left.exists());
}

#[test]
fn results_of_another_table_are_not_taken_for_new() {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    place.table("data/one.csv", 100, &[("y", &|a, b, _, _, _| a + b)]);
    let jobs = |table: &str| {
        let text = format!("[[job]]\ntable = \"{table}\"\ntarget = \"y\"\nevaluations = 400\n");
        place.write("jobs.toml", &text);
    };
    jobs("data/one.csv");
    let batch = ["regress", "--batch", "jobs.toml", "-o", "out"];
    let first = place.document(&batch);
    // The same table by another path is the same.
    jobs("./data/../data/one.csv");
    assert_eq!(place.document(&batch), first);
    place.table("data/one.csv", 100, &[("y", &|a, b, _, _, _| a - b)]);
    let e = place.error(&batch);
    assert!(e["message"].as_str().unwrap().contains("another table"), "{e}");
    let again = place.document(&[&batch[..], &["--overwrite"]].concat());
    assert_ne!(again["fits"][0]["equation"], first["fits"][0]["equation"]);
}

#[test]
fn a_batch_of_a_folder_and_its_errors() {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    for name in ["one", "two"] {
        place.table(&format!("data/{name}.csv"), 200, &[("y", &|a, b, _, _, _| a + b)]);
    }
    place.write("data/bad.csv", "a,y\n1,2\n");
    let fixture = format!("{}/tests/data/frame.h5", env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(fixture, place.path("data/frame.h5")).unwrap();
    let batch =
        ["regress", "--batch", "data", "--target", "y", "--evaluations", "1000", "-o", "out"];
    // One bad table stops none of the others.
    let e = place.error(&batch);
    assert!(e["file"].as_str().unwrap().ends_with("bad.csv"), "{e}");
    for name in ["one", "two"] {
        assert!(place.path(&format!("out/{name}/laws.json")).exists(), "{name}");
    }
    let summary = place.read("out/summary.csv");
    assert!(
        summary.lines().any(|l| l.starts_with("bad,y,") && l.contains("at least 3")),
        "{summary}"
    );
    assert!(summary.lines().any(|l| l.starts_with("frame,y,")), "HDF5 is a table too: {summary}");
    let error = |jobs: &str| {
        place.write("jobs.toml", jobs);
        place.error(&["regress", "--batch", "jobs.toml", "-o", "bad"])
    };
    assert_eq!(error("[[jobs]]\n")["field"], "jobs");
    assert_eq!(error("")["field"], "job");
    assert_eq!(error("[[job]]\ntarget = \"y\"\n")["field"], "table");
    let e = error("[[job]]\ntable = \"t.csv\"\nspeed = 3\n");
    assert!(e["message"].as_str().unwrap().contains("job 1: unexpected argument '--speed'"), "{e}");
    let twice = "[[job]]\ntable = \"t.csv\"\n".repeat(2);
    assert_eq!(error(&twice)["field"], "name");
    assert!(!place.path("bad").exists());
}
