//! Trajectories from a table with one row per body and time, in any order.

use std::collections::HashMap;

use super::columns::{Columns, Role};
use super::{Options, Run, Trajectories};
use crate::error::{Error, Result};
use crate::store::table::{Column, Table, name_and_unit};

/// The square of a larger number could overflow.
const LARGEST: f64 = 1e150;

/// The columns of a table, by role.
struct Source<'a> {
    table: &'a Table,
    found: Vec<(Role, usize)>,
    notes: Vec<String>,
    units: Vec<(String, String)>,
}

impl<'a> Source<'a> {
    fn new(table: &'a Table, columns: &Columns) -> Result<Self> {
        let mut source =
            Source { table, found: Vec::new(), notes: table.notes.clone(), units: Vec::new() };
        let scalar = [Role::Run, Role::Time, Role::Body, Role::Mass, Role::Charge];
        let vector = |of: fn(usize) -> Role| [of(0), of(1), of(2)];
        let vectors = [Role::Position, Role::Velocity, Role::Acceleration, Role::Force].map(vector);
        let mut renamed = Vec::new();
        for role in scalar.into_iter().chain(vectors.into_iter().flatten()) {
            let found = columns.find(role, &table.names).map_err(|e| e.file(&table.path))?;
            let Some((index, guessed)) = found else { continue };
            if source.found.iter().any(|(_, other)| *other == index) {
                continue;
            }
            source.found.push((role, index));
            let (name, unit) = name_and_unit(&table.names[index]);
            if guessed && name != role.name() {
                renamed.push(format!("{} from '{name}'", role.name()));
            }
            if let Some(unit) = unit {
                source.units.push((role.name(), unit.to_string()));
            }
        }
        // In trackpy, mass is the brightness of a spot.
        if ["ecc", "signal", "size"].iter().all(|name| table.find(name).is_some())
            && columns == &Columns::default()
        {
            source.found.retain(|(role, _)| *role != Role::Mass);
            source.notes.push(
                "the column mass is not used: in a table of trackpy it is a brightness".into(),
            );
        }
        if source.has(Role::Acceleration(0)) {
            source.found.retain(|(role, _)| !matches!(role, Role::Force(_)));
        } else if source.has(Role::Force(0)) {
            let by = if source.has(Role::Mass) { "the masses" } else { "masses of 1" };
            source.notes.push(format!("accelerations are the forces over {by}"));
        }
        if !renamed.is_empty() {
            source.notes.push(format!("read {}", renamed.join(", ")));
        }
        if !source.units.is_empty() {
            let units = source.units.iter().map(|(name, unit)| format!("{name} in {unit}"));
            source.notes.push(format!("units: {}", units.collect::<Vec<_>>().join(", ")));
        }
        let unused = (0..table.names.len()).filter(|k| !source.found.iter().any(|(_, i)| i == k));
        let near = |k: usize| {
            Columns::near(&table.names[k])
                .filter(|near| !source.found.iter().any(|(role, _)| role.name() == *near))
        };
        let named = |k: usize| match near(k) {
            Some(near) => format!(
                "{} (if it is the {near}: --columns \"{}={near}\")",
                table.names[k], table.names[k]
            ),
            None => table.names[k].clone(),
        };
        let unused: Vec<String> = unused.map(named).collect();
        if !unused.is_empty() {
            source.notes.push(format!("not used: {}", unused.join(", ")));
        }
        Ok(source)
    }

    fn has(&self, role: Role) -> bool {
        self.found.iter().any(|(other, _)| *other == role)
    }

