//! The roles of columns, from their names or given by the user.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::store::table::name_and_unit;

/// What a column holds. Axes count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The run that a row belongs to.
    Run,
    /// The time.
    Time,
    /// The name or number of the body.
    Body,
    /// A component of the position.
    Position(usize),
    /// A component of the velocity.
    Velocity(usize),
    /// A component of the acceleration.
    Acceleration(usize),
    /// A component of the force, to be divided by the mass.
    Force(usize),
    /// The mass.
    Mass,
    /// The charge.
    Charge,
    /// Not to be used.
    Ignore,
}

const AXES: [&str; 3] = ["x", "y", "z"];

/// Accepted names of each role, in lower case. `#` stands for the axis: x, y, z or 0, 1, 2.
const NAMES: [(&str, &[&str]); 9] = [
    ("run", &["run", "trajectory", "traj", "simulation", "sim", "trial", "replica"]),
    ("time", &["time", "t", "times", "timestep", "time_step", "step", "frame", "jd", "mjd"]),
    (
        "body",
        &[
            "body",
            "id",
            "particle",
            "atom",
            "particle_id",
            "particleid",
            "atom_id",
            "atomid",
            "body_id",
            "track_id",
            "object",
            "planet",
            "star",
            "name",
        ],
    ),
    (
        "#",
        &[
            "#",
            "#u",
            "r#",
            "r_#",
            "#_pos",
            "pos#",
            "pos_#",
            "position#",
            "position_#",
            "positions#",
            "x@",
        ],
    ),
    (
        "v#",
        &[
            "v#",
            "v_#",
            "vel#",
            "vel_#",
            "velo#",
            "velo_#",
            "velocity#",
            "velocity_#",
            "velocities#",
        ],
    ),
    ("a#", &["a#", "a_#", "acc#", "acc_#", "acceleration#", "acceleration_#", "accelerations#"]),
    ("f#", &["f#", "f_#", "force#", "force_#", "forces#"]),
    ("mass", &["mass", "m", "masses"]),
    ("charge", &["charge", "q", "charges", "initial_charges"]),
];

impl Role {
    /// The role's own name: that of its column in a table in lawsmith's own format.
    pub fn name(self) -> String {
        let axis = |k: usize| AXES[k];
        match self {
            Role::Run => "run".into(),
            Role::Time => "time".into(),
            Role::Body => "body".into(),
            Role::Position(k) => axis(k).into(),
            Role::Velocity(k) => format!("v{}", axis(k)),
            Role::Acceleration(k) => format!("a{}", axis(k)),
            Role::Force(k) => format!("f{}", axis(k)),
            Role::Mass => "mass".into(),
            Role::Charge => "charge".into(),
            Role::Ignore => "ignore".into(),
        }
    }

    /// Every role.
    fn all() -> impl Iterator<Item = Role> {
        let vectors = (0..3).flat_map(|k| {
            [Role::Position(k), Role::Velocity(k), Role::Acceleration(k), Role::Force(k)]
        });
        [Role::Run, Role::Time, Role::Body, Role::Mass, Role::Charge, Role::Ignore]
            .into_iter()
            .chain(vectors)
    }

    /// The role with this name.
    fn of(name: &str) -> Option<Role> {
        Role::all().find(|role| role.name() == name)
    }

    /// The rank of a column's name for this role: 0 for the role's own name, then in the order of [`NAMES`]; `None` if
    /// it does not fit.
    fn fits(self, column: &str) -> Option<usize> {
        let (family, axis) = match self {
            Role::Position(k) => ("#", k),
            Role::Velocity(k) => ("v#", k),
            Role::Acceleration(k) => ("a#", k),
            Role::Force(k) => ("f#", k),
            Role::Ignore => return None,
            _ => ("", 0),
        };
        let own = self.name();
        let family = if family.is_empty() { own.as_str() } else { family };
        let (_, names) = NAMES.iter().find(|(role, _)| *role == family)?;
        let short = name_and_unit(column).0;
        let lower = short.to_lowercase().replace([' ', '-'], "_");
        let fits = |name: &&str| {
            let letter = lower == name.replace('#', AXES[axis]);
            // `x0`, `pos1`: columns of an array.
            let number = name.replace(['#', '@'], &axis.to_string());
            letter && !name.contains('@') || (name.len() > 1 && number != **name && lower == number)
        };
        let rank = names.iter().position(fits)?;
        Some(if short == own { 0 } else { 1 + rank })
    }
}

/// Roles that the user gave to columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns(Vec<(String, Role)>);

impl Columns {
    /// Reads `t=time,id=body`: the name in the file, then the role.
    ///
    /// # Errors
    /// An item that is not a pair, an unknown role, a role given twice.
    pub fn parse(items: &[String]) -> Result<Columns> {
        let error = |message: String| Error::usage(message).field("columns");
        let mut found: Vec<(String, Role)> = Vec::new();
        for item in items {
            let pair = item.rsplit_once('=').map(|(a, b)| (a.trim(), b.trim()));
            let (name, role) = pair.ok_or_else(|| {
                error(format!("'{item}' must have the form column=role, as in t=time"))
            })?;
            // A reversed pair (time=t) is accepted: it is unambiguous.
            let (name, role) = match (Role::of(role), Role::of(name)) {
                (Some(known), _) => (name, known),
                (None, Some(known)) => (role, known),
                (None, None) => {
                    let names: Vec<String> = Role::all().map(Role::name).collect();
                    let message = format!(
                        "'{role}' in '{item}' is not a role; use one of {}",
                        names.join(", ")
                    );
                    return Err(error(message));
                }
            };
            if role != Role::Ignore && found.iter().any(|(_, other)| *other == role) {
                return Err(error(format!("two columns are given the role {}", role.name())));
            }
            found.push((name.to_string(), role));
        }
        Ok(Columns(found))
    }

