//! `lawsmith regress` through the command line: results, errors, interrupts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lawsmith::random::Random;
use serde_json::Value;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A table whose column `y` follows `law(a, b, c)`, with weights that hide spoiled rows.
    fn table(&self, rows: usize, law: impl Fn(f64, f64, f64) -> f64) -> PathBuf {
        let mut random = Random::new(11, 0);
        let mut text = String::from("a,b,c,y,w\n");
        for row in 0..rows {
            let [a, b, c] = [random.normal(), random.normal(), 0.2 + random.normal().abs()];
            let spoiled = row % 3 == 0;
            let y = if spoiled { 100.0 * random.normal() } else { law(a, b, c) };
            text += &format!("{a},{b},{c},{y},{}\n", u8::from(!spoiled));
        }
        self.write("table.csv", &text)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lawsmith"));
        command.current_dir(self.folder.path()).arg("regress").args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The error document of a run that must fail.
    fn error(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).arg("--json").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["error"].clone()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

const WEIGHTED: [&str; 7] =
    ["table.csv", "--target", "y", "--weights", "w", "--operators", "+,-,*,/"];

#[test]
fn a_weighted_table_gives_its_law() {
    let place = Place::new();
    place.table(600, |a, b, c| (1.5 * a - 0.7 * b) / c + 0.3);
    let limits = ["--evaluations", "60000", "--target-loss", "1e-4", "-o", "run", "--json"];
    let output = place.run(&[&WEIGHTED[..], &limits[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let front = document["front"].as_array().unwrap();
    let chosen = &front[document["selected"]["best"].as_u64().unwrap() as usize];
    assert!(chosen["loss"].as_f64().unwrap() < 1e-3, "{chosen}");
    for key in ["evaluations", "node_evaluations", "seconds"] {
        assert!(document[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let laws: Value = serde_json::from_str(&read(&place.path("run/laws.json"))).unwrap();
    let law = &laws[0];
    assert_eq!((law["target"].as_str(), law["rule"].as_str()), (Some("y"), Some("best")));
    assert_eq!(law["equation"], chosen["equation"]);
    let mut variables: Vec<&str> =
        law["variables"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    variables.sort_unstable();
    assert_eq!(variables, ["a", "b", "c"]);
    let hall = read(&place.path("run/hall_of_fame.csv"));
    assert!(hall.starts_with("component,complexity,loss,score,equation\ny,"), "{hall}");
    assert_eq!(hall.lines().count(), front.len() + 1);
    let config: toml::Table = read(&place.path("run/config.toml")).parse().unwrap();
    assert_eq!(config["regress"]["evaluations"].as_integer(), Some(60_000));
    // The same again is refused, then allowed, and gives the same.
    let again = place.run(&[&WEIGHTED[..], &limits[..]].concat());
    assert_eq!(again.status.code(), Some(1));
    let threads = ["--threads", "1", "--overwrite"];
    let again = place.run(&[&WEIGHTED[..], &limits[..], &threads[..]].concat());
    assert!(again.status.success());
    assert_eq!(read(&place.path("run/hall_of_fame.csv")), hall);
}

#[test]
fn the_table_in_text_marks_the_three_choices() {
    let place = Place::new();
    place.table(300, |a, b, _| a * b);
    let output = place.run(&[&WEIGHTED[..], &["--evaluations", "2000"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("complexity"), "{text}");
    for word in ["score", "best", "accuracy", "\nbest: "] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert!(text.ends_with(": a * b\n") || text.ends_with(": b * a\n"), "{text}");
    assert!(place.path("runs/table/laws.json").exists(), "the default folder");
}

#[test]
fn bad_input_is_named() {
    let place = Place::new();
    let y = ["--target", "y"];
    let rows = |row: &str, n: usize| format!("a,y\n{}", format!("{row}\n").repeat(n));
    let error = |name: &str, text: &str, more: &[&str]| {
        place.write(name, text);
        place.error(&[&[name], &y[..], more].concat())
    };
    let good: String = (0..30).map(|i| format!("{i},{}\n", i * i)).collect();
    let good = format!("a,y\n{good}");

    let e = place.error(&["none.csv", "--target", "y"]);
    assert!(e["message"].as_str().unwrap().contains("no such file"), "{e}");
    let e = error("constant.csv", &rows("1,2", 20), &[]);
    assert_eq!(e["field"], "y");
    assert!(e["message"].as_str().unwrap().contains("2 in every row"), "{e}");
    let e = error("few.csv", "a,y\n1,2\n2,3\n", &[]);
    assert!(e["message"].as_str().unwrap().contains("at least 10"), "{e}");
    let e = error("one.csv", "a,y\n1,2\n", &[]);
    assert!(e["message"].as_str().unwrap().contains("has 1 rows"), "{e}");
    assert!(e["file"].as_str().unwrap().ends_with("one.csv"), "{e}");
    let e = error("twice.csv", &good.replace("a,y", "y,y"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(1)));
    let words: String = (0..30).map(|i| format!("word{i},{i}\n")).collect();
    let e = error("words.csv", &format!("a,y\n{words}"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("a"), Some(2)));
    let e = error("infinite.csv", &good.replace("7,49", "7,inf"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(9)));
    let e = error("empty.csv", &good.replace("7,49", "7,"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(9)));
    let e = place.error(&["twice.csv"]);
    assert_eq!((e["kind"].as_str(), e["field"].as_str()), (Some("usage"), Some("target")));
    let e = error("missing.csv", &good.replace("a,y", "a,z"), &[]);
    assert_eq!(e["field"], "y");
    let e = error("nan.csv", &good.replace("7,49", "NaN,49"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("a"), Some(9)));
    let e = error("text.csv", &good.replace("7,49", "7,x"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("y"), Some(9)));
    let e = error("large.csv", &good.replace("7,49", "1e200,49"), &[]);
    assert_eq!((e["field"].as_str(), e["row"].as_u64()), (Some("a"), Some(9)));
    let e = error("name.csv", &good.replace("a,y", "a b,y"), &[]);
    assert_eq!(e["field"], "a b");
    let e = error("input.csv", &good, &["--inputs", "b"]);
    assert_eq!(e["field"], "b");
    let e = error("weight.csv", &good.replace("a,y", "w,y"), &["--inputs", "w", "--weights", "q"]);
    assert_eq!(e["field"], "q");
    let e = error("operator.csv", &good, &["--operators", "+,%"]);
    assert_eq!((e["kind"].as_str(), e["field"].as_str()), (Some("usage"), Some("operators")));
    assert!(!place.path("runs").exists(), "nothing is made before everything is checked");
    place.write("occupied.txt", "kept");
    let e = place.error(&["input.csv", "--target", "y", "-o", "."]);
    assert!(e["message"].as_str().unwrap().contains("--overwrite"), "{e}");
}

/// Waits for the first front of a search that runs without end.
fn started(place: &Place) -> std::process::Child {
    let endless = ["--seconds", "600", "-o", "run", "-q"];
    let mut command = place.command(&[&WEIGHTED[..], &endless[..]].concat());
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !place.path("run/hall_of_fame.csv").exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no front");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Smallest loss of a hall of fame.
fn smallest(hall: &str) -> f64 {
    let losses = hall.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().parse().unwrap());
    losses.fold(f64::INFINITY, f64::min)
}

#[test]
fn ctrl_c_keeps_the_front_and_resume_goes_on() {
    let place = Place::new();
    place.table(300, |a, b, c| a * b / c);
    let mut child = started(&place);
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(place.path("run/laws.json").exists());
    let before = smallest(&read(&place.path("run/hall_of_fame.csv")));
    let more = ["--evaluations", "1000", "-o", "run", "--resume"];
    let output = place.run(&[&WEIGHTED[..], &more[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = smallest(&read(&place.path("run/hall_of_fame.csv")));
    assert!(after <= before, "{after} {before}");
}

#[test]
fn a_kill_leaves_a_front_to_resume() {
    let place = Place::new();
    place.table(300, |a, b, c| a * b / c);
    let mut child = started(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    let hall = read(&place.path("run/hall_of_fame.csv"));
    let before = smallest(&hall);
    let more = ["--evaluations", "1000", "-o", "run", "--resume"];
    let output = place.run(&[&WEIGHTED[..], &more[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = smallest(&read(&place.path("run/hall_of_fame.csv")));
    assert!(after <= before, "{after} {before}");
}