    fn name(&self, role: Role) -> Option<&'a str> {
        let (_, index) = self.found.iter().find(|(other, _)| *other == role)?;
        Some(&self.table.names[*index])
    }

    /// The column with this role, which must be present.
    fn needed(&self, role: Role) -> Result<&'a Column> {
        match self.name(role) {
            Some(name) => self.table.cells(name),
            None => {
                let message =
                    format!("{}; name it with --columns", self.table.missing_column_message());
                Err(Error::input(message).file(&self.table.path).field(role.name()))
            }
        }
    }

    /// The columns of a vector: all of them or none.
    fn vector(&self, of: fn(usize) -> Role, dim: usize) -> Result<Option<Vec<&'a [f64]>>> {
        if !(0..dim).any(|k| self.has(of(k))) {
            return Ok(None);
        }
        (0..dim)
            .map(|k| self.needed(of(k)).and_then(|_| self.numbers(of(k))))
            .collect::<Result<_>>()
            .map(Some)
    }

    /// The numbers of a column that is present.
    fn numbers(&self, role: Role) -> Result<&'a [f64]> {
        let name = self.name(role).expect("it is there");
        let values = self.table.column(name)?;
        match values.iter().position(|v| v.abs() > LARGEST) {
            Some(row) => {
                let message = format!("{} is too large", values[row]);
                let error = Error::input(message).file(&self.table.path).field(name);
                Err(error.row(self.table.row_number(row)))
            }
            None => Ok(values),
        }
    }
}

/// Reads the trajectories of a table.
pub(super) fn trajectories(table: &Table, options: &Options) -> Result<Trajectories> {
    let table = &present(table, &options.columns)?;
    let source = Source::new(table, &options.columns)?;
    let dim = match (source.has(Role::Position(1)), source.has(Role::Position(2))) {
        (_, true) => 3,
        (true, false) => 2,
        (false, false) => 1,
    };
    source.needed(Role::Position(0))?;
    if dim == 1 && source.has(Role::Velocity(1)) {
        source.needed(Role::Position(1))?;
    }
    let positions = source.vector(Role::Position, dim)?.expect("x is there");
    let velocities = source.vector(Role::Velocity, dim)?;
    let accelerations = match source.vector(Role::Acceleration, dim)? {
        Some(given) => Some(given),
        None => source.vector(Role::Force, dim)?,
    };
    source.needed(Role::Time)?;
    let (time, body) = (source.numbers(Role::Time)?, source.needed(Role::Body)?);
    let run = source.name(Role::Run).map(|name| table.cells(name)).transpose()?;
    let masses = source.has(Role::Mass).then(|| source.numbers(Role::Mass)).transpose()?;
    let charges = source.has(Role::Charge).then(|| source.numbers(Role::Charge)).transpose()?;
    let forces = source.has(Role::Force(0));
    let Source { notes, units, .. } = source;

    let used: Vec<&[f64]> = [Some(&positions), velocities.as_ref(), accelerations.as_ref()]
        .into_iter()
        .flatten()
        .flatten()
        .copied()
        .chain(masses)
        .chain(charges)
        .collect();
    let mut read =
        Trajectories { path: table.path.clone(), dim, notes, units, ..Trajectories::default() };
    read.undivided = forces && masses.is_none();
    let (mut repeated, mut partial, mut frames) = (0, 0, 0);
    for (name, rows) in grouped(run, table.rows()) {
        let layout = Layout::new(table, &name, &rows, time, body, &used)?;
        repeated += layout.repeated;
        partial += layout.partial;
        frames += layout.frames();
        let gather = |columns: &Vec<&[f64]>| -> Vec<f64> {
            layout.rows.iter().flat_map(|&row| columns.iter().map(move |c| c[row])).collect()
        };
        let constant = |values: Option<&[f64]>, field: &str| {
            values.map(|values| layout.constant(table, values, field)).transpose()
        };
        let (mass, charge) = (constant(masses, "mass")?, constant(charges, "charge")?);
        if let Some(at) = mass.iter().flatten().position(|m| *m < 0.0) {
            let row = table.row_number(layout.rows[at]);
            let message = format!("a mass must be positive, not {}", mass.unwrap_or_default()[at]);
            return Err(Error::input(message).file(&table.path).field("mass").row(row));
        }
        let mut accelerations = accelerations.as_ref().map(gather);
        if let (true, Some(forces), Some(mass)) = (forces, &mut accelerations, &mass) {
            let bodies = layout.bodies.len();
            for (at, force) in forces.iter_mut().enumerate() {
                *force /= mass[at / dim % bodies];
            }
        }
        read.runs.push(Run {
            positions: gather(&positions),
            velocities: velocities.as_ref().map(gather),
            accelerations,
            masses: mass,
            charges: charge,
            name,
            times: layout.times,
            bodies: layout.bodies,
        });
    }
    if repeated > 0 {
        read.notes.push(format!("{repeated} rows repeat others and are left out"));
    }
    if partial > 0 {
        let all = frames + partial;
        read.notes.push(format!("{partial} of {all} frames lack a body and are left out"));
    }
    Ok(read)
}

