//! Tests of [`catalog`](super).

use super::*;
use crate::error::Kind;

const TABLE: &str = "x,y,z,vx,vy,vz,mass,npart,delta\n\
                     1,2,3,10,20,30,1e13,100,0.5\n\
                     10,5,6,40,50,60,2e12,20,-0.5\n\
                     7,8,9,70,80,90,3e12,30,1.5\n";

fn imported(text: &str, settings: Settings) -> Result<(About, Halos)> {
    let folder = tempfile::tempdir().unwrap();
    let [source, output] = ["a.csv", "b.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&source, text).unwrap();
    let about = import(&source, &output, &settings)?;
    let catalog = Catalog::open(&output).unwrap();
    let halos = Halos {
        positions: catalog.positions().to_vec(),
        velocities: catalog.velocities().to_vec(),
        masses: catalog.masses().to_vec(),
        particles: None,
        delta: catalog.delta().map(<[f32]>::to_vec),
    };
    // The file that was written can be read back as a table.
    let again = folder.path().join("c.safetensors");
    import(&output, &again, &Settings::default()).unwrap();
    assert_eq!(Catalog::open(&again).unwrap().positions(), catalog.positions());
    Ok((about, halos))
}

fn boxed() -> Settings {
    Settings { edge: Some(10.0), ..Settings::default() }
}

#[test]
fn columns_cuts_and_corrections() {
    let (about, halos) = imported(TABLE, boxed()).unwrap();
    assert_eq!((about.halos, about.cut, about.edge), (3, 0, 10.0));
    assert_eq!(halos.positions, [1.0, 2.0, 3.0, 0.0, 5.0, 6.0, 7.0, 8.0, 9.0], "10 is 0");
    assert_eq!(halos.delta.unwrap(), [0.5, -0.5, 1.5]);
    let (about, halos) =
        imported(TABLE, Settings { min_particles: Some(30), warren: true, ..boxed() }).unwrap();
    assert_eq!(about.cut, 1);
    let expected = (1e13f64 * (1.0 - 100f64.powf(-0.6))) as f32;
    assert_eq!(halos.masses[0], expected);
    assert_eq!(halos.velocities, [10.0, 20.0, 30.0, 70.0, 80.0, 90.0]);
    let (about, _) = imported(TABLE, Settings { min_mass: Some(3e12), ..boxed() }).unwrap();
    assert_eq!(about.cut, 1);
}

#[test]
fn rounding_is_wrapped_and_centred_boxes_are_moved() {
    let text = TABLE.replace("7,8,9", "-2e-6,10.000001,9");
    let (about, halos) = imported(&text, boxed()).unwrap();
    assert!(about.notes[0].contains("2 coordinates"), "{:?}", about.notes);
    let row = &halos.positions[6..];
    assert!((9.999_99..10.0).contains(&row[0]) && (0.0..1e-5).contains(&row[1]), "{row:?}");
    let centred =
        TABLE.replace("10,5,6", "-5,5,4.5").replace("7,8,9", "0,-1,2").replace("1,2,3", "1,2,-3");
    let error = imported(&centred, boxed()).unwrap_err().to_string();
    assert!(error.contains("--centred"), "{error}");
    let (_, halos) = imported(&centred, Settings { centred: true, ..boxed() }).unwrap();
    assert_eq!(halos.positions, [6.0, 7.0, 2.0, 0.0, 0.0, 9.5, 5.0, 4.0, 7.0]);
    let kpc = TABLE.replace("7,8,9", "7000,8000,9000");
    let error = imported(&kpc, boxed()).unwrap_err().to_string();
    assert!(error.contains("kpc/h"), "{error}");
}

/// The names of halotools, Rockstar and AHF, and those given by the user.
#[test]
fn catalogues_of_other_programs() {
    let (_, base) = imported(TABLE, boxed()).unwrap();
    let same = |halos: &Halos, what: &str| {
        assert_eq!(halos.positions, base.positions, "{what}");
        assert_eq!(halos.velocities, base.velocities, "{what}");
        assert_eq!(halos.masses, base.masses, "{what}");
    };
    let rows = TABLE.split_once('\n').unwrap().1;
    let names = "halo_x,halo_y,halo_z,halo_vx,halo_vy,halo_vz,halo_mvir,halo_np,overdensity";
    let (about, halos) = imported(&format!("{names}\n{rows}"), boxed()).unwrap();
    assert!(
        about.notes.iter().any(|note| note.contains("mass from 'halo_mvir'")),
        "{:?}",
        about.notes
    );
    same(&halos, "halotools");
    assert_eq!(halos.delta, base.delta);
    let names = "a,b,c,vx,vy,vz,m500,npart,delta";
    let columns = ["a=x", "b=y", "c=z", "mass=m500"].map(String::from).to_vec();
    let (_, halos) =
        imported(&format!("{names}\n{rows}"), Settings { columns, ..boxed() }).unwrap();
    same(&halos, "--columns");
    let columns = vec!["q=x".to_string()];
    let error = imported(TABLE, Settings { columns, ..boxed() }).unwrap_err();
    assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("columns")));

    let blanks = |scale: f64| -> String {
        let line = |line: &str| {
            let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
            let x: Vec<String> = cells[..3].iter().map(|x| (x * scale).to_string()).collect();
            let v: Vec<String> = cells[3..6].iter().map(f64::to_string).collect();
            format!("7 -1 {} {} {} {}\n", cells[6], cells[7], x.join(" "), v.join(" "))
        };
        rows.lines().map(line).collect()
    };
    let rockstar = format!(
        "#ID DescID Mvir Np X Y Z VX VY VZ\n#a = 1.0\n#Box size: 10.000000 Mpc/h\n{}",
        blanks(1.0)
    );
    let (about, halos) = imported(&rockstar, Settings::default()).unwrap();
    assert_eq!(about.edge, 10.0);
    same(&halos, "Rockstar");
    let ahf = format!(
        "#ID(1) hostHalo(2) Mvir(3) npart(4) Xc(5) Yc(6) Zc(7) VXc(8) VYc(9) VZc(10) numSubStruct(11)\n{}",
        blanks(1000.0).replace('\n', " 0\n")
    );
    let (about, halos) = imported(&ahf, boxed()).unwrap();
    assert!(about.notes.iter().any(|note| note.contains("kpc/h")), "{:?}", about.notes);
    same(&halos, "AHF");
}