    /// The column with this `role` among `names`, and whether it was recognised by another name than the role's own.
    ///
    /// # Errors
    /// A column that the user named but the file lacks; two columns that could have the role.
    pub(super) fn find(&self, role: Role, names: &[String]) -> Result<Option<(usize, bool)>> {
        let error = |message: String| Error::usage(message).field("columns");
        let at = |name: &str| {
            let exact = names.iter().position(|n| n == name);
            exact.or_else(|| names.iter().position(|n| name_and_unit(n).0 == name))
        };
        if let Some((name, _)) = self.0.iter().find(|(_, asked)| *asked == role) {
            let message = || {
                error(format!("there is no column '{name}'; the columns are {}", names.join(", ")))
            };
            return Ok(Some((at(name).ok_or_else(message)?, false)));
        }
        let taken = |k: usize| self.0.iter().any(|(name, _)| at(name) == Some(k));
        let fitting = |k: usize| Some((role.fits(&names[k]).filter(|_| !taken(k))?, k));
        let mut found: Vec<(usize, usize)> = (0..names.len()).filter_map(fitting).collect();
        found.sort_unstable();
        match found[..] {
            [] => Ok(None),
            [(best, k), (next, other), ..] if best == next => {
                let (a, b, role) = (&names[k], &names[other], role.name());
                Err(error(format!(
                    "'{a}' and '{b}' could both be {role}: choose with --columns \"{a}={role}\" or \"{b}={role}\""
                )))
            }
            // Time is preferred to frame and id to name; m and M are ambiguous.
            [(best, k), ..] => Ok(Some((k, best > 0 && names[k] != role.name()))),
        }
    }

    /// The role whose name differs by one letter from that of an unused column: the user may have meant it.
    pub(super) fn near(column: &str) -> Option<String> {
        let lower = name_and_unit(column).0.to_lowercase();
        let close = |name: &String| {
            name.len() > 3 && name.len().abs_diff(lower.len()) <= 1 && {
                let same = lower.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
                let rest =
                    |text: &str, skip: usize| text.get(same + skip..).unwrap_or("").to_string();
                rest(&lower, 1) == rest(name, 0)
                    || rest(&lower, 0) == rest(name, 1)
                    || rest(&lower, 1) == rest(name, 1)
            }
        };
        Role::all().map(Role::name).find(close)
    }
}

/// The first characters of a text file.
pub(super) fn beginning(path: &Path) -> Result<String> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    file.take(4096).read_to_end(&mut head).map_err(|e| Error::io("read", path, e))?;
    Ok(String::from_utf8_lossy(&head).trim_start_matches('\u{feff}').to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(role: Role, names: &[&str]) -> Result<Option<(usize, bool)>> {
        Columns::default().find(role, &names.iter().map(|n| n.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn columns_are_known_by_many_names() {
        for (role, names, expected) in [
            (Role::Time, &["time", "t"][..], Some((0, false))),
            (Role::Time, &["t [yr]"], Some((0, true))),
            (Role::Time, &["frame", "TimeStep"], Some((1, true))),
            (Role::Body, &["Id"], Some((0, true))),
            (Role::Position(0), &["X", "Y"], Some((0, true))),
            (Role::Position(1), &["x0", "x1"], Some((1, true))),
            (Role::Position(1), &["pos0", "pos1"], Some((1, true))),
            (Role::Position(0), &["x [AU]", "vx"], Some((0, false))),
            (Role::Velocity(2), &["v_z"], Some((0, true))),
            (Role::Mass, &["m"], Some((0, true))),
            (Role::Mass, &["masss"], None),
            (Role::Mass, &["M", "mass"], Some((1, false))),
            (Role::Charge, &["q (e)"], Some((0, true))),
            (Role::Force(0), &["fx"], Some((0, false))),
        ] {
            assert_eq!(find(role, names).unwrap(), expected, "{names:?}");
        }
        let error = find(Role::Mass, &["m", "M"]).unwrap_err().to_string();
        assert!(error.contains("'m' and 'M' could both be mass"), "{error}");
        assert_eq!(Columns::near("masss").as_deref(), Some("mass"));
        assert_eq!(Columns::near("chrge").as_deref(), Some("charge"));
        assert_eq!(Columns::near("kind"), None);
    }

    #[test]
    fn the_user_says_what_columns_are() {
        let items = |text: &str| text.split(',').map(String::from).collect::<Vec<_>>();
        let columns = Columns::parse(&items("epoch=time,body=who,m=ignore")).unwrap();
        let names: Vec<String> = ["epoch", "who", "m", "time"].map(String::from).to_vec();
        assert_eq!(columns.find(Role::Time, &names).unwrap(), Some((0, false)));
        assert_eq!(columns.find(Role::Body, &names).unwrap(), Some((1, false)));
        assert_eq!(columns.find(Role::Mass, &names).unwrap(), None);
        for (bad, expected) in [("t", "column=role"), ("t=tim", "one of"), ("a=time,b=time", "two")]
        {
            let error = Columns::parse(&items(bad)).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
        let columns = Columns::parse(&items("when=time")).unwrap();
        assert!(
            columns.find(Role::Time, &names).unwrap_err().to_string().contains("no column 'when'")
        );
    }
}