/// The table without rows that have no position at all (of a body that was not seen).
fn present(table: &Table, columns: &Columns) -> Result<Table> {
    let mut names = Vec::new();
    for axis in 0..3 {
        if let Some((index, _)) = columns.find(Role::Position(axis), &table.names)? {
            names.push(table.names[index].clone());
        }
    }
    let cells: Vec<&Column> = names.iter().map(|name| table.cells(name)).collect::<Result<_>>()?;
    let unseen = |row: usize| !cells.is_empty() && cells.iter().all(|c| c.is_missing(row));
    let rows: Vec<usize> = (0..table.rows()).filter(|&row| !unseen(row)).collect();
    let dropped = table.rows() - rows.len();
    if dropped == 0 || rows.is_empty() {
        return Ok(table.clone());
    }
    let mut left = table.with_rows(&rows);
    left.notes.push(format!("{dropped} rows have no position and are left out"));
    Ok(left)
}

/// The rows of each run; runs are ordered by number if all are numbers, otherwise as in the file.
fn grouped(run: Option<&Column>, rows: usize) -> Vec<(String, Vec<usize>)> {
    let Some(run) = run else { return vec![("0".into(), (0..rows).collect())] };
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for row in 0..rows {
        let name = run.word(row).into_owned();
        let group = *known.entry(name.clone()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(row);
    }
    in_order(&mut groups, |group| &group.0);
    groups
}

/// Sorts by name if all names are numbers; otherwise keeps the order.
fn in_order<T>(items: &mut [T], name: fn(&T) -> &str) {
    if items.iter().all(|item| name(item).parse::<i128>().is_ok()) {
        items.sort_by_key(|item| name(item).parse::<i128>().unwrap_or_default());
    } else if items.iter().all(|item| name(item).parse::<f64>().is_ok()) {
        let value = |item: &T| name(item).parse::<f64>().unwrap_or_default();
        items.sort_by(|a, b| value(a).total_cmp(&value(b)));
    }
}

/// Which rows of the table make up a run.
struct Layout {
    times: Vec<f64>,
    bodies: Vec<String>,
    /// Rows of the table, `[frame, body]`.
    rows: Vec<usize>,
    /// Number of rows that repeat another.
    repeated: usize,
    /// Number of times at which a body is missing.
    partial: usize,
}

impl Layout {
    fn new(
        table: &Table,
        run: &str,
        rows: &[usize],
        time: &[f64],
        body: &Column,
        used: &[&[f64]],
    ) -> Result<Layout> {
        let mut bodies: Vec<String> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut of_row = Vec::with_capacity(rows.len());
        for &row in rows {
            if body.is_missing(row) {
                let error = Error::input("a body must have a name or a number");
                return Err(error.file(&table.path).field("body").row(table.row_number(row)));
            }
            let name = body.word(row).into_owned();
            let number = *known.entry(name.clone()).or_insert_with(|| {
                bodies.push(name);
                bodies.len() - 1
            });
            of_row.push(number);
        }
        let clock = Clock::new(rows, time, &of_row, bodies.len());
        let mut order: Vec<(usize, &str)> =
            bodies.iter().enumerate().map(|(k, name)| (k, name.as_str())).collect();
        in_order(&mut order, |body| body.1);
        let mut place = vec![0; bodies.len()];
        order.iter().enumerate().for_each(|(at, body)| place[body.0] = at);
        let mut grid = vec![usize::MAX; clock.times.len() * bodies.len()];
        let mut repeated = 0;
        for (&row, &number) in rows.iter().zip(&of_row) {
            let slot = &mut grid[clock.frame(time[row]) * bodies.len() + place[number]];
            if *slot == usize::MAX {
                *slot = row;
            } else if used.iter().all(|column| column[row] == column[*slot]) {
                repeated += 1;
            } else {
                let message = format!(
                    "run {run}, time {}, body {} is in row {} already, with different values",
                    time[row],
                    bodies[number],
                    table.row_number(*slot)
                );
                let error = Error::input(message).file(&table.path).field("body");
                return Err(error.row(table.row_number(row)));
            }
        }
        let whole = |frame: &[usize]| frame.iter().all(|row| *row != usize::MAX);
        let n = bodies.len();
        let mut layout = Layout {
            times: Vec::new(),
            bodies: Vec::new(),
            rows: Vec::new(),
            repeated,
            partial: 0,
        };
        for (frame, &time) in grid.chunks(n).zip(&clock.times) {
            if whole(frame) {
                layout.times.push(time);
                layout.rows.extend(frame);
            } else {
                layout.partial += 1;
            }
        }
        layout.bodies = order.iter().map(|body| body.1.to_string()).collect();
        if layout.times.is_empty() {
            let seen =
                |at: usize| grid.iter().skip(at).step_by(n).filter(|r| **r != usize::MAX).count();
            let least = (0..n).min_by_key(|&at| seen(at)).unwrap_or(0);
            let message = format!(
                "run {run} has no time at which all of its {n} bodies are present; body {} is at {} of {} times",
                layout.bodies[least],
                seen(least),
                clock.times.len()
            );
            let error = Error::input(message).file(&table.path).field("body");
            return Err(error.row(table.row_number(rows[0])));
        }
        Ok(layout)
    }

    fn frames(&self) -> usize {
        self.times.len()
    }

    /// The value for each body, which must not change with time.
    fn constant(&self, table: &Table, values: &[f64], field: &str) -> Result<Vec<f64>> {
        let n = self.bodies.len();
        for (at, &row) in self.rows.iter().enumerate() {
            let of_body = values[self.rows[at % n]];
            if values[row] != of_body {
                let message =
                    format!("changes with time: {} here, {of_body} at the first time", values[row]);
                let error = Error::input(message).file(&table.path).field(field);
                return Err(error.row(table.row_number(row)));
            }
        }
        Ok(self.rows[..n].iter().map(|&row| values[row]).collect())
    }
}

/// The times of a run, with times that are equal within rounding merged.
struct Clock {
    times: Vec<f64>,
    /// The latest time merged into each.
    until: Vec<f64>,
}

impl Clock {
    fn new(rows: &[usize], time: &[f64], body: &[usize], bodies: usize) -> Clock {
        let mut of_body = vec![Vec::new(); bodies];
        rows.iter().zip(body).for_each(|(&row, &b)| of_body[b].push(time[row]));
        // The usual time between two frames of a body.
        let mut longest = of_body.into_iter().max_by_key(Vec::len).unwrap_or_default();
        longest.sort_by(f64::total_cmp);
        let mut steps: Vec<f64> =
            longest.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0.0).collect();
        steps.sort_by(f64::total_cmp);
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
        let mut all: Vec<f64> = rows.iter().map(|&row| time[row]).collect();
        all.sort_by(f64::total_cmp);
        let mut clock = Clock { times: Vec::new(), until: Vec::new() };
        for time in all {
            match (clock.times.last(), clock.until.last_mut()) {
                (Some(&first), Some(until)) if time - first <= 1e-3 * usual => *until = time,
                _ => {
                    clock.times.push(time);
                    clock.until.push(time);
                }
            }
        }
        clock
    }

    /// The index of the frame at this time.
    fn frame(&self, time: f64) -> usize {
        self.until.partition_point(|until| *until < time)
    }
}
