//! Tables of simulated runs, in the names that lawsmith gives to columns.

use super::*;

#[test]
fn a_full_table_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, _) = full_table(folder.path());
    comes_back(&truth, &folder.path().join("t.csv"));
}

/// Positions only, with noise of known size: the noise is found, and the accelerations are as wrong
/// as the error bar says.
#[test]
fn positions_alone_give_accelerations_within_their_error_bars() {
    let folder = tempfile::tempdir().unwrap();
    // Harmonic, without a kink where bodies meet: what the fit leaves over is noise.
    let arguments = ["--potential", "0.1*m1*m2*(r - 0.01)^2", "--dt", "0.01"];
    let truth =
        simulated(folder.path(), &[&arguments[..], &["--runs", "30", "--frames", "60"]].concat());
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    for noise in [1e-5, 1e-4, 1e-3] {
        table(&truth, &csv, false, noise);
        let (code, document) = lawsmith(&[
            "import",
            csv.to_str().unwrap(),
            "-o",
            out.to_str().unwrap(),
            "--overwrite",
            "--order",
            "5",
            "--window",
            "15",
        ]);
        assert_eq!(code, Some(0), "{document}");
        assert_eq!(
            document["made"],
            serde_json::json!(["velocities", "accelerations", "mass", "charge"])
        );
        let found = document["position_noise"].as_f64().unwrap();
        assert!((0.95..1.1).contains(&(found / noise)), "{found} {noise}");
        let bar = &document["acceleration_error"];
        let (median, max) = (bar["median"].as_f64().unwrap(), bar["max"].as_f64().unwrap());
        let data = Dataset::open_in(&out, Units::Stored).unwrap();
        assert_eq!(data.about.origin["acceleration_error"]["median"], bar["median"]);
        let errors = data.accelerations().iter().zip(truth.accelerations());
        let mut errors: Vec<f64> = errors.map(|(a, b)| f64::from((a - b).abs())).collect();
        errors.sort_by(f64::total_cmp);
        // Half of normal errors are below 0.67 standard deviations. The bars vary along a run, by a
        // factor of ten towards its ends, so the medians need only agree roughly.
        let ratio = errors[errors.len() / 2] / median;
        assert!((0.3..1.2).contains(&ratio), "noise {noise}: median error {ratio} of its bar");
        let worst = errors[errors.len() - 1];
        assert!(worst < 5.0 * max, "noise {noise}: {worst} with a bar of {max}");
        assert!(data.masses().iter().all(|m| *m == 1.0));
        assert!(data.charges().iter().all(|q| *q == 0.0));
    }
}

/// Times need not be equidistant.
#[test]
fn uneven_times() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    let mut text = "body,y,x,time,run\n".to_string();
    for k in 0..40 {
        let t = 0.05 * f64::from(k) + 0.01 * (f64::from(k) * 0.7).sin();
        for body in 0..2 {
            let phase = f64::from(body);
            text += &format!("{body},{},{},{t},3\n", (t + phase).cos(), (t + phase).sin());
        }
    }
    std::fs::write(&csv, text).unwrap();
    let (code, document) =
        lawsmith(&["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{document}");
    let data = Dataset::open_in(&out, Units::Stored).unwrap();
    // On the unit circle at unit speed a = −r.
    for (at, (a, r)) in data.accelerations().iter().zip(data.positions()).enumerate() {
        let limit = if (16..144).contains(&at) { 2e-4 } else { 3e-2 };
        assert!((a + r).abs() < limit, "{at}: {a} {r}");
    }
}

#[test]
fn bad_tables_are_refused_with_field_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    let header = "run,time,body,x,y\n";
    let good = "0,0,0,1,2\n0,0,1,3,4\n0,1,0,1,2\n0,1,1,3,4\n";
    let with = |rows: &str| format!("{header}{rows}");
    let velocities = |rest: &str| format!("run,time,body,x,y,vx,vy,ax,ay{rest}");
    for (text, field, row, expected) in [
        (String::new(), None, None, "empty"),
        (header.to_string(), None, None, "no rows"),
        ("run,time,body,y\n0,0,0,1\n".into(), Some("x"), None, "no such column"),
        ("run,time,x,y\n0,0,0,1\n".into(), Some("body"), None, "no such column"),
        (with("0,0,0,1,2\n0,0,1,three,4\n"), Some("x"), Some(3), "'three'"),
        (with("0,0,0,1,2\n0,0,1,3,nan\n"), Some("y"), Some(3), "NaN"),
        (with("0,0,0,1,2\n0,0,1,3,inf\n"), Some("y"), Some(3), "inf"),
        (with("0,0,0,1,2\n0,0,1,3,\n"), Some("y"), Some(3), "number"),
        (with("0,0,0,1,2\n0,0,1,3"), None, Some(3), "CSV"),
        (with("0,0,0,1,2\n0,0,1,1e300,0\n"), Some("x"), Some(3), "too large"),
        (with("0,0,,1,2\n"), Some("body"), Some(2), "a name or a number"),
        (with("0,0,0,1,2\n0,1,0,1,2\n"), Some("body"), Some(2), "only one body"),
        (with(&format!("{good}0,1,0,1,3\n")), Some("body"), Some(6), "row 4 already"),
        (
            with(&format!("{good}1,0,0,1,2\n1,7,1,1,2\n")),
            Some("body"),
            Some(6),
            "no time at which all of its 2 bodies are present; body 0 is at 1 of 2 times",
        ),
        (with(&format!("{good}1,0,2,1,2\n")), Some("time"), None, "too few"),
        (with(good), Some("time"), None, "too few"),
        (velocities("\n0,0,0,1,2,0,0,0\n"), None, Some(2), "CSV"),
        ("run,time,body,x,y,vx\n0,0,0,1,2,0\n0,0,1,3,4,0\n".into(), Some("vy"), None, "no such"),
        (
            velocities(",mass\n0,0,0,1,2,0,0,0,0,1\n0,0,1,3,4,0,0,0,0,-1\n"),
            Some("mass"),
            Some(3),
            "positive",
        ),
        (
            velocities(
                ",charge\n0,0,0,1,2,0,0,0,0,1\n0,0,1,3,4,0,0,0,0,1\n\
                 0,1,0,1,2,0,0,0,0,1\n0,1,1,3,4,0,0,0,0,2\n",
            ),
            Some("charge"),
            Some(5),
            "changes with time",
        ),
    ] {
        std::fs::write(&csv, &text).unwrap();
        let (code, document) =
            lawsmith(&["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap()]);
        let error = &document["error"];
        assert_eq!(code, Some(1), "{text}: {document}");
        assert!(error["message"].as_str().unwrap().contains(expected), "{text}: {document}");
        assert_eq!(error["field"].as_str(), field, "{text}: {document}");
        assert_eq!(error["row"].as_u64(), row, "{text}: {document}");
        assert!(error["file"].as_str().unwrap().ends_with("t.csv"), "{document}");
        assert!(!out.exists(), "{text}");
    }
    for (arguments, expected) in [(["--order", "1"], "order 2"), (["--window", "5"], "at least 6")]
    {
        std::fs::write(&csv, with(good)).unwrap();
        let paths = ["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap()];
        let (code, document) = lawsmith(&[&paths[..], &arguments].concat());
        assert_eq!(code, Some(2));
        assert!(document["error"]["message"].as_str().unwrap().contains(expected), "{document}");
    }
}
