//! Guesses for the parts of a template, as text.

use super::template::{Part, Template};
use crate::error::{Error, Result};
use crate::formula::definition::Definition;
use crate::formula::expression::Expression;
use crate::formula::print::number;

impl Template {
    /// The parts given by a guess such as `f(u, v) = u / v + 1; p[city=Rome] = 3`; those it does not name start as the
    /// number 1.
    ///
    /// # Errors
    /// Text that cannot be read; an unknown part, or one given twice.
    pub fn guess(&self, text: &str, definitions: &[Definition]) -> Result<Expression> {
        let mut found: Vec<Option<Expression>> = vec![None; self.parts.len()];
        let mut rest = text.trim();
        while !rest.is_empty() {
            // The word of a group may contain any character.
            let number = self.parts.iter().position(|part| {
                let after = rest.strip_prefix(part.name.as_str()).map(str::trim_start);
                part.operands.is_none() && after.is_some_and(|after| after.starts_with('='))
            });
            let named = number.map_or(0, |part| self.parts[part].name.len());
            let (item, others) = match rest[named..].find(';') {
                Some(end) => (&rest[..named + end], &rest[named + end + 1..]),
                None => (rest, ""),
            };
            rest = others.trim_start();
            let (part, e) = match number {
                Some(part) => {
                    let value = item[named..].trim_start().trim_start_matches('=').trim();
                    let value = value.parse().ok().filter(|value: &f64| value.is_finite());
                    let value = value
                        .ok_or_else(|| Error::usage(format!("'{item}' must give a number")))?;
                    (part, Expression::constant(value))
                }
                None => self.guessed(item, definitions)?,
            };
            if found[part].replace(e).is_some() {
                let message = format!("gives '{}' twice", self.parts[part].name);
                return Err(Error::usage(message));
            }
        }
        let begun = found.into_iter().map(|e| e.unwrap_or_else(|| Expression::constant(1.0)));
        Ok(Template::join(begun.collect()))
    }

    /// The function given by `f(u, v) = u / v`.
    fn guessed(&self, item: &str, definitions: &[Definition]) -> Result<(usize, Expression)> {
        let head = item.split_once('=').map(|(head, body)| (head.trim(), body));
        let name = head.map(|(head, _)| head.split('(').next().unwrap_or_default().trim_end());
        let part = name.and_then(|name| self.parts.iter().position(|part| part.name == name));
        let (Some((head, body)), Some(part)) = (head, part) else {
            let form = |part: &Part| match &part.operands {
                Some(operands) => format!("{} = …", self.head(part, operands)),
                None => format!("{} = …", part.name),
            };
            let forms: Vec<String> = self.parts.iter().map(form).collect();
            return Err(Error::usage(format!(
                "'{item}' must give a part of the template: {}",
                forms.join("; ")
            )));
        };
        let Part { name, operands } = &self.parts[part];
        let count = operands.as_ref().map_or(0, Vec::len);
        let named = head.strip_suffix(')').and_then(|head| head.split_once('('));
        let named: Vec<&str> =
            named.iter().flat_map(|(_, list)| list.split(',')).map(str::trim).collect();
        if named.len() != count {
            let message = format!("'{head}' must name the {count} operands of '{name}'");
            return Err(Error::usage(message));
        }
        Expression::parse_with(body, &named, definitions).map(|e| (part, e))
    }

    fn head(&self, part: &Part, operands: &[Expression]) -> String {
        format!("{}({})", part.name, operand_names(operands.len()).join(", "))
    }

    /// The parts in the form that [`Template::guess`] reads.
    pub fn as_guess(&self, parts: &[Expression]) -> String {
        let item = |(part, e): (&Part, &Expression)| match &part.operands {
            Some(operands) => {
                let text = e.text(&operand_names(operands.len()));
                format!("{} = {text}", self.head(part, operands))
            }
            None => format!("{} = {}", part.name, number(e.as_constant().unwrap_or(1.0))),
        };
        self.parts.iter().zip(parts).map(item).collect::<Vec<_>>().join("; ")
    }
}

/// Names for the operands of a part where their own names cannot serve.
fn operand_names(count: usize) -> Vec<String> {
    (1..=count).map(|k| format!("x{k}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_those_that_are_written() {
        let names = ["r", "m1", "dx"].map(String::from);
        let columns = vec![vec![1.0; 4], vec![2.0, 5.0, 1.0, 2.0], vec![1.0; 4]];
        let mut template =
            Template::of_table("f(r, dx) + g(r) * p[m1] + q[]", &names, &columns, &[]).unwrap();
        let words = ["a; b", "Rome", "p=3"].map(String::from);
        template.name_groups(1, &words);
        let text = "f(x1, x2) = x1 / x2 - 1; g(x1) = x1^2; p[m1=a; b] = 3; p[m1=Rome] = -0.5; \
                    p[m1=p=3] = 1e-9; q[] = 4";
        let candidate = template.guess(text, &[]).unwrap();
        assert_eq!(template.as_guess(&template.split(&candidate)), text);
        let some = template.guess("p[m1=Rome] = 2 ; f(u, v) = v", &[]).unwrap();
        let parts = template.split(&some);
        assert_eq!(parts[0], Expression::variable(1));
        assert_eq!((parts[1].as_constant(), parts[3].as_constant()), (Some(1.0), Some(2.0)));
        for (bad, why) in [
            (
                "r / dx",
                "must give a part of the template: f(x1, x2) = …; g(x1) = …; p[m1=a; b] = …",
            ),
            ("h(u) = u", "must give a part"),
            ("f(u) = u", "must name the 2 operands of 'f'"),
            ("f(u, v) = w", "'w' is not a variable; the variables are u, v"),
            ("q[] = r", "must give a number"),
            ("q[] = 1; q[] = 2", "gives 'q[]' twice"),
        ] {
            let error = template.guess(bad, &[]).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
