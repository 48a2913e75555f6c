//! `lawsmith import` through the command line.

use std::path::Path;

use assert_cmd::Command;
use lawsmith::nbody::dataset::{Dataset, Units};
use lawsmith::store::table::Table;
use lawsmith::store::tensors::{TensorSpec, TensorWriter};
use serde_json::Value;

fn lawsmith(arguments: &[&str]) -> (Option<i32>, Value) {
    let output =
        Command::cargo_bin("lawsmith").unwrap().args(["--json", "-q"]).args(arguments).output();
    let output = output.unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {output:?}");
    });
    (output.status.code(), document)
}

/// Writes the trajectories as a table, columns as asked for, rows back to front.
fn table(data: &Dataset, path: &Path, all: bool, noise: f64) {
    let about = &data.about;
    let axes = &["x", "y", "z"][..about.dim];
    let mut header = vec!["run".to_string(), "time".into(), "body".into()];
    header.extend(axes.iter().map(|d| d.to_string()));
    if all {
        header.extend(axes.iter().map(|d| format!("v{d}")));
        header.extend(axes.iter().map(|d| format!("a{d}")));
        header.extend(["mass".into(), "charge".into()]);
    }
    let mut random = lawsmith::random::Random::new(1, 1);
    let mut rows = Vec::new();
    for run in 0..about.runs {
        for frame in 0..about.frames {
            for body in 0..about.bodies {
                let at = ((run * about.frames + frame) * about.bodies + body) * about.dim;
                let part = |values: &[f32]| values[at..at + about.dim].to_vec();
                let mut row = vec![run as f64, data.times()[frame], (10 * body) as f64];
                let x = part(data.positions());
                row.extend(x.iter().map(|x| f64::from(*x) + noise * random.normal()));
                if all {
                    let rest = [part(data.velocities()), part(data.accelerations())].concat();
                    row.extend(rest.iter().map(|v| f64::from(*v)));
                    let matter = run * about.bodies + body;
                    row.push(data.masses()[matter].into());
                    row.push(data.charges()[matter].into());
                }
                let cells: Vec<String> = row.iter().map(f64::to_string).collect();
                rows.push(cells.join(","));
            }
        }
    }
    rows.push(header.join(","));
    rows.reverse();
    std::fs::write(path, rows.join("\n") + "\n").unwrap();
}

fn simulated(folder: &Path, arguments: &[&str]) -> Dataset {
    let path = folder.join("truth.safetensors");
    let mut all = vec!["simulate", "-o", path.to_str().unwrap(), "--overwrite"];
    all.extend(arguments);
    let (code, document) = lawsmith(&all);
    assert_eq!(code, Some(0), "{document}");
    Dataset::open_in(&path, Units::Stored).unwrap()
}

/// A small set of trajectories with everything in it, as `t.csv` and as a table.
fn full_table(folder: &Path) -> (Dataset, Table) {
    let truth =
        simulated(folder, &["--dim", "3", "--bodies", "3", "--runs", "5", "--frames", "20"]);
    let csv = folder.join("t.csv");
    table(&truth, &csv, true, 0.0);
    (truth, Table::read(&csv).unwrap())
}

/// Imports a table and compares with the dataset that it was written from, bit for bit.
fn comes_back(truth: &Dataset, from: &Path) {
    let out = from.with_extension("out");
    let arguments = ["import", from.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(0), "{document}");
    assert_eq!(document["made"], serde_json::json!([]));
    assert!(document["acceleration_error"].is_null());
    let data = Dataset::open_in(&out, Units::Stored).unwrap();
    assert!(data.about.law.is_none());
    assert_eq!(data.positions(), truth.positions());
    assert_eq!(data.velocities(), truth.velocities());
    assert_eq!(data.accelerations(), truth.accelerations());
    assert_eq!(data.masses(), truth.masses());
    assert_eq!(data.charges(), truth.charges());
    assert_eq!(data.times(), truth.times());
    // A second time it is in the way.
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(2));
    assert!(document["error"]["message"].as_str().unwrap().contains("--overwrite"));
}

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
            "no time at which all of its 2 bodies are there; body 0 is at 1 of 2 times",
        ),
        (with(&format!("{good}1,0,2,1,2\n")), Some("body"), None, "--bodies 2 and --bodies 1"),
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