#[test]
fn what_looks_wrong_is_said_and_options_without_effect_are_errors() {
    let notes = |text: &str, edge: f64| {
        imported(text, Settings { edge: Some(edge), ..Settings::default() })
            .unwrap()
            .0
            .notes
            .join("; ")
    };
    assert_eq!(notes(TABLE, 10.0), "");
    let log = TABLE.replace("1e13", "13").replace("2e12", "12.3").replace("3e12", "12.5");
    assert!(notes(&log, 10.0).contains("logarithms"));
    let light = TABLE.replace("1e13", "1e3").replace("2e12", "2e2").replace("3e12", "3e2");
    assert!(notes(&light, 10.0).contains("Msun/h is needed"));
    let slow = TABLE.replace("10,20,30", "1e-4,0,0").replace("40,50,60", "1e-4,0,0");
    assert!(notes(&slow, 10.0).contains("km/s is needed"));
    assert!(notes(TABLE, 1e5).contains("no coordinate is above 10"));
    let error = imported(TABLE, Settings { redshift: 1.0, ..boxed() }).unwrap_err();
    assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("redshift")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fof_subhalo_tab_056.0");
    std::fs::write(&path, b"\x89HDF\r\n\x1a\n\0\0\0\0").unwrap();
    let error = import(&path, &folder.path().join("o"), &boxed()).unwrap_err().to_string();
    assert!(error.contains("HDF5"), "{error}");
}

#[cfg(feature = "hdf5")]
#[test]
fn groups_in_hdf5_come_in_the_units_of_a_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("o.safetensors");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/groups.0.hdf5");
    let about = import(&source, &output, &Settings::default()).unwrap();
    assert_eq!((about.halos, about.edge), (5, 10.0));
    assert!(about.notes.iter().any(|note| note.contains("kpc/h")), "{:?}", about.notes);
    let catalog = Catalog::open(&output).unwrap();
    assert_eq!(catalog.positions()[12..], [6.0, 6.5, 7.0]);
    assert_eq!(catalog.velocities()[..3], [10.0, 30.0, 50.0], "z = 1");
    assert_eq!(catalog.masses(), [1.00e12, 1.01e12, 1.02e12, 1.03e12, 1.04e12]);
}

#[test]
fn a_box_beside_itself() {
    let (about, halos) = imported(TABLE, Settings { tile: 2, ..boxed() }).unwrap();
    assert_eq!((about.halos, about.edge), (24, 20.0));
    assert_eq!(halos.positions[9..12], [1.0, 2.0, 13.0]);
    assert_eq!(halos.positions[63..66], [11.0, 12.0, 13.0]);
    assert_eq!(halos.masses[21..], halos.masses[..3]);
}

#[test]
fn bad_halos_are_named() {
    let fails = |text: &str, settings: Settings| imported(text, settings).unwrap_err();
    let error = fails(TABLE, Settings::default());
    assert!(error.to_string().contains("--box"), "{error}");
    let error = fails(TABLE, Settings { edge: Some(8.5), ..boxed() });
    assert_eq!((error.field.as_deref(), error.row), (Some("position"), Some(3)));
    let error = fails(&TABLE.replace("3e12", "0"), boxed());
    assert_eq!((error.field.as_deref(), error.row), (Some("mass"), Some(4)));
    let error = fails(&TABLE.replace("20,30,", "NaN,30,"), boxed());
    assert_eq!((error.field.as_deref(), error.row), (Some("vy"), Some(2)));
    let error = fails(&TABLE.replace("0.5", "NaN"), boxed());
    assert_eq!((error.field.as_deref(), error.row), (Some("delta"), Some(2)));
    let few = TABLE.replace("3e12,30", "3e12,1");
    let error = fails(&few, Settings { warren: true, ..boxed() });
    assert_eq!((error.field.as_deref(), error.row), (Some("npart"), Some(4)));
    let error = fails(&TABLE.replace("npart", "other"), Settings { warren: true, ..boxed() });
    assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("warren")));
    let few = Settings { min_particles: Some(20), ..boxed() };
    let error = fails(&TABLE.replace("npart", "other"), few);
    assert_eq!((error.kind, error.field.as_deref()), (Kind::Usage, Some("min-particles")));
    let error = fails(&TABLE.replace("vx", "ux"), boxed());
    assert!(error.to_string().contains("vx, vy, vz"), "{error}");
    let error = fails(TABLE, Settings { min_mass: Some(1e15), ..boxed() });
    assert!(error.to_string().contains("0 of 3"), "{error}");
}
