//! The rooms of `src/` stand on those below them: no import runs upward, and none in a circle. Tests in files of
//! their own may look up: those of `device/` run kernels of `ops/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A room may use those before it.
const FLOORS: [&str; 24] = [
    "crew",
    "error",
    "random",
    "linear",
    "options",
    "observer",
    "panics", // what everything shares
    "simd",
    "formula",
    "law",
    "model", // the ground floor
    "device",
    "store", // where things run, and what they are kept in
    "ops",   // the operations
    "nbody",
    "symbolic",
    "network", // the domains
    "distill",
    "cosmology",
    "pipeline", // the pipeline
    "report",
    "bench",
    "cli",
    "main", // what people see
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a source names: what follows `crate::`, in groups too.
fn rooms_of(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join("\n");
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => rooms.extend([word(rest)]),
            Some(group) => {
                let mut depth = 1;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => start = true,
                        _ if start && !c.is_whitespace() => {
                            rooms.insert(word(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    rooms
}

/// What is wrong with the arrows of a source in `room`.
fn upward(room: &str, text: &str) -> Vec<String> {
    let floor = |room: &str| FLOORS.iter().position(|name| *name == room);
    let Some(here) = floor(room) else { return vec![format!("{room} has no floor")] };
    let above = |other: &String| floor(other).is_some_and(|there| there > here);
    rooms_of(text).into_iter().filter(above).map(|other| format!("{room} uses {other}")).collect()
}

#[test]
fn no_arrow_runs_upward() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    assert!(files.len() > 100, "{} sources", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        let room = parts[1].trim_end_matches(".rs");
        let tests = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        if room == "lib" || tests {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        wrong.extend(
            upward(room, &text).into_iter().map(|what| format!("{}: {what}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "arrows upward:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_upward_is_seen() {
    let text =
        "use crate::error::Error;\nuse crate::{device::Gpu, network::model};\n// crate::cli\n";
    assert_eq!(upward("ops", text), ["ops uses network"]);
    assert_eq!(upward("cli", text), [""; 0]);
    assert_eq!(upward("kitchen", text), ["kitchen has no floor"]);
    assert_eq!(upward("law", "let x = crate::ops::mlp::run();"), ["law uses ops"]);
}