/// Writes a table as an `.npz` with one array for each column.
fn npz(table: &Table, path: &Path) {
    use npyz::WriterBuilder;
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (index, name) in table.names.iter().enumerate() {
        let column = table.values(name).unwrap();
        let mut bytes = Vec::new();
        let array = npyz::WriteOptions::new().default_dtype().shape(&[column.len() as u64]);
        let mut array = array.writer(&mut bytes).begin_nd().unwrap();
        array.extend(column.iter().copied()).unwrap();
        array.finish().unwrap();
        // As numpy.savez and numpy.savez_compressed do.
        let methods = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated];
        let how = zip::write::FileOptions::default().compression_method(methods[index % 2]);
        archive.start_file(format!("{name}.npy"), how).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// Writes a table as compressed Parquet in two groups of rows: whole numbers for runs and bodies,
/// f64 for times, f32 for the rest, as the dataset has them.
#[cfg(feature = "parquet")]
fn parquet(table: &Table, path: &Path) {
    use parquet::basic::Compression;
    use parquet::data_type::{DoubleType, FloatType, Int32Type, Int64Type};
    use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    let fields = table.names.iter().map(|name| match name.as_str() {
        "run" => "REQUIRED INT64 run;".to_string(),
        "body" => "REQUIRED INT32 body;".to_string(),
        "time" => "REQUIRED DOUBLE time;".to_string(),
        name => format!("OPTIONAL FLOAT {name};"),
    });
    let schema = format!("message trajectories {{ {} }}", fields.collect::<String>());
    let schema = parquet::schema::parser::parse_message_type(&schema).unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = std::fs::File::create(path).unwrap();
    let mut file = SerializedFileWriter::new(file, schema.into(), properties.into()).unwrap();
    let half = table.rows() / 2;
    for rows in [0..half, half..table.rows()] {
        let mut group = file.next_row_group().unwrap();
        for name in &table.names {
            let values = &table.values(name).unwrap()[rows.clone()];
            let mut column = group.next_column().unwrap().unwrap();
            let written = match name.as_str() {
                "run" => {
                    let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
                    column.typed::<Int64Type>().write_batch(&values, None, None)
                }
                "body" => {
                    let values: Vec<i32> = values.iter().map(|v| *v as i32).collect();
                    column.typed::<Int32Type>().write_batch(&values, None, None)
                }
                "time" => column.typed::<DoubleType>().write_batch(values, None, None),
                _ => {
                    // An optional column has a level for each cell: 1 where there is a value.
                    let levels: Vec<i16> = values.iter().map(|v| i16::from(!v.is_nan())).collect();
                    let present = values.iter().filter(|v| !v.is_nan());
                    let values: Vec<f32> = present.map(|v| *v as f32).collect();
                    column.typed::<FloatType>().write_batch(&values, Some(&levels), None)
                }
            };
            written.unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    file.close().unwrap();
}

/// Imports only the first part of a file: one sentence that names it, exit code 1, and an older
/// dataset stays.
fn refused_where_truncated(whole: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let name = whole.file_name().unwrap();
    let (part, out) = (folder.path().join(name), folder.path().join("t.safetensors"));
    let bytes = std::fs::read(whole).unwrap();
    std::fs::write(&out, "precious").unwrap();
    for length in [4, bytes.len() / 4, bytes.len() / 2, bytes.len() - 9, bytes.len() - 1] {
        std::fs::write(&part, &bytes[..length]).unwrap();
        let (part, out) = (part.to_str().unwrap(), out.to_str().unwrap());
        let output = Command::cargo_bin("lawsmith")
            .unwrap()
            .args(["import", part, "-o", out, "--overwrite"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{length} bytes: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{length} bytes: {text}");
        assert!(text.starts_with(&format!("error: {part}: is not a complete ")), "{text}");
        assert!(output.stdout.is_empty());
        assert_eq!(std::fs::read_to_string(out).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "{length} bytes");
    }
}

/// A search with a seed ends in the same formulas only where the columns come in the same order.
#[test]
fn columns_come_in_the_order_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..24).map(|k| format!("c{}", k * 7 % 24)).collect();
    let columns: Vec<Vec<f64>> = (0..24).map(|k| vec![f64::from(k); 3]).collect();
    let table = Table::new(names.clone(), columns);
    let archive = folder.path().join("t.npz");
    npz(&table, &archive);
    let tensors = folder.path().join("t.safetensors");
    let specs: Vec<TensorSpec> = names.iter().map(|name| TensorSpec::f64(name, &[3])).collect();
    let mut writer =
        TensorWriter::create(&tensors, "table", serde_json::json!({}), &specs).unwrap();
    for name in &names {
        writer.slice::<f64>(name).copy_from_slice(table.values(name).unwrap());
    }
    writer.finish().unwrap();
    for path in [archive, tensors] {
        let read = Table::read(&path).unwrap();
        assert_eq!((&read.names, &read.columns), (&table.names, &table.columns), "{path:?}");
    }
}

#[test]
fn an_npz_gives_what_the_csv_gives_and_part_of_it_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, table) = full_table(folder.path());
    let path = folder.path().join("t.npz");
    npz(&table, &path);
    comes_back(&truth, &path);
    refused_where_truncated(&path);
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_gives_what_the_csv_gives_and_part_of_it_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, table) = full_table(folder.path());
    let path = folder.path().join("t.parquet");
    parquet(&table, &path);
    comes_back(&truth, &path);
    refused_where_truncated(&path);

    let mut columns: Vec<Vec<f64>> =
        table.names.iter().map(|name| table.values(name).unwrap().to_vec()).collect();
    columns[table.find("vy").unwrap()][250] = f64::NAN;
    parquet(&Table::new(table.names, columns), &path);
    let out = folder.path().join("t.safetensors");
    let (code, document) =
        lawsmith(&["import", path.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    let error = &document["error"];
    assert_eq!(code, Some(1), "{document}");
    assert_eq!((error["field"].as_str(), error["row"].as_u64()), (Some("vy"), Some(252)));
    assert!(!out.exists());
}

/// Whatever a byte is changed to, the table is read or refused; the reader's own panics stay inside.
#[cfg(feature = "parquet")]
#[test]
fn a_damaged_parquet_file_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let names = ["run", "time", "x"].map(String::from).to_vec();
    let columns = vec![(0..20).map(f64::from).collect(); 3];
    parquet(&Table::new(names, columns), &path);
    let bytes = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..bytes.len() {
        for change in [0x01, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            std::fs::write(&path, damaged).unwrap();
            if let Err(error) = Table::read(&path) {
                assert_eq!(error.file.as_ref(), Some(&path), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > bytes.len(), "{refused} of {} changes", 4 * bytes.len());
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["t.parquet", "t.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&path, "PAR1").unwrap();
    let (code, document) =
        lawsmith(&["import", path.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{document}");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("build with --features parquet"), "{message}");
    assert!(!out.exists());
}

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

    // Other numbers of bodies: each kind by itself.
    let fewer = table(&|run, _, t, body, x, y| {
        let third = if run == 1 { line(run, t, 2, 3.0, t) } else { String::new() };
        line(run, t, body, x, y) + if body == 1 { &third } else { "" }
    });
    let (document, _) = imported("t.csv", &fewer, &[]);
    assert!(document["error"]["message"].as_str().unwrap().contains("--bodies 2 and --bodies 3"));
    let (document, data) = imported("t.csv", &fewer, &["--bodies", "2"]);
    assert!(notes(&document).contains("1 of 3 runs have not 2 bodies"), "{document}");
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
        (1.0, -1.0, 1.0, "accelerations are -1 times what the positions say: is the sign turned?"),
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
